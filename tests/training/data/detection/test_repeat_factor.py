"""Repeat factors and the order that they give, against their definitions."""

import numpy as np
import pytest

from training.data.detection.repeat_factor import repeat_factor_length, repeat_factor_order, repeat_factors

FACTORS = np.random.default_rng(3).uniform(1, 4, 57)


def test_factors_are_those_of_the_rarest_class_of_an_image():
    generator = np.random.default_rng(0)
    labels = [generator.integers(0, 6, generator.integers(0, 4)) for _ in range(40)]
    counts = np.array([sum(c in own for own in labels) for c in range(6)])
    expected = []
    for own in labels:
        each = [max(1.0, np.sqrt(0.3 / (counts[c] / 40))) for c in own]
        expected.append(max(each, default=1.0))
    np.testing.assert_allclose(repeat_factors(labels, counts, 40, threshold=0.3), expected)


def test_every_image_comes_as_often_as_its_factor_rounded_up_or_down():
    # One more of any image may stand for the fraction that is missing to the length.
    for epoch in range(20):
        order = repeat_factor_order(FACTORS, seed=1, epoch=epoch)
        assert len(order) == repeat_factor_length(FACTORS) == int(np.ceil(FACTORS.sum()))
        times = np.bincount(order, minlength=len(FACTORS))
        assert (times >= np.floor(FACTORS)).all()
        assert (times - np.ceil(FACTORS)).clip(0).sum() <= 1


def test_on_average_every_image_comes_as_often_as_its_factor():
    epochs = 400
    times = sum(np.bincount(repeat_factor_order(FACTORS, 5, e), minlength=len(FACTORS)) for e in range(epochs)) / epochs
    # A rounding has a standard deviation of 0.5 at most: 0.025 for the mean of 400.
    np.testing.assert_allclose(times, FACTORS, atol=0.11)


def test_factors_of_one_give_every_image_once():
    assert sorted(repeat_factor_order(np.ones(1000), 0, 0)) == list(range(1000))


def test_order_is_a_pure_function_of_seed_and_epoch():
    first, again = (repeat_factor_order(FACTORS, 4, 7) for _ in range(2))
    np.testing.assert_array_equal(first, again)
    for seed, epoch in ((4, 8), (5, 7)):
        assert not np.array_equal(first, repeat_factor_order(FACTORS, seed, epoch))


def test_what_cannot_be_is_an_error():
    with pytest.raises(ValueError, match="image_counts of class 1 must be above 0, as an image shows it"):
        repeat_factors([[0], [1]], [3, 0], 3)
    with pytest.raises(ValueError, match="labels must be from 0 to 1; given: 0 to 2"):
        repeat_factors([[0], [2]], [3, 1], 3)
    with pytest.raises(ValueError, match="threshold must be a finite number above 0.0; given: 0"):
        repeat_factors([[0]], [1], 1, threshold=0)
    with pytest.raises(ValueError, match="factors must be numbers of at least 1"):
        repeat_factor_order([0.5], 0, 0)
