"""What more than one backend uses."""

from __future__ import annotations

import functools
from collections.abc import Callable

import keras
from keras import ops

from keras_apa._typing import Tensor

# Of the gradient of a kernel: pixels that one product of matrices sums over, and memory for patches on TensorFlow.
PIXELS = 4096
PATCH_BYTES = 2**26


@functools.cache
def on_cpu() -> bool:
    """Whether there is no accelerator."""
    return not any(device.startswith(("gpu", "cuda", "tpu")) for device in keras.distribution.list_devices())


def convolution(x: Tensor, kernel: Tensor, strides: int | tuple[int, int], padding: str) -> Tensor:
    """The backend's own convolution of channels last."""
    return ops.conv(x, kernel, strides, padding, data_format="channels_last")


def same_convolution(x: Tensor, kernel: Tensor) -> Tensor:
    """That of stride 1 and padding "same"; without options, which JAX would take for tensors."""
    return convolution(x, kernel, 1, "same")


def takes_own_gradients(x: Tensor, kernel: Tensor, strides: int | tuple[int, int], padding: str) -> bool:
    """Whether a convolution is one whose gradients are written here: without stride and groups, of an odd kernel."""
    odd = kernel.shape[0] % 2 == kernel.shape[1] % 2 == 1
    grouped = kernel.shape[2] != x.shape[-1]
    return strides in (1, (1, 1)) and padding == "same" and odd and not grouped and on_cpu()


def mirrored(kernel: Tensor) -> Tensor:
    """The kernel with which a convolution of the gradient is the gradient of the input."""
    return ops.transpose(ops.flip(kernel, (0, 1)), (0, 1, 3, 2))


def kernel_gradient(upstream: Tensor, x: Tensor, kernel_size: tuple[int, int]) -> Tensor:
    """The gradient of a kernel as products of matrices, a few rows of the map after the other."""
    height, width, channels = x.shape[1:]
    batch, filters = upstream.shape[0], upstream.shape[-1]
    tall, wide = kernel_size
    most = max(PIXELS // max(width * batch, 1), 1)
    rows = next(rows for rows in range(min(most, height), 0, -1) if height % rows == 0)
    around = ((0, 0), (tall // 2, tall // 2), (wide // 2, wide // 2), (0, 0))
    x = ops.pad(x, around, constant_values=zeros_after(upstream))

    def add_band(band: Tensor, total: Tensor) -> Tensor:
        some = ops.slice(upstream, (0, band * rows, 0, 0), (batch, rows, width, filters))
        some = ops.reshape(some, (-1, filters))
        read = ops.slice(x, (0, band * rows, 0, 0), (batch, rows + tall - 1, width + wide - 1, channels))
        places = (read[:, i : i + rows, j : j + width] for i in range(tall) for j in range(wide))
        products = [ops.matmul(ops.transpose(ops.reshape(place, (-1, channels))), some) for place in places]
        return total + ops.cast(ops.stack(products), "float32")

    total = ops.zeros((tall * wide, channels, filters), "float32")
    total = ops.fori_loop(0, height // rows, add_band, total)
    return ops.cast(ops.reshape(total, (tall, wide, channels, filters)), x.dtype)


def zeros_after(tensor: Tensor, shape: tuple[int, ...] = ()) -> Tensor:
    """Zeros that XLA and TensorFlow cannot compute before the tensor."""
    first = ops.sum(tensor[(slice(0, 1),) * len(tensor.shape)])  # a sum, because there may be none
    return ops.broadcast_to(ops.minimum(ops.cast(ops.equal(first, first), tensor.dtype), 0), shape)


def repeat(function: Callable[[int, Tensor], Tensor], times: int, value: Tensor) -> Tensor:
    """`value = function(i, value)` for `i` from 0 to `times - 1`."""
    return ops.fori_loop(0, times, function, value)
