"""The region losses of a detection recipe, and what to know of them for these data."""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from typing import Any

import keras
import numpy as np

import keras_apa.losses
from keras_apa.class_counts import LVIS_COMMON
from training.checks import check_arguments, check_name
from training.config.detection import DetectionLossOptions, DetectionRecipe
from training.data.detection.source import DetectionSource, frequency_groups
from training.errors import OptionError
from zoo.detection.options import make_options
from zoo.detection.roi_losses import NAMES as LINKS


def build_region_loss(
    recipe: DetectionRecipe, image_counts: Sequence[int] | np.ndarray, num_images: int, frequency_threshold: float
) -> str | keras.losses.Loss:
    """The loss of the classes of regions, told what is known of the classes.

    Raises: ValueError: An unknown loss or argument.
    """
    options: DetectionLossOptions = recipe.loss
    if options.name in LINKS:
        if options.options:
            raise OptionError(
                f"loss.options must be empty with the loss {options.name}, which has no arguments; given: "
                f"{', '.join(options.options)}."
            )
        return options.name
    losses = region_losses()
    check_name("loss.name", options.name, [*LINKS, *losses])
    loss = losses[options.name]
    accepted = check_arguments("loss.options", loss, options.options)
    counts = [int(count) for count in image_counts]
    if "background" not in accepted:
        # A softmax has a class for the background, as many regions as the sampler draws beside the objects'.
        share = make_options("torchvision", recipe.model.options).roi_positive_fraction
        counts = [*counts, max(round(sum(counts) * (1 - share) / share), 1)]
    known: dict[str, Any] = {
        "image_counts": counts,
        "class_counts": counts,
        "num_classes": len(counts),
        "num_images": int(num_images),
        "frequency_threshold": float(frequency_threshold),
        "background": True,
        "seed": recipe.seed,
    }
    return loss(**({key: value for key, value in known.items() if key in accepted} | dict(options.options)))


def loss_notes(recipe: DetectionRecipe, source: DetectionSource) -> tuple[str, ...]:
    """What the loss cannot do with the counts of the source, a sentence each."""
    loss = region_losses().get(recipe.loss.name)
    known = () if loss is None else inspect.signature(loss).parameters
    if "frequency_threshold" not in known or "frequency_threshold" in recipe.loss.options:
        return ()
    groups = frequency_groups(source.image_counts)
    if 0 < len(groups["f"]) < source.num_classes:
        return ()
    which = "all classes are" if len(groups["f"]) else "no class is"
    return (
        f"{which} in more than {LVIS_COMMON} training images, so {recipe.loss.name} takes none for rare; "
        "--loss.options frequency_threshold VALUE, a share of the images, draws another line",
    )


def region_losses() -> dict[str, type[keras.losses.Loss]]:
    """The losses of `keras_apa.losses` by name."""
    return {
        name: value
        for name, value in vars(keras_apa.losses).items()
        if inspect.isclass(value) and issubclass(value, keras.losses.Loss)
    }
