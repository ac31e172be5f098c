"""The choice of the Keras backend, which has to be made before Keras is imported."""

from __future__ import annotations

import importlib.util
import os
import sys
from typing import Literal, get_args

Backend = Literal["tensorflow", "jax", "torch"]
BACKENDS = get_args(Backend)


def installed_backends() -> list[str]:
    """The backends whose package can be imported here, in the order in which one is chosen."""
    return [name for name in BACKENDS if _importable(name)]


def _importable(name: str) -> bool:
    try:
        return importlib.util.find_spec(name) is not None
    except ImportError:
        return False


def choose_backend(name: str | None = None) -> str:
    """Sets `KERAS_BACKEND` and returns it: `name`, else `KERAS_BACKEND`, else the first backend installed.

    Raises:
        ValueError: the name is unknown, the backend is not installed (the message names the extra), or
            Keras is already running on another one.
    """
    source = "--backend"
    if name is None and os.environ.get("KERAS_BACKEND"):
        name, source = os.environ["KERAS_BACKEND"], "KERAS_BACKEND"
    running = sys.modules["keras"].config.backend() if "keras" in sys.modules else None
    if name is None:
        name = running or next(iter(installed_backends()), None)
    if name is None:
        raise ValueError(
            'no Keras backend is installed. Install one: pip install "keras-apa[tensorflow]" (or jax, torch)'
        )
    if name not in BACKENDS:
        raise ValueError(f"{source} must be one of {', '.join(BACKENDS)}; given: {name!r}.")
    if name not in installed_backends():
        raise ValueError(
            f"{source} must be an installed backend; given: {name!r}, which is not installed. "
            f'Install it: pip install "keras-apa[{name}]"'
        )
    if running is not None and running != name:
        raise ValueError(
            f"{source} must be {running!r}, on which Keras already runs in this process; given: {name!r}. Start a new "
            f"process with KERAS_BACKEND={name}."
        )
    os.environ["KERAS_BACKEND"] = name
    return name


def leave_accelerators_to(backend: str) -> None:
    """Keeps TensorFlow, which only reads data here, from taking the GPU memory that `backend` needs."""
    if backend == "tensorflow":
        return
    import tensorflow as tf

    tf.config.set_visible_devices([], "GPU")
