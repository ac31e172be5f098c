"""Convolutions and ReLU of large maps of channels last, in less memory and time than the backends' own."""

import contextlib
import functools
import math

import keras
from keras import ops

from keras_apa._kernels import differentiable

# Of the gradient of a kernel: pixels that one product of matrices sums over, and memory for patches on TensorFlow.
_PIXELS = 4096
_PATCH_BYTES = 2**26


def convolve(x, kernel, strides=1, padding="same"):
    """A convolution of `(batch, height, width, channels)`, whose height and width are static.

    On PyTorch, Keras's convolution of channels last makes two copies of its input, and one of them is kept for the
    gradient; that of channels first takes the same values in their places. On a CPU, TensorFlow writes every patch of
    the map out for each of the two gradients, and XLA takes several times as long for the kernel's as for the value;
    here, with stride 1 and an odd kernel, the input's is a convolution with the mirrored kernel, and the kernel's is
    `kernel_gradient`.

    Args:
        x: `(batch, height, width, channels)`.
        kernel: `(tall, wide, channels, filters)`, a tensor or a variable; with fewer channels than `x` a convolution of
            groups, whose gradients are the backend's own.
        strides, padding: As `keras.ops.conv` takes them.

    Returns: `(batch, height, width, filters)`, height and width divided by the strides.

    >>> from zoo.detection.convolution import convolve
    >>> tuple(convolve(keras.ops.ones((2, 3, 4, 5)), keras.ops.ones((3, 3, 5, 6))).shape)
    (2, 3, 4, 6)
    """
    if keras.backend.backend() == "torch":
        x = ops.transpose(x, (0, 3, 1, 2))
        return ops.transpose(ops.conv(x, kernel, strides, padding, data_format="channels_first"), (0, 2, 3, 1))
    odd = kernel.shape[0] % 2 == kernel.shape[1] % 2 == 1
    grouped = kernel.shape[2] != x.shape[-1]
    if strides in (1, (1, 1)) and padding == "same" and odd and not grouped and _on_cpu():
        return _with_own_gradients(ops.convert_to_tensor(x), _read(kernel))
    return ops.conv(x, kernel, strides, padding, data_format="channels_last")


def _read(kernel):
    """The tensor of a variable, which TensorFlow does not allow in a function with a gradient of its own."""
    if keras.backend.backend() != "tensorflow":
        return ops.convert_to_tensor(kernel)
    import tensorflow as tf

    return tf.convert_to_tensor(kernel)


@functools.cache
def _on_cpu():
    return not any(device.startswith(("gpu", "cuda", "tpu")) for device in keras.distribution.list_devices())


def _value(x, kernel):
    return ops.conv(x, kernel, padding="same", data_format="channels_last")


def _gradients(upstream, x, kernel):
    of_kernel = kernel_gradient(upstream, x, kernel.shape[:2])
    mirrored = ops.transpose(ops.flip(kernel, (0, 1)), (0, 1, 3, 2))
    with _after(of_kernel):
        return _value(upstream, mirrored), of_kernel


def _after(tensor):
    """What is computed within waits for the tensor, so that TensorFlow does not begin the layers before."""
    if keras.backend.backend() != "tensorflow":
        return contextlib.nullcontext()
    import tensorflow as tf

    return tf.control_dependencies([tensor])


_with_own_gradients = differentiable(_value, _gradients)


def kernel_gradient(upstream, x, kernel_size):
    """The gradient of a convolution of stride 1 and padding "same" with respect to its kernel.

    `dk[i, j] = sum over pixels p of x[p + (i, j) - centre]^T upstream[p]`, a few rows of the map after the other.

    Args:
        upstream: `(batch, height, width, filters)`, the gradient of the value.
        x: `(batch, height, width, channels)`.
        kernel_size: Height and width of the kernel, odd.

    Returns: `(*kernel_size, channels, filters)`, in the dtype of `x`.

    >>> from zoo.detection.convolution import kernel_gradient
    >>> gradient = kernel_gradient(keras.ops.ones((1, 4, 4, 1)), keras.ops.ones((1, 4, 4, 1)), (3, 3))
    >>> keras.ops.convert_to_numpy(gradient)[..., 0, 0].tolist()
    [[9.0, 12.0, 9.0], [12.0, 16.0, 12.0], [9.0, 12.0, 9.0]]
    """
    if keras.backend.backend() == "tensorflow":
        return _kernel_gradient_in_bands(upstream, x, kernel_size)
    height, width, channels = x.shape[1:]
    batch, filters = upstream.shape[0], upstream.shape[-1]
    tall, wide = kernel_size
    most = max(_PIXELS // max(width * batch, 1), 1)
    rows = next(rows for rows in range(min(most, height), 0, -1) if height % rows == 0)
    around = ((0, 0), (tall // 2, tall // 2), (wide // 2, wide // 2), (0, 0))
    x = ops.pad(x, around, constant_values=zeros_after(upstream))

    def add_band(band, total):
        some = ops.slice(upstream, (0, band * rows, 0, 0), (batch, rows, width, filters))
        some = ops.reshape(some, (-1, filters))
        read = ops.slice(x, (0, band * rows, 0, 0), (batch, rows + tall - 1, width + wide - 1, channels))
        places = (read[:, i : i + rows, j : j + width] for i in range(tall) for j in range(wide))
        products = [ops.matmul(ops.transpose(ops.reshape(place, (-1, channels))), some) for place in places]
        return total + ops.cast(ops.stack(products), "float32")

    total = ops.zeros((tall * wide, channels, filters), "float32")
    total = ops.fori_loop(0, height // rows, add_band, total)
    return ops.cast(ops.reshape(total, (tall, wide, channels, filters)), x.dtype)


def zeros_after(tensor, shape=()):
    """Zeros in the dtype of the tensor that are not known before it; what is computed with them waits for the tensor.

    XLA and TensorFlow compute what depends on weights or constants alone as soon as they can, and hold it until it is
    needed.

    Args:
        tensor: What to wait for, of any shape and values; no gradient flows to it.
        shape: Of the zeros.

    >>> from zoo.detection.convolution import zeros_after
    >>> float(zeros_after(keras.ops.convert_to_tensor([float("nan"), -2.0])))
    0.0
    """
    if keras.backend.backend() == "torch":
        return ops.zeros(shape, tensor.dtype)
    first = ops.sum(tensor[(slice(0, 1),) * len(tensor.shape)])  # a sum, because there may be none
    return ops.broadcast_to(ops.minimum(ops.cast(ops.equal(first, first), tensor.dtype), 0), shape)


def _kernel_gradient_in_bands(upstream, x, kernel_size):
    """TensorFlow's own, which writes out all patches of what it is given: so much of the map that they fit.

    Not in a loop: those of several layers would run at once, and each keeps the whole maps that it reads.
    """
    import tensorflow as tf

    height, width, channels = x.shape[1:]
    tall, wide = kernel_size
    bands = max(math.ceil(tall * wide * channels * height * width * x.dtype.size / _PATCH_BYTES), 1)
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


def relu(x):
    """ReLU; on JAX and a CPU its value is kept for the gradient, and nothing else.

    XLA would compute it anew wherever it is read, from the convolutions of this layer and of all before it, and keep
    these beside it. It does not look into a branch, and both of these have the same value.

    >>> from zoo.detection.convolution import relu
    >>> keras.ops.convert_to_numpy(relu(keras.ops.convert_to_tensor([-1.0, 0.0, 2.0]))).tolist()
    [0.0, 0.0, 2.0]
    """
    if keras.backend.backend() == "jax" and _on_cpu() and 0 not in x.shape:
        return _kept_relu()(ops.convert_to_tensor(x))
    return ops.relu(x)


@functools.cache
def _kept_relu():
    import jax
    import jax.numpy as jnp

    def value(x):
        first = x[(0,) * x.ndim]
        return jax.lax.cond(first == first, lambda x: jnp.maximum(x, 0), lambda x: jnp.where(x < 0, 0, x), x)

    function = jax.custom_vjp(value)
    function.defvjp(
        lambda x: (value(x),) * 2,
        lambda y, upstream: (jnp.where(y > 0, upstream, 0),),
    )
    return function


def pointwise(x, kernel):
    """A 1x1 convolution of `(batch, height, width, channels)` as the product of matrices that it is.

    On PyTorch, Keras's convolution makes two copies of its input, and one of them is kept for the gradient.

    >>> from zoo.detection.convolution import pointwise
    >>> tuple(pointwise(keras.ops.ones((2, 3, 4, 5)), keras.ops.ones((1, 1, 5, 6))).shape)
    (2, 3, 4, 6)
    """
    height, width, channels = x.shape[1:]
    product = ops.matmul(ops.reshape(x, (-1, channels)), ops.reshape(kernel, (channels, -1)))
    return ops.reshape(product, (-1, height, width, kernel.shape[-1]))
