"""`keras-apa train`, `evaluate` and `report`: one recipe, one run folder, which goes on where it was cut off."""

from __future__ import annotations

import dataclasses
import shlex
import sys
from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

import keras
import numpy as np
from rich.console import Console

from keras_apa.class_counts import ClassCounts
from training.callbacks import EpochProgress, TensorBoardLog
from training.checkpoint import Checkpoints
from training.checks import check_batch_size, check_same_classes
from training.classification import evaluate
from training.cli import usage
from training.console import TextConsole, TextTable, text_console
from training.data.source import Source
from training.demo import describe_run
from training.files import write_json
from training.network import normalize_classifier
from training.outcome import Outcome
from training.output import escaped_output, visible
from training.own_images import check_same_images, describe_choice, kept_fingerprint, with_suitable
from training.ownership import FolderLostError, OwnedFolder
from training.published import changes
from training.recipe import Experiment, Recipe
from training.run_folder import (
    CHECKPOINTS,
    CONFIG,
    OwnedCheckpoints,
    begin_run,
    check_same,
    claim_run_folder,
    different_settings,
    has_begun,
    load_finished,
    read_config,
)
from training.start import OWN_IMAGES
from training.tasks import recipe_from_dict, task_of
from zoo._markdown import code, markdown

RUNS = Path("runs")
_CLASSES_SHOWN = 20


@escaped_output()
def run_train(
    recipe: Experiment,
    *,
    output: Path | None = None,
    overwrite: bool = False,
    checkpoint_steps: int = 0,
    jit_compile: bool | str = "auto",
    command: Sequence[str] = (),
    given: Collection[str] = (),
    console: Console | None = None,
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
    recipe: Experiment,
    overwrite: bool,
    checkpoint_steps: int,
    jit_compile: bool | str,
    command: Sequence[str],
    given: Collection[str],
    console: Console,
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
            if (outcome := load_finished(folder, recipe)) is not None:
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
        stood_in = f"{len(failed)} images could not be decoded in the training; others of their class stood in:{listed}"
        console.print(stood_in)
    folder = owned.place()
    task.save(folder, model, outcome)
    code = _close(folder, outcome, config, console)
    owned.check("the finished model, its numbers and report are")
    return code


def _differs_from(asked: Experiment, given: Collection[str]) -> Callable[[Mapping[str, Any]], list[str]]:
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


def _goes_on(folder: Path, recipe: Experiment) -> bool:
    """Whether a run is finished, or has a checkpoint that its training would go on from."""
    return (folder / f"{recipe.name}.json").is_file() or Checkpoints(folder / CHECKPOINTS).newest_good() is not None


def _newest_step(checkpoints: Checkpoints) -> int:
    """The step of the newest good checkpoint; 0 before the first."""
    newest = checkpoints.newest_good()
    return int(newest.stem.removeprefix("step-")) if newest else 0


def _close(folder: Path, outcome: Any, config: dict[str, Any], console: TextConsole) -> int:
    task = task_of(outcome.recipe)
    console.print(task.table([outcome]))
    settings = describe(outcome.recipe, config)
    report = task.write_report(folder, [outcome], title=outcome.recipe.name, settings=settings)
    print(visible(f"Wrote {report}, the model, its numbers and figures beside it."))
    return 0


def describe(recipe: Experiment, config: dict[str, Any]) -> dict[str, str]:
    """The lines about a run in its report."""
    optimizer = recipe.optimizer
    backend = config["backend"]
    return {
        **task_of(recipe).data_settings(recipe),
        "published": markdown(_published(recipe)),
        "training": f"{recipe.epochs} epochs, batch {recipe.batch_size}, {optimizer.name}, "
        f"learning rate {optimizer.learning_rate:g} ({optimizer.schedule}), "
        f"weight decay {optimizer.weight_decay:g}, seed {recipe.seed}",
        "backend": f"{backend} {config['versions'].get(backend, '')}, Keras {config['versions']['keras']}",
        "machine": config["machine"],
        "command": code(config["command"], in_table=True),
    }


def _published(recipe: Experiment) -> str:
    """The published number, and in what this run is not the one that it was published for."""
    changed = changes(recipe)
    note = f", of the recipe as it is; changed here: {', '.join(changed)}" if changed else ""
    return f"{recipe.published or 'no published number'}{note}"


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


def class_table(source: Source, groups: Mapping[str, Sequence[int]]) -> TextTable:
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


def describe_recipe(asked: Experiment, recipe: Experiment, console: TextConsole) -> None:
    """What was chosen for these images, and in what the recipe is not the published one."""
    if (choice := describe_choice(asked, recipe)) is not None:
        console.print(choice, highlight=False, soft_wrap=True)
    if changed := changes(recipe):
        console.print(
            f"Changed from the published recipe ({recipe.published}): {', '.join(changed)}",
            highlight=False,
            soft_wrap=True,
        )


@escaped_output()
def run_evaluate(folder: Path, changes: dict[str, Any], data: dict[str, Any], console: Console | None = None) -> int:
    """Measures the saved model of a run again, with other options if they are given; returns the exit code."""
    console = text_console(console)
    with usage():
        recipe = run_recipe(folder)
        path = folder / f"{recipe.name}.keras"
        if not path.is_file():
            raise ValueError(f"{str(folder)!r} has no finished model ({path.name}); keras-apa train makes it")
        recipe = recipe.replace(evaluation=changes, data=data)
        source = task_of(recipe).load(recipe)
    written = task_of(recipe).evaluate(folder, path, recipe, source, console)
    print(visible(f"Wrote {written.resolve()}"))
    return 0


def evaluate_classifier(folder: Path, path: Path, recipe: Recipe, source: Source, console: TextConsole) -> Path:
    """Measures a saved classifier; returns the file of its numbers."""
    with usage():
        trained = run_recipe(folder)
        was, now = kept_fingerprint(read_config(folder).get("images")), task_of(recipe).fingerprint(recipe, source)
        if was and was != now:
            console.print(
                "These images, or their split, are not those that the run began with: some of the test images may have "
                "been trained on",
                style="yellow",
            )
        source = as_trained(load_finished(folder, trained), source, console)
        tau, kept = recipe.evaluation.tau_normalization, trained.evaluation.tau_normalization
        if kept and tau != kept:
            raise ValueError(
                f"evaluation.tau_normalization must be {kept:g}, with which the model was saved: its own weights are "
                f"gone; given: {tau:g}. A training with 0 keeps them, and any tau can be measured then"
            )
    model = corrected(keras.saving.load_model(path, compile=False), recipe, source)
    normalize_classifier(model, 0.0 if kept else tau)
    result = evaluate(model, source, recipe.evaluation)
    console.print(evaluation_table(recipe, result))
    written = folder / "evaluation.json"
    write_json(
        written,
        {
            "evaluation": recipe.to_dict()["evaluation"],
            "accuracies": dict(result.accuracies),
            "uncorrected": result.uncorrected and dict(result.uncorrected),
            "backend": keras.config.backend(),
        },
    )
    return written


def as_trained(outcome: Outcome | None, source: Source, console: TextConsole) -> Source:
    """The images with the class counts of the training: shot groups and prior are those of the model.

    Raises: ValueError: The classes are others.
    """
    if outcome is None:
        return source
    check_same_classes(outcome.class_names, source.class_names)
    if list(outcome.class_counts) == [int(count) for count in source.class_counts]:
        return source
    console.print(
        f"{source.name} has other images than the training had: its {len(source.test)} test images are measured; the "
        "class counts stay those of the training",
        highlight=False,
    )
    counts = ClassCounts(outcome.class_counts, names=outcome.class_names)
    return dataclasses.replace(source, class_counts=counts)


def corrected(model: keras.Model, recipe: Recipe, source: Source) -> keras.Model:
    """The model with the prior correction that the recipe now asks for, in place of the one it has."""
    import zoo
    from keras_apa.layers import PriorCorrection
    from training.network import correction

    outputs = model.output
    if isinstance(model.layers[-1], PriorCorrection):
        outputs = model.layers[-1].input
    if recipe.evaluation.prior_correction != "none":
        outputs = correction(recipe.evaluation, source)(outputs)
    return zoo.Classifier(
        model.input, outputs, name=model.name, preprocessing=model.preprocessing, class_names=model.class_names
    )


def evaluation_table(recipe: Recipe, result: Any) -> TextTable:
    """With and without prior correction, in percent."""
    from training.outcome import GROUPS
    from training.report import percent

    table = TextTable(title="Test accuracy, %", title_justify="left", title_style="bold")
    for column in ("", *GROUPS, "top 5"):
        table.add_column(column, justify="right" if column else "left")
    variant = recipe.evaluation.prior_correction
    rows = {"no prior correction" if variant == "none" else f"prior correction {variant}": result.accuracies}
    if result.uncorrected is not None:
        rows["without"] = result.uncorrected
    for name, accuracies in rows.items():
        table.add_row(name, *(percent(accuracies[key]) for key in (*GROUPS, "top5")))
    return table


def run_recipe(folder: Path) -> Experiment:
    """The recipe of a run folder.

    Raises: ValueError: There is none.
    """
    config = read_config(folder)
    if config is None:
        raise ValueError(f"{str(folder)!r} holds no run ({CONFIG} is missing or of something else)")
    if len(config["recipes"]) != 1:
        names = ", ".join(each["name"] for each in config["recipes"])
        raise ValueError(f"{str(folder)!r} holds several trainings ({names}); keras-apa report takes such a folder")
    return recipe_from_dict(config["recipes"][0])


@escaped_output()
def run_report(folder: Path, console: Console | None = None) -> int:
    """Writes the report of a run folder again, from the numbers that are saved in it."""
    console = text_console(console)
    with usage():
        config = read_config(folder)
        if config is None:
            raise ValueError(f"{str(folder)!r} holds no run ({CONFIG} is missing or of something else)")
        outcomes = [load_finished(folder, recipe_from_dict(each)) for each in config["recipes"]]
        outcomes = [outcome for outcome in outcomes if outcome is not None]
        if not outcomes:
            raise ValueError(f"nothing in {str(folder)!r} is finished yet")
    task = task_of(outcomes[0].recipe)
    console.print(task.table(outcomes))
    settings = describe(outcomes[0].recipe, config)
    report = task.write_report(folder, outcomes, title=Path(folder).resolve().name, settings=settings)
    print(visible(f"Wrote {report.resolve()}"))
    return 0
