"""What `keras-apa train`, `evaluate` and `--dry-run` do with a detector."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from pathlib import Path
from typing import Any

import keras
import numpy as np
from rich.console import Console

from training.checks import check_batch_size, check_same_classes
from training.cli import usage
from training.console import TextConsole, text_console
from training.data.coco_fields import federated_notes
from training.data.detection_pipeline import detection_notes, detection_steps_per_epoch, detection_training_dataset
from training.data.detection_source import DetectionSource, frequency_groups
from training.detection import (
    DetectionOutcome,
    check_detection,
    compiled_detector,
    detection_evaluation,
    detection_options,
    load_source_of,
    loss_notes,
    measured,
)
from training.detection_recipe import DetectionRecipe
from training.detection_report import metrics_table
from training.detection_start import start_notes
from training.files import atomic_path, write_json
from training.fitting import try_steps
from training.output import escaped_output
from training.run_folder import save_finished
from zoo.detection.options import Options

STEPS, BATCH_SIZE = 2, 2
GROUP_NAMES = {"f": "frequent", "c": "common", "r": "rare"}


def save_detector(folder: Path, model: keras.Model, outcome: DetectionOutcome) -> None:
    """Writes `NAME.results.json`, the detections in COCO's format, then what `save_finished` writes."""
    write_results(folder / f"{outcome.recipe.name}.results.json", outcome.results)
    save_finished(folder, model, outcome)


def write_results(path: Path, results: Any) -> None:
    """Detections in COCO's results format, whole or not at all, in as few bytes as JSON allows."""
    with atomic_path(path) as temporary:
        temporary.write_text(json.dumps(list(results), separators=(",", ":")), encoding="utf-8")


def describe_detection_data(source: DetectionSource, recipe: DetectionRecipe, console: TextConsole) -> None:
    """How many images, objects and classes there are, how many of each group, and what is not used."""
    groups = frequency_groups(source.image_counts)
    counts = np.asarray(source.image_counts)
    objects = sum(len(labels) for labels in source.train.labels)
    console.print(
        f"{source.name}: {len(source.train):,} training images with {objects:,} objects, {len(source.test):,} test "
        f"images, {source.num_classes} classes in {counts.max()} to {counts.min()} images; "
        + ", ".join(f"{len(groups[letter])} {name}" for letter, name in GROUP_NAMES.items()),
        highlight=False,
    )
    notes = (*source.notes, *federated_notes(source.test_annotations, recipe.evaluation.style))
    for note in (*notes, *detection_notes(recipe, source), *loss_notes(recipe, source), *start_notes(recipe)):
        console.print(note, highlight=False)


def detector_settings(recipe: DetectionRecipe) -> dict[str, str]:
    """What the report says about data and network."""
    data, model = recipe.data, recipe.model
    height, width = data.image_size
    return {
        "data": f"`{data.name}`, {height}x{width} pixels, sampler {data.sampler}, seed {data.seed}",
        "network": f"`{model.name}` on `{model.backbone}`, {recipe.precision}",
        "loss": f"`{recipe.loss.name}`",
    }


def annotation_fingerprint(recipe: DetectionRecipe, source: DetectionSource) -> dict[str, Any]:
    """What tells whether one's own images are annotated as they were: counts, and a hash of the annotation files.

    Returns: As `training.own_images.fingerprint`; nothing for a data set with a name of its own.
    """
    if recipe.data.name != "coco":
        return {}
    files = hashlib.sha256()
    for file in filter(None, (recipe.data.train, recipe.data.test)):
        files.update(Path(file).read_bytes())
    return {
        "classes": {name: int(count) for name, count in zip(source.class_names, source.image_counts, strict=True)},
        "test_images": len(source.test),
        "files": files.hexdigest(),
    }


def evaluate_detector(
    folder: Path, path: Path, recipe: DetectionRecipe, source: DetectionSource, console: TextConsole
) -> Path:
    """Measures a saved detector; returns the file of its numbers, beside which `evaluation.results.json` is."""
    model = keras.saving.load_model(path, compile=False)
    with usage():
        check_same_classes(model.class_names, source.class_names)
    # How many detections there are depends on the style, which may be another than that of the training.
    chosen = {"max_detections": Options.max_detections, "score_threshold": Options.score_threshold}
    model.options = dataclasses.replace(
        model.options, **{name: detection_options(recipe).get(name, usual) for name, usual in chosen.items()}
    )
    for note in (*source.notes, *federated_notes(source.test_annotations, recipe.evaluation.style)):
        console.print(note, highlight=False)
    evaluation = detection_evaluation(recipe, source)
    evaluation.measure(model)
    if not evaluation.results:
        console.print(f"no detection scores above {model.options.score_threshold:g}", style="yellow")
    found = measured(evaluation, source)
    console.print(metrics_table({recipe.title or recipe.name: found["metrics"]}))
    write_results(folder / "evaluation.results.json", evaluation.results)
    written = folder / "evaluation.json"
    classes = [str(name) for name in source.class_names]
    write_json(
        written,
        {
            "evaluation": recipe.to_dict()["evaluation"],
            **found,
            "class_names": classes,
            "backend": keras.config.backend(),
        },
    )
    return written


@escaped_output()
def run_detection_dry(recipe: DetectionRecipe, *, image_size: int = 0, console: Console | None = None) -> int:
    """Runs two steps of a recipe on its own data; says what a real run would be.

    Args:
        recipe: What to try.
        image_size: Side of the images in pixels, instead of the recipe's.
    """
    console = text_console(console)
    with usage():
        if image_size:
            shorter = min(recipe.data.shorter_side, image_size)
            recipe = recipe.replace(data={"image_size": (image_size, image_size), "shorter_side": shorter})
        check_detection(recipe)
        source = load_source_of(recipe)
        check_batch_size(recipe.batch_size, len(source.train))
    describe_detection_data(source, recipe, console)
    steps = detection_steps_per_epoch(recipe, source)
    small = recipe.replace(batch_size=min(BATCH_SIZE, recipe.batch_size))
    model = compiled_detector(small, source, steps=detection_steps_per_epoch(small, source))
    arrays = (
        [{name: value.numpy() for name, value in part.items()} for part in batch]
        for batch in detection_training_dataset(small, source).take(STEPS)
    )
    tried = try_steps(model, arrays, recipe.name)
    total = sum(int(np.prod(variable.shape)) for variable in model.weights)
    trained = sum(int(np.prod(variable.shape)) for variable in model.trainable_variables)
    height, width = recipe.data.image_size
    for line in (
        f"{recipe.model.name} on {recipe.model.backbone}: {total:,} parameters, {total - trained:,} of them not "
        "trained (or batch statistics)",
        f"{steps:,} steps an epoch of {recipe.batch_size} images of {height}x{width}, {recipe.epochs} epochs, "
        f"{steps * recipe.epochs:,} steps",
        f"{STEPS} steps with a batch of {small.batch_size}: {tried}",
    ):
        console.print(line, highlight=False)
    return 0
