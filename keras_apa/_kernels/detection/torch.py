"""PyTorch: convolutions of channels first, which take the same values in their places."""

from __future__ import annotations

from keras import ops

from keras_apa._kernels.detection.common import kernel_gradient, repeat  # noqa: F401
from keras_apa._typing import Tensor

RELAXES_SHAPES = False


def convolve(x: Tensor, kernel: Tensor, strides: int | tuple[int, int], padding: str) -> Tensor:
    """Keras's convolution of channels last makes two copies of its input, and one of them is kept for the gradient."""
    x = ops.transpose(x, (0, 3, 1, 2))
    return ops.transpose(ops.conv(x, kernel, strides, padding, data_format="channels_first"), (0, 2, 3, 1))


def zeros_after(tensor: Tensor, shape: tuple[int, ...] = ()) -> Tensor:
    """Nothing is computed before it is needed: each operation runs where it stands."""
    return ops.zeros(shape, tensor.dtype)


def relu(x: Tensor) -> Tensor:
    """The backend's own."""
    return ops.relu(x)


def add_at(total: Tensor, index: Tensor, values: Tensor) -> Tensor:
    """Add the values to the rows `index` of a matrix."""
    return total.index_add_(0, index.reshape(-1), values.reshape(-1, values.shape[-1]))
