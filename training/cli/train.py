"""`keras-apa train`, `evaluate` and `report`: one recipe, one run folder, which goes on where it was cut off."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.console import Console

from training.checks import check_batch_size
from training.cli.tasks import task_of
from training.config.classification import Recipe
from training.config.detection import DetectionRecipe
from training.engine.callbacks import EpochProgress, TensorBoardLog
from training.engine.checkpoints import Checkpoints
from training.errors import usage
from training.runs.choices import check_same_images, with_suitable
from training.runs.describe import describe, describe_recipe
from training.runs.environment import describe_run
from training.runs.folder import (
    CHECKPOINTS,
    OwnedCheckpoints,
    begin_run,
    check_same,
    claim_run_folder,
    different_settings,
    has_begun,
    load_finished,
    read_config,
)
from training.runs.ownership import FolderLostError, OwnedFolder
from training.runtime.console import TextConsole, text_console
from training.runtime.output import escaped_output, visible

RUNS = Path("runs")


@escaped_output()
def run_train(
    recipe: Recipe | DetectionRecipe,
    *,
    output: Path | None = None,
    overwrite: bool = False,
    checkpoint_steps: int = 0,
    jit_compile: bool | str = "auto",
    command: Sequence[str] = (),
    given: Collection[str] = (),
    console: Console | TextConsole | None = None,
) -> int:
    """Trains a recipe in its run folder, or goes on with it; returns the exit code.

    `given` has the names of the options that the command line names, which no choice by the images changes.
    """
    console = text_console(console)
    with usage():
        owned, elsewhere = claim_run_folder(
            output, RUNS / recipe.name, _differs_from(recipe, given), overwrite=overwrite
        )
    with owned:
        for line in filter(None, (elsewhere, owned.note)):
            console.print(line)
        if elsewhere:
            command = with_output(command, owned.given)
        return _run_train(owned, recipe, overwrite, checkpoint_steps, jit_compile, command, given, console)


def _run_train(
    owned: OwnedFolder,
    recipe: Recipe | DetectionRecipe,
    overwrite: bool,
    checkpoint_steps: int,
    jit_compile: bool | str,
    command: Sequence[str],
    given: Collection[str],
    console: TextConsole,
) -> int:
    """`run_train` in a folder that is this process's own."""
    task, asked, folder = task_of(recipe), recipe, owned.path
    now = describe_run()
    with usage():
        earlier = None if overwrite else read_config(folder)
        if earlier is not None and not has_begun(folder):
            earlier, overwrite = None, True  # stopped before its first checkpoint, perhaps by what is now corrected
        goes_on = earlier is not None and _goes_on(folder, recipe)
        task.check(task.resumed(recipe) if goes_on else recipe)
        if earlier is not None:
            chosen = earlier.get("chosen", {})
            recipe = with_suitable(asked, chosen, given)
            check_same(owned.given, earlier, {"recipes": [recipe.to_dict()], **now})
            # Needs neither images nor the weights that it started from.
            if (outcome := load_finished(folder, recipe, task.outcome)) is not None:
                again = ", with the images as they are now" if earlier.get("images") else ""
                console.print(f"This training is finished (--overwrite trains again{again}); its result:")
                return _close(folder, outcome, earlier, console)
        source = task.load(recipe)
        images = task.fingerprint(recipe, source)
        if earlier is not None:
            check_same_images(owned.given, earlier.get("images", {}), images)
        else:
            chosen = task.suitable(recipe, source)
            recipe = with_suitable(asked, chosen, given)
        check_batch_size(recipe.batch_size, task.images_per_epoch(recipe, source))
        steps = task.steps_per_epoch(recipe, source)
        config = {"recipes": [recipe.to_dict()], **now, "chosen": chosen, "images": images}
        begin_run(owned, config, resume=earlier is not None, overwrite=overwrite)
    task.describe_data(source, recipe, console)
    describe_recipe(asked, recipe, console)
    checkpoints = OwnedCheckpoints(owned)
    if start := _newest_step(checkpoints):
        console.print(f"Going on from step {start} of {steps * recipe.epochs}, in {folder}", highlight=False)
    title = recipe.title or recipe.name
    progress = EpochProgress(title, console, total_steps=steps * recipe.epochs, start_step=start)
    try:
        model, outcome = task.train(
            recipe,
            source,
            callbacks=[progress, TensorBoardLog(folder / "tensorboard", owned.is_ours)],
            jit_compile=jit_compile,
            checkpoints=checkpoints,
            checkpoint_steps=checkpoint_steps or None,
        )
    except KeyboardInterrupt:
        step = _newest_step(checkpoints)
        saved = f"keras-apa: interrupted. Saved up to step {step} of {steps * recipe.epochs}, in {folder}"
        print(visible(f"{saved}\nContinue with: {shlex.join(command)}"), file=sys.stderr)
        return 130
    except FolderLostError as error:
        again = shlex.join(with_output(command, owned.place()))
        raise FolderLostError(f"{error}\nContinue with: {again}") from error
    finally:
        progress.close()
    if failed := getattr(source, "failed", None):
        listed = "".join(f"\n  {name}: {reason}" for name, reason in failed.items())
        stood_in = (
            f"{len(failed)} images could not be decoded in training; others of their class replaced them:{listed}"
        )
        console.print(stood_in)
    folder = owned.place()
    task.save(folder, model, outcome)
    code = _close(folder, outcome, config, console)
    owned.check("the finished model, its numbers and report are")
    return code


def _differs_from(asked: Recipe | DetectionRecipe, given: Collection[str]) -> Callable[[Mapping[str, Any]], list[str]]:
    """Tells in which settings a run is another than the one of `asked`, with what was chosen for its images."""
    now = describe_run()

    def different(earlier):
        try:
            recipe = with_suitable(asked, earlier.get("chosen", {}), given)
        except (AttributeError, TypeError, ValueError):  # settings of another version
            recipe = asked
        return different_settings(earlier, {"recipes": [recipe.to_dict()], **now})

    return different


def with_output(command: Sequence[str], folder: Path) -> list[str]:
    """A command line that names the folder to write to.

    >>> with_output(["keras-apa", "train", "digits10_lt", "--output=a", "--epochs", "2"], Path("b"))
    ['keras-apa', 'train', 'digits10_lt', '--epochs', '2', '--output', 'b']
    """
    words = iter(command)
    kept = []
    for word in words:
        if word == "--output":
            next(words, None)
        elif not word.startswith("--output="):
            kept.append(word)
    return [*kept, "--output", str(folder)]


def _goes_on(folder: Path, recipe: Recipe | DetectionRecipe) -> bool:
    """Whether a run is finished, or has a checkpoint that its training would go on from."""
    return (folder / f"{recipe.name}.json").is_file() or Checkpoints(folder / CHECKPOINTS).newest_good() is not None


def _newest_step(checkpoints: Checkpoints) -> int:
    """The step of the newest good checkpoint; 0 before the first."""
    newest = checkpoints.newest_good()
    return int(newest.stem.removeprefix("step-")) if newest else 0


def _close(folder: Path, outcome: Any, config: dict[str, Any], console: TextConsole) -> int:
    task = task_of(outcome.recipe)
    console.print(task.table([outcome]))
    settings = describe(task, outcome.recipe, config)
    report = task.write_report(folder, [outcome], title=outcome.recipe.name, settings=settings)
    print(visible(f"Wrote {report}, the model, its numbers and figures beside it."))
    return 0
