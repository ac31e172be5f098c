"""JAX: gradients of kernels as products of matrices, and a ReLU whose value is kept."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from keras import ops

from keras_apa._kernels import differentiable
from keras_apa._kernels.detection.common import (
    convolution,
    kernel_gradient,
    mirrored,
    on_cpu,
    repeat,  # noqa: F401
    same_convolution,
    takes_own_gradients,
    zeros_after,  # noqa: F401
)
from keras_apa._typing import Tensor

RELAXES_SHAPES = False


def convolve(x: Tensor, kernel: Tensor, strides: int | tuple[int, int], padding: str) -> Tensor:
    """XLA takes several times as long for the gradient of a kernel as for the value."""
    if takes_own_gradients(x, kernel, strides, padding):
        return _with_own_gradients(ops.convert_to_tensor(x), ops.convert_to_tensor(kernel))
    return convolution(x, kernel, strides, padding)


def _gradients(upstream: Tensor, x: Tensor, kernel: Tensor) -> tuple[Tensor, Tensor]:
    of_kernel = kernel_gradient(upstream, x, kernel.shape[:2])
    return same_convolution(upstream, mirrored(kernel)), of_kernel


_with_own_gradients = differentiable(same_convolution, _gradients)


def relu(x: Tensor) -> Tensor:
    """On a CPU its value is kept for the gradient, and nothing else.

    XLA would compute it anew wherever it is read, from the convolutions of this layer and of all before it, and keep
    these beside it. It does not look into a branch, and both of these have the same value.
    """
    return _kept_relu(ops.convert_to_tensor(x)) if on_cpu() and 0 not in x.shape else ops.relu(x)


def _relu_in_a_branch(x: Tensor) -> Tensor:
    first = x[(0,) * x.ndim]
    return jax.lax.cond(first == first, lambda x: jnp.maximum(x, 0), lambda x: jnp.where(x < 0, 0, x), x)


_kept_relu = jax.custom_vjp(_relu_in_a_branch)
_kept_relu.defvjp(
    lambda x: (_relu_in_a_branch(x),) * 2,
    lambda y, upstream: (jnp.where(y > 0, upstream, 0),),
)


def add_at(total: Tensor, index: Tensor, values: Tensor) -> Tensor:
    """Add the values to the rows `index` of a matrix."""
    return total.at[index].add(values)
