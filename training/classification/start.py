"""What else the weights that a training starts from bring along: the way in which their images were prepared."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import zoo
from training.checks import nearest
from training.config.classification import OWN_IMAGES, Recipe
from training.data.classification.source import Source
from training.errors import OptionError
from training.models import saved_preprocessing
from training.recipes import recipes
from training.runs.folder import CONFIG, read_config
from zoo.weights import get_weights

__all__ = ["prepared_as_started"]


def prepared_as_started(recipe: Recipe, source: Source) -> Source:
    """The source with its images prepared as those that `start.weights` were trained on.

    Only for images of one's own, in a folder or in lists: for a published data set the recipe's own preparation is
    part of what was published. The size of the images is the recipe's where it has one. What of the weights has no
    preparation with it (a PyTorch checkpoint) changes nothing.

    Raises: ValueError: There are no such weights.
    """
    _check_there(recipe.start.weights)
    preprocessing = _preprocessing(recipe.start.weights) if recipe.data.name in OWN_IMAGES else None
    if preprocessing is None or preprocessing.channels != 3 or preprocessing == source.preprocessing:
        return source
    note = f"images are prepared as those of {recipe.start.weights}: mean {_shown(preprocessing.mean)}, " + (
        f"deviation {_shown(preprocessing.std)}"
    )
    return dataclasses.replace(source, preprocessing=preprocessing, notes=(*source.notes, note))


def _check_there(weights):
    names = [*zoo.list_weights(), *zoo.list_presets()]
    if weights and not Path(weights).exists() and weights not in names and "://" not in weights:
        first = Path(weights).name
        hint = f"keras-apa train {first} makes it." if first in recipes() else nearest(weights, names)
        raise OptionError(
            f"start.weights must be a file, a run folder or published weights; given: {weights!r}, which is not there. "
            f"{hint}"
        )
    folder = Path(weights)
    if weights and folder.is_dir() and not any(folder.glob("*.keras")):
        if read_config(folder) is not None:
            raise OptionError(
                f"start.weights must be a finished run; given: {weights!r}, which is not. keras-apa train resumes it."
            )
        if not (folder / CONFIG).is_file():
            raise OptionError(
                f"start.weights must be a run, a preset or a folder with a .keras file; given: {weights!r}."
            )


def _preprocessing(weights: str) -> zoo.Preprocessing | None:
    """How images are prepared for these weights, None where that is not known or they are not there."""
    if not weights or weights.endswith((".pth", ".pt", ".safetensors")):
        return None
    if weights in zoo.list_weights():
        return get_weights(*weights.split("/")).preprocessing
    path = Path(weights)
    models = sorted(path.glob("*.keras")) if path.is_dir() else [path]
    if len(models) != 1 or models[0].suffix != ".keras" or not models[0].is_file():
        return None
    return saved_preprocessing(models[0])


def _shown(numbers):
    return " ".join(f"{number:g}" for number in numbers)
