"""Convolutions and ReLU of large maps of channels last, in less memory and time than the backends' own."""

from keras import ops

from keras_apa._kernels import detection as kernels


def convolve(x, kernel, strides=1, padding="same"):
    """A convolution of `(batch, height, width, channels)`, whose height and width are static.

    `keras_apa/_kernels/detection` says what is wrong with each backend's own. On a CPU, with stride 1 and an odd
    kernel, TensorFlow's and JAX's gradient of the input is a convolution with the mirrored kernel, and that of the
    kernel is `kernel_gradient`.

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
    return kernels.convolve(x, kernel, strides, padding)


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
    return kernels.kernel_gradient(upstream, x, kernel_size)


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
    return kernels.zeros_after(tensor, shape)


def relu(x):
    """ReLU; on JAX and a CPU its value is kept for the gradient, and nothing else.

    >>> from zoo.detection.convolution import relu
    >>> keras.ops.convert_to_numpy(relu(keras.ops.convert_to_tensor([-1.0, 0.0, 2.0]))).tolist()
    [0.0, 0.0, 2.0]
    """
    return kernels.relu(x)


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
