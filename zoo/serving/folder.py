"""Versions of an exported model, `NAME/1`, `NAME/2`, ..., each whole or not there."""

import contextlib
import os
import pathlib
import shutil
import uuid


def write_version(folder, write):
    """Call `write(path)` on a new folder and move it to its place when it is finished.

    Args:
        folder: `NAME`, in which the next free version is made, or `NAME/VERSION` with a whole number that is free.
        write: Function of the path of an empty folder. If it fails, nothing is left behind.

    Returns: The absolute path of the version.
    Raises: ValueError: If the version exists, or cannot be written.

    >>> import pathlib, tempfile
    >>> from zoo.serving.folder import write_version
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     paths = [write_version(folder, lambda path: (path / "a").touch()) for _ in range(2)]
    >>> [path.name for path in paths]
    ['1', '2']
    """
    name, version = _split(folder)
    if version is not None:
        _check_free(name / version)
    made, temporary = [], None
    try:
        try:
            made = _make_folders(name)
            # A server that polls takes folders with a number for versions. Not `tempfile`: its folders are private.
            temporary = name / f".unfinished-{uuid.uuid4().hex}"
            # With its parents: another export that failed may just have removed the folder that it had made.
            temporary.mkdir(parents=True)
        except OSError as error:
            raise ValueError(f"cannot write to {str(name)!r}: {error.strerror or error}.") from error
        write(temporary)
        return _move(temporary, name, version)
    finally:
        if temporary is not None:
            shutil.rmtree(temporary, ignore_errors=True)
        for path in reversed(made):
            with contextlib.suppress(OSError):  # it holds the finished version
                path.rmdir()


def check_folder(folder):
    """A ValueError if `folder` names a version that exists, or a file."""
    name, version = _split(folder)
    if version is not None:
        _check_free(name / version)
    if name.exists() and not name.is_dir():
        raise ValueError(f"folder must be a folder; given: {str(name)!r}, which is a file.")


def _split(folder):
    path = pathlib.Path(os.path.abspath(os.path.expanduser(folder)))
    return (path.parent, path.name) if _is_number(path.name) else (path, None)


def _is_number(name):
    return name.isascii() and name.isdecimal()


def _versions(name):
    """The versions that are there, as numbers: a server takes `007` for 7."""
    return {int(path.name) for path in name.iterdir() if _is_number(path.name)} if name.is_dir() else set()


def _check_free(path):
    if int(path.name) >= 2**63:
        raise ValueError(f"a version must be below 2**63, or no server reads it; given: {path.name}.")
    if int(path.name) in _versions(path.parent):
        raise ValueError(
            f"version must be new; given: {path.name}, which exists in {str(path.parent)!r}. Give another number, "
            "or leave it out to make the next free version."
        )


def _move(temporary, name, version):
    while True:
        path = name / (version or str(max(_versions(name), default=0) + 1))
        try:
            os.rename(temporary, path)
            return path
        except OSError:
            # Another process was faster: os.rename does not replace a folder that holds something.
            if not path.is_dir():
                raise
            if version is not None:
                _check_free(path)


def _make_folders(path):
    """Make the folder and return those that were missing, outermost first."""
    missing = [parent for parent in (path, *path.parents) if not parent.exists()]
    path.mkdir(parents=True, exist_ok=True)
    return missing[::-1]
