"""Versions, backend, machine and command of a run."""

from __future__ import annotations

import datetime
import importlib.metadata
import os
import platform
import shlex
import sys
from pathlib import Path
from typing import Any

import keras


def describe_run() -> dict[str, Any]:
    """Where, when and with what something was run."""
    packages = ("keras", "tensorflow", "jax", "torch", "numpy", "scikit-learn", "keras-cv")
    versions = {"python": platform.python_version()}
    for package in ("keras-apa", *packages):
        try:
            versions[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            continue
    return {
        "backend": keras.config.backend(),
        "command": shlex.join([Path(sys.argv[0]).name, *sys.argv[1:]]),
        "date": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "machine": f"{platform.system()} {platform.machine()}, {os.cpu_count()} CPU cores",
        "versions": versions,
    }
