"""`keras-apa evaluate`: measures the saved model of a run again."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from rich.console import Console

from training.cli.tasks import task_of
from training.errors import OptionError, usage
from training.runs.recipes import run_recipe
from training.runtime.console import TextConsole, text_console
from training.runtime.output import escaped_output, visible


@escaped_output()
def run_evaluate(
    folder: Path, changes: dict[str, Any], data: dict[str, Any], console: Console | TextConsole | None = None
) -> int:
    """Measures the saved model of a run again, with other options if they are given; returns the exit code."""
    console = text_console(console)
    with usage():
        recipe = run_recipe(folder)
        path = folder / f"{recipe.name}.keras"
        if not path.is_file():
            raise OptionError(
                f"RUN must have a finished model, {path.name}; given: {str(folder)!r}. Finish it with keras-apa train."
            )
        recipe = recipe.replace(evaluation=changes, data=data)
        source = task_of(recipe).load(recipe)
    written = task_of(recipe).evaluate(folder, path, recipe, source, console)
    print(visible(f"Wrote {written.resolve()}"))
    return 0
