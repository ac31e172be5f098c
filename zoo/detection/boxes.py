"""Boxes as `(x1, y1, x2, y2)` in pixels: coder, overlap, clipping.

`keras.utils.bounding_boxes` is not used for these: its overlap adds an epsilon to the union and its coder one to the
sides, so that neither equals the reference, and its decoder has no bound for the exponential.
"""

import math

from keras import ops

MAX_LOG_SCALE = math.log(1000 / 16)


def encode_boxes(boxes, references, weights=(1.0, 1.0, 1.0, 1.0)):
    """Deltas that move `references` onto `boxes`, `w * ((x - x_r) / w_r, (y - y_r) / h_r, ln(w / w_r), ln(h / h_r))`.

    Args:
        boxes: Where to, `(..., 4)`, xyxy in pixels, sides above 0.
        references: Anchors or proposals, the same shape, sides above 0.
        weights: Factors of the four deltas: (1, 1, 1, 1) in the RPN, (10, 10, 5, 5) in the box head.

    Returns: A float32 tensor `(..., 4)`.
    Source: Rich feature hierarchies (CVPR 2014), Eqs. 6-9; the weights are those of Fast R-CNN's code.

    >>> from zoo.detection.boxes import encode_boxes
    >>> [float(x) for x in encode_boxes([[5.0, 0.0, 15.0, 10.0]], [[0.0, 0.0, 10.0, 10.0]])[0]]
    [0.5, 0.0, 0.0, 0.0]
    """
    x, y, w, h = centers_and_sides(boxes)
    x_r, y_r, w_r, h_r = centers_and_sides(references)
    parts = (x - x_r) / w_r, (y - y_r) / h_r, ops.log(w / w_r), ops.log(h / h_r)
    return ops.stack([weight * part for weight, part in zip(weights, parts, strict=True)], axis=-1)


def decode_boxes(deltas, references, weights=(1.0, 1.0, 1.0, 1.0), max_log_scale=MAX_LOG_SCALE, min_log_scale=None):
    """Boxes from deltas, the inverse of `encode_boxes`.

    Args:
        deltas: `(..., 4)`.
        references: Anchors or proposals, of a shape that broadcasts with `deltas`.
        weights: As in `encode_boxes`.
        max_log_scale: Upper bound of the logarithmic deltas after the division by the weights.
        min_log_scale: Lower bound, or `None`. The reference has none; mmdet has `-max_log_scale`.

    Returns: A float32 tensor `(..., 4)`, xyxy in pixels.
    Source: as `encode_boxes`; the bound, log(1000 / 16), is Detectron's.

    >>> from zoo.detection.boxes import decode_boxes
    >>> [float(x) for x in decode_boxes([[0.5, 0.0, 0.0, 0.0]], [[0.0, 0.0, 10.0, 10.0]])[0]]
    [5.0, 0.0, 15.0, 10.0]
    """
    deltas = ops.cast(deltas, "float32")
    x_r, y_r, w_r, h_r = centers_and_sides(references)
    dx, dy, dw, dh = (deltas[..., i] / weight for i, weight in enumerate(weights))
    dw, dh = ops.minimum(dw, max_log_scale), ops.minimum(dh, max_log_scale)
    if min_log_scale is not None:
        dw, dh = ops.maximum(dw, min_log_scale), ops.maximum(dh, min_log_scale)
    x, y = dx * w_r + x_r, dy * h_r + y_r
    half_w, half_h = 0.5 * (ops.exp(dw) * w_r), 0.5 * (ops.exp(dh) * h_r)
    return ops.stack([x - half_w, y - half_h, x + half_w, y + half_h], axis=-1)


def centers_and_sides(boxes):
    """`(x, y, width, height)` of xyxy boxes, four float32 tensors `(...)`.

    >>> from zoo.detection.boxes import centers_and_sides
    >>> [float(x) for x in centers_and_sides([0.0, 2.0, 4.0, 8.0])]
    [2.0, 5.0, 4.0, 6.0]
    """
    boxes = ops.cast(ops.convert_to_tensor(boxes), "float32")
    w, h = boxes[..., 2] - boxes[..., 0], boxes[..., 3] - boxes[..., 1]
    return boxes[..., 0] + 0.5 * w, boxes[..., 1] + 0.5 * h, w, h


def box_area(boxes):
    """Area of xyxy boxes `(..., 4)` in square pixels, `(...)`.

    >>> from zoo.detection.boxes import box_area
    >>> float(box_area(keras.ops.convert_to_tensor([0.0, 2.0, 4.0, 8.0])))
    24.0
    """
    return (boxes[..., 2] - boxes[..., 0]) * (boxes[..., 3] - boxes[..., 1])


def intersection(a, b):
    """Common area of every pair, `(..., N, M)`, of boxes `(..., N, 4)` and `(..., M, 4)`.

    >>> from zoo.detection.boxes import intersection
    >>> intersection(keras.ops.ones((3, 4)), keras.ops.ones((2, 4))).shape == (3, 2)
    True
    """
    a, b = ops.expand_dims(a, -2), ops.expand_dims(b, -3)
    w = ops.minimum(a[..., 2], b[..., 2]) - ops.maximum(a[..., 0], b[..., 0])
    h = ops.minimum(a[..., 3], b[..., 3]) - ops.maximum(a[..., 1], b[..., 1])
    return ops.maximum(w, 0.0) * ops.maximum(h, 0.0)


def iou(a, b):
    """Intersection over union of every pair; 0 where the union is empty.

    Args:
        a, b: Boxes `(..., N, 4)` and `(..., M, 4)`, xyxy in pixels, with no pixel added to the sides.

    Returns: A tensor `(..., N, M)` from 0 to 1.

    >>> from zoo.detection.boxes import iou
    >>> a = keras.ops.convert_to_tensor([[0.0, 0.0, 2.0, 2.0]])
    >>> float(iou(a, a + 1.0)[0, 0] * 7)
    1.0
    """
    inter = intersection(a, b)
    union = ops.expand_dims(box_area(a), -1) + ops.expand_dims(box_area(b), -2) - inter
    return ops.where(union > 0, inter / ops.where(union > 0, union, 1.0), 0.0)


def covered(a, b):
    """Share of each box of `a` that lies in each box of `b`, `(..., N, M)`; 0 for an empty box.

    >>> from zoo.detection.boxes import covered
    >>> a = keras.ops.convert_to_tensor([[0.0, 0.0, 2.0, 2.0]])
    >>> float(covered(a, a + 1.0)[0, 0])
    0.25
    """
    area = ops.expand_dims(box_area(a), -1)
    return ops.where(area > 0, intersection(a, b) / ops.where(area > 0, area, 1.0), 0.0)


def clip_boxes(boxes, image_size):
    """Boxes cut off at the border of the image: x in [0, width], y in [0, height].

    Args:
        boxes: `(..., N, 4)`, xyxy in pixels.
        image_size: `(..., 2)`, height and width in pixels.

    Returns: A tensor of the shape of `boxes`.

    >>> from zoo.detection.boxes import clip_boxes
    >>> [float(x) for x in clip_boxes([[-3.0, 1.0, 5.0, 9.0]], [4, 8])[0]]
    [0.0, 1.0, 5.0, 4.0]
    """
    boxes = ops.convert_to_tensor(boxes)
    size = ops.cast(ops.convert_to_tensor(image_size), boxes.dtype)
    height, width = size[..., 0:1], size[..., 1:2]
    limits = ops.expand_dims(ops.concatenate([width, height, width, height], axis=-1), -2)
    return ops.minimum(ops.maximum(boxes, 0.0), limits)


def large_enough(boxes, min_size):
    """Whether both sides of a box have at least `min_size` pixels, `(...)` bool.

    >>> from zoo.detection.boxes import large_enough
    >>> bool(large_enough(keras.ops.convert_to_tensor([0.0, 0.0, 2.0, 1.0]), 2.0))
    False
    """
    w, h = boxes[..., 2] - boxes[..., 0], boxes[..., 3] - boxes[..., 1]
    return ops.logical_and(w >= min_size, h >= min_size)
