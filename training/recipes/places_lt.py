"""SE-ResNet-152 with APA* and AGLU, pretrained on ImageNet-1k, its last stage and classifier trained on Places-LT.

Paper: Adaptive Parametric Activation, Table 3a: 42.0 % top-1 (SE baseline 40.5, APA* 41.3); PC-softmax at inference.
Cost: 40 epochs on four V100, 4 x 64 images, after 100 epochs of `imagenet1k`; hours not stated. Not run here. The "last
residual block" of the authors' README is the whole fourth stage in their code. All kappa and lambda of that stage are
drawn anew from U(0, 1), and the weights of the classifier from Xavier's uniform distribution. The learned scale of the
classifier is frozen at its start, 5 ** 2 = 25. Batch norms of the frozen stages still follow the batches, and the
dropout in their gates stays on.

    keras-apa train places_lt --data.path FOLDER --data.train-list Places_LT_train.txt --data.test-list ...
    keras-apa train places_lt --start.weights runs/imagenet1k                      # your own pretraining
"""

from training.config.classification import (
    AugmentOptions,
    DataOptions,
    EvaluationOptions,
    ModelOptions,
    Recipe,
    StartOptions,
)
from training.config.experiment import OptimizerOptions

recipe = Recipe(
    name="places_lt",
    title="APA* + AGLU, PC-softmax",
    published="APA Table 3a: 42.0",
    data=DataOptions(name="places_lt", image_size=224, resize_size=256, relabel_by_count=True),
    augment=AugmentOptions(
        crop="resized",
        flip=True,
        policy="autoaugment_imagenet",
        policy_interpolation="bilinear",
        mixup_alpha=0.2,
        cutmix_alpha=1.0,
        label_smoothing=0.1,
    ),
    model=ModelOptions(
        name="se_resnet152",
        activation="aglu",
        gate="apa",
        classifier="learned_cosine",
        lambda_gradient="paper",
    ),
    start=StartOptions(
        weights="se_resnet152/imagenet", trainable="last_stage", redraw_activations=True, redraw_classifier=True
    ),
    optimizer=OptimizerOptions(
        learning_rate=0.1, momentum=0.9, weight_decay=5e-5, schedule="epoch_cosine", warmup_epochs=3
    ),
    evaluation=EvaluationOptions(prior_correction="raw", batch_size=100),
    epochs=40,
    batch_size=256,
)
