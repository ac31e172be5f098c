"""Models by the name that a user gives a command: a `.keras` file, or a preset."""

from __future__ import annotations

import contextlib
import json
import os
import zipfile
from collections.abc import Iterator
from pathlib import Path

import keras

import keras_apa  # noqa: F401  registers the layers of models that are loaded
from zoo.preprocessing import Preprocessing
from zoo.presets import from_preset


def load_model(name: str | os.PathLike) -> keras.Model:
    """The model of a `.keras` file, uncompiled and in safe mode, or of a preset (name, folder or `hf://` handle).

    Raises: ValueError: If there is none, or it cannot be loaded.

    >>> load_model("se_resnet_digits100_lt").output_shape
    (None, 100)
    """
    name = os.fspath(name)
    path = Path(name)
    if path.is_file() and path.suffix != ".keras":
        raise ValueError(
            f"the model must be a .keras file; given: {name!r}. keras-apa convert makes one of a PyTorch checkpoint."
        )
    if path.suffix == ".keras" and not path.is_file():
        raise ValueError(f"the model must be a file that is there; given: {name!r}.")
    if not path.is_file():
        return from_preset(name)
    if not zipfile.is_zipfile(path):
        raise ValueError(f"cannot load {name!r}: it is no .keras file, or is damaged. Save or download it again.")
    try:
        # Not compiled: the losses and metrics of the training may be unknown here.
        return keras.saving.load_model(path, compile=False)
    except (ValueError, TypeError, LookupError, OSError, zipfile.BadZipFile) as error:
        raise ValueError(f"cannot load {name!r}: {str(error).strip().partition(chr(10))[0]}") from error


def saved_preprocessing(path: str | os.PathLike) -> Preprocessing | None:
    """How a `.keras` file says that images are prepared for its model, without loading it; None if it does not.

    Raises: ValueError: If it is no `.keras` file, or damaged.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            config = json.loads(archive.read("config.json"))
        saved = config["config"].get("preprocessing")
        return saved and keras.saving.deserialize_keras_object(saved)
    except (ValueError, TypeError, LookupError, OSError, zipfile.BadZipFile) as error:
        raise ValueError(f"cannot load {os.fspath(path)!r}: {str(error).strip().partition(chr(10))[0]}") from error


@contextlib.contextmanager
def precision(name: str) -> Iterator[None]:
    """Keras's policy for the layers that are made inside the block."""
    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy(name)
    try:
        yield
    finally:
        keras.config.set_dtype_policy(before)
