"""SE-ResNet-32 with APA* and AGLU on CIFAR-100-LT, imbalance 100; PC-softmax at inference.

Paper: Adaptive Parametric Activation, Table 3b: 52.3 % top-1 (SE baseline 50.9, APA* 51.9); imbalance 10: 66.8 (65.2,
65.7). Settings: as in the authors' command for imbalance 100. We assume the same for 10, 50 and 200.
Cost: 500 epochs of 22 steps at batch 512 on one GPU, hours not stated. Not run here: the data set cannot be fetched.
The authors print the best accuracy on the test set over all epochs; this recipe evaluates the last one. Their default
correction is `rel`, the paper's is PC-softmax (`raw`). For theirs: `keras-apa evaluate RUN
--evaluation.prior-correction rel`.

    keras-apa train cifar100_lt --data.imbalance-factor 10
    keras-apa train cifar100_lt --model.activation relu --model.gate sigmoid      # the SE baseline
    keras-apa train cifar100_lt --model.activation relu                           # APA*
"""

from training.config.classification import (
    AugmentOptions,
    DataOptions,
    EvaluationOptions,
    LossOptions,
    ModelOptions,
    Recipe,
)
from training.config.experiment import OptimizerOptions

recipe = Recipe(
    name="cifar100_lt",
    title="APA* + AGLU, PC-softmax",
    published="APA Table 3b: 52.3",
    data=DataOptions(name="cifar100_lt", imbalance_factor=100.0),
    # Cutout is part of the authors' policy, and comes before the normalisation.
    augment=AugmentOptions(
        crop="padded",
        flip=True,
        policy="autoaugment_cifar",
        policy_interpolation="bilinear",
        cutout=16,
        mixup_alpha=0.2,
    ),
    model=ModelOptions(name="se_resnet32", activation="aglu", gate="apa", classifier="cosine", lambda_gradient="paper"),
    loss=LossOptions(name="SparseCategoricalCrossentropy"),
    optimizer=OptimizerOptions(
        learning_rate=0.2, momentum=0.9, weight_decay=1e-3, schedule="epoch_cosine", warmup_epochs=3
    ),
    evaluation=EvaluationOptions(prior_correction="raw"),
    epochs=500,
    batch_size=512,
)
