"""What `keras-apa train`, `evaluate` and `--dry-run` do with a detector."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from pathlib import Path
from typing import Any

import keras

from training.checks import check_same_classes
from training.config.detection import DetectionRecipe
from training.data.detection.coco_fields import federated_notes
from training.data.detection.source import DetectionSource
from training.detection.network import detection_options
from training.detection.outcome import DetectionOutcome
from training.detection.report import metrics_table
from training.detection.train import detection_evaluation, measured
from training.errors import usage
from training.files import atomic_path, write_json
from training.runs.folder import save_finished
from training.runtime.console import TextConsole
from zoo.detection.options import Options


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
