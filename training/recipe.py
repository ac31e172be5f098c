"""Frozen dataclasses that describe one experiment: data, model, loss, optimiser, evaluation.

A recipe is plain data. It imports neither Keras nor TensorFlow, is checked when it is made, and turns into a
dictionary for JSON and back without loss. `training.classification.train` is what runs it.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from typing import Any

from training.checks import (
    check_choice,
    check_flag,
    check_known,
    check_number,
    check_plain_mapping,
    check_text,
    check_whole,
)


@dataclasses.dataclass(frozen=True, kw_only=True)
class DataOptions:
    """Which images. `imbalance_factor` is the largest class count over the smallest one."""

    name: str = "digits100_lt"
    imbalance_factor: float = 100.0
    largest_class: int = 500
    test_images_per_class: int = 20
    noise: float = 0.3
    seed: int = 0
    augment: bool = True

    def __post_init__(self):
        check_text("data.name", self.name)
        check_number("data.imbalance_factor", self.imbalance_factor, at_least=1.0)
        check_whole("data.largest_class", self.largest_class, at_least=1)
        check_whole("data.test_images_per_class", self.test_images_per_class, at_least=1)
        check_number("data.noise", self.noise, at_least=0.0)
        check_whole("data.seed", self.seed, at_least=0)
        check_flag("data.augment", self.augment)


@dataclasses.dataclass(frozen=True, kw_only=True)
class AugmentOptions:
    """What is done to training images; by default nothing. `training.data.augmentation` says how.

    Moves of whole pixels up to `shift` with a mirrored border; `crop` `"padded"` (4 zeros, for CIFAR) or `"resized"`
    (8 to 100 % of the area); a flip in half of the images; a `policy` with what enters (`policy_fill`) and how turns
    and shears interpolate; squares of side `cutout` set to 0 before normalising; the strength of brightness, contrast
    and saturation changes; how often a rectangle is erased after normalising. `mixup_alpha` and `cutmix_alpha` are the
    parameters of Beta distributions, 0 for none; with both, each batch gets one of them.
    """

    shift: int = 0
    flip: bool = False
    crop: str = "none"
    policy: str = "none"
    policy_fill: int = 0
    policy_interpolation: str = "nearest"
    cutout: int = 0
    color_jitter: float = 0.0
    erase_probability: float = 0.0
    mixup_alpha: float = 0.0
    cutmix_alpha: float = 0.0
    label_smoothing: float = 0.0

    def __post_init__(self):
        check_whole("augment.shift", self.shift, at_least=0)
        check_flag("augment.flip", self.flip)
        check_choice("augment.crop", self.crop, ("none", "padded", "resized"))
        policies = ("none", "autoaugment_cifar", "autoaugment_imagenet", "randaugment")
        check_choice("augment.policy", self.policy, policies)
        check_whole("augment.policy_fill", self.policy_fill, at_least=0, below=256)
        check_choice("augment.policy_interpolation", self.policy_interpolation, ("nearest", "bilinear"))
        check_whole("augment.cutout", self.cutout, at_least=0)
        check_number("augment.color_jitter", self.color_jitter, at_least=0.0)
        check_number("augment.erase_probability", self.erase_probability, at_least=0.0)
        if self.erase_probability > 1:
            raise ValueError(f"augment.erase_probability must be at most 1, not {self.erase_probability!r}")
        check_number("augment.mixup_alpha", self.mixup_alpha, at_least=0.0)
        check_number("augment.cutmix_alpha", self.cutmix_alpha, at_least=0.0)
        check_number("augment.label_smoothing", self.label_smoothing, at_least=0.0, below=1.0)


@dataclasses.dataclass(frozen=True, kw_only=True)
class ModelOptions:
    """Which network of the zoo, with the switches that `zoo.create_model` takes in `options`."""

    name: str = "se_resnet8"
    options: Mapping[str, Any] = dataclasses.field(default_factory=dict)

    def __post_init__(self):
        check_text("model.name", self.name)
        check_plain_mapping("model.options", self.options)


@dataclasses.dataclass(frozen=True, kw_only=True)
class LossOptions:
    """A loss class of `keras_apa.losses` or `keras.losses`, with its arguments in `options`.

    `class_counts`, `num_classes` and `from_logits=True` are filled in where the class takes them.
    """

    name: str = "SparseCategoricalCrossentropy"
    options: Mapping[str, Any] = dataclasses.field(default_factory=dict)

    def __post_init__(self):
        check_text("loss.name", self.name)
        check_plain_mapping("loss.options", self.options)


@dataclasses.dataclass(frozen=True, kw_only=True)
class OptimizerOptions:
    """`"sgd"` or `"adamw"`; the learning rate rises for `warmup_epochs`, then follows a cosine to zero.

    `weight_decay` is Keras's, decoupled from the gradient: a step takes away `learning_rate * weight_decay`
    of a weight. Under momentum 0.9 an L2 penalty of strength `c` corresponds to about `10 * c` here.
    kappa and lambda are never decayed; norms and biases are, unless told otherwise.
    """

    name: str = "sgd"
    learning_rate: float = 0.1
    momentum: float = 0.9
    nesterov: bool = False
    weight_decay: float = 0.0
    decay_norms: bool = True
    decay_biases: bool = True
    warmup_epochs: float = 0.0

    def __post_init__(self):
        check_choice("optimizer.name", self.name, ("sgd", "adamw"))
        check_number("optimizer.learning_rate", self.learning_rate, above=0.0)
        check_number("optimizer.momentum", self.momentum, at_least=0.0, below=1.0)
        check_flag("optimizer.nesterov", self.nesterov)
        check_number("optimizer.weight_decay", self.weight_decay, at_least=0.0)
        check_flag("optimizer.decay_norms", self.decay_norms)
        check_flag("optimizer.decay_biases", self.decay_biases)
        check_number("optimizer.warmup_epochs", self.warmup_epochs, at_least=0.0)


@dataclasses.dataclass(frozen=True, kw_only=True)
class EvaluationOptions:
    """More than `many_threshold` training images are many-shot, fewer than `few_threshold` few-shot."""

    many_threshold: int = 100
    few_threshold: int = 20
    batch_size: int = 500

    def __post_init__(self):
        check_whole("evaluation.few_threshold", self.few_threshold, at_least=0)
        check_whole("evaluation.many_threshold", self.many_threshold, at_least=self.few_threshold)
        check_whole("evaluation.batch_size", self.batch_size, at_least=1)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Recipe:
    """One experiment.

    `title` is its name in tables and figures; `seed` fixes start weights, order, augmentation and dropout.

    >>> recipe = Recipe(name="digits", epochs=2)
    >>> Recipe.from_dict(recipe.to_dict()) == recipe
    True
    >>> recipe.replace(epochs=2.5)
    Traceback (most recent call last):
        ...
    ValueError: epochs must be a whole number of at least 1, not 2.5
    """

    name: str
    title: str = ""
    data: DataOptions = DataOptions()
    model: ModelOptions = ModelOptions()
    loss: LossOptions = LossOptions()
    optimizer: OptimizerOptions = OptimizerOptions()
    evaluation: EvaluationOptions = EvaluationOptions()
    epochs: int = 10
    batch_size: int = 128
    seed: int = 0

    def __post_init__(self):
        check_text("name", self.name)
        if not isinstance(self.title, str):
            raise ValueError(f"title must be text, not {self.title!r}")
        for part in ("data", "model", "loss", "optimizer", "evaluation"):
            expected = _PARTS[part]
            if not isinstance(getattr(self, part), expected):
                raise ValueError(f"{part} must be {expected.__name__}, not {getattr(self, part)!r}")
        check_whole("epochs", self.epochs, at_least=1)
        check_whole("batch_size", self.batch_size, at_least=1)
        # TensorFlow and JAX take seeds of 32 bits.
        check_whole("seed", self.seed, at_least=0, below=2**32)

    def replace(self, **changes: Any) -> Recipe:
        """A copy with other values; a mapping changes only what it names: `replace(data={"noise": 0.0})`."""
        check_known("recipe", changes, (field.name for field in dataclasses.fields(self)))
        for part, expected in _PARTS.items():
            if isinstance(changes.get(part), Mapping):
                check_known(part, changes[part], (field.name for field in dataclasses.fields(expected)))
                changes[part] = dataclasses.replace(getattr(self, part), **changes[part])
        return dataclasses.replace(self, **changes)

    def to_dict(self) -> dict[str, Any]:
        """Plain dictionaries, numbers and text, as JSON takes them."""
        return json.loads(json.dumps(dataclasses.asdict(self)))

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Recipe:
        """The recipe that `to_dict` wrote; an unknown key is an error that names the nearest valid ones."""
        if "name" not in values:
            raise ValueError("a recipe needs a name")
        return cls(name=values["name"]).replace(**values)


_PARTS = {
    "data": DataOptions,
    "model": ModelOptions,
    "loss": LossOptions,
    "optimizer": OptimizerOptions,
    "evaluation": EvaluationOptions,
}
