"""PyTorch: convolutions of channels first, which take the same values in their places."""

from keras import ops

from keras_apa._kernels.detection.common import kernel_gradient, repeat  # noqa: F401

RELAXES_SHAPES = False


def convolve(x, kernel, strides, padding):
    """Keras's convolution of channels last makes two copies of its input, and one of them is kept for the gradient."""
    x = ops.transpose(x, (0, 3, 1, 2))
    return ops.transpose(ops.conv(x, kernel, strides, padding, data_format="channels_first"), (0, 2, 3, 1))


def zeros_after(tensor, shape=()):
    """Nothing is computed before it is needed: each operation runs where it stands."""
    return ops.zeros(shape, tensor.dtype)


def relu(x):
    """The backend's own."""
    return ops.relu(x)


def add_at(total, index, values):
    """Add the values to the rows `index` of a matrix."""
    return total.index_add_(0, index.reshape(-1), values.reshape(-1, values.shape[-1]))
