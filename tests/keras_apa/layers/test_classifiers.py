"""Classifier heads against the authors' running code, value and gradients, and at the zero feature."""

import keras
import numpy as np
import pytest
from gradients import value_and_gradient
from reference import load

from keras_apa.layers import CosineDense, NormalizedConv2D, NormalizedDense, WrappedCauchyDense

ARRAYS = load("losses.npz")
X, UPSTREAM = ARRAYS["heads/x"], ARRAYS["heads/upstream"]
KERNEL, BIAS = np.ascontiguousarray(ARRAYS["heads/weight_out_in"].T), ARRAYS["heads/bias"]


def array(x):
    return keras.ops.convert_to_numpy(x)


HEADS = {
    "cosine": (lambda: CosineDense(5), {}),
    "lr_cosine": (
        lambda: CosineDense(5, learn_scale=True),
        # 2 sum(y * upstream) / dscale of the recorded arrays is 4.5, not the start value 5 that stands beside them.
        {"scale": np.float32(4.5)},
    ),
    "norm": (lambda: NormalizedDense(5, unused_bias=True), {"bias": BIAS}),
    "mmdet_normed": (lambda: NormalizedDense(5, temperature=20.0), {"bias": BIAS}),
}


@pytest.mark.parametrize("name", HEADS)
@pytest.mark.smoke
def test_head_equals_the_authors(name):
    build, values = HEADS[name]
    layer = build()
    layer.build((None, 8))
    order = [w.name for w in layer.weights]
    for weight in layer.weights:
        weight.assign(KERNEL if weight.name == "kernel" else values[weight.name])
    start = [array(w) for w in layer.weights]

    def weighted(x, *weights):
        y, _ = layer.stateless_call(list(weights), [], x)
        return y * keras.ops.convert_to_tensor(UPSTREAM)

    value, (dx, *gradients) = value_and_gradient(weighted, X, *start)
    # Relative float32 noise of a dot product over 8 features; 1e-6 of it is the epsilon in the norms.
    y = ARRAYS[f"heads/{name}/y"]
    np.testing.assert_allclose(value, y * UPSTREAM, atol=5e-6 * np.abs(y * UPSTREAM).max())
    references = {"kernel": "dweight", "scale": "dscale", "bias": "dbias"}
    for ours, key in [(dx, "dx"), *((g, references[n]) for g, n in zip(gradients, order, strict=True))]:
        exact = ARRAYS[f"heads/{name}/{key}"]
        if exact.size == 0:  # the bias that is never added
            np.testing.assert_array_equal(ours, 0)
            continue
        exact = exact.T if exact.shape == ours.T.shape and key == "dweight" else exact.reshape(ours.shape)
        # dscale is one sum of all products, which cancel: its noise follows their size.
        size = np.abs(exact).max() if key != "dscale" else np.abs(y * UPSTREAM).max()
        np.testing.assert_allclose(ours, exact, atol=5e-6 * size)


def test_wrapped_cauchy_is_its_formula():
    layer = WrappedCauchyDense(5)
    layer.build((None, 8))
    layer.kernel.assign(KERNEL)
    layer.bias.assign(BIAS)
    layer.concentration.assign(np.linspace(-1, 2, 5))
    x, w = X.astype("float64"), KERNEL.astype("float64")
    u = x / np.linalg.norm(x, axis=1, keepdims=True) @ (w / np.linalg.norm(w, axis=0)) + BIAS
    g = 1 / (1 + np.exp(-np.linspace(-1, 2, 5)))
    exact = 300 / (2 * 3.14) * (1 - g**2) / (1 + g**2 - 2 * g * u)
    np.testing.assert_allclose(array(layer(X)), exact, rtol=1e-4)
    np.testing.assert_array_equal(array(WrappedCauchyDense(3)(X).shape), (4, 3))


@pytest.mark.parametrize("padding", ["valid", "same"])
def test_normalized_convolution_is_its_formula(padding):
    x = np.random.default_rng(0).standard_normal((2, 5, 6, 4)).astype("float32")
    layer = NormalizedConv2D(3, 3, temperature=7.0, padding=padding)
    y = array(layer(x))
    layer.bias.assign([0.1, 0.2, 0.3])
    kernel = array(layer.kernel).astype("float64")
    kernel = kernel / (np.linalg.norm(kernel, axis=2, keepdims=True) + 1e-6)
    features = 7.0 * x / (np.linalg.norm(x, axis=-1, keepdims=True) + 1e-6)
    if padding == "same":
        features = np.pad(features, ((0, 0), (1, 1), (1, 1), (0, 0)))
    height, width = y.shape[1:3]
    exact = sum(features[:, i : i + height, j : j + width] @ kernel[i, j] for i in range(3) for j in range(3))
    np.testing.assert_allclose(y, exact, atol=2e-5)
    np.testing.assert_allclose(array(layer(x)), exact + np.float32([0.1, 0.2, 0.3]), atol=2e-5)


@pytest.mark.parametrize("learned", [False, True])
@pytest.mark.parametrize("head", [CosineDense, NormalizedDense, WrappedCauchyDense])
@pytest.mark.parametrize("dtype", ["float32", "mixed_float16"])
def test_a_zero_feature_has_finite_logits_and_gradients(head, learned, dtype):
    options = {CosineDense: {"learn_scale": learned}, NormalizedDense: {"learn_temperature": learned}}.get(head, {})
    layer = head(3, dtype=dtype, **options)
    layer.build((None, 4))

    def call(x, *weights):
        return keras.ops.cast(layer.stateless_call(list(weights), [], x)[0], "float32")

    x = np.zeros((2, 4), "float32")
    value, gradients = value_and_gradient(call, x, *[array(w) for w in layer.trainable_variables])
    assert np.isfinite(value).all()
    assert all(np.isfinite(g).all() for g in gradients)


def test_large_features_do_not_overflow_half_precision():
    x = np.full((1, 64), 300.0, "float32")
    for head in (CosineDense(3, dtype="float16"), NormalizedDense(3, dtype="float16")):
        assert np.isfinite(array(head(x))).all()


@pytest.mark.parametrize("units", [0, -1, 2.5, True])
def test_bad_units_are_an_error(units):
    with pytest.raises(ValueError, match="units must be a whole number of at least 1"):
        CosineDense(units)


def test_a_normalized_convolution_takes_its_arguments_in_the_order_of_keras():
    layer = NormalizedConv2D(8, 3, 2, "same", temperature=5.0)
    assert (layer.strides, layer.padding, layer.temperature) == ((2, 2), "same", 5.0)


@pytest.mark.any_backend
@pytest.mark.parametrize("layer", [CosineDense, NormalizedDense, WrappedCauchyDense, NormalizedConv2D])
def test_a_kernel_of_zeros_has_no_direction(layer):
    with pytest.warns(UserWarning, match="kernel_initializer must not be zeros"):
        layer(3, kernel_initializer="zeros").build((None, 6, 6, 8))
