"""DropLoss and GOL: the authors' code with their recorded random draw."""

import json
from pathlib import Path

import numpy as np
import pytest
from gradients import value_and_gradient

from keras_apa.losses import DropLoss, GumbelOptimizedLoss, drop_loss, gumbel_optimized_loss

REFERENCE = np.load(Path(__file__).parents[2] / "data" / "losses.npz")
COUNTS = REFERENCE["counts"]
TOTAL = int(COUNTS.sum())
UNIFORM = REFERENCE["uniform"]
LABELS = {"mixed": REFERENCE["labels_bg"], "fg": REFERENCE["labels_fg"], "bg": np.full(16, 12)}
EPS = 2.0**-24


def noise(logits, activation, low, high, weight):
    """Of one element, for code that takes log(1 - p) of a rounded probability p."""
    if activation == "sigmoid":
        return 20 * EPS * (1 + np.abs(logits)) * weight
    v = np.exp(-np.clip(logits.astype("float64"), low, high))
    return (10 * EPS / -np.expm1(-v) + 20 * EPS * v) * weight


@pytest.mark.parametrize("kind", ["mixed", "fg", "bg"])
@pytest.mark.parametrize("activation", ["sigmoid", "gumbel"])
@pytest.mark.parametrize("scale", ["s2", "s6"])
@pytest.mark.parametrize(("code", "low"), [("droploss_gol", -4.0), ("droploss_aglu", -10.0)])
def test_value_and_gradient_are_the_authors(code, low, scale, activation, kind):
    entry = f"{code}/{scale}_{activation}_{kind}"
    logits, labels = REFERENCE[f"{entry}/logits"], LABELS[kind]

    def ours(z, uniform):
        return drop_loss(labels, z, COUNTS, TOTAL, 0.02, activation, (low, 10.0), uniform=uniform) / 16

    positive = np.eye(13)[labels][:, :12] > 0
    tolerance = noise(logits, activation, low, 10.0, 1 / 16)
    # The probability form has no gradient for a positive below -3.3; there ours is the exact -exp(-q).
    lost = positive & (logits < -3.3) if (code, activation) == ("droploss_gol", "gumbel") else positive & False
    for suffix in ("", "_expect") if kind != "bg" else ("",):
        if suffix:
            # Linear in the random weight: rho times all kept, 1 - rho times all dropped.
            rho = float(REFERENCE[f"{entry}/exclude_ratio"])
            kept, (kept_gradient,) = value_and_gradient(lambda z: ours(z, np.zeros((16, 12))), logits)
            dropped, (dropped_gradient,) = value_and_gradient(lambda z: ours(z, np.ones((16, 12))), logits)
            value = rho * kept + (1 - rho) * dropped
            gradient = rho * kept_gradient + (1 - rho) * dropped_gradient
        else:
            value, (gradient,) = value_and_gradient(lambda z: ours(z, UNIFORM), logits)
        want, want_gradient = REFERENCE[f"{entry}{suffix}/loss"], REFERENCE[f"{entry}{suffix}/grad"]
        assert abs(value.sum() - want) <= tolerance.sum()
        assert np.all(np.abs(gradient - want_gradient)[~lost] <= tolerance[~lost])
        exact = np.where(logits >= low, -np.exp(-logits.astype("float64")), 0)[lost] / 16
        np.testing.assert_allclose(gradient[lost], exact, rtol=20 * EPS)


def test_gol_is_droploss_with_gumbel():
    logits = REFERENCE["base"][:, :12]
    got = value_and_gradient(
        lambda z: gumbel_optimized_loss(LABELS["mixed"], z, COUNTS, TOTAL, 0.02, uniform=UNIFORM), logits
    )
    want = value_and_gradient(
        lambda z: drop_loss(LABELS["mixed"], z, COUNTS, TOTAL, 0.02, "gumbel", uniform=UNIFORM), logits
    )
    np.testing.assert_array_equal(got[0], want[0])
    np.testing.assert_array_equal(got[1][0], want[1][0])
    assert float(GumbelOptimizedLoss(COUNTS, TOTAL, 0.02, seed=3)(LABELS["mixed"], logits)) == float(
        DropLoss(COUNTS, TOTAL, 0.02, "gumbel", seed=3)(LABELS["mixed"], logits)
    )


@pytest.mark.any_backend  # 300 calls; one draw is compared on each
def test_mean_of_many_draws_is_the_expectation():
    loss = DropLoss(COUNTS, TOTAL, 0.02, seed=0)
    logits = REFERENCE["droploss_gol/s2_sigmoid_mixed/logits"]
    draws = np.array([float(loss(LABELS["mixed"], logits)) for _ in range(300)])
    want = float(REFERENCE["droploss_gol/s2_sigmoid_mixed_expect/loss"])
    assert abs(draws.mean() - want) < 4 * draws.std() / np.sqrt(300)
    assert draws.std() > 0.01


def test_only_background_drops_nothing_and_is_finite():
    logits = np.zeros((3, 12), "float32")
    value = drop_loss([12, 12, 12], logits, COUNTS, TOTAL, 0.02, uniform=np.ones((3, 12)))
    np.testing.assert_allclose(np.array([float(each) for each in value]), 12 * np.log(2), rtol=1e-6)


def test_ignored_rows_do_not_count_as_foreground():
    logits = np.zeros((2, 12), "float32")
    # The only foreground label, of a frequent class, is ignored: rho stays undefined and nothing is dropped.
    loss = DropLoss(COUNTS, TOTAL, 0.02, ignore_class=0, seed=0)
    assert float(loss([0, 12], logits)) == pytest.approx(12 * np.log(2), rel=1e-6)


def test_frequency_is_that_among_images_not_among_counts():
    assert DropLoss([500, 10], num_images=10_000, frequency_threshold=0.02).rare_classes.tolist() == [1]
    assert DropLoss([500, 10], num_images=510, frequency_threshold=0.01).rare_classes.tolist() == []
    assert DropLoss([500, 0], num_images=510, frequency_threshold=0.01).rare_classes.tolist() == [1]


def test_lvis_v1_has_815_classes_below_the_published_threshold():
    path = Path(__file__).parents[2] / "data" / "lvis_v1_counts.json"
    counts = json.loads(path.read_text())["image_count"]
    assert len(DropLoss(counts, 99_388, 0.0011).rare_classes) == 815


@pytest.mark.parametrize("loss", [DropLoss, GumbelOptimizedLoss])
def test_soft_targets_are_an_error(loss):
    with pytest.raises(ValueError, match=r"y_true.*only 0 and 1"):
        loss([3, 1], 4, 0.5)([[0.9, 0.1]], [[0.0, 0.0]])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (dict(image_counts=[5, 1], num_images=4, frequency_threshold=0.1), "num_images.*class 0"),
        (dict(image_counts=[5, -1], num_images=9, frequency_threshold=0.1), "image_counts"),
        (dict(image_counts=[5, 1], num_images=9.5, frequency_threshold=0.1), "num_images"),
        (dict(image_counts=[5, 1], num_images=9, frequency_threshold=-0.1), "frequency_threshold"),
        (
            dict(image_counts=[5, 1], num_images=9, frequency_threshold=0.1, activation="softmax"),
            "activation",
        ),
        (dict(image_counts=[5, 1], num_images=9, frequency_threshold=0.1, ignore_class=2), "ignore_class"),
        (dict(image_counts=[5, 1], num_images=9, frequency_threshold=0.1, seed="x"), "seed"),
        (
            dict(image_counts=[5, 1], num_images=9, frequency_threshold=0.1, class_reduction="max"),
            "class_reduction",
        ),
    ],
)
def test_bad_arguments_are_named(arguments, message):
    with pytest.raises(ValueError, match=message):
        DropLoss(**arguments)
