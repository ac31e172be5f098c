"""The folder of a run: which one it is, whether it is new, continued or replaced, and what is finished in it."""

from __future__ import annotations

import itertools
import json
import shutil
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import keras

from training.config.experiment import Experiment, differences
from training.engine.checkpoints import Checkpoints
from training.errors import OptionError
from training.files import (
    LOCK_FILES,
    atomic_path,
    existing_folders,
    is_empty,
    last_numbered_folder,
    numbered_folders,
    write_json,
)
from training.runs.ownership import InUseError, OwnedFolder, claim, claim_free

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
) -> OwnedFolder:
    """The folder to write to, made, proved writable, this process's own, and with `config` in its `config.json`.

    Args:
        output: the folder the user named; None for `default` or the next free `default-2`, `default-3`, ...
        config: what is run, with `backend` and `recipes` (the dictionaries of the recipes).
        default: where to write if `output` is None.
        resume: continue the run in `output` (None: in the last numbered default folder).
        overwrite: replace the run in `output`; files that no run has written stay.

    Raises:
        ValueError: the folder cannot be written; belongs to another process; holds a run, and neither `resume` nor
            `overwrite` is given; holds something else than a run, or a run with another configuration.
    """
    if resume and overwrite:
        raise OptionError(
            "--resume and --overwrite must not be given together; given: both. --resume keeps the results, --overwrite "
            "replaces them."
        )
    if output is None and not resume:
        owned = claim_free(default)
    else:
        folder = output or last_numbered_folder(default)
        if folder is None:
            raise OptionError(
                f"--output must be the run to resume; given: none, and there is no {str(default)!r} here."
            )
        if resume:
            check_same(folder, read_config(folder), config)  # before anything is made
        owned = _claim_named(folder)
    try:
        begin_run(owned, config, resume=resume, overwrite=overwrite)
    except BaseException:
        owned.release()
        raise
    return owned


def begin_run(owned: OwnedFolder, config: Mapping[str, Any], *, resume: bool = False, overwrite: bool = False) -> None:
    """Writes `config` into a folder that is this process's own; arguments and errors as of `open_run_folder`."""
    folder = owned.path
    earlier = read_config(folder)
    if resume:
        check_same(owned.given, earlier, config)
    elif earlier is not None and not overwrite:
        raise OptionError(
            f"--output must be new or empty; given: {str(owned.given)!r}, which holds an earlier run. Give --resume to "
            "continue it, --overwrite to replace it, or another folder."
        )
    if overwrite and earlier is not None:
        _remove_run(folder, earlier)
    owned.begin(CONFIG, config)


def claim_run_folder(
    output: Path | None,
    default: Path,
    different: Callable[[Mapping[str, Any]], Sequence[str]],
    *,
    overwrite: bool = False,
) -> tuple[OwnedFolder, str | None]:
    """The folder of a training, made this process's own; `begin_run` writes to it.

    Without `output` it is `default`. If that is in use or holds something else, it is left alone: the folder is the one
    of `default-2`, `default-3`, ... with the run of these settings, or else the first that is free.

    Args:
        output: the folder the user named, or None.
        default: the folder otherwise.
        different: tells from the configuration of a run in which settings it is another than the one asked for.
        overwrite: whether the run is going to be replaced.

    Returns: The folder, and a line that says why it is not `default`; None if it is, or if `output` is given.
    Raises: ValueError: as `open_run_folder`.
    """
    if output is not None:
        return _claim_named(output), None
    own = ((folder, _OWN) for folder in existing_folders(default))
    free = ((folder, _FREE) for folder in numbered_folders(default))
    in_use: dict[Path, str] = {}
    for folder, wanted in itertools.chain(own, free):
        if _contents(folder, different) != wanted:
            continue
        try:
            owned = claim(folder)
        except InUseError as error:
            in_use[folder] = f"{str(folder)!r} is in use by {error.holder}"
            continue
        # Its owner before may have gone on until a moment ago.
        if _contents(folder, different) == wanted:
            break
        owned.release()
    if folder == default:
        return owned, None
    reason = in_use.get(default) or _contents(default, different)
    if overwrite and reason != _FREE and default not in in_use:
        reason += f", which --output {default} --overwrite replaces"
    # The run of these settings may be at work in another one of the numbered folders.
    others = [each for path, each in in_use.items() if path != default]
    reasons = [*([reason] if reason != _FREE else []), *others[:2]]
    if not reasons:
        return owned, f"This training is in {str(folder)!r}"
    return owned, f"{'; '.join(reasons)}; this training is in {str(folder)!r}"


_OWN, _FREE = "own", "free"


def _contents(folder: Path, different: Callable[[Mapping[str, Any]], Sequence[str]]) -> str:
    """What a default folder is for a training: `_OWN`, `_FREE`, or a reason to leave it alone."""
    config = read_config(folder)
    if config is None:
        free = not folder.exists() or is_empty(folder)
        return _FREE if free else f"{str(folder)!r} is not empty and holds no run"
    if not has_begun(folder):
        return _FREE  # nothing would be lost
    settings = different(config)
    return f"{str(folder)!r} holds another run ({'; '.join(settings[:2])})" if settings else _OWN


def _claim_named(folder: Path) -> OwnedFolder:
    """A folder that the user named, if there is nothing in it or a run."""
    if not folder.is_dir() and folder.exists():
        raise OptionError(f"--output must be a folder; given: {str(folder)!r}, which is a file.")
    if folder.is_dir() and not is_empty(folder) and read_config(folder) is None:
        raise OptionError(
            f"--output must be new, empty or an earlier run; given: {str(folder)!r}, which is not empty and holds no "
            "earlier run."
        )
    return claim(folder)


class OwnedCheckpoints(Checkpoints):
    """The checkpoints of a run in its folder, as long as it is this process's own.

    If the folder is lost, the next one is saved in a new run folder beside it, and `save` raises `FolderLostError`.
    """

    def __init__(self, owned: OwnedFolder, keep: int = 2):
        super().__init__(owned.path / CHECKPOINTS, keep)
        self.owned = owned

    def save(self, model: keras.Model, *, step: int, extra: Mapping[str, Any] | None = None) -> Path:
        place = self.owned.place()
        if not self.owned.is_lost:
            return super().save(model, step=step, extra=extra)
        path = Checkpoints(place / CHECKPOINTS).save(model, step=step, extra=extra)
        self.owned.check(f"the training is saved up to step {step}")
        return path


def read_config(folder: Path) -> dict[str, Any] | None:
    """The `config.json` of a run, or None where there is none (or one that something else has written)."""
    try:
        config = json.loads((folder / CONFIG).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    if not isinstance(config, dict) or any(key not in config for key in FIXED):
        return None
    recipes = config["recipes"]
    return config if isinstance(recipes, list) and all(isinstance(each, dict) for each in recipes) else None


def has_begun(folder: Path) -> bool:
    """Whether a run has left anything in its folder that it would go on with, or that somebody may want."""
    left = {path.name for path in folder.iterdir()} - {CONFIG, "tensorboard", CHECKPOINTS, *LOCK_FILES}
    return bool(left) or any((folder / CHECKPOINTS).glob("*"))


def save_finished(folder: Path, model: keras.Model, outcome: Any) -> None:
    """Writes `NAME.keras`, then `NAME.json`: a run whose JSON is there is complete. `model` is as `train` gives it."""
    with atomic_path(folder / f"{outcome.recipe.name}.keras") as temporary:
        model.save(temporary)
    write_json(folder / f"{outcome.recipe.name}.json", outcome.to_dict())


def load_finished(folder: Path, recipe: Experiment, outcome_class: type[Any]) -> Any:
    """The outcome of `recipe`, where model and numbers are there; None where it has to be trained."""
    numbers = folder / f"{recipe.name}.json"
    if not numbers.is_file() or not (folder / f"{recipe.name}.keras").is_file():
        return None
    try:
        outcome = outcome_class.from_dict(json.loads(numbers.read_text(encoding="utf-8")))
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(
            f"{str(numbers)!r} must hold the result of a training; given: a damaged file ({error}). Remove it to "
            "train this network again."
        ) from error
    if outcome.recipe.replace(title=recipe.title) != recipe:
        raise ValueError(
            f"{str(numbers)!r} must hold the result of this recipe; given: that of another. Remove it to train this "
            "network again."
        )
    return outcome


def different_settings(earlier: Mapping[str, Any], config: Mapping[str, Any]) -> list[str]:
    """`NAME was OLD, is NEW` for each setting in which the run of `earlier` is another than the one of `config`."""
    if len(earlier["recipes"]) != len(config["recipes"]):
        was, now = (", ".join(recipe["name"] for recipe in each["recipes"]) for each in (earlier, config))
        return [f"recipes was {was!r}, is {now!r}"]
    changed = differences({key: earlier[key] for key in FIXED}, {key: config[key] for key in FIXED})
    changed.pop("recipes.title", None)  # it follows from the others
    changed.pop("recipes.data.on_corrupt", None)  # what it left out before the training is among the images
    if changed.get("recipes.model.lambda_gradient") == ("paper", "exact") and not any(
        "aglu" in (recipe["model"].get("activation"), recipe["model"].get("options", {}).get("activation"))
        for recipe in config["recipes"]
    ):
        del changed["recipes.model.lambda_gradient"]  # earlier versions kept one that no AGLU used
    # That it is of another recipe says more than any of the settings that follow from it.
    names = sorted(changed, key=lambda name: (name != "recipes.name", name))
    return [f"{name.removeprefix('recipes.')} was {changed[name][0]!r}, is {changed[name][1]!r}" for name in names]


def check_same(folder: Path, earlier: Mapping[str, Any] | None, config: Mapping[str, Any]) -> None:
    """An error that names the settings in which a run in `folder` is another than the one of `config`."""
    if earlier is None:
        raise OptionError(
            f"--output must be a run where --resume is given; given: {str(folder)!r}, which holds no run. Leave out "
            "--resume to start one."
        )
    different = different_settings(earlier, config)
    if different:
        raise ValueError(
            f"the settings must be those that the run in {str(folder)!r} began with; given: other settings: "
            f"{'; '.join(different[:3])}. Give the same settings, --overwrite to replace it, or another --output."
        )


def _remove_run(folder: Path, config: Mapping[str, Any]) -> None:
    names = ["report.md", "history.csv", "evaluation.json", "evaluation.results.json", CONFIG]
    endings = (".keras", ".json", ".results.json")
    names += [f"{recipe['name']}{ending}" for recipe in config["recipes"] for ending in endings]
    for path in [*(folder / name for name in names), *(folder / "figures").glob("*.png")]:
        path.unlink(missing_ok=True)
    for name in (CHECKPOINTS, "tensorboard"):
        shutil.rmtree(folder / name, ignore_errors=True)
