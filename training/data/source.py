"""What every source of images returns: labelled images that are read by index, a training and a test set of them."""

from __future__ import annotations

import abc
import copy
import dataclasses
import functools
import io
import os
import struct
import warnings
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from PIL import Image

from keras_apa.class_counts import ClassCounts
from training.backend import leave_accelerators_to
from training.images import FORMATS, exif_orientation, in_front_of_white, upright, why_unreadable
from training.output import visible
from zoo import Preprocessing

__all__ = [
    "ArrayImages",
    "FileImages",
    "LabelledImages",
    "LongTailedImages",
    "RandomAccessImages",
    "Source",
    "decode_image",
    "refuse_empty_classes",
    "unreadable_images",
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
            raise ValueError(f"labels must have one label an image, {len(self)}; got {len(labels)}")
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
                "images must be uint8 or float32 of shape (N, height, width, channels), "
                f"got {self.images.dtype} {self.images.shape}"
            )
        super().__init__(labels, self.images.shape[1:], self.images.dtype.name)
        _check_lengths("images", self.images, self.labels)

    @functools.cached_property
    def _tensor(self):
        # Made outside the graph of the map, which holds a reference then, where it would hold a copy; on the CPU,
        # where tf.data reads it.
        with tf.init_scope(), tf.device("CPU"):
            return tf.constant(self.images)

    def load(self, index: tf.Tensor) -> tf.Tensor:
        return tf.gather(self._tensor, index)

    def subset(self, indices: np.ndarray) -> ArrayImages:
        indices = _read_indices(indices, len(self))
        return ArrayImages(self.images[indices], self.labels[indices])


class _EncodedImages(LabelledImages):
    """Images of three channels that are stored as the bytes of image files.

    A plain JPEG (8 bits, grey or YCbCr/RGB, complete, no EXIF data) is decoded by TensorFlow, whose threads do not
    wait for Python; its pixels are the same as Pillow's. Everything else is decoded as `keras-apa predict` does it:
    turned as EXIF says, CMYK as RGB, transparent parts white, 16 bits scaled to 8, of animations the first picture.
    """

    def __init__(self, labels: np.ndarray):
        super().__init__(labels, (None, None, 3))

    @abc.abstractmethod
    def read(self, index: int) -> bytes:
        """The bytes of an image file."""

    @abc.abstractmethod
    def describe(self, index: int) -> str:
        """Which image it is, for an error message."""

    def load(self, index: tf.Tensor) -> tf.Tensor:
        contents, plain = tf.numpy_function(self._read, [index], (tf.string, tf.bool), stateful=False)
        contents.set_shape(())
        plain.set_shape(())

        def decode():
            return tf.io.decode_jpeg(contents, channels=3, dct_method="INTEGER_ACCURATE")

        def decode_with_pillow():
            return tf.numpy_function(self._decode, [index, contents], tf.uint8, stateful=False)

        image = tf.cond(plain, decode, decode_with_pillow)
        image.set_shape(self.image_shape)
        return image

    def _read(self, index):
        contents = self.read(int(index))
        # As an object: numpy's own strings lose zeros at their end.
        return np.array(contents, dtype=object), np.bool_(_is_plain_jpeg(contents))

    def _decode(self, index, contents):
        # Outside a graph TensorFlow hands the bytes over as an array of one object.
        contents = contents.item() if isinstance(contents, np.ndarray) else contents
        return decode_image(contents, self.describe(int(index)))


class FileImages(_EncodedImages):
    """Image files of any size, read when they are needed: JPEG, PNG, WebP, BMP, GIF (first picture).

    Args:
        paths: Names of `N` files.
        labels: Integers `(N,)`.

    Raises:
        ValueError: Another number of labels than of paths. While reading: a file that cannot be decoded, with its
            name, which `tf.data` turns into an `InvalidArgumentError` or `UnknownError`; `unreadable_images`
            finds all of them before training.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     Image.new("L", (40, 30), 7).save(f"{folder}/grey.png")
    ...     images = FileImages([f"{folder}/grey.png"], [0])
    ...     images.load(tf.constant(0, "int64")).shape
    TensorShape([30, 40, 3])
    """

    def __init__(self, paths: Iterable[str | os.PathLike], labels: np.ndarray):
        self.paths = np.array([os.fspath(path) for path in paths], dtype=object)
        super().__init__(labels)
        _check_lengths("paths", self.paths, self.labels)

    def read(self, index: int) -> bytes:
        path = self.paths[index]
        try:
            with open(path, "rb") as file:
                return file.read()
        except OSError as error:
            raise ValueError(f"{self.describe(index)}: {why_unreadable(path, error)}") from error

    def describe(self, index: int) -> str:
        # TensorFlow loses the whole of an error that is no UTF-8.
        return visible(self.paths[index], lines=False)

    def subset(self, indices: np.ndarray) -> FileImages:
        indices = _read_indices(indices, len(self))
        return FileImages(self.paths[indices], self.labels[indices])


class RandomAccessImages(_EncodedImages):
    """Images in a sequence that is read by index, such as a `tfds.data_source` with the decoding left out.

    Args:
        sequence: `sequence[i]["image"]` are the bytes of an image file. Called from several threads.
        labels: Integers `(N,)`, of the images that are used.
        indices: Where these are in the sequence, `(N,)`; by default all of it.
        name: What the sequence is called in error messages.

    Raises:
        ValueError: Another number of labels than of images.

    >>> file = io.BytesIO()
    >>> Image.new("RGB", (40, 30)).save(file, "JPEG")
    >>> images = RandomAccessImages([{"image": file.getvalue()}], labels=[0])
    >>> images.load(tf.constant(0, "int64")).shape
    TensorShape([30, 40, 3])
    """

    def __init__(
        self,
        sequence: Sequence[dict[str, Any]],
        labels: np.ndarray,
        indices: np.ndarray | None = None,
        name: str = "the sequence",
    ):
        self.sequence = sequence
        self.name = name
        self.indices = np.arange(len(sequence)) if indices is None else _read_indices(indices, len(sequence))
        super().__init__(labels)
        _check_lengths("images", self.indices, self.labels)

    def read(self, index: int) -> bytes:
        return self.sequence[int(self.indices[index])]["image"]

    def describe(self, index: int) -> str:
        return f"image {self.indices[index]} of {self.name}"

    def subset(self, indices: np.ndarray) -> RandomAccessImages:
        indices = _read_indices(indices, len(self))
        return RandomAccessImages(self.sequence, self.labels[indices], self.indices[indices], self.name)


class _WithClasses:
    """What follows from the `class_counts` of a data set."""

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
    class_counts: ClassCounts | None = None
    preprocessing: Preprocessing | None = None
    notes: tuple[str, ...] = ()

    def __post_init__(self):
        if not len(self.train):
            raise ValueError(f"{self.name} has no training images")
        if self.class_counts is None:
            object.__setattr__(self, "class_counts", ClassCounts.from_labels(self.train.labels))
        for part in ("train", "test", "validation"):
            images = getattr(self, part)
            if images is not None and len(images) and images.labels.max() >= self.num_classes:
                raise ValueError(
                    f"{part} of {self.name} has the label {images.labels.max()}; "
                    f"allowed: 0 to {self.num_classes - 1}, for {self.num_classes} classes"
                )

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """Height, width, channels of what a network is fed: as prepared, where images differ in size."""
        height, width, channels = self.train.image_shape
        if height is None or width is None:
            if self.preprocessing is None:
                return self.train.image_shape
            height, width = self.preprocessing.image_size
        return height, width, channels

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
    ValueError: train.txt has no image of class 1; every class needs a training image
    """
    empty = np.flatnonzero(class_counts.counts == 0)
    if len(empty):
        others = f" and of {len(empty) - 1} more classes" if len(empty) > 1 else ""
        raise ValueError(
            f"{where} has no image of {class_counts.describe(empty[0])}{others}; every class needs a training image"
        )


def unreadable_images(paths: Iterable[str | os.PathLike], workers: int | None = None) -> dict[str, str]:
    """Which of the files cannot be decoded, and why. Decodes all of them, in `workers` threads (one a core).

    >>> unreadable_images(["missing.png"])
    {'missing.png': 'no such file or directory'}
    """

    def reason(path):
        try:
            with open(path, "rb") as file:
                decode_image(file.read(), path)
        except OSError as error:
            return why_unreadable(path, error)
        except ValueError as error:
            return str(error).removeprefix(f"{path}: ")
        return None

    paths = [os.fspath(path) for path in paths]
    with ThreadPoolExecutor(workers or os.cpu_count()) as pool:
        reasons = pool.map(reason, paths)
        return {path: reason for path, reason in zip(paths, reasons, strict=True) if reason is not None}


def decode_image(contents: bytes, name: str) -> np.ndarray:
    """The pixels of an image file's bytes: uint8 `(height, width, 3)`, upright, in front of white.

    Raises:
        ValueError: What is no image, broken, or has too many pixels; the message starts with `name`.

    >>> decode_image(b"no image", "a.png")
    Traceback (most recent call last):
    ...
    ValueError: a.png: not an image, or broken at its start; allowed: JPEG, PNG, WEBP, BMP, GIF
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of odd metadata
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            with Image.open(io.BytesIO(contents), formats=FORMATS) as image:
                image.load()
                return np.asarray(upright(in_front_of_white(image, "RGB"), exif_orientation(image)))
    except Exception as error:  # a broken file can fail anywhere in a decoder, with any type of error
        # The reasons of `training.images` ask the file for its size: any that is not empty serves here.
        raise ValueError(f"{name}: {why_unreadable(__file__, error) if contents else 'the file is empty'}") from error


_START_OF_SCAN, _EXIF = 0xDA, 0xE1
_PLAIN_FRAMES = (0xC0, 0xC1, 0xC2)  # baseline, extended and progressive, Huffman coded
_FRAMES = {*range(0xC0, 0xD0)} - {0xC4, 0xC8, 0xCC}


def _is_plain_jpeg(contents: bytes) -> bool:
    """Whether these are the bytes of a complete JPEG whose pixels TensorFlow and Pillow read the same way."""
    if not (contents.startswith(b"\xff\xd8\xff") and contents.endswith(b"\xff\xd9")):
        return False
    position, plain = 2, False
    while position + 4 <= len(contents) and contents[position] == 0xFF:
        marker, length = contents[position + 1], struct.unpack_from(">H", contents, position + 2)[0]
        if marker == _START_OF_SCAN:
            return plain
        if marker == _EXIF and contents[position + 4 : position + 8] == b"Exif":
            return False
        if marker in _FRAMES:
            if marker not in _PLAIN_FRAMES or position + 10 > len(contents):
                return False
            bits, height, width, channels = struct.unpack_from(">BHHB", contents, position + 4)
            plain = bits == 8 and channels in (1, 3) and 0 < height * width <= (Image.MAX_IMAGE_PIXELS or np.inf)
        position += 2 + length
    return False


def _read_labels(labels):
    labels = np.asarray(labels)
    if labels.ndim != 1 or (labels.dtype.kind not in "iu" and labels.size):
        raise ValueError(f"labels must be integers of shape (N,), got {labels.dtype} {labels.shape}")
    if labels.size and labels.min() < 0:
        raise ValueError(f"labels must be at least 0, got {labels.min()} at position {labels.argmin()}")
    return labels.astype(np.int32)


def _read_indices(indices, length):
    indices = np.asarray(indices)
    if indices.ndim != 1 or (indices.dtype.kind not in "iu" and indices.size):
        raise ValueError(f"indices must be integers of shape (M,), got {indices.dtype} {indices.shape}")
    if indices.size and not (indices.min() >= 0 and indices.max() < length):
        raise ValueError(f"indices must be from 0 to {length - 1}, got {indices.min()} to {indices.max()}")
    return indices.astype(np.int64)


def _check_lengths(what, images, labels):
    if len(images) != len(labels):
        raise ValueError(f"labels must have one label for each of the {len(images)} {what}, got {len(labels)}")
