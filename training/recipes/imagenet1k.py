"""SE-ResNet-50 with APA* and AGLU on ImageNet-1k.

Paper: Adaptive Parametric Activation, Table 6c-d: 78.7 % top-1 (SE baseline 77.5); SE-ResNet-101 80.3, -152 80.8,
CBAM-ResNet-50 78.9, plain ResNet-50 with AGLU 77.5. The SE-ResNet-152 is also the start of `places_lt`.
Cost: 100 epochs on four V100, 4 x 64 images; hours not stated. Not run here.
The authors give a command for the SE-ResNet-152; we assume the same settings for the others. Their code has no plain
ResNet-50 with AGLU, so it does not show how that row of Table 6c was made.

    keras-apa train imagenet1k --data.path TFDS_FOLDER
    keras-apa train imagenet1k --model.name se_resnet152
    keras-apa train imagenet1k --model.name cb_resnet50 --model.spatial-gate apa
    keras-apa train imagenet1k --model.activation relu --model.gate sigmoid        # the baseline
"""

from training.config.classification import AugmentOptions, DataOptions, EvaluationOptions, ModelOptions, Recipe
from training.config.experiment import OptimizerOptions

recipe = Recipe(
    name="imagenet1k",
    title="APA* + AGLU",
    published="APA Table 6d: 78.7",
    data=DataOptions(name="imagenet1k", image_size=192, test_image_size=224, resize_size=232),
    augment=AugmentOptions(
        crop="resized", flip=True, policy="autoaugment_imagenet", policy_interpolation="bilinear", mixup_alpha=0.2
    ),
    model=ModelOptions(name="se_resnet50", activation="aglu", gate="apa", lambda_gradient="paper"),
    optimizer=OptimizerOptions(
        learning_rate=0.256,
        momentum=0.875,
        weight_decay=6.103515625e-5,
        schedule="epoch_cosine",
        warmup_epochs=3,
    ),
    evaluation=EvaluationOptions(batch_size=100),
    epochs=100,
    batch_size=256,
)
