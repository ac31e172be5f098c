"""Output folders and files that are either whole or not there, and which of many files are not."""

from __future__ import annotations

import contextlib
import itertools
import json
import os
import re
import secrets
import tempfile
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from training.runtime.output import as_text

# The files by which a folder belongs to a process (`training/runs/ownership.py`): they make an empty folder no fuller.
LOCK, MARKER, OWNER = ".lock", ".lock.held", ".owner.json"
LOCK_FILES = (LOCK, MARKER, OWNER)


@contextlib.contextmanager
def atomic_path(path: str | os.PathLike) -> Iterator[Path]:
    """A temporary path beside `path` that takes its place when the block ends without an error."""
    path = Path(path)
    # Keras and matplotlib choose the format by the ending, so the mark comes first. Not the number of the process: two
    # containers with one disk have the same numbers.
    temporary = path.with_name(f".{secrets.token_hex(4)}-{path.name}")
    try:
        yield temporary
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def write_text(path: str | os.PathLike, text: str) -> None:
    r"""Writes `text` as UTF-8, whole or not at all; a byte that is none, as in the name of a file, as `\xe9`."""
    with atomic_path(path) as temporary:
        temporary.write_text(as_text(text), encoding="utf-8")


def write_json(path: str | os.PathLike, value: Any) -> None:
    """Writes `value` as JSON, whole or not at all; NaN (an absent group) becomes null."""
    write_text(path, json.dumps(_without_nan(value), indent=2, allow_nan=False) + "\n")


def _without_nan(value: Any) -> Any:
    if isinstance(value, dict):
        return {str(key): _without_nan(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_without_nan(item) for item in value]
    return None if isinstance(value, float) and value != value else value


def last_numbered_folder(stem: Path) -> Path | None:
    """The last of `stem`, `stem-2`, `stem-3`, ... before the first that is absent or empty."""
    last = None
    for folder in numbered_folders(stem):
        if not folder.exists() or is_empty(folder):
            break
        last = folder
    return last


def numbered_folders(stem: Path) -> Iterator[Path]:
    """`stem`, `stem-2`, `stem-3`, ... without end, whether they are there or not."""
    yield stem
    yield from (stem.with_name(f"{stem.name}-{number}") for number in itertools.count(2))


def existing_folders(stem: Path) -> list[Path]:
    """Those of `stem`, `stem-2`, `stem-3`, ... that are there, in this order, also where one between is missing."""
    name = re.compile(rf"{re.escape(stem.name)}(?:-([1-9]\d*))?")
    found = {}
    with contextlib.suppress(OSError):
        for path in stem.parent.iterdir():
            match = name.fullmatch(path.name)
            if match and match[1] != "1" and path.is_dir():
                found[int(match[1] or 1)] = stem.with_name(path.name)
    return [found[number] for number in sorted(found)]


def missing_files(paths: Iterable[str]) -> list[str]:
    """Those of the paths that are not there.

    A look into every folder instead of at every file: hundreds of thousands of these are slow on a network's disk.
    """
    present: dict[str, set[str]] = {}
    missing = []
    for path in paths:
        folder, name = os.path.split(path)
        if folder not in present:
            try:
                present[folder] = {*os.listdir(folder or ".")}
            except OSError:
                present[folder] = set()
        if name not in present[folder]:
            missing.append(path)
    return missing


def is_empty(folder: Path) -> bool:
    """Whether it is a folder with nothing in it but the files of a lock."""
    return folder.is_dir() and all(path.name in LOCK_FILES for path in folder.iterdir())


def make_writable(folder: Path, option: str = "--output") -> None:
    """Makes the folder and proves that a file can be written in it; `ValueError` that names the option otherwise."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        reason = error.strerror or type(error).__name__
        raise ValueError(
            f"{option} must be a folder that can be written to; given: {str(folder)!r} ({reason}). Choose another one."
        ) from error


def read_number(value: float | None) -> float:
    """What `training.files.write_json` wrote: null for NaN."""
    return float("nan") if value is None else value
