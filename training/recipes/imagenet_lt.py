"""SE-ResNet-50 with APA* and AGLU on ImageNet-LT; PC-softmax at inference.

Paper: Adaptive Parametric Activation, Table 2: 68.3 / 54.8 / 39.4 / 57.9 (many / medium / few / all), SE baseline
56.0; `se_resnext50_32x4d` 59.1. Table 4a-f has the gates, activations, depths and classifiers of the commands below.
Cost: 200 epochs on four V100, 4 x 64 images, mixed precision; hours not stated. Not run here. Mixup and the batch
norms see 256 images at once here; in the authors' code they see the 64 of one GPU. The authors give no command for the
other networks; we assume the same settings. Classes are numbered by falling count, as in the authors' files.

    keras-apa train imagenet_lt --data.path FOLDER --data.train-list ImageNet_LT_train.txt --data.test-list ...
    keras-apa train imagenet_lt --model.name se_resnext50_32x4d                    # Table 2
    keras-apa train imagenet_lt --model.activation relu --model.gate gumbel        # Table 4a
    keras-apa train imagenet_lt --model.name cb_resnet50 --model.spatial-gate apa  # Table 4b (sp_resnet50: spatial)
    keras-apa train imagenet_lt --classifier-learning crt --start.weights RUN      # Table 4c
    keras-apa train imagenet_lt --model.name se_resnet101                          # Table 4d (se_resnet152)
    keras-apa train imagenet_lt --model.activation relu --model.gate-dropout 0     # Table 4e (gate-normalization)
    keras-apa train imagenet_lt --model.activation mish                            # Table 4f
"""

from training.config.classification import AugmentOptions, DataOptions, EvaluationOptions, ModelOptions, Recipe
from training.config.experiment import OptimizerOptions

recipe = Recipe(
    name="imagenet_lt",
    title="APA* + AGLU, PC-softmax",
    published="APA Table 2: 57.9",
    data=DataOptions(name="imagenet_lt", image_size=224, resize_size=256, relabel_by_count=True),
    augment=AugmentOptions(
        crop="resized", flip=True, policy="autoaugment_imagenet", policy_interpolation="bilinear", mixup_alpha=0.2
    ),
    model=ModelOptions(name="se_resnet50", activation="aglu", gate="apa", classifier="cosine", lambda_gradient="paper"),
    optimizer=OptimizerOptions(
        learning_rate=0.2, momentum=0.9, weight_decay=1e-4, schedule="epoch_cosine", warmup_epochs=3
    ),
    evaluation=EvaluationOptions(prior_correction="raw", batch_size=100),
    epochs=200,
    batch_size=256,
    precision="mixed_float16",
)
