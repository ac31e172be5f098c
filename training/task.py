"""What the commands have to know of each kind of experiment."""

from __future__ import annotations

import abc
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any, Generic, TypeVar

import keras
from rich.console import Console

from training.config.experiment import Experiment
from training.engine.checkpoints import Checkpoints
from training.runtime.console import TextConsole, TextTable

_Recipe = TypeVar("_Recipe", bound=Experiment)


class Task(abc.ABC, Generic[_Recipe]):
    """A kind of experiment: how its data are loaded, its models trained, saved, measured and reported.

    `training.classification.task` and `training.detection.task` have one subclass each; `training.cli.tasks.task_of`
    chooses between them.
    """

    outcome: type
    """The class of its results, with `to_dict` and `from_dict`."""

    @abc.abstractmethod
    def check(self, recipe: _Recipe) -> None:
        """Raises the error of a wrong name or option now, instead of after some training."""

    def resumed(self, recipe: _Recipe) -> _Recipe:
        """The recipe without what a training needs only if it does not go on from a checkpoint of its own."""
        return recipe

    @abc.abstractmethod
    def load(self, recipe: _Recipe) -> Any:
        """The images of a recipe."""

    @abc.abstractmethod
    def steps_per_epoch(self, recipe: _Recipe, source: Any) -> int:
        """Batches in an epoch."""

    @abc.abstractmethod
    def images_per_epoch(self, recipe: _Recipe, source: Any) -> int:
        """Images in an epoch, which is the largest batch."""

    def suitable(self, recipe: _Recipe, source: Any) -> dict[str, Any]:
        """Settings that are chosen for these images, by option; the others are the recipe's."""
        return {}

    @abc.abstractmethod
    def fingerprint(self, recipe: _Recipe, source: Any) -> dict[str, Any]:
        """What tells whether images of one's own have changed; empty for other data."""

    @abc.abstractmethod
    def train(
        self,
        recipe: _Recipe,
        source: Any,
        *,
        callbacks: Sequence[keras.callbacks.Callback] = (),
        jit_compile: bool | str = "auto",
        checkpoints: Checkpoints | None = None,
        checkpoint_steps: int | None = None,
    ) -> tuple[keras.Model, Any]:
        """The trained model and its outcome."""

    @abc.abstractmethod
    def save(self, folder: Path, model: keras.Model, outcome: Any) -> None:
        """Writes the model and its numbers."""

    @abc.abstractmethod
    def evaluate(self, folder: Path, path: Path, recipe: _Recipe, source: Any, console: TextConsole) -> Path:
        """Measures the model in `path` again, which a run in `folder` has saved; returns the file with the numbers."""

    @abc.abstractmethod
    def describe_data(self, source: Any, recipe: _Recipe, console: TextConsole) -> None:
        """Prints how many images, classes and objects there are."""

    @abc.abstractmethod
    def dry_run(
        self,
        recipe: _Recipe,
        *,
        image_size: int = 0,
        given: Collection[str] = (),
        console: Console | TextConsole | None = None,
    ) -> int:
        """Runs two steps; `given` as `training.runs.choices.with_suitable` takes it. Returns the exit code."""

    @abc.abstractmethod
    def table(self, outcomes: Sequence[Any]) -> TextTable:
        """The results for the terminal."""

    @abc.abstractmethod
    def write_report(self, folder: Path, outcomes: Sequence[Any], *, title: str, settings: Mapping[str, str]) -> Path:
        """Writes report and figures; returns the path of the report."""

    @abc.abstractmethod
    def data_settings(self, recipe: _Recipe) -> dict[str, str]:
        """Lines of the report about data and network."""
