"""Convolutions with a gradient of their own, against the sums that they are."""

import keras
import numpy as np
import pytest
from gradients import value_and_gradient
from keras import ops

from keras_apa._kernels.detection import common
from zoo.detection.convolution import convolve, kernel_gradient, relu


def by_definition(x, kernel):
    """The convolution of padding "same" as a sum over the kernel's places, in float64."""
    tall, wide = kernel.shape[:2]
    height, width = x.shape[1:3]
    x = np.pad(x.astype("float64"), ((0, 0), (tall // 2, tall // 2), (wide // 2, wide // 2), (0, 0)))
    places = [(i, j, x[:, i : i + height, j : j + width]) for i in range(tall) for j in range(wide)]
    return places, sum(place @ kernel[i, j].astype("float64") for i, j, place in places)


@pytest.fixture(params=[1, 8, 4096])
def few_at_a_time(request, monkeypatch):
    """One row after the other, some rows, the whole map."""
    monkeypatch.setattr(common, "PIXELS", request.param)
    monkeypatch.setattr(common, "PATCH_BYTES", 100 * request.param)


@pytest.mark.parametrize("size", [(1, 1), (7, 4), (8, 6)])
@pytest.mark.parametrize("kernel_size", [(3, 3), (1, 5)])
def test_value_and_gradients(few_at_a_time, size, kernel_size):
    rng = np.random.default_rng(0)
    x = rng.normal(size=(2, *size, 3)).astype("float32")
    kernel = rng.normal(size=(*kernel_size, 3, 4)).astype("float32")
    weight = rng.normal(size=(2, *size, 4)).astype("float32")
    value, (of_x, of_kernel) = value_and_gradient(
        lambda x, kernel: convolve(x, kernel) * ops.convert_to_tensor(weight), x, kernel
    )
    places, expected = by_definition(x, kernel)
    np.testing.assert_allclose(value, expected * weight, rtol=1e-4, atol=1e-5)
    for i, j, place in places:
        np.testing.assert_allclose(
            of_kernel[i, j], np.einsum("bhwc,bhwf->cf", place, weight), rtol=1e-4, atol=1e-4, err_msg=f"{i}, {j}"
        )
    mirrored = np.transpose(kernel[::-1, ::-1], (0, 1, 3, 2))
    np.testing.assert_allclose(of_x, by_definition(weight, mirrored)[1], rtol=1e-4, atol=1e-4)


def test_groups_as_in_resnext():
    rng = np.random.default_rng(0)
    x = rng.normal(size=(2, 6, 5, 4)).astype("float32")
    kernel = rng.normal(size=(3, 3, 2, 6)).astype("float32")
    weight = rng.normal(size=(2, 6, 5, 6)).astype("float32")
    value, (of_x, of_kernel) = value_and_gradient(
        lambda x, kernel: convolve(x, kernel) * ops.convert_to_tensor(weight), x, kernel
    )
    for group in range(2):
        read, made = slice(2 * group, 2 * group + 2), slice(3 * group, 3 * group + 3)
        places, expected = by_definition(x[..., read], kernel[..., made])
        np.testing.assert_allclose(value[..., made], expected * weight[..., made], rtol=1e-4, atol=1e-5)
        for i, j, place in places:
            expected = np.einsum("bhwc,bhwf->cf", place, weight[..., made])
            np.testing.assert_allclose(of_kernel[i, j][:, made], expected, rtol=1e-4, atol=1e-4)
        mirrored = np.transpose(kernel[::-1, ::-1, :, made], (0, 1, 3, 2))
        expected = by_definition(weight[..., made], mirrored)[1]
        np.testing.assert_allclose(of_x[..., read], expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_half_precision(few_at_a_time, dtype):
    rng = np.random.default_rng(0)
    x, upstream = (
        ops.cast(ops.convert_to_tensor(rng.normal(size=(2, 6, 5, n)).astype("float32")), dtype) for n in (3, 4)
    )
    gradient = kernel_gradient(upstream, x, (3, 3))
    assert keras.backend.standardize_dtype(gradient.dtype) == dtype
    exact = kernel_gradient(ops.cast(upstream, "float32"), ops.cast(x, "float32"), (3, 3))
    gradient, exact = (ops.convert_to_numpy(ops.cast(value, "float32")) for value in (gradient, exact))
    # A few roundings of the largest sums.
    limit = {"float16": 2**-8, "bfloat16": 2**-5}[dtype]
    np.testing.assert_allclose(gradient, exact, rtol=0, atol=limit * np.abs(exact).max())


def test_relu():
    x = np.array([[-2.0, -0.0, 0.0, 3.0], [np.nan, np.inf, -np.inf, 1.0]], "float32")
    for rows in (x, x[::-1].copy(), x[:0]):
        value, (gradient,) = value_and_gradient(relu, rows)
        np.testing.assert_array_equal(value, np.maximum(rows, 0))
        finite = np.isfinite(rows)
        np.testing.assert_array_equal(gradient[finite], (rows > 0)[finite])
