"""Masks into regions for the loss, and out of regions into the image: each a product with one matrix a side.

Both are bilinear with the same weights for every row and every column, so that `W_y M W_x^T` is exact, with shapes that
do not depend on the boxes and without a gather.
"""

import numpy as np
from keras import ops


def mask_targets(
    masks, boxes, image_index, object_index, object_boxes, size, mask_format="image", aligned=False, threshold=None
):
    """The mask of each region's object, resampled to the region: ROIAlign with one sample a pixel (at least).

    Args:
        masks: `(batch, N, height, width)` of 0 and 1, of whole images or, with `mask_format="box"`, each of its box.
        boxes: Regions `(R, 4)`, xyxy in pixels. No gradient.
        image_index, object_index: `(R,)` integers, which mask.
        object_boxes: `(R, 4)`, the box of each region's object, used with `mask_format="box"`.
        size: Side of the result in pixels.
        mask_format: `"image"` or `"box"`.
        aligned: As in `roi_align`.
        threshold: `None` leaves soft values; else values of at least that become 1, others 0.

    Returns: `(R, size, size)` float32.
    Source: `project_masks_on_boxes` of torchvision; `aligned=True, threshold=0.5` is mmdet's `crop_and_resize`.

    >>> from zoo.detection.masks import mask_targets
    >>> boxes, first = keras.ops.convert_to_tensor([[0.0, 0.0, 8.0, 8.0]]), keras.ops.zeros((1,), "int32")
    >>> targets = mask_targets(keras.ops.ones((1, 1, 8, 8)), boxes, first, first, boxes, 4)
    >>> float(keras.ops.min(targets))
    1.0
    """
    height, width = masks.shape[2], masks.shape[3]
    boxes, object_boxes = ops.stop_gradient(boxes), ops.stop_gradient(object_boxes)
    longest = max(height, width) if mask_format == "image" else None

    def one(region):
        box, image, index, around = region
        mask = ops.cast(ops.take(ops.take(masks, image, axis=0), index, axis=0), "float32")
        rows = _region_weights(box[1], box[3], size, height, longest, around[1], around[3], mask_format, aligned)
        columns = _region_weights(box[0], box[2], size, width, longest, around[0], around[2], mask_format, aligned)
        return ops.matmul(ops.matmul(rows, mask), ops.transpose(columns))

    indices = ops.cast(image_index, "int32"), ops.cast(object_index, "int32")
    targets = ops.map(one, (boxes, *indices, object_boxes))
    if threshold is not None:
        targets = ops.cast(targets >= threshold, "float32")
    return ops.stop_gradient(targets)


# With masks of boxes the longest side is not in the shapes; this many samples a bin are one a pixel up to 448 pixels.
_MOST_SAMPLES = 16


def _region_weights(low, high, bins, size, longest, start, end, mask_format, aligned):
    """`(bins, size)`: what each pixel of the mask counts in each bin."""
    if aligned:
        low, high = low - 0.5, high - 0.5
    side = high - low if aligned else ops.maximum(high - low, 1.0)
    most = _MOST_SAMPLES if longest is None else -(-longest // bins)
    bin_side = side / bins
    number = ops.minimum(ops.ceil(bin_side), float(most))
    sample = ops.reshape(ops.arange(most, dtype="float32"), (1, -1))
    bin_index = ops.reshape(ops.arange(bins, dtype="float32"), (-1, 1))
    position = low + bin_index * bin_side + (sample + 0.5) * bin_side / ops.maximum(number, 1.0)
    used = sample < number
    if mask_format == "box":
        # A position counts pixel centres as whole numbers; a box mask divides its box into `size` equal parts, and
        # beyond the box there is nothing.
        position = (position + 0.5 - start) * size / ops.maximum(end - start, 1e-6) - 0.5
    else:
        used = ops.logical_and(used, ops.logical_and(position >= -1.0, position <= size))
        position = ops.minimum(ops.maximum(position, 0.0), size - 1.0)
    weights = ops.where(ops.expand_dims(used, -1), _hat(position, size), 0.0)
    return ops.sum(weights, axis=1) / ops.maximum(number, 1.0)


def _hat(position, size):
    """Bilinear weights of every pixel at fractional positions, `(..., size)`."""
    return ops.maximum(1.0 - ops.abs(ops.expand_dims(position, -1) - ops.arange(size, dtype="float32")), 0.0)


def paste_masks(masks, boxes, height, width, padding=1, integer_boxes=True):
    """Masks of regions as soft masks of the image.

    Args:
        masks: `(N, M, M)` with values from 0 to 1.
        boxes: `(N, 4)`, xyxy in pixels of the image.
        height, width: The size of the image in pixels.
        padding: The number of zeros around a mask. The box grows by `(M + 2 * padding) / M` about its centre. The
            reference uses 1, mmdet 0.
        integer_boxes: Whether to round the box to whole pixels, towards zero, and fill it up to and including its
            last pixel, as the reference does. `False` places pixel centres in the unrounded box, as mmdet does.

    Returns:
        `(N, height, width)` float32, 0 outside the box.

    Source: `paste_masks_in_image` of torchvision, which is the reference.

    >>> from zoo.detection.masks import paste_masks
    >>> box = keras.ops.convert_to_tensor([[1.0, 1.0, 5.0, 5.0]])
    >>> paste_masks(keras.ops.ones((1, 28, 28)), box, 8, 6).shape == (1, 8, 6)
    True
    """
    masks = ops.cast(masks, "float32")
    size = masks.shape[-1] + 2 * padding
    masks = ops.pad(masks, ((0, 0), (padding, padding), (padding, padding)))
    boxes = expand_boxes(boxes, size / (size - 2 * padding))
    if integer_boxes:
        boxes = ops.trunc(boxes)
    rows = _paste_weights(boxes[:, 1], boxes[:, 3], size, height, integer_boxes)
    columns = _paste_weights(boxes[:, 0], boxes[:, 2], size, width, integer_boxes)
    return ops.matmul(ops.matmul(rows, masks), ops.swapaxes(columns, 1, 2))


def expand_boxes(boxes, factor):
    """Boxes grown by a factor about their centres.

    >>> from zoo.detection.masks import expand_boxes
    >>> [float(x) for x in expand_boxes(keras.ops.convert_to_tensor([[0.0, 0.0, 4.0, 2.0]]), 2.0)[0]]
    [-2.0, -1.0, 6.0, 3.0]
    """
    half_w, half_h = (boxes[:, 2] - boxes[:, 0]) * 0.5, (boxes[:, 3] - boxes[:, 1]) * 0.5
    x, y = (boxes[:, 2] + boxes[:, 0]) * 0.5, (boxes[:, 3] + boxes[:, 1]) * 0.5
    half_w, half_h = half_w * factor, half_h * factor
    return ops.stack([x - half_w, y - half_h, x + half_w, y + half_h], axis=1)


def _paste_weights(low, high, size, pixels, integer_boxes):
    """`(N, pixels, size)`: what each pixel of the mask counts in each row (or column) of the image."""
    low, high = ops.expand_dims(low, 1), ops.expand_dims(high, 1)
    pixel = ops.expand_dims(ops.arange(pixels, dtype="float32"), 0)
    if integer_boxes:
        side = ops.maximum(high - low + 1.0, 1.0)
        inside = ops.logical_and(pixel >= low, pixel < low + side)
        position = (pixel - low + 0.5) * (size / side) - 0.5
        position = ops.minimum(ops.maximum(position, 0.0), size - 1.0)
    else:
        side = ops.maximum(high - low, 1e-6)
        position = (pixel + 0.5 - low) * (size / side) - 0.5
        inside = ops.logical_and(position > -1.0, position < size)
    return ops.where(ops.expand_dims(inside, -1), _hat(position, size), 0.0)


def crop_masks(masks, boxes, size=112):
    """Masks of whole images as masks of their boxes, `mask_format="box"`: each box in `size` times `size` parts.

    Args:
        masks: `(N, height, width)`, a NumPy array of 0 and 1.
        boxes: `(N, 4)`, xyxy in pixels.
        size: The side of the result.

    Returns:
        `(N, size, size)` uint8: the value at the centre of each part, interpolated and rounded.

    >>> import numpy as np
    >>> from zoo.detection.masks import crop_masks
    >>> mask = np.zeros((1, 8, 8), "uint8")
    >>> mask[0, 2:4, 2:6] = 1
    >>> crop_masks(mask, np.array([[2.0, 2.0, 6.0, 6.0]]), 4)[0].tolist()
    [[1, 1, 1, 1], [1, 1, 1, 1], [0, 0, 0, 0], [0, 0, 0, 0]]
    """
    masks, boxes = np.asarray(masks), np.asarray(boxes, "float32")
    cropped = np.zeros((len(masks), size, size), "uint8")
    part = (np.arange(size, dtype="float32") + 0.5) / size
    for i, (mask, (x1, y1, x2, y2)) in enumerate(zip(masks, boxes, strict=True)):
        rows, columns = (
            np.maximum(1 - np.abs(np.clip(p - 0.5, 0, n - 1)[:, None] - np.arange(n, dtype="float32")), 0)
            for p, n in ((y1 + part * (y2 - y1), mask.shape[0]), (x1 + part * (x2 - x1), mask.shape[1]))
        )
        cropped[i] = rows @ mask.astype("float32") @ columns.T >= 0.5
    return cropped
