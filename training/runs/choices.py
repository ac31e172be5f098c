"""Settings that were chosen for one's own images, and whether the images are still the same."""

from __future__ import annotations

import os
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any, TypeVar

from training.config.classification import Recipe
from training.config.detection import DetectionRecipe
from training.config.experiment import Experiment, differences
from training.recipes import get_recipe
from training.runtime.output import as_text

_SHOWN = 5
_Recipe = TypeVar("_Recipe", bound=Experiment)


def with_suitable(recipe: _Recipe, chosen: Mapping[str, Any], given: Collection[str] = ()) -> _Recipe:
    """The recipe with the chosen settings, but for those that were named or changed: these stay.

    Args:
        recipe: As the command line has it.
        chosen: What `suitable` chose.
        given: Names of the options that were given, those with the recipe's own value too.

    >>> recipe = get_recipe("folder").replace(epochs=7)
    >>> recipe = with_suitable(recipe, {"model.name": "se_resnet18", "epochs": 120, "batch_size": 8}, ["batch_size"])
    >>> recipe.model.name, recipe.epochs, recipe.batch_size
    ('se_resnet18', 7, 32)
    """
    if not chosen:
        return recipe
    own = get_recipe("folder")
    for name, value in chosen.items():
        part, _, field = name.rpartition(".")
        was, now = (getattr(getattr(each, part) if part else each, field) for each in (own, recipe))
        if name not in given and now == was:
            recipe = recipe.replace(**({part: {field: value}} if part else {field: value}))
    return recipe


def describe_choice(before: Recipe | DetectionRecipe, recipe: Recipe | DetectionRecipe) -> str | None:
    """A line on what `with_suitable` has changed; None if nothing."""
    found = differences(before.to_dict(), recipe.to_dict())
    options = [f"--{name.replace('_', '-')} {now}" for name, (_, now) in sorted(found.items())]
    if not options:
        return None
    weights = isinstance(recipe, Recipe) and recipe.start.weights
    why = "the weights to start from" if weights else "number and size of the images"
    return f"Chosen by {why}: {' '.join(options)} (options that you give are never changed)"


def kept_fingerprint(was: Mapping[str, Any] | None) -> Mapping[str, Any]:
    """The `fingerprint` of a run, with the names of its classes as text, which runs of before have not; {} for none."""
    return {**was, "classes": {as_text(name): count for name, count in was["classes"].items()}} if was else {}


def check_same_images(folder: Path, was: Mapping[str, Any], now: Mapping[str, Any]) -> None:
    """An error that says how the images of a run have changed since it began.

    Args:
        folder: Of the run.
        was: The `fingerprint` that was kept; an empty one says nothing.
        now: The present one.

    >>> check_same_images(Path("runs/birds"), {"classes": {"emu": 3, "wren": 2}}, {"classes": {"emu": 3, "wren": 4}})
    Traceback (most recent call last):
    ...
    ValueError: the images must be those that the run in 'runs/birds' began with; given: others: class 'wren' had 2
    training images, has 4. Put them back, or start anew with --overwrite or in another --output.
    """
    was = kept_fingerprint(was)
    if not was or was == now:
        return
    counts = [
        (name, was["classes"].get(name, 0), now["classes"].get(name, 0)) for name in was["classes"] | now["classes"]
    ]
    changed = [
        f"class {name!r} had {before} training images, has {after}" for name, before, after in counts if before != after
    ]
    if was.get("test_images") != now.get("test_images"):
        changed.append(f"there were {was['test_images']} test images, there are {now['test_images']}")
    more = f" and {len(changed) - _SHOWN} more changes" if len(changed) > _SHOWN else ""
    what = (
        ", ".join(changed[:_SHOWN]) + more
        or "the same number of each class, but other files or annotations, or another split"
    )
    raise ValueError(
        f"the images must be those that the run in {os.fspath(folder)!r} began with; given: others: {what}. Put them "
        "back, or start anew with --overwrite or in another --output."
    )
