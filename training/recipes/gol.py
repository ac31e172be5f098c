"""Gumbel Optimized Loss in two stages: softmax for the network, then Gumbel cross entropy for its classifier alone.

Paper: Gumbel Optimized Loss, Sec. 6.5 and Table 4: CIFAR-100-LT imbalance 50 / 100 / 200 49.0 / 45.5 / 41.5 (softmax
46.2 / 42.4 / 38.3), ImageNet-LT ResNet-50 48.2 (45.2), SE-ResNet-50 48.5 (45.9), Places-LT ResNet-152 30.0 (28.7).
Cost: CIFAR 240 + 15 epochs, ImageNet-LT 200 + 10, Places-LT 30 + 10; hardware not stated. Not run here. The paper's
repository has no classification code. The paper does not state these settings, so they are assumed: momentum 0.9 and no
warm-up; in stage 2 a constant learning rate, the augmentation of stage 1, and the classifier of stage 1 as the start
(the nearest code does so); a mean over classes (the nearest code's reduction); on Places-LT, all layers are trained
from ImageNet weights.

    keras-apa train gol_cifar100_lt_stage1
    keras-apa train gol_cifar100_lt --start.weights runs/gol_cifar100_lt_stage1
"""

from training.config.classification import (
    AugmentOptions,
    DataOptions,
    EvaluationOptions,
    LossOptions,
    ModelOptions,
    Recipe,
    StartOptions,
)
from training.config.experiment import OptimizerOptions


def _second_stage(first: Recipe, published: str, epochs: int, learning_rate: float) -> Recipe:
    name = first.name.removesuffix("_stage1")
    return first.replace(
        name=name,
        title="GOL, stage 2: Gumbel classifier",
        published=published,
        start=StartOptions(weights=f"runs/{first.name}", keep_classifier=True, trainable="classifier"),
        loss=LossOptions(name="GumbelCrossentropy", options={"class_reduction": "mean"}),
        optimizer={"learning_rate": learning_rate, "schedule": "constant", "milestones": ()},
        epochs=epochs,
    )


cifar100_stage1 = Recipe(
    name="gol_cifar100_lt_stage1",
    title="GOL, stage 1: softmax",
    published="GOL Table 4: 42.4",
    data=DataOptions(name="cifar100_lt", imbalance_factor=100.0),
    augment=AugmentOptions(crop="padded", flip=True, policy="autoaugment_cifar", cutout=16),
    model=ModelOptions(name="resnet32"),
    optimizer=OptimizerOptions(
        learning_rate=0.1, weight_decay=2e-4, schedule="multistep", milestones=(200, 220), gamma=0.01
    ),
    epochs=240,
    batch_size=64,
)
cifar100 = _second_stage(cifar100_stage1, "GOL Table 4: 45.5", epochs=15, learning_rate=1e-4)

imagenet_stage1 = Recipe(
    name="gol_imagenet_lt_stage1",
    title="GOL, stage 1: softmax",
    published="GOL Table 4: 45.2",
    data=DataOptions(name="imagenet_lt", image_size=224, resize_size=256, relabel_by_count=True),
    augment=AugmentOptions(crop="resized", flip=True, policy="autoaugment_imagenet"),
    model=ModelOptions(name="resnet50"),
    optimizer=OptimizerOptions(learning_rate=0.2, weight_decay=5e-4, schedule="epoch_cosine"),
    evaluation=EvaluationOptions(batch_size=100),
    epochs=200,
    batch_size=256,
)
imagenet = _second_stage(imagenet_stage1, "GOL Table 4: 48.2", epochs=10, learning_rate=1e-5)

places_stage1 = imagenet_stage1.replace(
    name="gol_places_lt_stage1",
    published="GOL Table 4: 28.7",
    data={"name": "places_lt"},
    model={"name": "resnet152"},
    start=StartOptions(weights="resnet152_imagenet.pth"),  # torchvision's file
    epochs=30,
)
places = _second_stage(places_stage1, "GOL Table 4: 30.0", epochs=10, learning_rate=1e-5)
