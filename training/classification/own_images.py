"""Images of one's own: settings that suit their number and size, and whether they are still the same."""

from __future__ import annotations

import contextlib
import hashlib
import math
import os
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

import zoo
from training.config.classification import OWN_IMAGES, Recipe
from training.data.classification.pipeline import images_per_epoch
from training.data.classification.source import Source
from training.runs.folder import read_config
from training.runs.recipes import recipe_from_dict

FEW, SMALL_SIDE = 5_000, 64
_MEASURED = 200  # images whose size is read

# (few images, small images) -> settings; `training/recipes/folder.py` shows them as a table.
_BY_SIZE: dict[tuple[bool, bool], dict[str, Any]] = {
    (True, True): {"model.name": "se_resnet20", "data.image_size": 32, "augment.crop": "padded", "batch_size": 64,
                   "epochs": 200, "optimizer.learning_rate": 0.1},
    (False, True): {"model.name": "se_resnet32", "data.image_size": 32, "augment.crop": "padded", "batch_size": 128,
                    "epochs": 200, "optimizer.learning_rate": 0.1},
    (True, False): {"model.name": "se_resnet18", "data.image_size": 128, "batch_size": 32, "epochs": 120},
    (False, False): {"batch_size": 32},
}  # fmt: skip
_FROM_WEIGHTS = {"epochs": 30, "optimizer.learning_rate": 0.01}


def suitable(recipe: Recipe, source: Source) -> dict[str, Any]:
    """Settings that suit images of one's own: by their number and size, or by the weights to start from.

    Args:
        recipe: `folder`, also with another way to learn the classifier; the settings of every other recipe are its own.
        source: The images; those of the training count.

    Returns: Values by the names that options have on the command line; none for another recipe.
    """
    if recipe.name.partition("_")[0] != "folder" or recipe.data.name not in OWN_IMAGES:
        return {}
    if recipe.start.weights:
        chosen = {"batch_size": 32, **_FROM_WEIGHTS, **_network_of(recipe.start.weights)}
    else:
        paths = source.train.paths  # type: ignore[attr-defined]  # of files, as all of OWN_IMAGES are
        chosen = dict(_BY_SIZE[len(source.train) < FEW, _typical_side(paths) <= SMALL_SIDE])
    # At least four batches an epoch, each a power of two.
    quarter = images_per_epoch(recipe, source) // 4
    chosen["batch_size"] = min(chosen["batch_size"], 2 ** max(quarter.bit_length() - 1, 0))
    return chosen


def _typical_side(paths):
    """The median of the shorter sides; of images that are spread over all classes, since each is opened."""
    sides = []
    for index in np.unique(np.linspace(0, len(paths) - 1, _MEASURED).astype(int)):
        # Of long lists not every image was decoded before.
        with contextlib.suppress(OSError), Image.open(paths[index]) as image:
            sides.append(min(image.size))
    return float(np.median(sides)) if sides else math.inf


def _network_of(weights):
    """The network that published weights or an earlier run have, and how that run's images were cut."""
    if weights in zoo.list_weights():
        return {"model.name": weights.partition("/")[0]}
    config = read_config(Path(weights))
    if config is None or len(config["recipes"]) != 1:
        return {}
    recipe = recipe_from_dict(config["recipes"][0])
    if not isinstance(recipe, Recipe):
        return {}
    return {
        "model.name": recipe.model.name,
        "data.image_size": recipe.data.image_size,
        "augment.crop": recipe.augment.crop,
    }


def fingerprint(recipe: Recipe, source: Source) -> dict[str, Any]:
    """What tells whether images of one's own are the same: counts, and a hash of all names, labels and the split.

    Returns: Plain values for JSON; nothing for a data set with a name of its own.
    """
    if recipe.data.name not in OWN_IMAGES:
        return {}
    lines = [
        f"{part}\t{label}\t{os.path.relpath(path, recipe.data.path)}"
        for part in ("train", "test", "validation")
        if getattr(source, part) is not None
        for path, label in zip(getattr(source, part).paths, getattr(source, part).labels, strict=True)
    ]
    return {
        "classes": {name: int(count) for name, count in zip(source.class_names, source.class_counts, strict=True)},
        "test_images": len(source.test),
        "files": hashlib.sha256("\n".join(sorted(lines)).encode(errors="surrogateescape")).hexdigest(),
    }
