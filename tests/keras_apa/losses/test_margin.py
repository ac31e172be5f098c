"""LDAM against the paper's equation in float64."""

import keras
import numpy as np
import pytest
from gradients import value_and_gradient

from keras_apa.losses import LDAM, ldam

RNG = np.random.default_rng(0)
COSINES = RNG.uniform(-1, 1, (10, 5)).astype("float32")
LABELS = RNG.integers(0, 5, 10)
COUNTS = np.array([500, 120, 40, 11, 2])


@pytest.mark.parametrize(("max_margin", "scale"), [(0.5, 30.0), (0.3, 1.0), (0.0, 10.0)])
def test_value_and_gradient_are_the_equation(max_margin, scale):
    one_hot = np.eye(5)[LABELS]
    margin = COUNTS.astype("float64") ** -0.25
    margin *= max_margin / margin.max()
    exponential = np.exp(scale * (COSINES.astype("float64") - margin * one_hot))
    p = exponential / exponential.sum(1, keepdims=True)
    value, (gradient,) = value_and_gradient(lambda z: ldam(LABELS, z, COUNTS, max_margin, scale), COSINES)
    noise = 20 * 2.0**-24 * max(1, scale)
    np.testing.assert_allclose(value, -np.log((p * one_hot).sum(1)), rtol=0, atol=noise)
    np.testing.assert_allclose(gradient, scale * (p - one_hot), rtol=0, atol=noise * max(1, scale))


def test_without_margin_and_scale_it_is_cross_entropy():
    got = LDAM(COUNTS, max_margin=0, scale=1)(LABELS, COSINES)
    want = keras.losses.SparseCategoricalCrossentropy(from_logits=True)(LABELS, COSINES)
    assert float(got) == pytest.approx(float(want), rel=1e-6)


@pytest.mark.parametrize("argument", [{"max_margin": -1}, {"scale": 0}, {"class_counts": [1, 0]}])
def test_bad_arguments_are_named(argument):
    with pytest.raises(ValueError, match=next(iter(argument))):
        LDAM(**{"class_counts": [3, 1], **argument})


def test_soft_targets_are_an_error():
    with pytest.raises(ValueError, match=r"y_true.*one 1"):
        LDAM([3, 1])([[0.5, 0.5]], [[0.0, 0.0]])
