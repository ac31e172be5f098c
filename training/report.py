"""The report of one or more trainings: a table, Markdown, figures and CSV, from their outcomes alone."""

from __future__ import annotations

import csv
import io
import json
import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import quote

import matplotlib
from matplotlib.figure import Figure

from training import figures
from training.console import TextTable
from training.files import atomic_path, write_text
from training.outcome import GROUPS, Outcome
from training.output import as_text
from zoo._markdown import code, markdown

ABSENT = "–"


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


def quoted(text: str) -> str:
    """The text as Python reads it, on one line.

    >>> print(quoted('a "b".keras'))
    "a \\"b\\".keras"
    """
    return json.dumps(as_text(text), ensure_ascii=False)


def percent(share: float) -> str:
    """`0.613` as `61.3`; a dash for a group without classes."""
    return ABSENT if math.isnan(share) else f"{100 * share:.1f}"


def history_csv(outcomes: Sequence[Outcome]) -> str:
    """One row an outcome and epoch: losses and accuracies, then kappa and lambda after that epoch."""
    columns = ["recipe", "epoch"]
    rows = []
    for outcome in outcomes:
        series = dict(outcome.history)
        for layer, record in outcome.parameters.items():
            for key in ("kappa", "lambda"):
                # The first value is the one before training.
                series[f"{layer}/{key}"] = record[key][1:]
        columns += [name for name in series if name not in columns]
        for epoch in range(outcome.recipe.epochs):
            # An accuracy of a group without classes is NaN: an empty field.
            values = {name: _field(values[epoch]) for name, values in series.items()}
            rows.append({"recipe": outcome.recipe.name, "epoch": epoch + 1, **values})
    text = io.StringIO()
    writer = csv.DictWriter(text, columns, restval="", lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()


def _field(value: float | None) -> str:
    return "" if value is None or math.isnan(value) else repr(value)


def write_report(folder: Path, outcomes: Sequence[Outcome], *, title: str, settings: dict[str, str]) -> Path:
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


def save_figures(folder: Path, drawings: Sequence[tuple[str, str, Callable[[], Figure]]]) -> dict[str, str]:
    """Draws figures, given as name, caption and what draws, as PNG; returns file name -> caption."""
    folder.mkdir(exist_ok=True)
    drawn = {}
    for name, caption, draw in drawings:
        # Only for these figures: whoever uses the library keeps the style of their own.
        with matplotlib.rc_context(figures.STYLE), atomic_path(folder / f"{name}.png") as temporary:
            with figures.any_glyphs():
                draw().savefig(temporary, dpi=150, facecolor="white")
        drawn[f"{name}.png"] = caption
    return drawn


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
                lambda outcome=outcome: figures.learned_parameters(outcome),
            ),
            (
                f"apa_curves{suffix}",
                f"The curves that these parameters make ({markdown(outcome.recipe.title)}).",
                lambda outcome=outcome: figures.learned_curves(outcome),
            ),
        ]
    return drawings


def settings_and_figures(outcomes: Sequence[Any], settings: dict[str, str], drawn: dict[str, str]) -> list[str]:
    """The lines of every report between its tables and its files; `outcomes` are of any task."""
    lines = [
        "| setting | |",
        "| --- | --- |",
        *(f"| {name} | {value} |" for name, value in settings.items()),
        *(f"| seconds, {markdown(outcome.recipe.title)} | {outcome.seconds:.0f} |" for outcome in outcomes),
        "",
    ]
    for name, caption in drawn.items():
        lines += [f"![{caption}](figures/{quote(name)})", "", f"*{caption}*", ""]
    return lines


def _markdown(outcomes: Sequence[Outcome], title: str, settings: dict[str, str], drawn: dict[str, str]) -> str:
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
        "import zoo",
        "",
        f"model = keras.saving.load_model({quoted(outcomes[-1].recipe.name + '.keras')})",
        "```",
        "",
    ]
    return "\n".join(lines)
