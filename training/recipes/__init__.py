"""One module per experiment; each recipe in it, alone or in a list, is found here by its name."""

from __future__ import annotations

import fnmatch
import importlib
import pkgutil
from typing import Any

from training.checks import check_name
from training.config.experiment import Experiment


def recipes() -> dict[str, Experiment]:
    """Every recipe of this package by its name."""
    modules = [importlib.import_module(f"{__name__}.{found.name}") for found in pkgutil.iter_modules(__path__)]
    values = [value for module in modules for value in vars(module).values()]
    lists = [value for value in values if isinstance(value, list)]
    found = [each for value in [values, *lists] for each in value if isinstance(each, Experiment)]
    return {recipe.name: recipe for recipe in sorted(found, key=lambda recipe: recipe.name)}


def list_recipes(pattern: str = "*") -> list[str]:
    """The names of the recipes, or of those that match a pattern such as `"cifar*"`.

    >>> list_recipes("digits10_lt*")
    ['digits10_lt', 'digits10_lt_baseline']
    """
    return [name for name in recipes() if fnmatch.fnmatchcase(name, pattern)]


def get_recipe(name: str) -> Any:  # a `Recipe` or a `DetectionRecipe`, which the name tells
    """The recipe of that name; an unknown name is an error that names the nearest ones.

    >>> get_recipe("digits100_lt").loss.name
    'BalancedSoftmaxCrossentropy'
    """
    known = recipes()
    check_name("RECIPE", name, known)
    return known[name]
