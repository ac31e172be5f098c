"""What a training of a detector leaves: its numbers, history and detections."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

from training.config.detection import DetectionRecipe
from training.files import read_number


@dataclasses.dataclass(frozen=True, kw_only=True)
class DetectionOutcome:
    """What a training of a detector gave, in plain numbers; `results` are the detections, in a file of their own.

    `metrics`, `by_class` and `by_class50` are those of `training.detection.metrics.DetectionMetrics`, the classes by
    label; `weight_norms` the length of each class's weights in the last layer of the box head.
    """

    recipe: DetectionRecipe
    backend: str
    seconds: float
    metrics: Mapping[str, float]
    by_class: Mapping[str, Sequence[float]]
    by_class50: Mapping[str, Sequence[float]]
    history: Mapping[str, Sequence[float]]
    parameters: Mapping[str, Mapping[str, Any]]
    image_counts: Sequence[int]
    num_images: int
    class_names: Sequence[str]
    weight_norms: Sequence[float]
    results: Sequence[Mapping[str, Any]] = ()

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON; `training.files.write_json` writes NaN as null."""
        values = {**vars(self), "recipe": self.recipe.to_dict()}
        del values["results"]
        return values

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> DetectionOutcome:
        """The outcome that was written, null read back as NaN."""
        read = {**values, "recipe": DetectionRecipe.from_dict(values["recipe"])}
        read["metrics"] = {name: read_number(value) for name, value in read["metrics"].items()}
        for key in ("by_class", "by_class50", "history"):
            read[key] = {name: [read_number(each) for each in numbers] for name, numbers in read[key].items()}
        return cls(**read)
