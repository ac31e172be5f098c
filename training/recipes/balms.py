"""Balanced Softmax and the losses that its paper compares it with, for ResNet-32 on CIFAR-LT.

Papers: Balanced Activation, Table 1 (CIFAR-10-LT imbalance 200 / 100 / 10 79.0 / 83.1 / 90.9, CIFAR-100-LT 45.9 /
50.3 / 63.1; softmax 71.2 / 77.4 / 90.0 and 41.0 / 45.3 / 61.9). Code: BalancedMetaSoftmax (imbalance 200: 79.8 and
46.7).
Cost: 13,000 steps at batch 512; hardware not stated. Not run here: the data set cannot be fetched. The code steps its
cosine once an epoch and drops the last partial batch of each epoch. This recipe keeps that batch, so it needs fewer
epochs for the same number of steps. The settings of the other losses are not stated; this recipe uses the settings in
their authors' own repositories. Weight decay acts on all weights. The augmentation fills with grey.

`..._decoupled` trains a new classifier with Balanced Softmax on the frozen network of `..._softmax`, for 2,000 steps.
`..._meta` is the whole of Balanced Meta-Softmax: it also learns how often images of each class are drawn
(`training.classification.meta_sampler` says how, and where it differs from the authors' code). Published with the code,
imbalance 200: 81.8 and 47.2 decoupled, 82.2 and 48.0 with the Meta Sampler. Adaptive Parametric Activation, Table 3b,
for CIFAR-100-LT, imbalance 100 / 10: 50.8 / 63.0. Never run on CIFAR here. As in the code, Adam has the learning rate
0.01, and 512 images judge the rates. The code draws from all images of the data set. This recipe draws from batches of
the square-root sampler, which is between the start of the code (all images alike) and balanced classes.

The epochs are for imbalance 100. Another imbalance has another number of images, so give the epochs of 13,000 steps
yourself. At imbalance 200, as in the code, they are `--epochs 685 --optimizer.warmup-epochs 43` for CIFAR-100-LT and
`591`, `37` for CIFAR-10-LT. At imbalance 10 they are 334 and 325. At imbalance 200, decoupled takes 106 and 91 epochs,
and with the Meta Sampler 112 and 96.

    keras-apa train balms_cifar100_lt --data.imbalance-factor 100
    keras-apa train balms_cifar100_lt_softmax          # and class_weights, class_balanced_sampling, focal,
                                                       # class_balanced, ldam, equalization
    keras-apa train balms_cifar100_lt_decoupled --start.weights runs/balms_cifar100_lt_softmax
    keras-apa train balms_cifar100_lt_meta --start.weights runs/balms_cifar100_lt_softmax
"""

from typing import Any, Literal

from training.config.classification import (
    AugmentOptions,
    DataOptions,
    LossOptions,
    MetaSamplerOptions,
    ModelOptions,
    Recipe,
    StartOptions,
)
from training.config.experiment import OptimizerOptions

_CROSS_ENTROPY = LossOptions(name="SparseCategoricalCrossentropy")

# Row of Table 1 -> title, CIFAR-10-LT and CIFAR-100-LT at imbalance 200 / 100 / 10, and what differs from softmax.
ROWS: dict[str, tuple[str, str, str, dict[str, Any]]] = {
    "": (
        "Balanced Softmax",
        "79.0 83.1 90.9",
        "45.9 50.3 63.1",
        {"loss": LossOptions(name="BalancedSoftmaxCrossentropy")},
    ),
    "_softmax": ("Softmax", "71.2 77.4 90.0", "41.0 45.3 61.9", {}),
    "_class_weights": (
        "Class-balanced weights",
        "72.5 78.6 90.1",
        "36.7 42.3 61.4",
        {"loss": LossOptions(name="SparseCategoricalCrossentropy", class_weights="inverse")},
    ),
    "_class_balanced_sampling": (
        "Class-balanced sampling",
        "68.3 77.8 90.2",
        "37.8 42.6 61.2",
        {"data": {"sampler": "class_aware"}},
    ),
    "_focal": (
        "Focal loss",
        "71.8 77.1 90.3",
        "40.2 43.8 60.0",
        # beta 0 weighs all classes the same.
        {"loss": LossOptions(name="ClassBalancedCrossentropy", options={"base": "focal", "gamma": 1.0, "beta": 0.0})},
    ),
    "_class_balanced": (
        "Class-balanced loss",
        "72.6 78.2 89.9",
        "39.9 44.6 59.8",
        {"loss": LossOptions(name="ClassBalancedCrossentropy", options={"base": "focal", "gamma": 1.0})},
    ),
    "_ldam": (
        "LDAM",
        "71.2 77.2 90.2",
        "41.0 45.4 62.0",
        {"loss": LossOptions(name="LDAM"), "model": {"classifier": "normalized"}},
    ),
    "_equalization": (
        "Equalization loss",
        "72.8 76.7 89.9",
        "43.3 47.3 59.7",
        # The share of images below which a class is rare: assumed, like gamma 0.9. Two of 10 and 30 of 100 classes.
        {"loss": LossOptions(name="EqualizationLoss", options={"activation": "softmax"})},
    ),
}
_RARE = {"cifar10_lt": 0.01, "cifar100_lt": 0.002}


def _recipes(data: str, epochs: int, column: Literal[1, 2]) -> list[Recipe]:
    """The rows of the table on one data set."""
    softmax = Recipe(
        name=f"balms_{data}_softmax",
        data=DataOptions(name=data, imbalance_factor=100.0),
        augment=AugmentOptions(crop="padded", flip=True, policy="autoaugment_cifar", policy_fill=128, cutout=16),
        model=ModelOptions(name="resnet32"),
        loss=_CROSS_ENTROPY,
        # 800 of the 13,000 steps rise, from half of the rate.
        optimizer=OptimizerOptions(
            learning_rate=0.1,
            weight_decay=5e-4,
            schedule="epoch_cosine",
            warmup_epochs=round(epochs * 800 / 13_000),
            warmup_start=0.5,
        ),
        epochs=epochs,
        batch_size=512,
    )
    recipes = []
    for row, values in ROWS.items():
        changes = dict(values[3])
        if row == "_equalization":
            options = {**changes["loss"].options, "frequency_threshold": _RARE[data]}
            changes["loss"] = LossOptions(name="EqualizationLoss", options=options)
        published = f"Balanced Activation Table 1: {values[column].split()[1]}"
        recipes.append(softmax.replace(name=f"balms_{data}{row}", title=values[0], published=published, **changes))
    return recipes


def _second_stages(softmax: Recipe, epochs: int, decoupled: str, meta: str) -> list[Recipe]:
    """On what `softmax` has learned: the classifier alone, with the images as they are and as they are best drawn."""
    second = softmax.replace(
        name=softmax.name.replace("_softmax", "_decoupled"),
        title="Balanced Softmax, decoupled",
        published=decoupled,
        start=StartOptions(weights=f"runs/{softmax.name}", trainable="classifier"),
        loss=LossOptions(name="BalancedSoftmaxCrossentropy"),
        optimizer={"warmup_epochs": 0},
        epochs=epochs,
    )
    learned = second.replace(
        name=softmax.name.replace("_softmax", "_meta"),
        title="Balanced Meta-Softmax",
        published=meta,
        data={"sampler": "square_root"},
        meta_sampler=MetaSamplerOptions(learned=True, learning_rate=0.01, batch_size=512),
    )
    return [second, learned]


cifar10 = _recipes("cifar10_lt", 520, 1)
cifar100 = _recipes("cifar100_lt", 591, 2)
# 2,000 steps.
cifar10_second = _second_stages(
    cifar10[1], 80, "BALMS code: 81.8 at --data.imbalance-factor 200", "BALMS code: 82.2 at --data.imbalance-factor 200"
)
cifar100_second = _second_stages(
    cifar100[1], 91, "BALMS code: 47.2 at --data.imbalance-factor 200", "APA Table 3b: 50.8"
)
