"""TensorFlow: gradients of convolutions whose patches fit into memory, and loops of one turn at a time."""

from __future__ import annotations

import math
from collections.abc import Callable

import tensorflow as tf
from keras import ops

from keras_apa._kernels import differentiable
from keras_apa._kernels.detection import common
from keras_apa._kernels.detection.common import (
    convolution,
    mirrored,
    same_convolution,
    takes_own_gradients,
    zeros_after,  # noqa: F401
)
from keras_apa._typing import Tensor

RELAXES_SHAPES = True


def convolve(x: Tensor, kernel: Tensor, strides: int | tuple[int, int], padding: str) -> Tensor:
    """On a CPU, TensorFlow writes every patch of the map out for each of the two gradients."""
    if takes_own_gradients(x, kernel, strides, padding):
        # A variable is not allowed in a function with a gradient of its own.
        return _with_own_gradients(ops.convert_to_tensor(x), tf.convert_to_tensor(kernel))
    return convolution(x, kernel, strides, padding)


def _gradients(upstream: Tensor, x: Tensor, kernel: Tensor) -> tuple[Tensor, Tensor]:
    of_kernel = kernel_gradient(upstream, x, kernel.shape[:2])
    with tf.control_dependencies([of_kernel]):  # before it begins with the layers before
        return same_convolution(upstream, mirrored(kernel)), of_kernel


_with_own_gradients = differentiable(same_convolution, _gradients)


def kernel_gradient(upstream: Tensor, x: Tensor, kernel_size: tuple[int, int]) -> Tensor:
    """TensorFlow's own, which writes out all patches of what it is given: so much of the map that they fit.

    Not in a loop: those of several layers would run at once, and each keeps the whole maps that it reads.
    """
    height, width, channels = x.shape[1:]
    tall, wide = kernel_size
    bands = max(math.ceil(tall * wide * channels * height * width * x.dtype.size / common.PATCH_BYTES), 1)
    rows = math.ceil(height / bands)
    total = None
    for start in range(0, height, rows):
        stop = min(start + rows, height)
        first, last = max(start - tall // 2, 0), min(stop + tall // 2, height)
        missing = (tall // 2 - (start - first), tall // 2 - (last - stop))
        with tf.control_dependencies([] if total is None else [total]):
            part = tf.raw_ops.Conv2DBackpropFilter(
                input=x[:, first:last],
                filter_sizes=(tall, wide, channels, upstream.shape[-1]),
                out_backprop=upstream[:, start:stop],
                strides=(1, 1, 1, 1),
                padding="EXPLICIT",
                explicit_paddings=(0, 0, *missing, wide // 2, wide // 2, 0, 0),
            )
        total = part if total is None else total + part
    return total


def relu(x: Tensor) -> Tensor:
    """The backend's own."""
    return ops.relu(x)


def repeat(function: Callable[[int, Tensor], Tensor], times: int, value: Tensor) -> Tensor:
    """`value = function(i, value)` for `i` from 0 to `times - 1`; in Keras's loop 10 turns at once gather."""
    _, value = tf.while_loop(
        lambda i, value: i < times,
        lambda i, value: (i + 1, function(i, value)),
        (tf.constant(0), value),
        parallel_iterations=1,
    )
    return value


def add_at(total: Tensor, index: Tensor, values: Tensor) -> Tensor:
    """Add the values to the rows `index` of a matrix."""
    return tf.tensor_scatter_nd_add(total, ops.expand_dims(index, -1), values)
