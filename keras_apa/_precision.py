"""A few operations that keep float64.

For float64 tensors on PyTorch, Keras computes `maximum`, `minimum`, `matmul` and the mean of a loss in float32, and
turns a Python number beside them into float32 first; PyTorch's `softplus` is 2e-9 off from 20 on. These functions keep
the dtype and the accuracy of their tensors.
"""

from __future__ import annotations

import keras
from keras import ops

from keras_apa import _keras_internals as internals
from keras_apa._kernels import softplus_and_sigmoid
from keras_apa._typing import Tensor, TensorLike

__all__ = ["at_least", "at_most", "is_float64", "matmul", "mean_loss", "softplus"]


def is_float64(x: Tensor) -> bool:
    """Whether the tensor `x` is of float64."""
    return keras.backend.standardize_dtype(x.dtype) == "float64"


def _like(number: float, x: Tensor) -> Tensor:
    """A Python number as a tensor of the dtype of `x`."""
    return ops.convert_to_tensor(number, dtype=x.dtype)


def at_least(x: Tensor, low: float) -> Tensor:
    """`maximum(x, low)` for a Python number `low`; at the end itself the gradient goes to `x`."""
    return ops.where(x < low, _like(low, x), x)


def at_most(x: Tensor, high: float) -> Tensor:
    """`minimum(x, high)` for a Python number `high`; at the end itself the gradient goes to `x`."""
    return ops.where(x > high, _like(high, x), x)


def matmul(x: Tensor, y: Tensor) -> Tensor:
    """`ops.matmul(x, y)`."""
    # Keras's own where it is right: it also knows mixed precision and the fast form of a batch times a matrix.
    return x @ y if is_float64(x) and is_float64(y) else ops.matmul(x, y)


def softplus(x: Tensor) -> Tensor:
    """`ops.softplus(x)`, `log(1 + exp(x))`."""
    return softplus_and_sigmoid(x)[0] if is_float64(x) else ops.softplus(x)


def _copy(weights: Tensor | None) -> Tensor | None:
    return None if weights is None else ops.copy(weights)


def mean_loss(losses: Tensor, sample_weight: TensorLike | None, mask: Tensor | None, by_weight: bool) -> Tensor:
    """The mean of the losses of samples as `keras.losses.Loss` defines it, in their dtype.

    Args:
        losses: A loss for each sample.
        sample_weight, mask: Factors, and which samples count; or None.
        by_weight: Whether to divide by the sum of the weights instead of by the number of samples.
    """
    dtype = losses.dtype
    weights = None if sample_weight is None else ops.convert_to_tensor(sample_weight, dtype=dtype)
    # Keras multiplies weights by the mask in place: each call gets a copy, or the gradient would miss what it needs.
    total = internals.reduce_weighted_values(losses, _copy(weights), mask, "sum", dtype)
    if by_weight and weights is not None:
        count = ops.sum(internals.apply_mask(_copy(weights), mask, dtype, "sum"))
    else:
        count = internals.reduce_weighted_values(ops.ones_like(losses), None, mask, "sum", dtype)
    nothing = ops.equal(count, 0)
    return ops.where(nothing, ops.zeros_like(total), total / ops.where(nothing, ops.ones_like(count), count))
