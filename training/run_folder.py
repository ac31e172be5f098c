"""The folder of a run, whether it is new, continued or replaced, and what is finished in it."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import keras

from training.files import atomic_path, last_numbered_folder, make_writable, numbered_folder, write_json
from training.recipe import Experiment, differences
from training.tasks import task_of

CONFIG = "config.json"
CHECKPOINTS = "checkpoints"
# What has to be equal for a run to be continued; versions and dates may differ.
FIXED = ("backend", "recipes")


def open_run_folder(
    output: Path | None,
    config: Mapping[str, Any],
    *,
    default: Path,
    resume: bool = False,
    overwrite: bool = False,
) -> Path:
    """The folder to write to, made, proved writable, and with `config` in its `config.json`.

    Args:
        output: the folder the user named; None for `default` or the next free `default-2`, `default-3`, ...
        config: what is run, with `backend` and `recipes` (the dictionaries of the recipes).
        default: where to write if `output` is None.
        resume: continue the run in `output` (None: in the last numbered default folder).
        overwrite: replace the run in `output`; files that no run has written stay.

    Raises:
        ValueError: the folder cannot be written; is in use, and neither `resume` nor `overwrite` is given;
            holds something else than a run, or a run with another configuration.
    """
    if resume and overwrite:
        raise ValueError("--resume and --overwrite exclude each other: keep what is finished, or replace it")
    if output is None:
        folder = last_numbered_folder(default) if resume else numbered_folder(default)
        if folder is None:
            raise ValueError(f"there is no {str(default)!r} here to resume; name the folder with --output")
    else:
        folder = output
    if not folder.is_dir() and folder.exists():
        raise ValueError(f"--output {str(folder)!r} is a file; name a folder")
    earlier = read_config(folder)
    if resume:
        check_same(folder, earlier, config)
    elif folder.is_dir() and any(folder.iterdir()):
        if earlier is None:
            raise ValueError(
                f"--output {str(folder)!r} is not empty and holds no earlier run; name an empty or new folder"
            )
        if not overwrite:
            raise ValueError(
                f"--output {str(folder)!r} holds an earlier run; "
                "give --resume to continue it, --overwrite to replace it, or another folder"
            )
    make_writable(folder)
    if overwrite and earlier is not None:
        _remove_run(folder, earlier)
    write_json(folder / CONFIG, config)
    return folder


def read_config(folder: Path) -> dict[str, Any] | None:
    """The `config.json` of a run, or None where there is none (or one that something else has written)."""
    try:
        config = json.loads((folder / CONFIG).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return config if isinstance(config, dict) and all(key in config for key in FIXED) else None


def has_begun(folder: Path) -> bool:
    """Whether a run has left anything in its folder that it would go on with, or that somebody may want."""
    left = {path.name for path in folder.iterdir()} - {CONFIG, "tensorboard", CHECKPOINTS}
    return bool(left) or any((folder / CHECKPOINTS).glob("*"))


def save_finished(folder: Path, model: keras.Model, outcome: Any) -> None:
    """Writes `NAME.keras`, then `NAME.json`: a run whose JSON is there is complete. `model` is as `train` gives it."""
    with atomic_path(folder / f"{outcome.recipe.name}.keras") as temporary:
        model.save(temporary)
    write_json(folder / f"{outcome.recipe.name}.json", outcome.to_dict())


def load_finished(folder: Path, recipe: Experiment) -> Any:
    """The outcome of `recipe` where model and numbers are there, None where it has to be trained."""
    numbers = folder / f"{recipe.name}.json"
    if not numbers.is_file() or not (folder / f"{recipe.name}.keras").is_file():
        return None
    try:
        outcome = task_of(recipe).outcome.from_dict(json.loads(numbers.read_text(encoding="utf-8")))
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(f"{str(numbers)!r} is damaged ({error}); remove it to train this network again") from error
    if outcome.recipe.replace(title=recipe.title) != recipe:
        raise ValueError(f"{str(numbers)!r} is the result of another recipe; remove it to train this network again")
    return outcome


def check_same(folder: Path, earlier: Mapping[str, Any] | None, config: Mapping[str, Any]) -> None:
    """An error that names the settings in which a run in `folder` is another than the one of `config`."""
    if earlier is None:
        raise ValueError(f"{str(folder)!r} holds no run to resume; leave out --resume to start one")
    changed = differences({key: earlier[key] for key in FIXED}, {key: config[key] for key in FIXED})
    changed.pop("recipes.title", None)  # it follows from the others
    changed.pop("recipes.data.on_corrupt", None)  # what it left out before the training is among the images
    # That it is of another recipe says more than any of the settings that follow from it.
    names = sorted(changed, key=lambda name: (name != "recipes.name", name))
    different = [f"{name.removeprefix('recipes.')} was {changed[name][0]!r}, is {changed[name][1]!r}" for name in names]
    if different:
        raise ValueError(
            f"the run in {str(folder)!r} cannot be resumed with other settings: {'; '.join(different[:3])}; "
            "give the same settings, --overwrite to replace it, or another --output"
        )


def _remove_run(folder: Path, config: Mapping[str, Any]) -> None:
    names = ["report.md", "history.csv", CONFIG]
    endings = (".keras", ".json", ".results.json")
    names += [f"{recipe['name']}{ending}" for recipe in config["recipes"] for ending in endings]
    for path in [*(folder / name for name in names), *(folder / "figures").glob("*.png")]:
        path.unlink(missing_ok=True)
    for name in (CHECKPOINTS, "tensorboard"):
        shutil.rmtree(folder / name, ignore_errors=True)
