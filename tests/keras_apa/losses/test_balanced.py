"""Balanced Softmax and Balanced Sigmoid: the authors' numbers and the papers' equations in float64."""

from pathlib import Path

import keras
import numpy as np
import pytest
from backends import EXAMPLES
from gradients import value_and_gradient
from hypothesis import given, settings
from hypothesis import strategies as st

from keras_apa.class_counts import ClassCounts
from keras_apa.losses import (
    BalancedSigmoidCrossentropy,
    BalancedSoftmaxCrossentropy,
    balanced_sigmoid_crossentropy,
    balanced_softmax_crossentropy,
)

REFERENCE = np.load(Path(__file__).parents[2] / "data" / "losses.npz")
COUNTS = REFERENCE["counts"]
LABELS = REFERENCE["labels_fg"]
SOFT = REFERENCE["targets_soft"]
LOGITS = REFERENCE["base"][:, :12] * 2
# A dozen float32 operations on numbers of size 1 to 10.
NOISE = 20 * 2.0**-24


def softmax_equation(targets, logits, counts, tau=1.0):
    """Value and gradient of Balanced Meta-Softmax, Eq. 4, in float64."""
    weighed = counts.astype("float64") ** tau * np.exp(logits.astype("float64"))
    p = weighed / weighed.sum(-1, keepdims=True)
    return -(targets * np.log(p)).sum(-1), p * targets.sum(-1, keepdims=True) - targets


def sigmoid_equation(targets, logits, counts, tau=1.0):
    """Value and gradient of Balanced Activation, Eqs. 36, 37 and 46, in float64."""
    n, total, mean = counts.astype("float64"), counts.sum(), counts.mean()
    z = logits.astype("float64") - tau * np.log(mean / n * (total - n) / (total - mean))
    p = 1 / (1 + np.exp(-z))
    return -(targets * np.log(p) + (1 - targets) * np.log(1 - p)).sum(-1), p - targets


def assert_near(got, want, factor=1.0):
    np.testing.assert_allclose(got, want, rtol=0, atol=factor * NOISE * max(1.0, np.max(np.abs(want))))


@pytest.mark.parametrize("reduction", ["mean", "sum", "none"])
def test_balanced_softmax_is_the_authors(reduction):
    entry = f"balanced_softmax/{reduction}"
    loss = BalancedSoftmaxCrossentropy(COUNTS, reduction=reduction)
    value, (gradient,) = value_and_gradient(lambda z: loss(LABELS, z), REFERENCE[f"{entry}/logits"])
    assert_near(value, REFERENCE[f"{entry}/loss"])
    assert_near(gradient, REFERENCE[f"{entry}/grad"])


@pytest.mark.parametrize("tau", [0.0, 0.5, 1.0, 1.7])
@pytest.mark.parametrize("soft", [False, True])
def test_balanced_softmax_is_the_equation(tau, soft):
    targets = SOFT if soft else np.eye(12)[LABELS]
    want, want_gradient = softmax_equation(targets.astype("float64"), LOGITS, COUNTS, tau)
    value, (gradient,) = value_and_gradient(
        lambda z: balanced_softmax_crossentropy(SOFT if soft else LABELS, z, COUNTS, tau), LOGITS
    )
    assert_near(value, want)
    assert_near(gradient, want_gradient)


@pytest.mark.parametrize("tau", [0.0, 0.25, 1.0])
@pytest.mark.parametrize("soft", [False, True])
def test_balanced_sigmoid_is_the_equation(tau, soft):
    targets = SOFT if soft else np.eye(12)[LABELS]
    want, want_gradient = sigmoid_equation(targets.astype("float64"), LOGITS, COUNTS, tau)
    for class_reduction, divisor in (("sum", 1), ("mean", 12)):
        value, (gradient,) = value_and_gradient(
            lambda z, r=class_reduction: balanced_sigmoid_crossentropy(
                SOFT if soft else LABELS, z, COUNTS, tau, class_reduction=r
            ),
            LOGITS,
        )
        assert_near(value, want / divisor)
        assert_near(gradient, want_gradient / divisor)


@pytest.mark.parametrize("reduction", ["mean", "sum"])
@pytest.mark.parametrize("smoothing", ["0", "0.1"])
@pytest.mark.parametrize("kind", ["hard", "soft"])
def test_balanced_sigmoid_with_equal_counts_is_the_authors_binary_cross_entropy(reduction, smoothing, kind):
    # Theirs has the mean over samples and classes, or the mean over samples of the sum over classes.
    entry = f"bce/{reduction}_ls{smoothing}_{kind}"
    loss = BalancedSigmoidCrossentropy([7] * 12, label_smoothing=float(smoothing), class_reduction=reduction)
    targets = LABELS if kind == "hard" else SOFT
    value, (gradient,) = value_and_gradient(lambda z: loss(targets, z), REFERENCE[f"{entry}/logits"])
    assert_near(value, REFERENCE[f"{entry}/loss"])
    assert_near(gradient, REFERENCE[f"{entry}/grad"])


def test_background_is_an_all_zero_target_also_when_smoothed():
    logits = LOGITS[:2]
    got = balanced_sigmoid_crossentropy([12, 12], logits, COUNTS, label_smoothing=0.2, background=True)
    want, _ = sigmoid_equation(np.zeros((2, 12)), logits, COUNTS)
    assert_near(keras.ops.convert_to_numpy(got), want)


def test_large_logits_stay_finite_and_exact():
    logits = np.array([[200.0, -200.0]], "float32")
    value, (gradient,) = value_and_gradient(lambda z: balanced_sigmoid_crossentropy([1], z, [1, 1]), logits)
    np.testing.assert_allclose(value, [400.0], rtol=1e-6)
    np.testing.assert_allclose(gradient, [[1.0, -1.0]], atol=1e-6)


@settings(max_examples=EXAMPLES, deadline=None)
@given(
    st.sampled_from([2, 3, 9]),  # few shapes: JAX compiles every operation for each
    st.sampled_from([1, 6]),
    st.integers(1, 10_000),
    st.floats(0, 3),
    st.integers(0, 2**32 - 1),
)
def test_equal_counts_give_cross_entropy(classes, batch, count, tau, seed):
    rng = np.random.default_rng(seed)
    logits = rng.normal(0, 4, (batch, classes)).astype("float32")
    labels = rng.integers(0, classes, batch)
    got = BalancedSoftmaxCrossentropy([count] * classes, tau=tau)(labels, logits)
    want = keras.losses.SparseCategoricalCrossentropy(from_logits=True)(labels, logits)
    assert_near(float(got), float(want), factor=5 + tau * np.log(classes))
    got = BalancedSigmoidCrossentropy([count] * classes, tau=tau, class_reduction="mean")(labels, logits)
    one_hot = np.eye(classes, dtype="float32")[labels]
    want = keras.losses.BinaryCrossentropy(from_logits=True)(one_hot, logits)
    assert_near(float(got), float(want), factor=5)


@settings(max_examples=EXAMPLES, deadline=None)
@given(
    st.lists(st.integers(1, 10**6), min_size=2, max_size=12),
    st.sampled_from(["labels", "column", "one_hot", "sequence"]),
    st.integers(0, 2**32 - 1),
)
def test_label_layouts_and_scale_of_counts_do_not_matter(counts, layout, seed):
    rng = np.random.default_rng(seed)
    classes = len(counts)
    logits = rng.normal(0, 3, (4, classes)).astype("float32")
    labels = rng.integers(0, classes, 4)
    want, _ = softmax_equation(np.eye(classes)[labels], logits, np.array(counts))
    given_labels, given_logits = {
        "labels": (labels.astype("uint8"), logits),
        "column": (labels[:, None], logits),
        "one_hot": (np.eye(classes, dtype="int32")[labels], logits),
        "sequence": (labels.reshape(2, 2), logits.reshape(2, 2, classes)),
    }[layout]
    got = balanced_softmax_crossentropy(given_labels, given_logits, [3 * count for count in counts])
    assert_near(keras.ops.convert_to_numpy(got).reshape(-1), want, factor=5)


def test_a_permutation_of_the_classes_changes_nothing():
    order = np.random.default_rng(0).permutation(12)
    one_hot = np.eye(12, dtype="float32")[LABELS]
    for loss in (BalancedSoftmaxCrossentropy, BalancedSigmoidCrossentropy):
        plain = float(loss(COUNTS)(one_hot, LOGITS))
        assert float(loss(COUNTS[order])(one_hot[:, order], LOGITS[:, order])) == pytest.approx(plain, rel=1e-5)


def test_counts_may_come_as_counts_sequence_or_mapping():
    values = [
        float(BalancedSoftmaxCrossentropy(counts)([0, 2], [[1.0, 2.0, 3.0]] * 2))
        for counts in ([5, 3, 1], ClassCounts([5, 3, 1]), {0: 5, 1: 3, 2: 1}, np.array([5, 3, 1]))
    ]
    assert values == [values[0]] * 4


@pytest.mark.parametrize("loss", [BalancedSoftmaxCrossentropy, BalancedSigmoidCrossentropy])
def test_counts_that_cannot_be_are_errors(loss):
    for counts, message in (
        ([3, 0], "class 1"),
        ([3, -1], "class 1"),
        ([2.5, 1], "whole"),
        (None, "class_counts"),
    ):
        with pytest.raises(ValueError, match=message):
            loss(counts)


def test_odds_among_one_class_are_an_error():
    with pytest.raises(ValueError, match="two classes"):
        BalancedSigmoidCrossentropy([3])


@pytest.mark.parametrize("loss", [BalancedSoftmaxCrossentropy, BalancedSigmoidCrossentropy])
@pytest.mark.parametrize(
    "argument", [{"tau": -1}, {"tau": float("nan")}, {"label_smoothing": 1.5}, {"ignore_class": 0.5}]
)
def test_arguments_outside_their_range_are_errors(loss, argument):
    with pytest.raises(ValueError, match=next(iter(argument))):
        loss([3, 1], **argument)
