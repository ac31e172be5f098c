"""The recipe of a run folder."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from training.config.classification import Recipe
from training.config.detection import DetectionRecipe
from training.config.experiment import Experiment
from training.errors import OptionError
from training.runs.folder import CONFIG, read_config


def run_recipe(folder: Path) -> Any:  # a `Recipe` or a `DetectionRecipe`, which the folder tells
    """The recipe of a run folder.

    Raises: ValueError: There is none.
    """
    config = read_config(folder)
    if config is None:
        raise OptionError(
            f"RUN must be the folder of a run; given: {str(folder)!r}, where {CONFIG} is missing or not of a run."
        )
    if len(config["recipes"]) != 1:
        names = ", ".join(each["name"] for each in config["recipes"])
        raise OptionError(
            f"RUN must have one training; given: {str(folder)!r}, which has several ({names}). keras-apa report reads "
            "such a folder."
        )
    return recipe_from_dict(config["recipes"][0])


def recipe_from_dict(values: Mapping[str, Any]) -> Experiment:
    """The recipe that `to_dict` wrote, of whichever task.

    >>> recipe_from_dict({"task": "detection", "name": "mine"}).batch_size
    2
    """
    return (DetectionRecipe if values.get("task") == "detection" else Recipe).from_dict(values)
