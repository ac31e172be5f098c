"""What the commands do with a classifier."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import keras

from keras_apa.class_counts import ClassCounts
from training.checks import check_same_classes
from training.classification.evaluate import evaluate
from training.classification.network import normalize_classifier
from training.classification.outcome import Outcome
from training.cli.tasks import task_of
from training.config.classification import Recipe
from training.data.classification.source import Source
from training.errors import usage
from training.files import write_json
from training.runs.choices import kept_fingerprint
from training.runs.folder import load_finished, read_config
from training.runs.recipes import run_recipe
from training.runtime.console import TextConsole, TextTable


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
