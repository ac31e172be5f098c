"""Images that are decoded when they are needed: files, and data sets with random access."""

from __future__ import annotations

import abc
import os
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import tensorflow as tf

from training.checks import check_choice
from training.data.classification.source import LabelledImages, check_lengths, read_indices
from training.data.decoding import decode_image, decode_plain_jpeg, decoded, is_plain_jpeg
from training.images import why_unreadable
from training.runtime.console import tell
from training.runtime.output import visible


class _EncodedImages(LabelledImages):
    """Images of three channels that are stored as the bytes of image files.

    A plain JPEG (8 bits, grey or YCbCr/RGB, complete, no EXIF data) is decoded by TensorFlow, whose threads do not
    wait for Python; its pixels are the same as Pillow's. Everything else is decoded as `keras-apa predict` does it:
    turned as EXIF says, CMYK as RGB, transparent parts white, 16 bits scaled to 8, of animations the first picture.

    Attributes:
        on_corrupt: What happens to an image that cannot be decoded when it is needed. `"error"` names it. `"skip"`
            takes the next image of its class that can be decoded, which depends on nothing but the files, and tells so
            on stderr, once for each file.
        failed: The images for which that has happened, with the reasons.
    """

    def __init__(self, labels: np.ndarray, on_corrupt: str = "error"):
        super().__init__(labels, (None, None, 3))
        check_choice("on_corrupt", on_corrupt, ("error", "skip"))
        self.on_corrupt = on_corrupt
        self.failed: dict[str, str] = {}

    @abc.abstractmethod
    def read(self, index: int) -> bytes:
        """The bytes of an image file."""

    @abc.abstractmethod
    def describe(self, index: int) -> str:
        """Which image it is, for an error message."""

    def load(self, index: tf.Tensor) -> tf.Tensor:
        if self.on_corrupt == "skip":
            # What TensorFlow cannot decode would end the dataset; here it is an error of Python's.
            image = tf.numpy_function(self._decode_or_skip, [index], tf.uint8, stateful=False)
            image.set_shape(self.image_shape)
            return image
        contents, plain = tf.numpy_function(self._read, [index], (tf.string, tf.bool), stateful=False)
        contents.set_shape(())
        plain.set_shape(())

        def decode_with_pillow():
            return tf.numpy_function(self._decode, [index, contents], tf.uint8, stateful=False)

        image = tf.cond(plain, lambda: decode_plain_jpeg(contents), decode_with_pillow)
        image.set_shape(self.image_shape)
        return image

    def _read(self, index):
        contents = self.read(int(index))
        # As an object: numpy's own strings lose zeros at their end.
        return np.array(contents, dtype=object), np.bool_(is_plain_jpeg(contents))

    def _decode(self, index, contents):
        # Outside a graph TensorFlow hands the bytes over as an array of one object.
        contents = contents.item() if isinstance(contents, np.ndarray) else contents
        return decode_image(contents, self.describe(int(index)))

    def _decode_or_skip(self, index):
        reasons = {}
        for each in self._from(int(index)):
            name = self.describe(each)
            try:
                image = decoded(self.read(each), name)
            except ValueError as error:
                reasons[name] = str(error).removeprefix(f"{name}: ")
                continue
            for failed, reason in reasons.items():
                if failed not in self.failed:
                    self.failed[failed] = reason
                    tell(f"{failed}: {reason}; skipped: {name}, of the same class, is taken in its place")
            return image
        name, reason = next(iter(reasons.items()))
        raise ValueError(f"{name}: {reason}; nor can any other image of its class be decoded: replace them")

    def first_unreadable(self) -> str | None:
        """The first image that cannot be decoded and why, in one line; decodes all before it."""

        def reason(index):
            try:
                decoded(self.read(index), self.describe(index))
            except ValueError as error:
                return str(error)
            return None

        with ThreadPoolExecutor(os.cpu_count()) as pool:
            return next(filter(None, pool.map(reason, range(len(self)))), None)

    def _from(self, index: int) -> Iterator[int]:
        """The index, then those of the other images of its class, the next ones first."""
        yield index
        own = np.flatnonzero(self.labels == self.labels[index])
        place = np.searchsorted(own, index)
        yield from (int(other) for other in (*own[place + 1 :], *own[:place]))


class FileImages(_EncodedImages):
    """Image files of any size, read when they are needed, of every format in `training.images.FORMATS`.

    Args:
        paths: Names of `N` files.
        labels: Integers `(N,)`.
        on_corrupt: `"error"` or `"skip"`: see the attribute.

    Raises:
        ValueError: Another number of labels than of paths. While reading: a file that cannot be decoded, with its
            name, which `tf.data` turns into an `InvalidArgumentError` or `UnknownError`; `unreadable_images`
            finds all of them before training.

    >>> import tempfile
    >>> from PIL import Image
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     Image.new("L", (40, 30), 7).save(f"{folder}/grey.png")
    ...     images = FileImages([f"{folder}/grey.png"], [0])
    ...     images.load(tf.constant(0, "int64")).shape
    TensorShape([30, 40, 3])
    """

    def __init__(self, paths: Iterable[str | os.PathLike], labels: np.ndarray, on_corrupt: str = "error"):
        self.paths = np.array([os.fspath(path) for path in paths], dtype=object)
        super().__init__(labels, on_corrupt)
        check_lengths("paths", self.paths, self.labels)

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
        indices = read_indices(indices, len(self))
        return FileImages(self.paths[indices], self.labels[indices], self.on_corrupt)


class RandomAccessImages(_EncodedImages):
    """Images in a sequence that is read by index, such as a `tfds.data_source` with the decoding left out.

    Args:
        sequence: `sequence[i]["image"]` are the bytes of an image file. Called from several threads.
        labels: Integers `(N,)`, of the images that are used.
        indices: Where these are in the sequence, `(N,)`; by default all of it.
        name: What the sequence is called in error messages.

    Raises:
        ValueError: Another number of labels than of images.

    >>> import io
    >>> from PIL import Image
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
        self.indices = np.arange(len(sequence)) if indices is None else read_indices(indices, len(sequence))
        super().__init__(labels)
        check_lengths("images", self.indices, self.labels)

    def read(self, index: int) -> bytes:
        return self.sequence[int(self.indices[index])]["image"]

    def describe(self, index: int) -> str:
        return f"image {self.indices[index]} of {self.name}"

    def subset(self, indices: np.ndarray) -> RandomAccessImages:
        indices = read_indices(indices, len(self))
        return RandomAccessImages(self.sequence, self.labels[indices], self.indices[indices], self.name)
