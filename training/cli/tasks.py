"""What the commands have to know of each kind of experiment: one `Task` for classification, one for detection."""

from __future__ import annotations

import functools

from training.config.classification import Recipe
from training.config.detection import DetectionRecipe
from training.config.experiment import Experiment
from training.task import Task


def task_of(recipe: Experiment) -> Task:
    """The task of a recipe."""
    return _detection() if isinstance(recipe, DetectionRecipe) else _classification()


# What is imported for a task is not needed for the other: COCO's metrics, for example.


@functools.cache
def _classification() -> Task:
    from training.classification import train as classification
    from training.classification.dry_run import run_dry
    from training.classification.outcome import Outcome
    from training.classification.own_images import fingerprint, suitable
    from training.classification.report import accuracy_table, write_report
    from training.classification.start import prepared_as_started
    from training.cli import train as experiment
    from training.data.classification.pipeline import images_per_epoch, steps_per_epoch
    from training.data.classification.registry import load_source
    from training.runs.folder import save_finished

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
    from training.data.detection.pipeline import detection_steps_per_epoch
    from training.detection import report as detection_report
    from training.detection import start as detection_start
    from training.detection import task as detection_run
    from training.detection import train as detection

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
