"""`keras-apa report`: writes the report of a run again."""

from __future__ import annotations

from pathlib import Path

from rich.console import Console

from training.cli.tasks import task_of
from training.errors import OptionError, usage
from training.runs.describe import describe
from training.runs.folder import CONFIG, load_finished, read_config
from training.runs.recipes import recipe_from_dict
from training.runtime.console import TextConsole, text_console
from training.runtime.output import escaped_output, visible


@escaped_output()
def run_report(folder: Path, console: Console | TextConsole | None = None) -> int:
    """Writes the report of a run folder again, from the numbers that are saved in it."""
    console = text_console(console)
    with usage():
        config = read_config(folder)
        if config is None:
            raise OptionError(
                f"RUN must be the folder of a run; given: {str(folder)!r}, where {CONFIG} is missing or not of a run."
            )
        recipes = [recipe_from_dict(each) for each in config["recipes"]]
        outcomes = [load_finished(folder, recipe, task_of(recipe).outcome) for recipe in recipes]
        outcomes = [outcome for outcome in outcomes if outcome is not None]
        if not outcomes:
            raise ValueError(f"nothing in {str(folder)!r} is finished yet. Run the same command again to resume it.")
    task = task_of(outcomes[0].recipe)
    console.print(task.table(outcomes))
    settings = describe(task, outcomes[0].recipe, config)
    report = task.write_report(folder, outcomes, title=Path(folder).resolve().name, settings=settings)
    print(visible(f"Wrote {report.resolve()}"))
    return 0
