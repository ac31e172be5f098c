"""The recipes that `keras-apa demo` trains side by side."""

from __future__ import annotations

from typing import Literal, get_args

from training.checks import check_choice
from training.config.classification import Recipe
from training.config.detection import DetectionRecipe
from training.recipes import get_recipe

DemoData = Literal["digits100_lt", "digits10_lt"]


def demo_recipes(model: str, data: str, epochs: int, seed: int) -> list[Recipe]:
    """The baseline, then the same network with AGLU, Balanced Softmax and, if it has gates, APA."""
    check_choice("--data", data, get_args(DemoData))
    options, title = adaptive_options(model)
    common = {"epochs": epochs, "seed": seed}
    return [
        get_recipe(f"{data}_baseline").replace(model={"name": model}, **common),
        get_recipe(data).replace(model={"name": model, **options}, title=title, **common),
    ]


def adaptive_options(model: str) -> tuple[dict[str, str], str]:
    """AGLU everywhere, and APA in the gates that a network of that name has; with a title for tables."""
    gates = {"se_": ["gate"], "cb_": ["gate", "spatial_gate"], "sp_": ["spatial_gate"]}.get(model[:3], [])
    options = {"activation": "aglu", **dict.fromkeys(gates, "apa")}
    return options, f"{'APA* + ' if gates else ''}AGLU, Balanced Softmax"


RECIPES = ("digit_scenes_lt_softmax", "digit_scenes_lt", "digit_scenes_lt_balanced")


def detection_demo_recipes(epochs: int | None = None, seed: int = 0) -> list[DetectionRecipe]:
    """Softmax cross entropy, GOL and Balanced Sigmoid, equal in everything else.

    >>> [recipe.title for recipe in detection_demo_recipes()]
    ['softmax cross entropy', 'GOL', 'Balanced Sigmoid']
    """
    recipes = [get_recipe(name) for name in RECIPES]
    return [recipe.replace(seed=seed, epochs=recipe.epochs if epochs is None else epochs) for recipe in recipes]
