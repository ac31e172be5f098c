"""The plain losses of two-stage detectors: smooth L1, binary cross entropy, and the sums of the box and mask heads."""

from keras import ops


def smooth_l1(y_true, y_pred, beta):
    """`d^2 / (2 beta)` below `beta`, else `|d| - beta / 2`, elementwise; `|d|` for `beta = 0`.

    Not `keras.losses.Huber`, which is `beta` times as large and averages.

    Args:
        y_true, y_pred: Tensors of one shape.
        beta: Where the parabola ends, at least 0.

    Source: Fast R-CNN (ICCV 2015), Eq. 3.

    >>> from zoo.detection.losses import smooth_l1
    >>> [float(x) for x in smooth_l1(keras.ops.zeros((2,)), keras.ops.convert_to_tensor([0.5, 2.0]), beta=1.0)]
    [0.125, 1.5]
    """
    difference = y_pred - y_true
    size = ops.abs(difference)
    if beta == 0:
        return size
    return ops.where(size < beta, 0.5 * difference * difference / beta, size - 0.5 * beta)


def binary_crossentropy(y_true, logits):
    """`-t log sigmoid(z) - (1 - t) log(1 - sigmoid(z))`, elementwise.

    >>> from zoo.detection.losses import binary_crossentropy
    >>> round(float(binary_crossentropy(keras.ops.ones(()), keras.ops.zeros(()))), 4)
    0.6931
    """
    return ops.maximum(logits, 0.0) - logits * y_true + ops.log1p(ops.exp(-ops.abs(logits)))


def box_loss(deltas, targets, labels, is_positive, valid, beta):
    """Smooth L1 of the deltas of the true class, summed over positive regions, divided by all sampled regions.

    Args:
        deltas: `(N, classes, 4)`, or `(N, 1, 4)` where all classes share them.
        targets: `(N, 4)`.
        labels: `(N,)` integers; that of a region that is not positive does not matter.
        is_positive, valid: `(N,)` bool.
        beta: As in `smooth_l1`.

    Returns: A scalar.

    >>> from zoo.detection.losses import box_loss
    >>> yes = keras.ops.ones((1,), "bool")
    >>> deltas, targets, labels = keras.ops.ones((1, 3, 4)), keras.ops.zeros((1, 4)), keras.ops.zeros((1,), "int32")
    >>> float(box_loss(deltas, targets, labels, yes, yes, beta=1.0))
    2.0
    """
    number = ops.maximum(ops.sum(ops.cast(valid, "float32")), 1.0)
    if deltas.shape[1] == 1:
        chosen = deltas[:, 0]
    else:
        labels = ops.where(is_positive, labels, 0)
        chosen = ops.take_along_axis(deltas, ops.reshape(labels, (-1, 1, 1)), axis=1)[:, 0]
    each = ops.sum(smooth_l1(targets, chosen, beta), axis=-1)
    return ops.sum(ops.where(is_positive, each, 0.0)) / number


def mask_loss(logits, targets, is_positive):
    """Binary cross entropy of the maps of the true classes, mean over pixels and positive regions; 0 without any.

    Args:
        logits: `(N, height, width)`, of each region's own class.
        targets: `(N, height, width)`, from 0 to 1.
        is_positive: `(N,)` bool.

    Returns: A scalar.
    Source: Mask R-CNN (ICCV 2017), Sec. 3.

    >>> from zoo.detection.losses import mask_loss
    >>> float(mask_loss(keras.ops.zeros((2, 4, 4)), keras.ops.zeros((2, 4, 4)), keras.ops.zeros((2,), "bool")))
    0.0
    """
    each = ops.mean(binary_crossentropy(targets, logits), axis=(1, 2))
    number = ops.maximum(ops.sum(ops.cast(is_positive, "float32")), 1.0)
    return ops.sum(ops.where(is_positive, each, 0.0)) / number
