"""Names that have moved: the documented old imports go on working, with a warning."""

from __future__ import annotations

import importlib
import warnings
from collections.abc import Callable, Mapping
from typing import Any


def moved(module: str, homes: Mapping[str, str]) -> Callable[[str], Any]:
    """The `__getattr__` of a module whose names now live elsewhere.

    Args:
        module: The old module.
        homes: The new module of each name.
    """

    def get(name: str) -> Any:
        if name not in homes:
            raise AttributeError(f"module {module!r} has no attribute {name!r}")
        warnings.warn(f"{module}.{name} is {homes[name]}.{name} now", DeprecationWarning, stacklevel=2)
        return getattr(importlib.import_module(homes[name]), name)

    return get
