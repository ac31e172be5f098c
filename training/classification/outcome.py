"""What a training gave, without the model: the numbers that reports and resumed runs are made of."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from training.config.classification import Recipe
from training.files import read_number

GROUPS = ("many", "medium", "few", "all")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Outcome:
    """What a training gave, in plain numbers: everything that a report is made of, without the model.

    `accuracies` has `many`, `medium`, `few`, `all` (NaN for a group without classes) and `top5`, `uncorrected` the same
    without the model's prior correction (None where it has none); `history` one list an epoch for each logged quantity;
    `parameters` what `training.engine.callbacks.ActivationParameters` recorded.
    """

    recipe: Recipe
    backend: str
    seconds: float
    accuracies: Mapping[str, float]
    history: Mapping[str, Sequence[float]]
    parameters: Mapping[str, Mapping[str, Any]]
    class_counts: Sequence[int]
    class_names: Sequence[str]
    labels: Sequence[int]
    predictions: Sequence[int]
    uncorrected: Mapping[str, float] | None = None

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON; `training.files.write_json` writes NaN as null."""
        return {**vars(self), "recipe": self.recipe.to_dict()}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Outcome:
        """The outcome that was written, null read back as NaN."""
        read = {**values, "recipe": Recipe.from_dict(values["recipe"])}
        for key in ("accuracies", "uncorrected"):
            if read.get(key) is not None:
                read[key] = {group: read_number(value) for group, value in read[key].items()}
        read["history"] = {name: [read_number(value) for value in values] for name, values in read["history"].items()}
        return cls(**read)

    def class_accuracies(self) -> np.ndarray:
        """The share of right test images of each class; NaN for a class without test images."""
        confusion = self.confusion_matrix()
        images = confusion.sum(axis=1)
        return np.where(images > 0, np.diag(confusion) / np.maximum(images, 1), np.nan)

    def confusion_matrix(self) -> np.ndarray:
        """Test images by true class (rows) and predicted class (columns)."""
        classes = len(self.class_counts)
        confusion = np.zeros((classes, classes), dtype=int)
        np.add.at(confusion, (np.asarray(self.labels), np.asarray(self.predictions)), 1)
        return confusion

    def classes_by_count(self) -> np.ndarray:
        """The classes, those with most training images first."""
        return np.argsort(-np.asarray(self.class_counts), kind="stable")
