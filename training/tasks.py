"""What the commands have to know of each kind of experiment: one `Task` for classification, one for detection."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Mapping
from typing import Any

from training.detection_recipe import DetectionRecipe
from training.recipe import Experiment, Recipe


@dataclasses.dataclass(frozen=True, kw_only=True)
class Task:
    """The functions that stand for a kind of experiment, and the classes of its recipes and outcomes."""

    recipe: type[Experiment]
    outcome: type
    check: Callable
    """`(recipe)`: raises the error of a wrong name or option."""
    resumed: Callable
    """`(recipe) -> recipe` without what a training needs only where it does not go on from a checkpoint of its own."""
    load: Callable
    """`(recipe) -> source`."""
    steps_per_epoch: Callable
    """`(recipe, source)`."""
    images_per_epoch: Callable
    """`(recipe, source)`: the largest batch."""
    suitable: Callable
    """`(recipe, source)`: settings that are chosen for these images, by option; the others are the recipe's."""
    fingerprint: Callable
    """`(recipe, source)`: what tells whether images of one's own have changed; empty for others."""
    train: Callable
    """`(recipe, source, callbacks=, jit_compile=, checkpoints=, checkpoint_steps=) -> (model, outcome)`."""
    save: Callable
    """`(folder, model, outcome)`."""
    evaluate: Callable
    """`(folder, path of the model, recipe, source, console)`: measures a saved model again; returns what it wrote."""
    describe_data: Callable
    """`(source, recipe, console)`."""
    dry_run: Callable
    """`(recipe, image_size=, given=, console=)`, `given` as `own_images.with_suitable` takes it."""
    table: Callable
    """`(outcomes)`: a table for the terminal."""
    write_report: Callable
    """`(folder, outcomes, title=, settings=) -> path`."""
    data_settings: Callable
    """`(recipe)`: lines of the report about data and network."""


def task_of(recipe: Experiment) -> Task:
    """The task of a recipe."""
    return _detection() if isinstance(recipe, DetectionRecipe) else _classification()


def recipe_from_dict(values: Mapping[str, Any]) -> Experiment:
    """The recipe that `to_dict` wrote, of whichever task.

    >>> recipe_from_dict({"task": "detection", "name": "mine"}).batch_size
    2
    """
    return (DetectionRecipe if values.get("task") == "detection" else Recipe).from_dict(values)


# What is imported for a task is not needed for the other: COCO's metrics, for example.


@functools.cache
def _classification() -> Task:
    from training import classification, experiment
    from training.data.pipeline import images_per_epoch, steps_per_epoch
    from training.data.registry import load_source
    from training.dry_run import run_dry
    from training.outcome import Outcome
    from training.own_images import fingerprint, suitable
    from training.report import accuracy_table, write_report
    from training.run_folder import save_finished
    from training.start import prepared_as_started

    return Task(
        recipe=Recipe,
        outcome=Outcome,
        check=classification.check,
        resumed=lambda recipe: recipe,
        load=lambda recipe: prepared_as_started(recipe, load_source(recipe.data)),
        steps_per_epoch=steps_per_epoch,
        images_per_epoch=images_per_epoch,
        suitable=suitable,
        fingerprint=fingerprint,
        train=classification.train,
        save=save_finished,
        evaluate=experiment.evaluate_classifier,
        describe_data=experiment.describe_data,
        dry_run=run_dry,
        table=accuracy_table,
        write_report=write_report,
        data_settings=experiment.classifier_settings,
    )


@functools.cache
def _detection() -> Task:
    from training import detection, detection_report, detection_run, detection_start
    from training.data.detection_pipeline import detection_steps_per_epoch

    return Task(
        recipe=DetectionRecipe,
        outcome=detection.DetectionOutcome,
        check=detection.check_detection,
        resumed=detection_start.without_start,
        load=detection.load_source_of,
        steps_per_epoch=detection_steps_per_epoch,
        images_per_epoch=lambda recipe, source: len(source.train),
        suitable=lambda recipe, source: {},  # a detector is what its recipe says
        fingerprint=detection_run.annotation_fingerprint,
        train=detection.train_detector,
        save=detection_run.save_detector,
        evaluate=detection_run.evaluate_detector,
        describe_data=detection_run.describe_detection_data,
        dry_run=lambda recipe, given=(), **options: detection_run.run_detection_dry(recipe, **options),
        table=detection_report.detection_table,
        write_report=detection_report.write_detection_report,
        data_settings=detection_run.detector_settings,
    )
