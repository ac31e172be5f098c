"""What the commands do with a classifier."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import keras

from keras_apa.class_counts import ClassCounts
from training.checks import check_same_classes
from training.classification.describe import classifier_settings, describe_data
from training.classification.dry_run import run_dry
from training.classification.evaluate import evaluate
from training.classification.network import normalize_classifier
from training.classification.outcome import Outcome
from training.classification.own_images import fingerprint, suitable
from training.classification.report import accuracy_table, write_report
from training.classification.start import prepared_as_started
from training.classification.train import check, train_prepared
from training.config.classification import Recipe
from training.data.classification.pipeline import images_per_epoch, steps_per_epoch
from training.data.classification.registry import load_source
from training.data.classification.source import Source
from training.errors import OptionError, usage
from training.files import write_json
from training.runs.choices import kept_fingerprint
from training.runs.folder import load_finished, read_config, save_finished
from training.runs.recipes import run_recipe
from training.runtime.console import TextConsole, TextTable
from training.task import Task


class Classification(Task[Recipe]):
    """One class an image, measured by shot group."""

    outcome = Outcome

    def check(self, recipe: Recipe) -> None:
        check(recipe)

    def load(self, recipe: Recipe) -> Source:
        return prepared_as_started(recipe, load_source(recipe.data))

    def steps_per_epoch(self, recipe: Recipe, source: Source) -> int:
        return steps_per_epoch(recipe, source)

    def images_per_epoch(self, recipe: Recipe, source: Source) -> int:
        return images_per_epoch(recipe, source)

    def suitable(self, recipe: Recipe, source: Source) -> dict[str, Any]:
        return suitable(recipe, source)

    def fingerprint(self, recipe: Recipe, source: Source) -> dict[str, Any]:
        return fingerprint(recipe, source)

    def train(self, recipe: Recipe, source: Source, **options: Any) -> tuple[keras.Model, Outcome]:
        return train_prepared(recipe, source, **options)  # `load` has prepared them

    def save(self, folder: Path, model: keras.Model, outcome: Outcome) -> None:
        save_finished(folder, model, outcome)

    def evaluate(self, folder: Path, path: Path, recipe: Recipe, source: Source, console: TextConsole) -> Path:
        return evaluate_classifier(folder, path, recipe, source, console)

    def describe_data(self, source: Source, recipe: Recipe, console: TextConsole) -> None:
        describe_data(source, recipe, console)

    def dry_run(self, recipe: Recipe, **options: Any) -> int:
        return run_dry(recipe, **options)

    def table(self, outcomes: Sequence[Outcome]) -> TextTable:
        return accuracy_table(outcomes)

    def write_report(
        self, folder: Path, outcomes: Sequence[Outcome], *, title: str, settings: Mapping[str, str]
    ) -> Path:
        return write_report(folder, outcomes, title=title, settings=settings)

    def data_settings(self, recipe: Recipe) -> dict[str, str]:
        return classifier_settings(recipe)


def evaluate_classifier(folder: Path, path: Path, recipe: Recipe, source: Source, console: TextConsole) -> Path:
    """Measures a saved classifier; returns the file of its numbers."""
    with usage():
        trained = run_recipe(folder)
        was, now = kept_fingerprint((read_config(folder) or {}).get("images")), fingerprint(recipe, source)
        if was and was != now:
            console.print(
                "These images, or their split, are not those that the run began with: some of the test images may have "
                "been trained on",
                style="yellow",
            )
        source = as_trained(load_finished(folder, trained, Outcome), source, console)
        tau, kept = recipe.evaluation.tau_normalization, trained.evaluation.tau_normalization
        if kept and tau != kept:
            raise OptionError(
                f"evaluation.tau_normalization must be {kept:g}, with which the model was saved: its own weights are "
                f"gone; given: {tau:g}. A training with 0 keeps them, and you can measure it with any tau."
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
    from training.classification.network import correction

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
    from training.classification.outcome import GROUPS
    from training.reporting import percent

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
