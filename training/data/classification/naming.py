"""Names the image that a training could not decode, which the error of `tf.data` buries or does not know."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

import tensorflow as tf

from training.data import decoding
from training.data.classification.encoded import FileImages
from training.data.classification.source import Source
from training.data.decoding import UnreadableImageError

__all__ = ["naming_unreadable"]


@contextlib.contextmanager
def naming_unreadable(source: Source) -> Iterator[None]:
    """As `training.data.decoding.naming_unreadable`, also for JPEGs, and says what to do with an image file."""
    parts: list[Any] = [
        part for part in (source.train, source.validation, source.test) if hasattr(part, "first_unreadable")
    ]
    try:
        with decoding.naming_unreadable():
            yield
    except UnreadableImageError as error:
        raise UnreadableImageError(f"{error}{_what_to_do(parts)}") from error.__cause__
    except tf.errors.OpError as error:
        # TensorFlow's decoder does not know which file it was.
        if "jpeg" not in str(error).lower():
            raise
        named = next(filter(None, (part.first_unreadable() for part in parts)), None)
        if named is None:
            raise
        raise UnreadableImageError(f"{named}{_what_to_do(parts)}") from error


def _what_to_do(parts):
    if not any(isinstance(part, FileImages) and part.on_corrupt == "error" for part in parts):
        return ""
    return (
        "; mend or replace it and run the same command again, or let another image of its class take its place with "
        "on_corrupt='skip' (--data.on-corrupt skip)"
    )
