"""What the commands do with a detector."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

import keras

from training.checks import check_same_classes
from training.config.detection import DetectionRecipe
from training.data.detection.coco_fields import federated_notes
from training.data.detection.pipeline import detection_steps_per_epoch
from training.data.detection.source import DetectionSource
from training.detection.describe import describe_detection_data, detector_settings
from training.detection.dry_run import run_detection_dry
from training.detection.network import detection_options
from training.detection.outcome import DetectionOutcome
from training.detection.report import detection_table, metrics_table, write_detection_report
from training.detection.start import without_start
from training.detection.train import check_detection, detection_evaluation, load_source_of, measured, train_detector
from training.errors import usage
from training.files import atomic_path, write_json
from training.runs.folder import save_finished
from training.runtime.console import TextConsole, TextTable
from training.task import Task
from zoo.detection.options import Options


class Detection(Task[DetectionRecipe]):
    """Boxes and masks, measured as COCO and LVIS do. A detector is what its recipe says: nothing suits the images."""

    outcome = DetectionOutcome

    def check(self, recipe: DetectionRecipe) -> None:
        check_detection(recipe)

    def resumed(self, recipe: DetectionRecipe) -> DetectionRecipe:
        return without_start(recipe)

    def load(self, recipe: DetectionRecipe) -> DetectionSource:
        return load_source_of(recipe)

    def steps_per_epoch(self, recipe: DetectionRecipe, source: DetectionSource) -> int:
        return detection_steps_per_epoch(recipe, source)

    def images_per_epoch(self, recipe: DetectionRecipe, source: DetectionSource) -> int:
        return len(source.train)

    def fingerprint(self, recipe: DetectionRecipe, source: DetectionSource) -> dict[str, Any]:
        return annotation_fingerprint(recipe, source)

    def train(
        self, recipe: DetectionRecipe, source: DetectionSource, **options: Any
    ) -> tuple[keras.Model, DetectionOutcome]:
        return train_detector(recipe, source, **options)

    def save(self, folder: Path, model: keras.Model, outcome: DetectionOutcome) -> None:
        save_detector(folder, model, outcome)

    def evaluate(
        self, folder: Path, path: Path, recipe: DetectionRecipe, source: DetectionSource, console: TextConsole
    ) -> Path:
        return evaluate_detector(folder, path, recipe, source, console)

    def describe_data(self, source: DetectionSource, recipe: DetectionRecipe, console: TextConsole) -> None:
        describe_detection_data(source, recipe, console)

    def dry_run(self, recipe: DetectionRecipe, *, given: Collection[str] = (), **options: Any) -> int:
        return run_detection_dry(recipe, **options)

    def table(self, outcomes: Sequence[DetectionOutcome]) -> TextTable:
        return detection_table(outcomes)

    def write_report(
        self, folder: Path, outcomes: Sequence[DetectionOutcome], *, title: str, settings: Mapping[str, str]
    ) -> Path:
        return write_detection_report(folder, outcomes, title=title, settings=settings)

    def data_settings(self, recipe: DetectionRecipe) -> dict[str, str]:
        return detector_settings(recipe)


def save_detector(folder: Path, model: keras.Model, outcome: DetectionOutcome) -> None:
    """Writes `NAME.results.json`, the detections in COCO's format, then what `save_finished` writes."""
    write_results(folder / f"{outcome.recipe.name}.results.json", outcome.results)
    save_finished(folder, model, outcome)


def write_results(path: Path, results: Any) -> None:
    """Detections in COCO's results format, whole or not at all, in as few bytes as JSON allows."""
    with atomic_path(path) as temporary:
        temporary.write_text(json.dumps(list(results), separators=(",", ":")), encoding="utf-8")


def annotation_fingerprint(recipe: DetectionRecipe, source: DetectionSource) -> dict[str, Any]:
    """What tells whether one's own images are annotated as they were: counts, and a hash of the annotation files.

    Returns: As `training.classification.own_images.fingerprint`; nothing for a data set with a name of its own.
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
