"""What every source of long-tailed images returns."""

from __future__ import annotations

import dataclasses

import numpy as np

from keras_apa.class_counts import ClassCounts
from zoo import Preprocessing


@dataclasses.dataclass(frozen=True, eq=False)
class LongTailedImages:
    """Images that fit into memory: a long-tailed training set and a test set.

    Attributes:
        train_images, test_images: float32 `(N, height, width, channels)`; the source says in which range.
        train_labels, test_labels: int32 `(N,)`.
        class_counts: Training images of each class, with the names of the classes.
        preprocessing: How an image file is prepared for a model that was trained on these, if one can be.
    """

    train_images: np.ndarray
    train_labels: np.ndarray
    test_images: np.ndarray
    test_labels: np.ndarray
    class_counts: ClassCounts
    preprocessing: Preprocessing | None = None

    @property
    def class_names(self) -> tuple[str, ...]:
        """Names of the classes; their indices where they have none."""
        return self.class_counts.names or tuple(map(str, range(self.num_classes)))

    @property
    def num_classes(self) -> int:
        """Number of classes."""
        return self.class_counts.num_classes

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """Height, width, channels."""
        return self.train_images.shape[1:]

    def __repr__(self):
        return (
            f"LongTailedImages({len(self.train_images)} training and {len(self.test_images)} test images "
            f"of shape {self.image_shape}, {self.class_counts!r})"
        )
