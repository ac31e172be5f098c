"""`keras-apa demo`: the same network with and without what this library adds, side by side."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import keras
from rich.console import Console

from training.cli.tasks import task_of
from training.config.classification import Recipe
from training.config.experiment import Experiment
from training.engine.callbacks import EpochProgress
from training.errors import usage
from training.recipes.demo import demo_recipes
from training.runs.environment import describe_run
from training.runs.folder import load_finished, open_run_folder
from training.runs.ownership import OwnedFolder
from training.runtime.console import TextConsole, text_console
from training.runtime.interrupt import InterruptCheck, interruptible
from training.runtime.output import escaped_output, visible
from zoo._markdown import code

DEFAULT_OUTPUT = Path("keras-apa-demo")


def run_demo(
    *,
    model: str = "se_resnet8",
    data: str = "digits100_lt",
    epochs: int = 10,
    seed: int = 0,
    output: Path | None = None,
    resume: bool = False,
    overwrite: bool = False,
    console: Console | TextConsole | None = None,
) -> int:
    """Trains and compares the two networks, with the options of the command; returns the exit code."""
    with usage():
        recipes = demo_recipes(model, data, epochs, seed)
    return compare(
        recipes,
        title=f"keras-apa demo: {data}",
        settings=_settings,
        options={"--model": model, "--data": data, "--epochs": str(epochs), "--seed": str(seed)},
        output=output,
        resume=resume,
        overwrite=overwrite,
        console=console,
    )


@escaped_output()
def compare(
    recipes: Sequence[Experiment],
    *,
    title: str,
    settings: Callable[[Any, dict[str, Any]], dict[str, str]],
    options: dict[str, str],
    output: Path | None = None,
    resume: bool = False,
    overwrite: bool = False,
    console: Console | TextConsole | None = None,
) -> int:
    """Trains recipes one after the other and writes one report about all; returns the exit code.

    Args:
        recipes: What to train, the baseline first, all of one task and on the same data.
        title: The heading of the report.
        settings: Makes the lines about the whole run from the first recipe and the configuration.
        options: Of the command that continues an interrupted demo.
        output, resume, overwrite, console: As the command has them.
    """
    console = text_console(console)
    with usage():
        for recipe in recipes:
            task_of(recipe).check(recipe)
        config = {"recipes": [recipe.to_dict() for recipe in recipes], **describe_run()}
        owned = open_run_folder(output, config, default=DEFAULT_OUTPUT, resume=resume, overwrite=overwrite)
    with owned:
        return _compare_in(owned, recipes, title, settings(recipes[0], config), options, console)


def _compare_in(
    owned: OwnedFolder,
    recipes: Sequence[Experiment],
    title: str,
    settings: dict[str, str],
    options: dict[str, str],
    console: TextConsole,
) -> int:
    """`compare` in a folder that is this process's own."""
    task, folder = task_of(recipes[0]), owned.path
    if owned.note:
        console.print(owned.note)
    finished: list[Any] = []
    try:
        with interruptible() as interrupt:
            for recipe in recipes:
                finished.append(_finish(recipe, owned, console, interrupt))
                interrupt.raise_if_pressed()
    except KeyboardInterrupt:
        names = ", ".join(f"{outcome.recipe.name}.keras" for outcome in finished) or "no model yet"
        print(visible(f"keras-apa: interrupted. Finished: {names}, in {folder}"), file=sys.stderr)
        options = {"--backend": keras.config.backend(), **options, "--output": str(folder)}
        words = [word for option in options.items() for word in option]
        print(visible(f"Continue with: {shlex.join(['keras-apa', 'demo', *words, '--resume'])}"), file=sys.stderr)
        return 130
    console.print(task.table(finished))
    report = task.write_report(owned.place(), finished, title=title, settings=settings)
    owned.check("the report is")
    models = "both models" if len(recipes) == 2 else "the models"
    print(visible(f"Wrote {report}, {models} and the figures beside it."))
    return 0


def _finish(recipe: Experiment, owned: OwnedFolder, console: TextConsole, interrupt: InterruptCheck) -> Any:
    """The outcome of a recipe: read where it is finished, trained and saved otherwise."""
    task = task_of(recipe)
    outcome = load_finished(owned.path, recipe, task.outcome)
    if outcome is not None:
        console.print(f"{recipe.title}: already finished, not trained again")
        return outcome
    progress = EpochProgress(recipe.title, console)
    try:
        model, outcome = task.train(recipe, task.load(recipe), callbacks=[progress, interrupt])
    finally:
        progress.close()
    task.save(owned.place(), model, outcome)
    owned.check(f"{recipe.name}.keras and its numbers are")
    return outcome


def _settings(recipe: Recipe, config: dict[str, Any]) -> dict[str, str]:
    """The lines about the whole run in the report."""
    data = recipe.data
    optimizer = recipe.optimizer
    versions = config["versions"]
    backend = config["backend"]
    return {
        "data": f"`{data.name}`, imbalance {data.imbalance_factor:g}, noise {data.noise:g}, seed {data.seed}",
        "network": f"`{recipe.model.name}`",
        "training": f"{recipe.epochs} epochs, batch {recipe.batch_size}, {optimizer.name}, learning rate "
        f"{optimizer.learning_rate:g} (cosine), weight decay {optimizer.weight_decay:g}, seed {recipe.seed}",
        "backend": f"{backend} {versions.get(backend, '')}, Keras {versions['keras']}",
        "machine": config["machine"],
        "command": code(config["command"], in_table=True),
    }
