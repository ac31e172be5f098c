"""One way to decode image files, for the check before a training and for the training: by TensorFlow or by Pillow."""

from __future__ import annotations

import contextlib
import io
import os
import re
import struct
import warnings
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import tensorflow as tf
from PIL import Image

from training.image_files import FORMATS
from training.images import exif_orientation, in_front_of_white, upright, why_unreadable
from training.runtime.console import with_progress

__all__ = [
    "UnreadableImageError",
    "decode_image",
    "decode_plain_jpeg",
    "decoded",
    "is_plain_jpeg",
    "naming_unreadable",
    "unreadable_images",
]


class UnreadableImageError(ValueError):
    """An image that a training needs cannot be decoded; the message starts with its name."""


@contextlib.contextmanager
def naming_unreadable() -> Iterator[None]:
    """Turns what `tf.data` raises where an image cannot be decoded into an `UnreadableImageError` that names it.

    Of an error of Python inside a dataset, TensorFlow keeps the text only, and buries it in a traceback.
    """
    try:
        yield
    except tf.errors.OpError as error:
        if found := re.search(r"^ValueError: (.+: .+)$", str(error), re.MULTILINE):
            raise UnreadableImageError(found[1]) from error
        raise


# What the progress bar says, and how many files are decoded in a second or so.
CHECKING: dict[str, Any] = {"text": "checking images", "above": 1000}

_START_OF_SCAN, _EXIF, _HUFFMAN_TABLES, _END = 0xDA, 0xE1, 0xC4, 0xD9
_PLAIN_FRAMES = (0xC0, 0xC1, 0xC2)  # baseline, extended and progressive, Huffman coded
_FRAMES = {*range(0xC0, 0xD0)} - {0xC4, 0xC8, 0xCC}
# Behind 0xFF, inside a scan: a pixel's 0xFF (0), or where decoding can begin anew. All others begin another segment.
_ENDS_SCAN = np.ones(256, bool)
_ENDS_SCAN[[0, *range(0xD0, 0xD8)]] = False


def is_plain_jpeg(contents: bytes) -> bool:
    """Whether these are the bytes of a complete JPEG whose pixels TensorFlow and Pillow read the same way.

    Segments among or behind the pixels that do not belong there, as damage and some cameras leave them, are Pillow's:
    it ends with the last pixel, where TensorFlow reads on and fails.
    """
    if not (contents.startswith(b"\xff\xd8\xff") and contents.endswith(b"\xff\xd9")):
        return False
    position, plain, scans = 2, False, None
    while position + 4 <= len(contents) and contents[position] == 0xFF:
        marker, length = contents[position + 1], struct.unpack_from(">H", contents, position + 2)[0]
        if marker == _EXIF and contents[position + 4 : position + 8] == b"Exif":
            return False
        if marker in _FRAMES:
            if marker not in _PLAIN_FRAMES or position + 10 > len(contents):
                return False
            bits, height, width, channels = struct.unpack_from(">BHHB", contents, position + 4)
            plain = bits == 8 and channels in (1, 3) and 0 < height * width <= (Image.MAX_IMAGE_PIXELS or np.inf)
        if scans is not None and marker not in (_START_OF_SCAN, _HUFFMAN_TABLES):
            return False
        position += 2 + length
        if marker == _START_OF_SCAN:
            if not plain:
                return False
            scans = _segments(contents, position) if scans is None else scans
            position = next((place for place in scans if place >= position), len(contents))
            if contents[position + 1 : position + 2] == bytes([_END]):
                return position + 2 == len(contents)
    return False


def _segments(contents, start):
    """Where segments begin behind the first scan's head; of a photograph with one scan only its end."""
    rest = np.frombuffer(contents, np.uint8, offset=min(start, len(contents)))
    marks = np.flatnonzero(rest[:-1] == 0xFF)
    return (marks[_ENDS_SCAN[rest[marks + 1]]] + start).tolist()


def decode_plain_jpeg(contents: tf.Tensor) -> tf.Tensor:
    """The pixels of a plain JPEG, uint8 `(height, width, 3)`, as Pillow has them."""
    return tf.io.decode_jpeg(contents, channels=3, dct_method="INTEGER_ACCURATE")


def decode_image(contents: bytes, name: str) -> np.ndarray:
    """The pixels of an image file's bytes by Pillow: uint8 `(height, width, 3)`, upright, in front of white.

    Raises:
        ValueError: What is no image, broken, or has too many pixels; the message starts with `name`.

    >>> decode_image(b"no image", "a.png")  # doctest: +ELLIPSIS
    Traceback (most recent call last):
    ...
    ValueError: a.png: not an image, or broken at its start; allowed: JPEG, PNG, ...
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


def decoded(contents: bytes, name: str) -> np.ndarray:
    """The pixels of an image file's bytes as a training sees them, uint8 `(height, width, 3)`.

    Raises:
        ValueError: As `decode_image`.

    >>> file = io.BytesIO()
    >>> Image.new("RGB", (40, 30)).save(file, "JPEG")
    >>> decoded(file.getvalue(), "a.jpg").shape
    (30, 40, 3)
    """
    if not is_plain_jpeg(contents):
        return decode_image(contents, name)
    try:
        with tf.device("CPU"):
            return decode_plain_jpeg(contents).numpy()
    except tf.errors.OpError as error:
        raise ValueError(f"{name}: cannot be read: the data of the JPEG are broken") from error


def unreadable_images(paths: Iterable[str | os.PathLike], workers: int | None = None) -> dict[str, str]:
    """Which of the files a training could not decode, and why.

    Decodes all of them as the training does, in `workers` threads (one a core); on a terminal a bar shows how far it
    is. A JPEG that is damaged among its pixels but can be decoded, with wrong pixels, is none of them.

    >>> unreadable_images(["missing.png"])
    {'missing.png': 'no such file or directory'}
    """

    def reason(path):
        try:
            with open(path, "rb") as file:
                decoded(file.read(), path)
        except OSError as error:
            return why_unreadable(path, error)
        except ValueError as error:
            return str(error).removeprefix(f"{path}: ")
        return None

    names = [os.fspath(path) for path in paths]
    with ThreadPoolExecutor(workers or os.cpu_count()) as pool:
        reasons = with_progress(pool.map(reason, names), len(names), **CHECKING)
        return {path: reason for path, reason in zip(names, reasons, strict=True) if reason is not None}
