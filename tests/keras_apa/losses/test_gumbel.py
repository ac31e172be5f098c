"""Gumbel cross entropy: the authors' code, and the exact formula where that clamps or lost its gradient."""

from pathlib import Path

import numpy as np
import pytest
from gradients import value_and_gradient

from keras_apa.losses import GumbelCrossentropy, gumbel_crossentropy

REFERENCE = np.load(Path(__file__).parents[2] / "data" / "losses.npz")
EPS = 2.0**-24
LABELS = REFERENCE["labels_bg"]
RANGE = (-4.0, 10.0)


def exact(logits, positive, low, high):
    """Value and gradient of each element in float64."""
    z = logits.astype("float64")
    v = np.exp(-np.clip(z, low, high))
    value = np.where(positive, v, -np.log(-np.expm1(-v)))
    with np.errstate(over="ignore"):
        gradient = np.where(positive, -v, v / np.expm1(v))
    return value, gradient * ((z >= low) & (z <= high))


def noise(logits, low, high):
    """What float32 costs code that takes log(p) and log(1 - p) of a rounded probability p."""
    v = np.exp(-np.clip(logits.astype("float64"), low, high))
    return 10 * EPS / -np.expm1(-v)  # their log of a number just below 1 is off by up to eight units


def assert_near(got, want, tolerance):
    assert np.all(np.abs(got - want) <= tolerance), np.max(np.abs(got - want) - tolerance)


@pytest.mark.parametrize("target", [0, 1])
@pytest.mark.parametrize(("reference", "low"), [("stable", -10.0), ("bce_of_prob", -4.0), ("gumbel_ce", -4.0)])
def test_curve_of_one_logit(reference, low, target):
    entry = f"curve/{reference}_y{target}"
    logits = REFERENCE[f"{entry}/logits"]
    targets = np.full(logits.shape, target, "float32")
    value, (gradient,) = value_and_gradient(lambda z: gumbel_crossentropy(targets, z, logit_range=(low, 10.0)), logits)
    want, want_gradient = exact(logits, target == 1, low, 10.0)
    tolerance = noise(logits, low, 10.0) + 20 * EPS * want
    assert_near(value[:, None], want, 20 * EPS * want + EPS)
    assert_near(gradient, want_gradient, 20 * EPS * np.abs(want_gradient) + EPS)

    theirs, their_gradient = REFERENCE[f"{entry}/loss"], REFERENCE[f"{entry}/grad"]
    unclamped = want < 20 if reference == "gumbel_ce" else np.full(want.shape, True)
    assert_near(value[:, None][unclamped], theirs[unclamped], tolerance[unclamped])
    tolerance = tolerance * np.maximum(1, np.exp(-np.clip(logits, low, 10)))  # d p / d z is exp(-z) times p
    has_gradient = unclamped if reference == "stable" or target == 0 else unclamped & (logits >= -3.3)
    assert_near(gradient[has_gradient], their_gradient[has_gradient], tolerance[has_gradient])


def test_curve_is_the_stored_float64_one():
    logits = REFERENCE["curve/z"]
    inside = np.abs(logits) <= 10
    for target in (0, 1):
        value, gradient = exact(logits, target == 1, -10, 10)
        np.testing.assert_allclose(value[inside], REFERENCE[f"curve/exact_y{target}"][inside], rtol=1e-9, atol=1e-12)
        np.testing.assert_allclose(
            gradient[inside], REFERENCE[f"curve/exact_grad_y{target}"][inside], rtol=1e-9, atol=1e-12
        )


@pytest.mark.parametrize("scale", ["s2", "s6"])
def test_unreduced_elements_and_sample_weights(scale):
    logits = REFERENCE[f"gumbel_ce/{scale}_none/logits"]
    one_hot = np.eye(13)[LABELS] > 0
    value, gradient = exact(logits, one_hot, *RANGE)
    clamped = value > 20
    tolerance = noise(logits, *RANGE) + 20 * EPS * np.abs(value)
    for entry, weight in (("none", None), ("weight_none", REFERENCE["weights"])):
        theirs = REFERENCE[f"gumbel_ce/{scale}_{entry}/loss"]
        their_gradient = REFERENCE[f"gumbel_ce/{scale}_{entry}/grad"]
        factor = np.ones((16, 1)) if weight is None else weight[:, None].astype("float64")
        if weight is None:
            assert_near(theirs[~clamped], value[~clamped], tolerance[~clamped])
        loss = GumbelCrossentropy(logit_range=RANGE, reduction=None)
        got, (got_gradient,) = value_and_gradient(
            lambda z, w=weight, loss=loss: loss(LABELS, z, sample_weight=w), logits
        )
        # They clamp value times weight; where nothing of the row is clamped, ours is their sum.
        unclamped = value * factor < 20
        whole = np.where(unclamped, theirs, value * factor)
        assert_near(got, whole.sum(axis=1), (tolerance * factor).sum(axis=1))
        kept = unclamped
        assert_near(got_gradient[kept], their_gradient[kept], (tolerance * factor)[kept])
        assert_near(got_gradient, gradient * factor, 20 * EPS * np.abs(gradient * factor) + EPS)
        assert kept.sum() > 190


@pytest.mark.parametrize("scale", ["s2", "s6"])
@pytest.mark.parametrize("entry", ["mean", "sum", "avg_factor", "weight", "ignore", "lossweight"])
def test_reduced_values(scale, entry):
    logits = REFERENCE[f"gumbel_ce/{scale}_{entry}/logits"]
    labels = LABELS
    one_hot = np.eye(13)[labels] > 0
    factor, weight = 1.0, None
    reduction, class_reduction = "sum_over_batch_size", "sum"
    if entry in ("mean", "ignore", "lossweight"):
        class_reduction = "mean"
        factor = 0.7 if entry == "lossweight" else 1.0
    if entry == "sum":
        reduction = "sum"
    if entry == "weight":
        weight = REFERENCE["weights"]
    if entry == "ignore":
        ignored = np.isin(np.arange(16), [4, 9])
        labels = np.where(ignored, -1, labels)
        # Theirs divides by all samples, ours by those that are not ignored.
        factor = (~ignored).mean()
    loss = GumbelCrossentropy(logit_range=RANGE, reduction=reduction, class_reduction=class_reduction)
    got, (got_gradient,) = value_and_gradient(lambda z: loss(labels, z, sample_weight=weight) * factor, logits)
    theirs = REFERENCE[f"gumbel_ce/{scale}_{entry}/loss"]
    value, gradient = exact(logits, one_hot, *RANGE)
    rows = np.ones(16) if weight is None else weight.astype("float64")
    if entry == "ignore":
        rows = (~ignored).astype("float64")
    divisor = {"sum": 1.0, "mean": 16 * 13.0, "ignore": 16 * 13.0, "lossweight": 16 * 13 / 0.7}.get(entry, 16.0)
    tolerance = (noise(logits, *RANGE) + 20 * EPS * value) * rows[:, None] / divisor
    assert_near(got, (value * rows[:, None]).sum() / divisor, tolerance.sum())
    scaled = gradient * rows[:, None] / divisor
    assert_near(got_gradient, scaled, 20 * EPS * np.abs(scaled) + EPS)
    if theirs < 20:  # beyond, they clamp the scalar and lose every gradient
        assert_near(got, theirs, tolerance.sum())
        kept = ~one_hot | (logits >= -3.3) | (logits < -4)
        their_gradient = REFERENCE[f"gumbel_ce/{scale}_{entry}/grad"]
        assert_near(got_gradient[kept], their_gradient[kept], tolerance[kept] + EPS)
    else:
        assert (value * rows[:, None]).sum() / divisor > 20


def test_gradient_exists_where_the_probability_form_lost_it():
    _, (gradient,) = value_and_gradient(
        lambda z: gumbel_crossentropy([0], z, logit_range=(-10, 10)), np.array([[-8.0, 0.0]], "float32")
    )
    assert gradient[0, 0] == pytest.approx(-np.exp(8.0), rel=1e-5)


def test_background_row_is_all_negative():
    logits = np.array([[0.3, -0.7]], "float32")
    got = float(gumbel_crossentropy([2], logits, background=True)[0])
    want = exact(logits, np.zeros((1, 2), bool), -10, 10)[0].sum()
    assert got == pytest.approx(want, rel=1e-6)


@pytest.mark.parametrize("given", [(1, 1), (2, -2), 5, ("a", "b"), (0, float("inf")), None])
def test_logit_range_that_is_none_is_an_error(given):
    with pytest.raises(ValueError, match="logit_range"):
        GumbelCrossentropy(logit_range=given)
