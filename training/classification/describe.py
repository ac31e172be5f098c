"""The lines about data and network of a classifier, on the terminal and in the report."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import numpy as np

from training.config.classification import OWN_IMAGES, Recipe
from training.data.classification.source import Source
from training.runtime.console import TextConsole, TextTable

_CLASSES_SHOWN = 20


def classifier_settings(recipe: Recipe) -> dict[str, str]:
    """What the report says about data and network."""
    return {"data": f"`{recipe.data.name}`", "network": f"`{recipe.model.name}`"}


def describe_data(source: Source, recipe: Recipe, console: TextConsole) -> None:
    """How many images and classes there are, and how many classes of each shot group; one's own images by class."""
    options = recipe.evaluation
    groups = source.class_counts.shot_groups(options.many_threshold, options.few_threshold)
    counts = source.class_counts.counts
    console.print(
        f"{source.name}: {len(source.train):,} training and {len(source.test):,} test images, "
        f"{source.num_classes} classes with {counts.max()} to {counts.min()} images; "
        + ", ".join(f"{len(classes)} {group}" for group, classes in groups.items()),
        highlight=False,
    )
    if recipe.data.name in OWN_IMAGES:
        console.print(class_table(source, groups))
    for note in source.notes:
        console.print(note, highlight=False)


def class_table(source: Source, groups: Mapping[str, Iterable[int]]) -> TextTable:
    """The classes with their training images and their shot group, the largest first; of many only both ends."""
    counts, names = source.class_counts.counts, source.class_names
    group_of = {int(label): group for group, labels in groups.items() for label in labels}
    table = TextTable("class", box=None)
    table.add_column("training images", justify="right")
    table.add_column("group")
    order = np.argsort(-counts, kind="stable").tolist()
    end = _CLASSES_SHOWN // 2
    left_out = len(order) - 2 * end if len(order) > _CLASSES_SHOWN else 0
    for place, label in enumerate(order):
        if left_out and place == end:
            table.add_row("…", f"{left_out} more", "")
        if not left_out or not end <= place < len(order) - end:
            table.add_row(names[label], f"{counts[label]:,}", group_of[label])
    return table
