"""Equalization Loss: the authors' sigmoid and Gumbel form, and the paper's softmax form in float64."""

from pathlib import Path

import numpy as np
import pytest
from gradients import value_and_gradient

from keras_apa.losses import EqualizationLoss, equalization_loss, softmax_equalization_loss

REFERENCE = np.load(Path(__file__).parents[2] / "data" / "losses.npz")
COUNTS = REFERENCE["counts"]
TOTAL = int(COUNTS.sum())
LABELS = {"mixed": REFERENCE["labels_bg"], "fg": REFERENCE["labels_fg"], "bg": np.full(16, 12)}
EPS = 2.0**-24
NOISE = 20 * EPS


@pytest.mark.parametrize("kind", ["mixed", "fg", "bg"])
@pytest.mark.parametrize("activation", ["sigmoid", "gumbel"])
@pytest.mark.parametrize("scale", ["s2", "s6"])
def test_value_and_gradient_are_the_authors(scale, activation, kind):
    entry = f"eql/{scale}_{activation}_{kind}"
    logits, labels = REFERENCE[f"{entry}/logits"], LABELS[kind]
    loss = EqualizationLoss(COUNTS, TOTAL, 0.02, activation, logit_range=(-4, 10), background=True)
    value, (gradient,) = value_and_gradient(lambda z: loss(labels, z), logits)
    positive = np.eye(13)[labels][:, :12] > 0
    if activation == "sigmoid":
        tolerance = NOISE * (1 + np.abs(logits)) / 16
        lost = positive & False
    else:
        # They take log(1 - p) of a rounded p, and have no gradient for a positive below -3.3.
        v = np.exp(-np.clip(logits.astype("float64"), -4, 10))
        tolerance = (10 * EPS / -np.expm1(-v) + NOISE * v) / 16
        lost = positive & (logits < -3.3)
    assert abs(value - REFERENCE[f"{entry}/loss"]) <= tolerance.sum()
    assert np.all(np.abs(gradient - REFERENCE[f"{entry}/grad"])[~lost] <= tolerance[~lost])
    exact = np.where(logits >= -4, -np.exp(-logits.astype("float64")), 0)[lost] / 16
    np.testing.assert_allclose(gradient[lost], exact, rtol=NOISE)


@pytest.mark.parametrize("gamma", [0.0, 0.3, 0.9, 1.0])
def test_softmax_form_is_the_equation(gamma):
    logits, labels, uniform = REFERENCE["base"][:, :12] * 2, LABELS["fg"], REFERENCE["uniform"]
    targets = np.eye(12)[labels]
    # Eqs. 8-10: w = 1 - beta T(f) (1 - y), p = exp(z) / sum_k w_k exp(z_k).
    beta = uniform < gamma
    weight = 1 - beta * (COUNTS / TOTAL < 0.02) * (1 - targets)
    exponential = np.exp(logits.astype("float64"))
    denominator = (weight * exponential).sum(1, keepdims=True)
    want = -np.log((targets * exponential).sum(1) / denominator[:, 0])
    want_gradient = weight * exponential / denominator - targets
    value, (gradient,) = value_and_gradient(
        lambda z: softmax_equalization_loss(labels, z, COUNTS, TOTAL, 0.02, gamma, uniform=uniform), logits
    )
    np.testing.assert_allclose(value, want, rtol=0, atol=NOISE * max(1, want.max()))
    np.testing.assert_allclose(gradient, want_gradient, rtol=0, atol=NOISE)
    if gamma == 1.0:
        loss = EqualizationLoss(COUNTS, TOTAL, 0.02, "softmax", gamma=1.0, reduction="sum")
        assert float(loss(targets, logits)) == pytest.approx(want.sum(), rel=NOISE)


def test_softmax_form_draws_anew_and_from_its_seed():
    logits = np.zeros((4, 12), "float32")
    first, second = (EqualizationLoss(COUNTS, TOTAL, 0.02, "softmax", gamma=0.5, seed=5) for _ in range(2))
    draws = [float(first([0, 1, 2, 3], logits)) for _ in range(4)]
    assert len(set(draws)) > 1
    assert draws == [float(second([0, 1, 2, 3], logits)) for _ in range(4)]


def test_a_class_that_is_itself_the_target_is_never_left_out():
    value = equalization_loss([1], [[0.0, 0.0]], [90, 1], 100, 0.1)
    assert float(value[0]) == pytest.approx(2 * np.log(2), rel=1e-6)


def test_softmax_form_takes_neither_background_nor_a_mean_over_classes():
    with pytest.raises(ValueError, match="background"):
        EqualizationLoss([3, 1], 4, 0.5, "softmax", background=True)
    with pytest.raises(ValueError, match="class_reduction"):
        EqualizationLoss([3, 1], 4, 0.5, "softmax", class_reduction="mean")
    with pytest.raises(ValueError, match="gamma"):
        EqualizationLoss([3, 1], 4, 0.5, "softmax", gamma=1.1)


@pytest.mark.parametrize("activation", ["sigmoid", "gumbel", "softmax"])
def test_soft_targets_are_an_error(activation):
    with pytest.raises(ValueError, match="y_true"):
        EqualizationLoss([3, 1], 4, 0.5, activation)([[0.9, 0.1]], [[0.0, 0.0]])
