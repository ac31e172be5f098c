"""What every source of images returns: labelled images that are read by index, a training and a test set of them."""

from __future__ import annotations

import abc
import copy
import dataclasses
import functools
from collections.abc import Sequence
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from keras_apa.class_counts import ClassCounts
from training.runtime.backend import leave_accelerators_to
from zoo import Preprocessing

__all__ = [
    "ArrayImages",
    "LabelledImages",
    "LongTailedImages",
    "Source",
    "refuse_empty_classes",
]


try:
    leave_accelerators_to(keras.backend.backend())
except RuntimeError:
    # TensorFlow already runs in this process, on what its user gave it.
    pass


class LabelledImages(abc.ABC):
    """Images with labels that are read by index.

    Attributes:
        labels: int32 `(N,)`.
        image_shape: Height, width, channels of an image; height and width are `None` where images differ.
        dtype: Of the pixels: `"uint8"` from 0 to 255, or `"float32"` in the range that the source states.
    """

    def __init__(self, labels: np.ndarray, image_shape: Sequence[int | None], dtype: str = "uint8"):
        self.labels = _read_labels(labels)
        self.image_shape = tuple(image_shape)
        self.dtype = dtype

    def __len__(self) -> int:
        return len(self.labels)

    @abc.abstractmethod
    def load(self, index: tf.Tensor) -> tf.Tensor:
        """One decoded image, `(height, width, channels)`; called in `tf.data`'s map with a scalar int64."""

    @abc.abstractmethod
    def subset(self, indices: np.ndarray) -> LabelledImages:
        """The images at `indices` `(M,)`, in that order."""

    def with_labels(self, labels: np.ndarray) -> LabelledImages:
        """The same images with other labels."""
        labels = _read_labels(labels)
        if len(labels) != len(self):
            raise ValueError(f"labels must have one label an image, {len(self)}; given: {len(labels)}.")
        other = copy.copy(self)
        other.labels = labels
        return other

    def __repr__(self):
        return f"{type(self).__name__}({len(self)} images of shape {self.image_shape}, {self.dtype})"


class ArrayImages(LabelledImages):
    """Images in memory.

    Args:
        images: uint8 or float32 `(N, height, width, channels)`.
        labels: Integers `(N,)`.

    Raises:
        ValueError: Arrays that do not fit.

    >>> images = ArrayImages(np.zeros((3, 8, 8, 1), "uint8"), [0, 1, 1])
    >>> dataset = tf.data.Dataset.from_tensor_slices([2, 0]).map(images.load)
    >>> [image.shape for image in dataset.as_numpy_iterator()]
    [(8, 8, 1), (8, 8, 1)]
    >>> images.subset([1, 2]).labels.tolist()
    [1, 1]
    """

    def __init__(self, images: np.ndarray, labels: np.ndarray):
        self.images = np.asarray(images)
        if self.images.ndim != 4 or self.images.dtype not in ("uint8", "float32"):
            raise ValueError(
                f"images must be uint8 or float32 of shape (N, height, width, channels); given: {self.images.dtype} "
                f"{self.images.shape}."
            )
        super().__init__(labels, self.images.shape[1:], self.images.dtype.name)
        check_lengths("images", self.images, self.labels)

    @functools.cached_property
    def _tensor(self):
        # Made outside the graph of the map, which holds a reference then, where it would hold a copy; on the CPU,
        # where tf.data reads it.
        with tf.init_scope(), tf.device("CPU"):
            return tf.constant(self.images)

    def load(self, index: tf.Tensor) -> tf.Tensor:
        return tf.gather(self._tensor, index)

    def subset(self, indices: np.ndarray) -> ArrayImages:
        indices = read_indices(indices, len(self))
        return ArrayImages(self.images[indices], self.labels[indices])


class _WithClasses:
    """What follows from the `class_counts` of a data set."""

    class_counts: ClassCounts

    @property
    def class_names(self) -> tuple[str, ...]:
        """Names of the classes; their indices where they have none."""
        return self.class_counts.names or tuple(map(str, range(self.num_classes)))

    @property
    def num_classes(self) -> int:
        """Number of classes."""
        return self.class_counts.num_classes


@dataclasses.dataclass(frozen=True, eq=False)
class Source(_WithClasses):
    """A training set with its class counts and what it is tested on; what a data module returns.

    Attributes:
        name: Of the data set.
        train, test: The images.
        validation: Images to choose settings by, where the data set has such a split.
        class_counts: Training images of each class, with the names of the classes; by default counted, up to the
            largest training label.
        preprocessing: How an image file is prepared at test time; `None` where the images are not files' pixels.
        notes: What the user should know about these data, a sentence each: files that were left out, classes
            without a test image.

    Raises:
        ValueError: A label that is not below the number of classes; a training set without images.

    >>> images = ArrayImages(np.zeros((3, 8, 8, 1), "uint8"), [0, 1, 1])
    >>> Source("tiny", train=images, test=images, class_counts=ClassCounts([1, 2], names=["cat", "dog"]))
    Source(tiny: 3 training and 3 test images of shape (8, 8, 1), ClassCounts(2 classes, 3 images, 1 to 2 a class))
    """

    name: str
    train: LabelledImages
    test: LabelledImages
    validation: LabelledImages | None = None
    # Never None behind `__post_init__`, which counts.
    class_counts: ClassCounts = None  # type: ignore[assignment]
    preprocessing: Preprocessing | None = None
    notes: tuple[str, ...] = ()

    def __post_init__(self):
        if not len(self.train):
            raise ValueError(f"{self.name} must have training images; given: none.")
        if self.class_counts is None:
            object.__setattr__(self, "class_counts", ClassCounts.from_labels(self.train.labels))
        for part in ("train", "test", "validation"):
            images = getattr(self, part)
            if images is not None and len(images) and images.labels.max() >= self.num_classes:
                raise ValueError(
                    f"labels of {self.name} must be from 0 to {self.num_classes - 1}, for {self.num_classes} classes; "
                    f"given: {images.labels.max()} in {part}."
                )

    @property
    def image_shape(self) -> tuple[Any, ...]:  # height and width may be None where nothing is prepared
        """Height, width, channels of what a network is fed: as prepared, where images differ in size."""
        height, width, channels = self.train.image_shape
        if height is None or width is None:
            if self.preprocessing is None:
                return self.train.image_shape
            height, width = self.preprocessing.image_size
        return height, width, channels

    @property
    def failed(self) -> dict[str, str]:
        """Images that could not be decoded when they were needed, and why; others of their class stood in for them."""
        parts = (self.train, self.validation, self.test)
        return {name: why for part in parts for name, why in getattr(part, "failed", {}).items()}

    def relabelled_by_count(self) -> Source:
        """The same with the classes in the order of their training images, the largest first.

        The authors of APA relabel ImageNet-LT, Places-LT and iNaturalist 2018 like this. Classes with equally many
        images stay in their order here, where the authors' (an unstable `numpy.argsort`) depends on the version of
        NumPy and the processor: 237 of the 365 classes of Places-LT have such a tie, and a published classifier's
        rows of those classes need to be matched before it is used.

        >>> images = ArrayImages(np.zeros((4, 8, 8, 1), "uint8"), [0, 1, 1, 2])
        >>> source = Source("tiny", images, images, class_counts=ClassCounts([1, 2, 1], names=["a", "b", "c"]))
        >>> source.relabelled_by_count().class_names, source.relabelled_by_count().train.labels.tolist()
        (('b', 'a', 'c'), [1, 0, 0, 2])
        """
        counts = self.class_counts
        order = np.argsort(-counts.counts, kind="stable")
        rank = np.empty_like(order)
        rank[order] = np.arange(len(order))
        names = None if counts.names is None else [counts.names[index] for index in order]

        def relabelled(images):
            return None if images is None else images.with_labels(rank[images.labels])

        return dataclasses.replace(
            self,
            train=relabelled(self.train),
            test=relabelled(self.test),
            validation=relabelled(self.validation),
            class_counts=ClassCounts(counts.counts[order], names),
        )

    def __repr__(self):
        validation = "" if self.validation is None else f", {len(self.validation)} validation"
        return (
            f"Source({self.name}: {len(self.train)} training{validation} and {len(self.test)} test images "
            f"of shape {self.image_shape}, {self.class_counts!r})"
        )


@dataclasses.dataclass(frozen=True, eq=False)
class LongTailedImages(_WithClasses):
    """Images that fit into memory: a long-tailed training set and a test set. Has what a `Source` has.

    Attributes:
        train_images, test_images: float32 `(N, height, width, channels)`; the source says in which range.
        train_labels, test_labels: int32 `(N,)`.
        class_counts: Training images of each class, with the names of the classes.
        preprocessing: How an image file is prepared for a model that was trained on these, if one can be.
        name: Of the data set.
        train, test: The same as `ArrayImages`.
        validation: `None`.
        notes: Empty.
    """

    train_images: np.ndarray
    train_labels: np.ndarray
    test_images: np.ndarray
    test_labels: np.ndarray
    class_counts: ClassCounts
    preprocessing: Preprocessing | None = None
    name: str = "images in memory"

    @functools.cached_property
    def train(self) -> ArrayImages:
        """The training images."""
        return ArrayImages(self.train_images, self.train_labels)

    @functools.cached_property
    def test(self) -> ArrayImages:
        """The test images."""
        return ArrayImages(self.test_images, self.test_labels)

    @property
    def validation(self) -> None:
        """There are no images to choose settings by."""
        return None

    @property
    def notes(self) -> tuple[str, ...]:
        """Nothing was left out."""
        return ()

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """Height, width, channels."""
        return self.train_images.shape[1:]

    def __repr__(self):
        return (
            f"LongTailedImages({len(self.train_images)} training and {len(self.test_images)} test images "
            f"of shape {self.image_shape}, {self.class_counts!r})"
        )


def refuse_empty_classes(class_counts: ClassCounts, where: str) -> None:
    """An error that names the classes without training images, for which nothing can be learned.

    >>> refuse_empty_classes(ClassCounts([3, 0]), "train.txt")
    Traceback (most recent call last):
    ...
    ValueError: train.txt must have an image of every class; given: none of class 1.
    """
    empty = np.flatnonzero(class_counts.counts == 0)
    if len(empty):
        others = f" and of {len(empty) - 1} more classes" if len(empty) > 1 else ""
        raise ValueError(
            f"{where} must have an image of every class; given: none of {class_counts.describe(empty[0])}{others}."
        )


def _read_labels(labels):
    labels = np.asarray(labels)
    if labels.ndim != 1 or (labels.dtype.kind not in "iu" and labels.size):
        raise ValueError(f"labels must be integers of shape (N,); given: {labels.dtype} {labels.shape}.")
    if labels.size and labels.min() < 0:
        raise ValueError(f"labels must be at least 0; given: {labels.min()} at position {labels.argmin()}.")
    return labels.astype(np.int32)


def read_indices(indices, length):
    indices = np.asarray(indices)
    if indices.ndim != 1 or (indices.dtype.kind not in "iu" and indices.size):
        raise ValueError(f"indices must be integers of shape (M,); given: {indices.dtype} {indices.shape}.")
    if indices.size and not (indices.min() >= 0 and indices.max() < length):
        raise ValueError(f"indices must be from 0 to {length - 1}; given: {indices.min()} to {indices.max()}.")
    return indices.astype(np.int64)


def check_lengths(what, images, labels):
    if len(images) != len(labels):
        raise ValueError(f"labels must have one label for each of the {len(images)} {what}; given: {len(labels)}.")
