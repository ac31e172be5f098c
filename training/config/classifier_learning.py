"""Ways to learn the classifier of any recipe, from Table 4c of the APA paper; each changes a recipe.

`ce`: cross entropy, nothing else. `pc_softmax`: cross entropy, with the class prior removed at inference.
`balanced_softmax`: Balanced Softmax in training. Second stages, on the network that `start.weights` names: `crt` (a
new linear classifier, class-aware sampling), `lws` (one factor a class), `drw` (a new classifier, classes weighted by
1 / n). `tau_normalization`: no second training; w / |w|^tau, tau 0.5 unless the recipe says otherwise.

The papers do not state the learning rate and epochs of the second stages of Table 4c, so the recipe's own are used.
`lws` and `tau_normalization` need a linear classifier (`--model.classifier linear` in the first stage). With mixup or
cutmix, the loss of an image has a term for each of its two classes. `drw` weights each term by its class, as the
authors' code does.
"""

from __future__ import annotations

from typing import Any, Literal

from training.checks import check_name
from training.config.classification import LossOptions, Recipe

Method = Literal["ce", "pc_softmax", "balanced_softmax", "crt", "lws", "drw", "tau_normalization"]
_CROSS_ENTROPY = LossOptions(name="SparseCategoricalCrossentropy")
_NO_CORRECTION = {"prior_correction": "none"}

METHODS: dict[Method, dict[str, Any]] = {
    "ce": {"loss": _CROSS_ENTROPY, "evaluation": _NO_CORRECTION},
    "pc_softmax": {"loss": _CROSS_ENTROPY, "evaluation": {"prior_correction": "raw"}},
    "balanced_softmax": {"loss": LossOptions(name="BalancedSoftmaxCrossentropy"), "evaluation": _NO_CORRECTION},
    "crt": {
        "loss": _CROSS_ENTROPY,
        "evaluation": _NO_CORRECTION,
        "model": {"classifier": "linear"},
        "data": {"sampler": "class_aware"},
        "start": {"trainable": "classifier", "keep_classifier": False},
    },
    "lws": {
        "loss": _CROSS_ENTROPY,
        "evaluation": _NO_CORRECTION,
        "data": {"sampler": "class_aware"},
        "start": {"trainable": "class_scale", "keep_classifier": True},
    },
    "drw": {
        "loss": LossOptions(name="SparseCategoricalCrossentropy", class_weights="inverse"),
        "evaluation": _NO_CORRECTION,
        "start": {"trainable": "classifier", "keep_classifier": False},
    },
    "tau_normalization": {"loss": _CROSS_ENTROPY, "evaluation": {**_NO_CORRECTION, "tau_normalization": 0.5}},
}


def learn_classifier(recipe: Recipe, method: Method) -> Recipe:
    """The recipe with its classifier learned in another way; its name says so.

    Raises:
        ValueError: An unknown method, or a second stage without `start.weights`.

    >>> from training.recipes import get_recipe
    >>> learn_classifier(get_recipe("digits100_lt_baseline"), "pc_softmax").evaluation.prior_correction
    'raw'
    """
    check_name("--classifier-learning", method, METHODS)
    return recipe.replace(
        name=f"{recipe.name}_{method}", title=f"{recipe.title}, {method}", published="", **METHODS[method]
    )
