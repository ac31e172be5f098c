"""The lines about data and network of a detector, on the terminal and in the report."""

from __future__ import annotations

import numpy as np

from training.config.detection import DetectionRecipe
from training.data.detection.coco_fields import federated_notes
from training.data.detection.pipeline import detection_notes
from training.data.detection.source import DetectionSource, frequency_groups
from training.detection.losses import loss_notes
from training.detection.start import start_notes
from training.runtime.console import TextConsole

GROUP_NAMES = {"f": "frequent", "c": "common", "r": "rare"}


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
