"""`keras-apa demo --task detection`: one small Mask R-CNN with three losses of its regions' classes, side by side."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from rich.console import Console

from training.cli.demo import compare
from training.cli.tasks import task_of
from training.config.detection import DetectionRecipe
from training.errors import usage
from training.recipes.demo import detection_demo_recipes
from training.runs.describe import describe
from training.runtime.console import TextConsole


def run_detection_demo(
    *,
    epochs: int | None = None,
    seed: int = 0,
    output: Path | None = None,
    resume: bool = False,
    overwrite: bool = False,
    console: Console | TextConsole | None = None,
) -> int:
    """Trains and compares the three detectors, with the options of the command; returns the exit code."""
    with usage():
        recipes = detection_demo_recipes(epochs, seed)
    return compare(
        recipes,
        title="keras-apa demo: digit_scenes_lt",
        settings=_settings,
        options={"--task": "detection", "--epochs": str(recipes[0].epochs), "--seed": str(seed)},
        output=output,
        resume=resume,
        overwrite=overwrite,
        console=console,
    )


def _settings(recipe: DetectionRecipe, config: dict[str, Any]) -> dict[str, str]:
    """The lines about the whole run in the report."""
    settings = describe(task_of(recipe), recipe, config)
    for name in ("loss", "published"):
        settings.pop(name, None)
    return settings
