"""Non-maximum suppression, exact, as a fixed point.

Greedy suppression keeps a box if no kept box of higher score overlaps it. Started from all boxes, the right-hand side
applied again and again settles the first box, then all that depend on it, and so on: it arrives at the greedy result
after as many rounds as the longest chain of boxes that suppress each other, 3 to 8 for 2000 boxes, each of them one
product of a matrix and a vector.
"""

from keras import ops

from zoo.detection.boxes import iou


def suppress(boxes, valid, iou_threshold, groups=None):
    """Which boxes greedy suppression keeps, of boxes that are already in decreasing order of score.

    Args:
        boxes: `(batch, N, 4)`, xyxy in pixels, best first.
        valid: `(batch, N)` bool; a box that is not valid neither stays nor suppresses.
        iou_threshold: A box is dropped where the IoU is strictly above.
        groups: `(batch, N)` integers; only boxes of one group suppress each other. `None`: all do.

    Returns: `(batch, N)` bool.

    >>> from zoo.detection.nms import suppress
    >>> boxes = keras.ops.convert_to_tensor([[[0.0, 0.0, 4.0, 4.0], [0.0, 0.0, 4.0, 3.0], [5.0, 5.0, 9.0, 9.0]]])
    >>> [bool(kept) for kept in suppress(boxes, keras.ops.ones((1, 3), "bool"), 0.5)[0]]
    [True, False, True]
    """
    overlap = iou(boxes, boxes) > iou_threshold
    if groups is not None:
        overlap = ops.logical_and(overlap, ops.equal(ops.expand_dims(groups, -1), ops.expand_dims(groups, -2)))
    rank = ops.arange(boxes.shape[-2], dtype="int32")
    overlap = ops.logical_and(overlap, ops.expand_dims(rank, -1) < ops.expand_dims(rank, -2))
    overlap = ops.cast(overlap, "float32")

    def update(kept, _):
        rivals = ops.matmul(ops.expand_dims(ops.cast(kept, "float32"), -2), overlap)
        new = ops.logical_and(valid, ops.squeeze(rivals, -2) < 0.5)
        return new, ops.any(ops.not_equal(new, kept))

    start = ops.convert_to_tensor(valid, "bool")
    return ops.while_loop(lambda kept, changed: changed, update, (start, ops.convert_to_tensor(True)))[0]


def non_max_suppression(boxes, scores, iou_threshold, groups=None, max_outputs=None):
    """Greedy suppression of boxes in any order.

    Args:
        boxes: `(batch, N, 4)`, xyxy in pixels.
        scores: `(batch, N)`; minus infinity marks padding. Of equal scores the first comes first.
        iou_threshold: A box is dropped where the IoU with a kept one is strictly above.
        groups: `(batch, N)` integers, such as labels: only boxes of one group suppress each other. `None`: all do.
        max_outputs: Number of boxes to return; `None` for all N.

    Returns: `(indices, valid)`, each `(batch, max_outputs)`, the kept boxes in decreasing order of score over all
        groups, then padding with index 0.

    >>> from zoo.detection.nms import non_max_suppression
    >>> boxes = keras.ops.convert_to_tensor([[[0.0, 0.0, 4.0, 3.0], [0.0, 0.0, 4.0, 4.0], [5.0, 5.0, 9.0, 9.0]]])
    >>> indices, valid = non_max_suppression(boxes, keras.ops.convert_to_tensor([[0.1, 0.9, 0.5]]), 0.5)
    >>> [int(i) for i in indices[0]], [bool(v) for v in valid[0]]
    ([1, 2, 0], [True, True, False])
    """
    scores = ops.convert_to_tensor(scores)
    order = ops.argsort(-scores, axis=-1)
    boxes = ops.take_along_axis(ops.convert_to_tensor(boxes), ops.expand_dims(order, -1), axis=-2)
    valid = ops.take_along_axis(scores, order, axis=-1) > float("-inf")
    if groups is not None:
        groups = ops.take_along_axis(ops.convert_to_tensor(groups), order, axis=-1)
    kept = suppress(boxes, valid, iou_threshold, groups)
    places, kept = first_true(kept, max_outputs or scores.shape[-1])
    return ops.where(kept, ops.take_along_axis(order, places, axis=-1), 0), kept


def first_true(mask, number):
    """Positions of the first `number` true elements of each row.

    Returns: `(positions, valid)`, each `(batch, number)`; what is missing is not `valid` and has position 0.

    >>> from zoo.detection.nms import first_true
    >>> positions, valid = first_true(keras.ops.convert_to_tensor([[False, True, False, True]]), 3)
    >>> [int(i) for i in positions[0]], [bool(v) for v in valid[0]]
    ([1, 3, 0], [True, True, False])
    """
    size = mask.shape[-1]
    # Whole numbers up to 2 ** 24 are exact in float32, and all different: no ties for a backend to break.
    keys = ops.where(mask, -ops.arange(size, dtype="float32"), float("-inf"))
    found, positions = ops.top_k(keys, min(number, size))
    valid = found > float("-inf")
    positions = ops.where(valid, ops.cast(positions, "int32"), 0)
    if number > size:
        missing = ((0, 0), (0, number - size))
        positions, valid = ops.pad(positions, missing), ops.cast(ops.pad(ops.cast(valid, "int32"), missing), "bool")
    return positions, valid
