"""What a recipe with other values than its own is called, and whether the published number still stands for it."""

from __future__ import annotations

from typing import TypeVar

from training.config.experiment import Experiment, differences
from training.recipes import recipes

# Where things are, who decides by chance, and what changes no result.
_NO_CHANGE = ("title", "published", "seed", "evaluation.batch_size", "data.path", "data.train_list", "data.test_list",
              "data.train", "data.images", "data.test", "data.test_images")  # fmt: skip
# Titles are about method, not about the size of the network.
_METHOD = ("model.", "loss.", "evaluation.prior_correction", "evaluation.tau")
_NOT_METHOD = ("model.name", "model.backbone")
_SHOWN = 3
_Recipe = TypeVar("_Recipe", bound=Experiment)


def changes(recipe: Experiment) -> list[str]:
    """The settings in which a recipe differs from the one of its name that stands for a published number.

    Returns: A text for each; none where no published number belongs to that name.

    >>> from training.recipes import get_recipe
    >>> changes(get_recipe("cifar100_lt").replace(model={"activation": "relu"}))
    ['model.activation relu (was aglu)']
    """
    own = recipes().get(recipe.name)
    if own is None or ":" not in own.published:
        return []
    return [f"{name} {_shown(now)} (was {_shown(was)})" for name, (was, now) in _differences(own, recipe).items()]


def titled(recipe: _Recipe) -> _Recipe:
    """The recipe with a title that names the changes of its method; one that somebody has given stays.

    >>> from training.recipes import get_recipe
    >>> titled(get_recipe("cifar100_lt").replace(model={"activation": "relu"}, epochs=3)).title
    'APA* + AGLU, PC-softmax, but model.activation relu'
    """
    own = recipes().get(recipe.name)
    if own is None or recipe.title != own.title:
        return recipe
    changed = [
        f"{name} {_shown(now)}"
        for name, (_, now) in _differences(own, recipe).items()
        if name.startswith(_METHOD) and name not in _NOT_METHOD
    ]
    if not changed:
        return recipe
    more = f" and {len(changed) - _SHOWN} more" if len(changed) > _SHOWN else ""
    return recipe.replace(title=f"{own.title}, but {', '.join(changed[:_SHOWN])}{more}")


def _differences(own, recipe):
    found = differences(own.to_dict(), recipe.to_dict())
    if "model.activation" in found and found.get("model.lambda_gradient") == ("paper", "exact"):
        del found["model.lambda_gradient"]  # it goes with AGLU
    return {name: pair for name, pair in sorted(found.items()) if name not in _NO_CHANGE}


def _shown(value):
    return "none" if value in (None, "") else str(value)
