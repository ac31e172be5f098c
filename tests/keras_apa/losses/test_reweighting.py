"""Class-balanced losses against the paper's equations in float64."""

import keras
import numpy as np
import pytest
from gradients import value_and_gradient

from keras_apa.losses import ClassBalancedCrossentropy, class_balanced_crossentropy

RNG = np.random.default_rng(0)
LOGITS = RNG.normal(0, 3, (10, 5)).astype("float32")
LABELS = RNG.integers(0, 5, 10)
SOFT = RNG.dirichlet(np.ones(5), 10).astype("float32")
COUNTS = np.array([500, 120, 40, 11, 2])
NOISE = 20 * 2.0**-24


def base_loss(targets, logits, base, gamma):
    """L of Eqs. 6 (softmax), 7 (sigmoid) and 9 (focal)."""
    if base == "softmax":
        return -(targets * np.log(np.exp(logits) / np.exp(logits).sum(-1, keepdims=True))).sum(-1)
    p = 1 / (1 + np.exp(-logits))
    focus = gamma if base == "focal" else 0
    return -(targets * (1 - p) ** focus * np.log(p) + (1 - targets) * p**focus * np.log(1 - p)).sum(-1)


def equation(targets, logits, beta, base, gamma):
    weight = (1 - beta) / (1 - beta ** COUNTS.astype("float64"))
    weight *= 5 / weight.sum()
    return (targets * weight).sum(-1) * base_loss(targets, logits, base, gamma)


@pytest.mark.parametrize("soft", [False, True])
@pytest.mark.parametrize("beta", [0.0, 0.9, 0.9999])
@pytest.mark.parametrize(("base", "gamma"), [("softmax", 2.0), ("sigmoid", 2.0), ("focal", 0.5), ("focal", 2.0)])
def test_value_and_gradient_are_the_equation(base, gamma, beta, soft):
    targets = (SOFT if soft else np.eye(5)[LABELS]).astype("float64")
    z = LOGITS.astype("float64")
    want = equation(targets, z, beta, base, gamma)
    steps = 1e-6 * np.eye(5)
    want_gradient = np.stack(
        [
            (equation(targets, z + step, beta, base, gamma) - equation(targets, z - step, beta, base, gamma)) / 2e-6
            for step in steps
        ],
        axis=-1,
    )
    value, (gradient,) = value_and_gradient(
        lambda logits: class_balanced_crossentropy(SOFT if soft else LABELS, logits, COUNTS, beta, base, gamma),
        LOGITS,
    )
    np.testing.assert_allclose(value, want, rtol=0, atol=NOISE * max(1, want.max()))
    # Central differences in float64 are good to 1e-9 of the largest value.
    np.testing.assert_allclose(gradient, want_gradient, rtol=0, atol=2 * NOISE * np.abs(want_gradient).max())


def test_focal_loss_of_large_logits_is_finite():
    value, (gradient,) = value_and_gradient(
        lambda z: class_balanced_crossentropy([0], z, [3, 1], base="focal", gamma=0.5),
        np.array([[300.0, -300.0]], "float32"),
    )
    assert np.all(np.isfinite(value)) and np.all(np.isfinite(gradient))


def test_beta_zero_is_the_base_loss():
    got = ClassBalancedCrossentropy(COUNTS, beta=0.0)(LABELS, LOGITS)
    want = keras.losses.SparseCategoricalCrossentropy(from_logits=True)(LABELS, LOGITS)
    assert float(got) == pytest.approx(float(want), rel=NOISE)


def test_focal_base_is_keras_focal_loss():
    one_hot = np.eye(5, dtype="float32")[LABELS]
    got = ClassBalancedCrossentropy(COUNTS, beta=0.0, base="focal", gamma=1.5, class_reduction="mean")(one_hot, LOGITS)
    want = keras.losses.BinaryFocalCrossentropy(gamma=1.5, from_logits=True)(one_hot, LOGITS)
    # Keras clips probabilities at 1e-7.
    assert float(got) == pytest.approx(float(want), rel=1e-4)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"beta": 1.0}, "beta"),
        ({"beta": -0.1}, "beta"),
        ({"base": "relu"}, "base.*softmax.*sigmoid.*focal"),
        ({"gamma": -1}, "gamma"),
        ({"class_reduction": "mean"}, "class_reduction"),
        ({"label_smoothing": -0.1}, "label_smoothing"),
    ],
)
def test_bad_arguments_are_named(arguments, message):
    with pytest.raises(ValueError, match=message):
        ClassBalancedCrossentropy(COUNTS, **arguments)
    with pytest.raises(ValueError, match="class 1"):
        ClassBalancedCrossentropy([3, 0])
