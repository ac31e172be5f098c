"""Names the image that a training could not decode, which the error of `tf.data` buries or does not know."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator

import tensorflow as tf

from training.data.classification.encoded import FileImages
from training.data.classification.source import Source
from training.data.decoding import UnreadableImageError

__all__ = ["naming_unreadable"]


@contextlib.contextmanager
def naming_unreadable(source: Source) -> Iterator[None]:
    """Turns what `tf.data` raises where an image cannot be decoded into an `UnreadableImageError` that names it."""
    try:
        yield
    except tf.errors.OpError as error:
        parts = [part for part in (source.train, source.validation, source.test) if hasattr(part, "first_unreadable")]
        if found := re.search(r"^ValueError: (.+: .+)$", str(error), re.MULTILINE):
            named = found[1]
        elif "jpeg" in str(error).lower():  # TensorFlow's decoder does not know which file it was
            named = next(filter(None, (part.first_unreadable() for part in parts)), None)
        else:
            named = None
        if named is None:
            raise
        if any(isinstance(part, FileImages) and part.on_corrupt == "error" for part in parts):
            named += (
                "; mend or replace it and run the same command again, or let another image of its class take its "
                "place with on_corrupt='skip' (--data.on-corrupt skip)"
            )
        raise UnreadableImageError(named) from error
