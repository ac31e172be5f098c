"""Annotation files in JSON: read with errors that name the file and the entry."""

from __future__ import annotations

import json
import os
from typing import Any

from training.runtime.output import as_text


def read_bytes(file, what):
    """The bytes of a file; an error calls it `what`."""
    try:
        with open(file, "rb") as stream:
            return stream.read()
    except FileNotFoundError:
        raise FileNotFoundError(f"{what} {os.fspath(file)} is not there") from None
    except OSError as error:
        raise ValueError(f"{what} {os.fspath(file)} cannot be read: {error.strerror}") from error


def read_annotation_file(file) -> dict[str, Any] | list[Any]:
    """The content of an annotation file; raises a ValueError if it is not JSON in UTF-8."""
    try:
        return json.loads(read_bytes(file, "the annotation file"))
    except UnicodeDecodeError as error:
        raise ValueError(
            f"{os.fspath(file)} must be JSON in UTF-8; given: other bytes ({error}). Save it as UTF-8."
        ) from None
    except ValueError as error:
        raise ValueError(f"{os.fspath(file)} must be JSON; given: other text ({error}).") from None


def entry_of(mapping, key, kind, place):
    """`mapping[key]`, checked to be of type `kind`; an error begins with `place`."""
    value = mapping.get(key) if isinstance(mapping, dict) else None
    if not isinstance(value, kind) or isinstance(value, bool):
        expected = {int: "a whole number", str: "a text"}[kind]
        raise ValueError(f"{place}: {key} must be {expected}; given: {value!r}.")
    return value


def category_name(category, place):
    """The name of a category; its id where it has none."""
    name = category.get("name")
    if name is None or name == "":
        name = category["id"]
    if not isinstance(name, str | int | float):
        raise ValueError(f"{place}: name must be a text; given: {name!r:.80}.")
    return as_text(name)
