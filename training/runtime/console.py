"""Texts and tables on a terminal or in a file, through Rich: names are shown as they are, whatever they hold.

Everything that Rich prints goes through here: brackets are no markup, colons no emoji, and a line is not broken where a
path could then not be copied.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable, Iterator
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table
from rich.text import Text

from training.runtime.output import visible

# Of tables in files and pipes: as wide as they are.
_NO_LIMIT = 10_000


class TextConsole:
    """A Rich console on which a text is no markup.

    Args:
        console: The one to print on; by default standard output's.
    """

    def __init__(self, console: Console | None = None):
        self.rich = _default() if console is None else console

    @property
    def is_terminal(self) -> bool:
        """Whether it is no file and no pipe."""
        return self.rich.is_terminal

    def print(self, content: Any, **options: Any) -> None:
        """Prints a text, or what else Rich prints, with the options of `rich.console.Console.print`."""
        if isinstance(content, str):
            content, options = Text(visible(content)), {**options, "soft_wrap": True}
        self.rich.print(content, **options)


class TextTable(Table):
    """A Rich table in which the text of a cell is no markup, and one line.

    >>> table = TextTable("class", box=None)
    >>> table.add_row("cup [/mug] :smile:")
    >>> TextConsole(Console(width=40)).print(table)
    class
    cup [/mug] :smile:
    """

    def add_row(self, *cells: Any, **options: Any) -> None:
        """Adds a row, as Rich's table does."""
        shown = (Text(visible(cell, lines=False)) if isinstance(cell, str) else cell for cell in cells)
        super().add_row(*shown, **options)


def text_console(console: Console | TextConsole | None = None) -> TextConsole:
    """The console itself, or one that prints text on it as it is; by default on standard output."""
    return console if isinstance(console, TextConsole) else TextConsole(console)


def _default() -> Console:
    console = Console()
    if console.is_terminal or console.is_jupyter or "COLUMNS" in os.environ:
        return console
    return Console(width=_NO_LIMIT)


def with_progress(results: Iterable[Any], total: int, *, text: str, above: int) -> Iterator[Any]:
    """The same results, with a bar on a terminal if there are more than `above`."""
    console = Console(stderr=True)
    if not console.is_terminal or total <= above:
        yield from results
        return
    columns = (TextColumn(text), BarColumn(bar_width=24), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console, transient=True) as progress:
        yield from progress.track(results, total=total)


def tell(message: str) -> None:
    """A line on stderr, printable whatever a file's name has in it."""
    print(f"keras-apa: {visible(message)}", file=sys.stderr, flush=True)
