"""SE-ResNet-8 on the embedded two-digit numbers (100 classes, 16x16 pixels), imbalance 100.

`recipe` has APA* gates, AGLU and Balanced Softmax; `baseline` is the same network with sigmoid gates, ReLU
and cross entropy, trained in the same way. The data set is this project's own; the results are in the README.
Cost: one to three minutes each on two CPU cores.

    keras-apa demo --epochs 10 --seed 0
"""

from training.config.classification import AugmentOptions, DataOptions, LossOptions, ModelOptions, Recipe
from training.config.experiment import OptimizerOptions

baseline = Recipe(
    name="digits100_lt_baseline",
    title="Cross entropy",
    data=DataOptions(name="digits100_lt", imbalance_factor=100.0, largest_class=500, noise=0.3),
    augment=AugmentOptions(shift=1),  # no flips: digits
    model=ModelOptions(name="se_resnet8"),
    loss=LossOptions(name="SparseCategoricalCrossentropy"),
    # Ten epochs are short: the rate is as high as the baseline bears.
    optimizer=OptimizerOptions(name="sgd", learning_rate=0.1, momentum=0.9, weight_decay=5e-4, warmup_epochs=0.5),
    epochs=10,
    batch_size=128,
)

recipe = baseline.replace(
    name="digits100_lt",
    title="APA* + AGLU, Balanced Softmax",
    model={"gate": "apa", "activation": "aglu"},
    loss=LossOptions(name="BalancedSoftmaxCrossentropy"),
)
