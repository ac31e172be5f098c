"""The lines about a run in its report and on the terminal."""

from __future__ import annotations

from typing import Any

from training.config.classification import Recipe
from training.config.detection import DetectionRecipe
from training.runs.choices import describe_choice
from training.runs.published import changes
from training.runtime.console import TextConsole
from training.task import Task
from zoo._markdown import code, markdown


def describe(task: Task, recipe: Recipe | DetectionRecipe, config: dict[str, Any]) -> dict[str, str]:
    """The lines about a run in its report."""
    optimizer = recipe.optimizer
    backend = config["backend"]
    return {
        **task.data_settings(recipe),
        "published": markdown(_published(recipe)),
        "training": f"{recipe.epochs} epochs, batch {recipe.batch_size}, {optimizer.name}, "
        f"learning rate {optimizer.learning_rate:g} ({optimizer.schedule}), "
        f"weight decay {optimizer.weight_decay:g}, seed {recipe.seed}",
        "backend": f"{backend} {config['versions'].get(backend, '')}, Keras {config['versions']['keras']}",
        "machine": config["machine"],
        "command": code(config["command"], in_table=True),
    }


def _published(recipe: Recipe | DetectionRecipe) -> str:
    """The published number, and in what this run is not the one that it was published for."""
    changed = changes(recipe)
    note = f", for the recipe without changes; changed here: {', '.join(changed)}" if changed else ""
    return f"{recipe.published or 'no published number'}{note}"


def describe_recipe(asked: Recipe | DetectionRecipe, recipe: Recipe | DetectionRecipe, console: TextConsole) -> None:
    """What was chosen for these images, and in what the recipe is not the published one."""
    if (choice := describe_choice(asked, recipe)) is not None:
        console.print(choice, highlight=False, soft_wrap=True)
    if changed := changes(recipe):
        console.print(
            f"Changed from the published recipe ({recipe.published}): {', '.join(changed)}",
            highlight=False,
            soft_wrap=True,
        )
