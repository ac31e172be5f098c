"""Recipes for long-tailed recognition: what a notebook needs is here, all else in the sub-packages.

`training.train(recipe)` and `training.train_detector(recipe)` give a model and its numbers, `training.evaluate`
measures a classifier, `training.get_recipe` and `training.list_recipes` find recipes. They are imported when they are
used, so that `import training` is cheap.

>>> import training
>>> training.get_recipe("digits10_lt").loss.name
'BalancedSoftmaxCrossentropy'
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from training.classification.evaluate import evaluate
    from training.classification.train import train
    from training.detection.train import train_detector
    from training.recipes import get_recipe, list_recipes

__all__ = ["evaluate", "get_recipe", "list_recipes", "train", "train_detector"]

_HOMES = {
    "evaluate": "training.classification.evaluate",
    "get_recipe": "training.recipes",
    "list_recipes": "training.recipes",
    "train": "training.classification.train",
    "train_detector": "training.detection.train",
}


def __getattr__(name: str) -> Any:
    """What `__all__` names, imported now."""
    if name not in _HOMES:
        raise AttributeError(f"module 'training' has no attribute {name!r}")
    return getattr(importlib.import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
