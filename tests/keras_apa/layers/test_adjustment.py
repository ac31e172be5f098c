"""Prior correction against the recorded vectors, in training and inference, and its warning."""

import warnings

import keras
import numpy as np
import pytest
from reference import load

from keras_apa.layers import PriorCorrection, prior_correction
from keras_apa.losses import BalancedSoftmaxCrossentropy

ARRAYS = load("losses.npz")
COUNTS = [int(c) for c in ARRAYS["counts"]]
VARIANTS = ["raw", "smooth", "rel", "normit", "gombit", "base2", "base10"]


def array(x):
    return keras.ops.convert_to_numpy(x)


@pytest.mark.parametrize("variant", VARIANTS)
def test_vector_and_inference_equal_the_authors(variant):
    # The vectors were recorded in float32: a few units in the last place of values up to 10.
    np.testing.assert_allclose(prior_correction(COUNTS, variant), ARRAYS[f"iif/{variant}/vector"], atol=2e-6)
    logits = ARRAYS[f"iif/{variant}/logits"]
    layer = PriorCorrection(COUNTS, variant)
    np.testing.assert_allclose(array(layer(logits)), ARRAYS[f"iif/{variant}/infer"], atol=4e-6)
    np.testing.assert_array_equal(array(layer(logits, training=True)), logits)


def test_tau_scales_the_correction():
    zeros = np.zeros((1, len(COUNTS)), "float32")
    half = array(PriorCorrection(COUNTS, tau=0.5)(zeros))
    np.testing.assert_allclose(2 * half, array(PriorCorrection(COUNTS)(zeros)), rtol=1e-6)


def compiled(loss):
    inputs = keras.Input((4,))
    outputs = PriorCorrection([50, 10, 5])(keras.layers.Dense(3)(inputs))
    model = keras.Model(inputs, outputs)
    model.compile("sgd", loss)
    return model


def test_a_balanced_loss_behind_the_correction_warns():
    x, y = np.ones((4, 4), "float32"), np.array([0, 1, 2, 0])
    with pytest.warns(UserWarning, match="corrected twice"):
        compiled(BalancedSoftmaxCrossentropy([50, 10, 5])).fit(x, y, verbose=0)
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        model = compiled(keras.losses.SparseCategoricalCrossentropy(from_logits=True))
        model.fit(x, y, verbose=0)
    model.compile("sgd", BalancedSoftmaxCrossentropy([50, 10, 5]))
    with pytest.warns(UserWarning, match="corrected twice"):
        model.fit(x, y, verbose=0)


@pytest.mark.parametrize(
    ("build", "parts"),
    [
        (lambda: PriorCorrection([5, 0, 3]), ["class_counts", "1"]),
        (lambda: PriorCorrection([5, -2, 3]), ["class_counts", "-2"]),
        (lambda: PriorCorrection([5, 3], tau=float("nan")), ["tau must be a finite number"]),
        (
            lambda: PriorCorrection([5, 3], "gombitt"),
            ["variant must be one of raw, ", "; given: 'gombitt'. Nearest: gombit"],
        ),
        (lambda: PriorCorrection([5, 3]).build((None, 3)), ["2 classes", "3"]),
        (lambda: prior_correction([5]), ["at least two classes"]),
    ],
)
def test_bad_input_is_a_clear_error(build, parts):
    with pytest.raises(ValueError) as error:
        build()
    for part in parts:
        assert part in str(error.value)
