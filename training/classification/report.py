"""The report of one or more trainings: a table, Markdown, figures and CSV, from their outcomes alone."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from matplotlib.figure import Figure

from training.classification import figures
from training.classification.outcome import GROUPS, Outcome
from training.files import write_text
from training.reporting import history_csv, percent, quoted, save_figures, settings_and_figures
from training.runtime.console import TextTable
from zoo._markdown import code, markdown


def accuracy_table(outcomes: Sequence[Outcome]) -> TextTable:
    """Many / medium / few / all in percent, one row an outcome, for the terminal."""
    table = TextTable(title="Test accuracy, %", title_justify="left", title_style="bold")
    table.add_column("")
    for group in GROUPS:
        table.add_column(group, justify="right")
    for outcome in outcomes:
        table.add_row(outcome.recipe.title, *(percent(outcome.accuracies[group]) for group in GROUPS))
    return table


def markdown_table(outcomes: Sequence[Outcome]) -> str:
    """The same table in Markdown."""
    lines = [f"| | {' | '.join(GROUPS)} |", "| --- |" + " ---: |" * len(GROUPS)]
    lines += [
        f"| {markdown(outcome.recipe.title)} | {' | '.join(percent(outcome.accuracies[g]) for g in GROUPS)} |"
        for outcome in outcomes
    ]
    return "\n".join(lines)


def write_report(folder: Path, outcomes: Sequence[Outcome], *, title: str, settings: Mapping[str, str]) -> Path:
    """Writes `report.md`, `history.csv` and the figures into `folder`; returns the path of the report.

    Args:
        folder: an existing folder.
        outcomes: what to compare, the baseline first, all on the same data.
        title: the heading.
        settings: what is said about the run as a whole, in the order given.
    """
    drawn = write_figures(folder / "figures", outcomes)
    write_text(folder / "history.csv", history_csv(outcomes))
    report = folder / "report.md"
    write_text(report, _markdown(outcomes, title, settings, drawn))
    return report


def write_figures(folder: Path, outcomes: Sequence[Outcome]) -> dict[str, str]:
    """Draws all figures as PNG; returns file name -> caption."""
    return save_figures(folder, _figures(outcomes))


def _figures(outcomes: Sequence[Outcome]) -> list[tuple[str, str, Callable[[], Figure]]]:
    drawings = [
        (
            "training_curves",
            "Loss on the training images, accuracy on the test images, by epoch.",
            lambda: figures.training_curves(outcomes),
        ),
        (
            "accuracy_by_class",
            "Accuracy of each class against the number of its training images.",
            lambda: figures.accuracy_by_class(outcomes),
        ),
        (
            "confusion_matrix",
            "What is taken for what; left of the diagonal, rare classes are taken for frequent ones.",
            lambda: figures.confusion_matrices(outcomes),
        ),
    ]
    learned = [outcome for outcome in outcomes if outcome.parameters]
    for outcome in learned:
        suffix = "" if len(learned) == 1 else f"_{outcome.recipe.name}"
        drawings += [
            (
                f"kappa_lambda{suffix}",
                f"Kappa and lambda of each layer, before and after training ({markdown(outcome.recipe.title)}).",
                functools.partial(figures.learned_parameters, outcome),
            ),
            (
                f"apa_curves{suffix}",
                f"The curves that these parameters make ({markdown(outcome.recipe.title)}).",
                functools.partial(figures.learned_curves, outcome),
            ),
        ]
    return drawings


def _markdown(outcomes: Sequence[Outcome], title: str, settings: Mapping[str, str], drawn: dict[str, str]) -> str:
    first = outcomes[0]
    many, few = first.recipe.evaluation.many_threshold, first.recipe.evaluation.few_threshold
    groups = {name: end - start for name, start, end in figures.shot_groups(first)}
    lines = [
        f"# {markdown(title)}",
        "",
        "Test accuracy in percent, mean over the classes of each group:",
        "",
        markdown_table(outcomes),
        "",
        f"many: more than {many} training images ({groups.get('many-shot', 0)} classes); "
        f"medium: {few} to {many} ({groups.get('medium-shot', 0)}); "
        f"few: fewer than {few} ({groups.get('few-shot', 0)}). "
        f"A dash stands for a group without classes. {len(first.labels):,} test images.",
        "",
        "One training with one seed each: between seeds the few-shot accuracy alone differs by several points.",
        "",
        *settings_and_figures(outcomes, settings, drawn),
        "## Files",
        "",
    ]
    for outcome in outcomes:
        name = outcome.recipe.name
        lines.append(f"- {code(name + '.keras')}: the model ({markdown(outcome.recipe.title)}); it ends in logits")
        lines.append(f"- {code(name + '.json')}: its recipe and every number of this report")
    lines += [
        "- `history.csv`: losses, accuracies, kappa and lambda by epoch",
        "- `config.json`: what was run, with which versions",
        "",
        "```python",
        "import keras",
        "import keras_apa",
        "",
        f"model = keras.saving.load_model({quoted(outcomes[-1].recipe.name + '.keras')})",
        "```",
        "",
    ]
    return "\n".join(lines)
