"""`keras-apa demo`: the same network with and without what this library adds, side by side."""

from __future__ import annotations

import datetime
import importlib.metadata
import os
import platform
import shlex
import sys
from pathlib import Path
from typing import Any

import keras
from rich.console import Console

from training.callbacks import EpochProgress
from training.checks import nearest
from training.classification import check, train
from training.cli import usage
from training.data.registry import load_source
from training.interrupt import InterruptCheck, interruptible
from training.outcome import Outcome
from training.recipe import Recipe
from training.recipes import get_recipe
from training.report import accuracy_table, write_report
from training.run_folder import load_finished, open_run_folder, save_finished

DEFAULT_OUTPUT = Path("keras-apa-demo")
DATA = ("digits100_lt", "digits10_lt")


def run_demo(
    *,
    model: str = "se_resnet8",
    data: str = "digits100_lt",
    epochs: int = 10,
    seed: int = 0,
    output: Path | None = None,
    resume: bool = False,
    overwrite: bool = False,
    console: Console | None = None,
) -> int:
    """Trains and compares the two networks, with the options of the command; returns the exit code."""
    console = console or Console()
    with usage():
        recipes = demo_recipes(model, data, epochs, seed)
        for recipe in recipes:
            check(recipe)
        config = {"recipes": [recipe.to_dict() for recipe in recipes], **describe_run()}
        folder = open_run_folder(output, config, default=DEFAULT_OUTPUT, resume=resume, overwrite=overwrite).resolve()
    finished: list[Outcome] = []
    try:
        with interruptible() as interrupt:
            for recipe in recipes:
                finished.append(_finish(recipe, folder, console, interrupt))
                interrupt.raise_if_pressed()
    except KeyboardInterrupt:
        names = ", ".join(f"{outcome.recipe.name}.keras" for outcome in finished) or "no model yet"
        print(f"keras-apa: interrupted. Finished: {names}, in {folder}", file=sys.stderr)
        print(f"Continue with: {shlex.join(_resume_command(recipes[0], folder))}", file=sys.stderr)
        return 130
    console.print(accuracy_table(finished))
    report = write_report(folder, finished, title=f"keras-apa demo: {data}", settings=_settings(recipes[0], config))
    print(f"Wrote {report}, both models and the figures beside it.")
    return 0


def demo_recipes(model: str, data: str, epochs: int, seed: int) -> list[Recipe]:
    """The baseline, then the network with all that `model` has a place for."""
    if data not in DATA:
        raise ValueError(f"--data is {data!r}; {nearest(data, DATA)}")
    options, title = adaptive_options(model)
    common = {"epochs": epochs, "seed": seed}
    return [
        get_recipe(f"{data}_baseline").replace(model={"name": model}, **common),
        get_recipe(data).replace(model={"name": model, **options}, title=title, **common),
    ]


def adaptive_options(model: str) -> tuple[dict[str, str], str]:
    """AGLU everywhere, and APA in the gates that a network of that name has; with a title for tables."""
    gates = {"se_": ["gate"], "cb_": ["gate", "spatial_gate"], "sp_": ["spatial_gate"]}.get(model[:3], [])
    options = {"activation": "aglu", **dict.fromkeys(gates, "apa")}
    return options, f"{'APA* + ' if gates else ''}AGLU, Balanced Softmax"


def describe_run() -> dict[str, Any]:
    """Where, when and with what something was run."""
    packages = ("keras", "tensorflow", "jax", "torch", "numpy", "scikit-learn", "keras-cv")
    versions = {"python": platform.python_version()}
    for package in ("keras-apa", *packages):
        try:
            versions[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            continue
    return {
        "backend": keras.config.backend(),
        "command": shlex.join([Path(sys.argv[0]).name, *sys.argv[1:]]),
        "date": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "machine": f"{platform.system()} {platform.machine()}, {os.cpu_count()} CPU cores",
        "versions": versions,
    }


def _finish(recipe: Recipe, folder: Path, console: Console, interrupt: InterruptCheck) -> Outcome:
    """The outcome of a recipe: read where it is finished, trained and saved otherwise."""
    outcome = load_finished(folder, recipe)
    if outcome is not None:
        console.print(f"{recipe.title}: finished before, not trained again")
        return outcome
    progress = EpochProgress(recipe.title, console)
    try:
        model, outcome = train(recipe, load_source(recipe.data), callbacks=[progress, interrupt])
    finally:
        progress.close()
    save_finished(folder, model, outcome)
    return outcome


def _resume_command(recipe: Recipe, folder: Path) -> list[str]:
    options = {
        "--model": recipe.model.name,
        "--backend": keras.config.backend(),
        "--data": recipe.data.name,
        "--epochs": str(recipe.epochs),
        "--seed": str(recipe.seed),
        "--output": str(folder),
    }
    return ["keras-apa", "demo", *(word for option in options.items() for word in option), "--resume"]


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
        "command": f"`{config['command']}`",
    }
