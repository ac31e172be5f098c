"""The loss of a classification recipe: which class, with which arguments, on which kind of labels."""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from typing import Any

import keras
import numpy as np

import keras_apa.losses
from keras_apa import ClassCounts
from training.checks import check_arguments, check_name
from training.config.classification import LossOptions, Recipe
from training.errors import OptionError


def try_loss(loss, classes):
    """Not every loss of Keras is one for classes."""
    try:
        value = keras.ops.convert_to_numpy(loss(np.eye(2, classes, dtype="float32"), np.zeros((2, classes), "float32")))
    except Exception as error:  # each says in its own way, and with its own type, that it wants something else
        raise OptionError(
            "loss.name must be a loss of one-hot targets and logits of shape (batch, classes); given: "
            f"{type(loss).__name__!r}. Its error: {str(error).partition(chr(10))[0]}"
        ) from error
    if value.shape or not np.isfinite(value):
        raise OptionError(
            f"loss.name must be a loss for classes; given: {type(loss).__name__!r}, which is {value!r} for logits of 0."
        )


def loss_classes() -> dict[str, type[keras.losses.Loss]]:
    """The losses that a recipe can name: those of `keras_apa.losses`, then those of Keras."""
    return {
        name: value
        for module in (keras.losses, keras_apa.losses)
        for name, value in vars(module).items()
        if inspect.isclass(value) and issubclass(value, keras.losses.Loss) and value is not keras.losses.Loss
    }


def wants_one_hot(recipe):
    """Keras's own losses but one; those of keras_apa take both."""
    name = _loss_name(recipe)
    return not hasattr(keras_apa.losses, name) and name != "SparseCategoricalCrossentropy"


# Losses of keras_apa that need to know which class a sample is of.
_ONE_CLASS = ("LDAM", "SeesawLoss", "EqualizationLoss", "DropLoss", "GumbelOptimizedLoss")
_SOFT = {"SparseCategoricalCrossentropy": "CategoricalCrossentropy"}


def _loss_name(recipe):
    return _SOFT.get(recipe.loss.name, recipe.loss.name) if recipe.augment.mixes else recipe.loss.name


def build_loss(recipe: Recipe, class_counts: ClassCounts | Sequence[int]) -> keras.losses.Loss:
    """The loss of a recipe, told the class counts, their number, and that it gets logits.

    Raises:
        ValueError: An unknown loss or argument, or one that cannot take the targets of mixup, cutmix or smoothing.
    """
    options, classes = recipe.loss, loss_classes()
    check_name("loss.name", options.name, classes)
    name = options.name
    if recipe.augment.mixes:
        if name in _ONE_CLASS:
            raise OptionError(
                "augment.mixup_alpha, augment.cutmix_alpha and augment.label_smoothing must be 0 with the loss "
                f"{name}, which needs images of one class; given: {recipe.augment.mixup_alpha:g}, "
                f"{recipe.augment.cutmix_alpha:g} and {recipe.augment.label_smoothing:g}. Or choose another loss."
            )
    name = _loss_name(recipe)
    loss = classes[name]
    accepted = check_arguments("loss.options", loss, options.options)
    known: dict[str, Any] = {
        "class_counts": class_counts,
        "num_classes": len(class_counts),
        "from_logits": True,
        # Every image shows one class.
        "image_counts": class_counts,
        "num_images": int(np.sum(np.asarray(getattr(class_counts, "counts", class_counts)))),
    }
    arguments = {key: value for key, value in known.items() if key in accepted} | dict(options.options)
    parameters = inspect.signature(loss).parameters.values()
    missing = [
        each.name for each in parameters if each.default is each.empty and each.kind is each.POSITIONAL_OR_KEYWORD
    ]
    if missing := [key for key in missing if key not in arguments]:
        raise OptionError(
            f"loss.options must have {missing[0]!r} with the loss {name}; given: "
            f"{', '.join(options.options) or 'nothing'}. Add --loss.options {missing[0]} VALUE."
        )
    return loss(**arguments)


def sample_weights(options: LossOptions, class_counts: keras_apa.ClassCounts) -> np.ndarray | None:
    """The weight of each class's samples, 1 on average over classes; None where all weigh the same."""
    if options.class_weights == "none":
        return None
    if options.class_weights == "effective":
        return np.asarray(class_counts.class_balanced_weights(options.class_weights_beta), "float32")
    inverse = 1.0 / np.asarray(class_counts.counts, "float64")
    return (inverse / inverse.mean()).astype("float32")
