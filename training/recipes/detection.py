"""Your own images with boxes (and masks), annotated in COCO's or LVIS's JSON.

This recipe trains Mask R-CNN on ResNet-50 with GOL. Like the GOL paper on LVIS, it has repeat factor sampling, a linear
classifier that starts at small weights and a bias of -2, images of several sizes, and 24 epochs. A class in at most 100
training images is one that the loss spares as a negative. To start from a detector, such as torchvision's, give
`--model.weights`; to start from a network that was trained on ImageNet, give `--model.backbone-weights`. For images
without masks, give `--model.name faster_rcnn`. Without `--data.test`, a tenth of the images is held out.
Cost: 24 epochs; you need a GPU at this size.

    keras-apa train detection --data.train ann.json --data.images DIR
    keras-apa train detection --data.train ann.json --data.images DIR --dry-run
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

recipe = DetectionRecipe(
    name="detection",
    title="GOL",
    published="your own images",
    data=DetectionDataOptions(name="coco", image_size=(800, 800), sampler="repeat_factor"),
    augment=DetectionAugmentOptions(flip=True, scale=(0.6, 1.2)),
    model=DetectionModelOptions(name="mask_rcnn", backbone="resnet50"),
    loss=DetectionLossOptions(name="GumbelOptimizedLoss"),
    # The published rate is 0.02 for a batch of 16.
    optimizer=OptimizerOptions(
        learning_rate=0.0025, weight_decay=1e-4, schedule="cosine", warmup_epochs=0.2, clip_norm=35.0
    ),
    evaluation=DetectionEvaluationOptions(style="lvis", batch_size=2),
    epochs=24,
    batch_size=2,
)
