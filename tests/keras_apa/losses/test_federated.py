"""Federated loss against its equation in float64, and the distribution of its draw."""

import itertools

import keras
import numpy as np
import pytest
from gradients import value_and_gradient

from keras_apa.losses import FederatedLoss, federated_loss

RNG = np.random.default_rng(0)
LOGITS = RNG.normal(0, 2, (6, 8)).astype("float32")
COUNTS = np.array([400, 100, 36, 25, 16, 9, 4, 0])
NOISE = 20 * 2.0**-24


def equation(targets, logits, classes):
    z = logits.astype("float64")
    p = 1 / (1 + np.exp(-z))
    asked = np.isin(np.arange(8), classes)
    value = -(asked * (targets * np.log(p) + (1 - targets) * np.log(1 - p))).sum(1)
    return value, asked * (p - targets)


@pytest.mark.parametrize(
    ("labels", "size", "classes"),
    [
        # Descending keys: of equal draws, the largest counts come first.
        ([0, 0, 3, 3, 3, 5], 5, [0, 3, 5, 1, 2]),
        ([0, 0, 3, 3, 8, 5], 5, [0, 3, 5, 1]),  # background takes a place
        ([0, 1, 2, 3, 4, 5], 2, [0, 1, 2, 3, 4, 5]),  # more present than asked for
        ([0, 0, 0, 0, 0, 0], 8, [0, 1, 2, 3, 4, 5, 6]),  # a class without images is never drawn
        ([7, 7, 7, 7, 7, -1], 2, [7, 0]),  # but present, it is asked
        ([8, 8, 8, 8, 8, 8], 3, [0, 1]),
    ],
)
def test_value_and_gradient_are_the_equation(labels, size, classes):
    labels = np.array(labels)
    targets = np.eye(9)[labels][:, :8]
    want, want_gradient = equation(targets, LOGITS, classes)
    want, want_gradient = want * (labels >= 0), want_gradient * (labels >= 0)[:, None]
    value, (gradient,) = value_and_gradient(
        lambda z: federated_loss(labels, z, COUNTS, size, background=True, uniform=np.full(8, 0.5, "float32")),
        LOGITS,
    )
    np.testing.assert_allclose(value, want, rtol=NOISE, atol=NOISE)
    np.testing.assert_allclose(gradient, want_gradient, atol=NOISE)


def test_soft_and_multi_hot_targets_ask_all_their_classes():
    targets = np.zeros((6, 8), "float32")
    targets[0, [1, 4]] = [0.7, 0.3]
    targets[1, [2, 6]] = 1
    value = federated_loss(targets, LOGITS, COUNTS, 1)
    np.testing.assert_allclose(
        keras.ops.convert_to_numpy(value), equation(targets, LOGITS, [1, 2, 4, 6])[0], rtol=NOISE, atol=NOISE
    )


@pytest.mark.any_backend  # 500 calls; the draws are Keras's, the equation is tested on each
def test_draws_are_without_replacement_with_weights_of_a_power_of_the_counts():
    counts, draws = np.array([81, 16, 4, 1]), 500
    loss = FederatedLoss(np.append(counts, 7), 3, power=0.5, seed=1, reduction=None)
    # Logits of different size name the two classes that were drawn beside class 4.
    logits = np.array([[1.0, 2.0, 4.0, 8.0, 0.0]], "float32")
    size = np.log1p(np.exp(logits[0, :4]))
    pairs = list(itertools.combinations(range(4), 2))
    sums = np.array([size[list(pair)].sum() for pair in pairs]) + np.log(2)
    seen = np.array([float(loss([4], logits)[0]) for _ in range(draws)])
    which = np.abs(seen[:, None] - sums).argmin(1)
    share = np.bincount(which, minlength=6) / draws
    w = np.sqrt(counts) / np.sqrt(counts).sum()
    want = np.array([w[i] * w[j] / (1 - w[i]) + w[j] * w[i] / (1 - w[j]) for i, j in pairs])
    assert np.all(np.abs(share - want) < 4 * np.sqrt(want * (1 - want) / draws) + 1 / draws)


def test_seed_repeats_the_draws():
    values = []
    for _ in range(2):
        loss = FederatedLoss(COUNTS, 4, seed=11)
        values.append([float(loss([0, 1, 1, 0, 1, 0], LOGITS)) for _ in range(5)])
    assert values[0] == values[1]
    assert len(set(values[0])) > 1


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"num_sampled_classes": 9}, "num_sampled_classes.*8"),
        ({"num_sampled_classes": 0}, "num_sampled_classes"),
        ({"num_sampled_classes": 4, "power": -1}, "power"),
        ({"num_sampled_classes": 4, "activation": "softmax"}, "activation"),
        ({"num_sampled_classes": 4, "background": True, "ignore_class": 8}, "ignore_class"),
    ],
)
def test_bad_arguments_are_named(arguments, message):
    with pytest.raises(ValueError, match=message):
        FederatedLoss(COUNTS, **arguments)


def test_fewer_than_fifty_classes_are_all_sampled_by_default():
    assert FederatedLoss([3, 1]).num_sampled_classes == 2
    assert FederatedLoss([1] * 60).num_sampled_classes == 50
