"""Scenes of digits with a long tail: a small Mask R-CNN from scratch, with three losses of the regions' classes.

These recipes train Mask R-CNN on ResNet-8 (16, 32 and 64 channels, with the stem for large images: strides 4, 8 and
16) and its batch norms. The data are 600 scenes of 128 x 128 pixels with 2 to 5 digits each, in ten classes.
`digit_scenes_lt` has GOL, `digit_scenes_lt_softmax` softmax cross entropy, and `digit_scenes_lt_balanced` Balanced
Sigmoid. `keras-apa demo --task detection` compares the three.
Cost: 8 epochs, some two minutes on two CPU cores.

    keras-apa train digit_scenes_lt
    keras-apa train digit_scenes_lt --loss.name GumbelCrossentropy --seed 1
"""

from training.config.detection import (
    DetectionAugmentOptions,
    DetectionDataOptions,
    DetectionEvaluationOptions,
    DetectionLossOptions,
    DetectionModelOptions,
    DetectionRecipe,
)
from training.config.experiment import OptimizerOptions

softmax = DetectionRecipe(
    name="digit_scenes_lt_softmax",
    title="softmax cross entropy",
    data=DetectionDataOptions(name="digit_scenes_lt", max_objects=5, mask_size=28),
    augment=DetectionAugmentOptions(),
    model=DetectionModelOptions(
        name="mask_rcnn",
        backbone="resnet8",
        frozen_batch_norm=False,
        pyramid_filters=32,
        box_units=128,
        mask_filters=32,
        anchor_sizes=(16, 28, 44, 64),
        # Small numbers of everything: a scene has five objects at most.
        options={
            "rpn_samples": 64,
            "rpn_candidates_training": 100,
            "rpn_candidates": 100,
            "proposals_training": 64,
            "proposals": 64,
            "roi_samples": 32,
            "max_detections": 50,
        },
    ),
    loss=DetectionLossOptions(name="softmax"),
    optimizer=OptimizerOptions(name="adamw", learning_rate=2e-3, weight_decay=1e-4, warmup_epochs=0.5, clip_norm=5.0),
    evaluation=DetectionEvaluationOptions(style="lvis", batch_size=20, every_epochs=100),
    epochs=8,
    batch_size=8,
)
gol = softmax.replace(
    name="digit_scenes_lt",
    title="GOL",
    loss=DetectionLossOptions(name="GumbelOptimizedLoss"),
)
balanced = softmax.replace(
    name="digit_scenes_lt_balanced",
    title="Balanced Sigmoid",
    loss=DetectionLossOptions(name="BalancedSigmoidCrossentropy"),
)
