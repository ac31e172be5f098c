"""What the reports of both tasks share: numbers as text, the history as CSV, and the look of figures."""

from __future__ import annotations

import contextlib
import csv
import io
import json
import math
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import quote

import matplotlib
from matplotlib.figure import Figure

from training.files import atomic_path
from training.image_files import mark_written
from training.runtime.output import as_text, visible
from zoo._markdown import markdown

# Told apart by readers with any colour vision (Paul Tol's "bright").
COLOURS = ("#4477AA", "#EE6677", "#228833", "#CCBB44", "#66CCEE", "#AA3377")
INK = "#333333"
QUIET = "#8A8F98"
BAND = "#EEF0F3"
STYLE: dict[Any, Any] = {  # by the names that matplotlib has for settings
    "font.size": 10,
    "text.color": INK,
    "axes.edgecolor": QUIET,
    "axes.labelcolor": INK,
    "axes.titlesize": 11,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": "#E3E6EA",
    "grid.linewidth": 0.8,
    "xtick.color": INK,
    "ytick.color": INK,
    "legend.frameon": False,
    "lines.linewidth": 2.0,
    "lines.solid_capstyle": "round",
}


def plain(text: str) -> str:
    r"""The text for matplotlib, which draws it as it is: no formula between dollars, and a legend for it.

    >>> plain("$5 or $6"), plain("_cat")
    ('\\$5 or \\$6', ' _cat')
    """
    text = visible(text, lines=False).replace("$", r"\$")
    return f" {text}" if text.startswith("_") else text  # legends leave out what begins with an underscore


@contextlib.contextmanager
def any_glyphs() -> Iterator[None]:
    """While it lasts, characters that the font lacks are drawn as boxes without a warning for each."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph .* missing from", UserWarning)
        yield


ABSENT = "–"


def quoted(text: str) -> str:
    r"""The text as Python reads it, on one line.

    >>> print(quoted('a "b".keras'))
    "a \"b\".keras"
    """
    return json.dumps(as_text(text), ensure_ascii=False)


def percent(share: float) -> str:
    """`0.613` as `61.3`; a dash for a group without classes."""
    return ABSENT if math.isnan(share) else f"{100 * share:.1f}"


def history_csv(outcomes: Sequence[Any]) -> str:
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


def save_figures(folder: Path, drawings: Sequence[tuple[str, str, Callable[[], Figure]]]) -> dict[str, str]:
    """Draws figures, given as name, caption and what draws, as PNG; returns file name -> caption."""
    folder.mkdir(exist_ok=True)
    mark_written(folder)  # the run folder does not tell of a link to this one, nor when it is moved
    drawn = {}
    for name, caption, draw in drawings:
        # Only for these figures: whoever uses the library keeps the style of their own.
        with matplotlib.rc_context(STYLE), atomic_path(folder / f"{name}.png") as temporary:
            with any_glyphs():
                draw().savefig(temporary, dpi=150, facecolor="white")
        drawn[f"{name}.png"] = caption
    return drawn


def settings_and_figures(outcomes: Sequence[Any], settings: Mapping[str, str], drawn: dict[str, str]) -> list[str]:
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
