"""The task of a recipe."""

from __future__ import annotations

import functools

from training.config.detection import DetectionRecipe
from training.config.experiment import Experiment
from training.task import Task


def task_of(recipe: Experiment) -> Task:
    """The task of a recipe."""
    return _detection() if isinstance(recipe, DetectionRecipe) else _classification()


# What is imported for a task is not needed for the other: COCO's metrics, for example.


@functools.cache
def _classification() -> Task:
    from training.classification.task import Classification

    return Classification()


@functools.cache
def _detection() -> Task:
    from training.detection.task import Detection

    return Detection()
