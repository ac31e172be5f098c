"""A few operations that keep float64.

Keras computes `maximum`, `minimum` and `matmul` of float64 tensors in float32 on PyTorch, and turns a Python number
beside them into float32 first; PyTorch's `softplus` is 2e-9 off from 20 on. These functions keep the dtype and the
accuracy of their tensors.
"""

import keras
from keras import ops

from keras_apa._kernels import softplus_and_sigmoid

__all__ = ["at_least", "at_most", "is_float64", "matmul", "softplus"]


def is_float64(x):
    """Whether the tensor `x` is of float64."""
    return keras.backend.standardize_dtype(x.dtype) == "float64"


def _like(number, x):
    """A Python number as a tensor of the dtype of `x`."""
    return ops.convert_to_tensor(number, dtype=x.dtype)


def at_least(x, low):
    """`maximum(x, low)` for a Python number `low`; at the end itself the gradient goes to `x`."""
    return ops.where(x < low, _like(low, x), x)


def at_most(x, high):
    """`minimum(x, high)` for a Python number `high`; at the end itself the gradient goes to `x`."""
    return ops.where(x > high, _like(high, x), x)


def matmul(x, y):
    """`ops.matmul(x, y)`."""
    # Keras's own where it is right: it also knows mixed precision and the fast form of a batch times a matrix.
    return x @ y if is_float64(x) and is_float64(y) else ops.matmul(x, y)


def softplus(x):
    """`ops.softplus(x)`, `log(1 + exp(x))`."""
    return softplus_and_sigmoid(x)[0] if is_float64(x) else ops.softplus(x)
