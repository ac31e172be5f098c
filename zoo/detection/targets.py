"""What a detector is trained on: objects padded to a fixed number, checked before training and read in the step."""

from typing import Any, NamedTuple

import keras
import numpy as np
from keras import ops

from keras_apa._checks import check_name

MASK_FORMATS = ("image", "box")


class Targets(NamedTuple):
    """The objects of a batch as tensors.

    `boxes` `(batch, N, 4)`, `labels` `(batch, N)` int32, `valid` `(batch, N)` bool for objects that are trained on,
    `image_size` `(batch, 2)` float32, `masks` or `None`, `ignored` `(batch, N)` bool or `None` for regions in which
    nothing is a negative.
    """

    boxes: Any
    labels: Any
    valid: Any
    image_size: Any
    masks: Any = None
    ignored: Any = None


def read_targets(targets, num_classes, padded_size, image_size=None):
    """Tensors from the dict of targets that `fit` is given.

    Labels outside `0..num_classes - 1` and boxes whose sides are not positive are padding: no loss, no NaN.
    `check_targets` calls them errors where values can be seen.

    Args:
        targets: Dict with `"boxes"` `(batch, N, 4)` xyxy in pixels of the batch, `"labels"` `(batch, N)`, -1 for
            padding, and optionally `"masks"`, `"ignored"` `(batch, N)` and `"image_size"` `(batch, 2)`.
        num_classes: Number of classes.
        padded_size: Height and width of the batch, used where nothing tells the size of an image.
        image_size: `(batch, 2)`, or `None` to take that of the dict.

    Returns: `Targets`.
    Raises: ValueError: For a missing key, a wrong shape, or a number of objects that TensorFlow does not know.

    >>> from zoo.detection.targets import read_targets
    >>> boxes = [[[0.0, 0.0, 4.0, 4.0], [0.0, 0.0, 0.0, 0.0]]]
    >>> targets = read_targets({"boxes": boxes, "labels": [[1, -1]]}, 3, padded_size=(8, 8))
    >>> [bool(v) for v in targets.valid[0]]
    [True, False]
    """
    if not isinstance(targets, dict) or not {"boxes", "labels"} <= set(targets):
        given = sorted(targets) if isinstance(targets, dict) else type(targets).__name__
        raise ValueError(f'targets must be a dict with "boxes" and "labels"; given: {given}.')
    boxes = ops.cast(ops.convert_to_tensor(targets["boxes"]), "float32")
    labels = ops.cast(ops.convert_to_tensor(targets["labels"]), "int32")
    if len(boxes.shape) != 3 or boxes.shape[-1] != 4 or len(labels.shape) != 2:
        raise ValueError(
            f"boxes must have the shape (batch, N, 4) and labels (batch, N); given: {tuple(boxes.shape)} and "
            f"{tuple(labels.shape)}."
        )
    if boxes.shape[1] is None:
        raise ValueError(
            "boxes must have a known number of objects N, the same in every batch, with label -1 for padding (in "
            f"tf.data, padded_batch with padded_shapes that say N); given: {tuple(boxes.shape)}."
        )
    masks, ignored = targets.get("masks"), targets.get("ignored")
    if boxes.shape[1] == 0:
        # One object of padding, so that no later step meets an empty axis.
        boxes, labels = ops.pad(boxes, ((0, 0), (0, 1), (0, 0))), ops.pad(labels, ((0, 0), (0, 1)), constant_values=-1)
        if masks is not None:
            masks = ops.pad(ops.convert_to_tensor(masks), ((0, 0), (0, 1), (0, 0), (0, 0)))
        if ignored is not None:
            ignored = ops.pad(ops.cast(ignored, "int32"), ((0, 0), (0, 1)))
    solid = ops.logical_and(boxes[..., 2] > boxes[..., 0], boxes[..., 3] > boxes[..., 1])
    valid = ops.logical_and(ops.logical_and(labels >= 0, labels < num_classes), solid)
    if ignored is not None:
        ignored = ops.logical_and(ops.cast(ignored, "bool"), solid)
        valid = ops.logical_and(valid, ops.logical_not(ignored))
    # Whatever a box of padding holds, a NaN in it would reach every maximum.
    boxes = ops.where(ops.expand_dims(solid, -1), boxes, 0.0)
    if image_size is None:
        image_size = targets.get("image_size")
    if image_size is None:
        image_size = ops.expand_dims(ops.convert_to_tensor(padded_size, "float32"), 0)
        image_size = ops.broadcast_to(image_size, (ops.shape(boxes)[0], 2))
    return Targets(
        boxes,
        ops.where(valid, labels, 0),
        valid,
        ops.cast(ops.convert_to_tensor(image_size), "float32"),
        None if masks is None else ops.convert_to_tensor(masks),
        ignored,
    )


def check_targets(targets, num_classes, padded_size=None, mask_format=None, names=None):
    """Raise a ValueError that says what is wrong with the targets of a batch, before it is trained on.

    The function checks keys and shapes. It finds labels that are not a class, NaN, and masks of another size. It also
    finds boxes that have no width or height, that lie outside the image, or that look like xywh or like shares of the
    image.

    Args:
        targets: A dict of NumPy arrays, with the targets of `FasterRCNN` or `MaskRCNN`.
        num_classes: The number of classes.
        padded_size: The height and width of the images in the batch, or `None` if they are unknown.
        mask_format: `"image"`, `"box"`, or `None` if there are no masks to check.
        names: The name of each image for the error message, such as its file name. `None` takes its index.

    Returns:
        `targets`.

    Raises:
        ValueError: If a check fails.

    >>> import numpy as np
    >>> from zoo.detection.targets import check_targets
    >>> check_targets({"boxes": np.ones((1, 1, 4)), "labels": np.full((1, 1), 7)}, num_classes=3)
    Traceback (most recent call last):
        ...
    ValueError: labels must be 0..2, or -1 for padding; given: 7 in image 0.
    """
    if not isinstance(targets, dict):
        raise ValueError(f"targets must be a dict; given: {type(targets).__name__}.")
    for key in ("boxes", "labels") + (("masks",) if mask_format else ()):
        if key not in targets:
            raise ValueError(f"targets must have the key {key!r}; given: {', '.join(sorted(map(str, targets)))}.")
    boxes, labels = _numbers(targets["boxes"], "boxes"), _numbers(targets["labels"], "labels")
    if boxes.ndim != 3 or boxes.shape[-1] != 4:
        raise ValueError(f"boxes must have the shape (batch, N, 4); given: {boxes.shape}.")
    if labels.shape != boxes.shape[:2]:
        raise ValueError(f"labels must have the shape {boxes.shape[:2]}, one a box; given: {labels.shape}.")
    if not np.array_equal(labels, np.round(labels)):
        raise ValueError(f"labels must be whole numbers; given: {labels.dtype} with {labels[labels % 1 != 0][0]}.")
    present, needs_label = labels != -1, np.ones(labels.shape, bool)
    if "ignored" in targets:
        ignored = np.asarray(targets["ignored"])
        if ignored.shape != labels.shape:
            raise ValueError(f"ignored must have the shape {labels.shape}, one a box; given: {ignored.shape}.")
        present, needs_label = present | ignored.astype(bool), ~ignored.astype(bool)

    def name(image):
        return f"image {names[image] if names is not None else image}"

    wrong = np.argwhere(((labels < -1) | (labels >= num_classes)) & needs_label)
    if len(wrong):
        image, index = wrong[0]
        raise ValueError(
            f"labels must be 0..{num_classes - 1}, or -1 for padding; given: {labels[image, index]} in {name(image)}."
        )
    _refuse_shares(boxes[present], padded_size)
    for image in range(len(boxes)):
        size = targets.get("image_size")
        size = padded_size if size is None else np.asarray(size)[image]
        _check_boxes(boxes[image][present[image]], size, name(image))
    if mask_format:
        _check_masks(np.asarray(targets["masks"]), labels.shape, padded_size, mask_format)
    return targets


def _numbers(value, key):
    """The array of a target, if it is one of numbers."""
    try:
        array = np.asarray(value)
    except ValueError as error:  # lists of different lengths
        raise ValueError(f"{key} must be one array, padded to as many objects in each image; given: lists.") from error
    if array.dtype.kind == "V" and keras.backend.is_float_dtype(str(array.dtype)):
        return array.astype("float32")  # bfloat16, which NumPy does not know as a number
    if array.dtype.kind not in "biuf":
        example = f" such as {array.ravel()[:1].tolist()[0]!r:.40}" if array.size else ""
        raise ValueError(f"{key} must be numbers; given: {array.dtype}{example}.")
    return array


def _check_boxes(boxes, size, name):
    for box in boxes:
        if not np.isfinite(box).all():
            raise ValueError(f"boxes must be finite numbers; given: {box.tolist()} in {name}.")
    flat = (boxes[:, 2:] <= boxes[:, :2]).any(axis=1)
    if flat.any():
        # One that is reversed tells more than one without a side, and one that fits as xywh tells most:
        # beside it, others may have a width of 0.
        turned = (boxes[:, 2:] < boxes[:, :2]).any(axis=1)
        xywh = [index for index in np.flatnonzero(turned) if _fits_as_xywh(boxes[index], size)]
        box = boxes[xywh[0] if xywh else np.flatnonzero(turned if turned.any() else flat)[0]]
        raise ValueError(
            f"boxes must be (x1, y1, x2, y2) with x2 > x1 and y2 > y1; given: {box.tolist()} in {name}. "
            + _why_flat(box, size)
        )
    if size is not None:
        height, width = float(size[0]), float(size[1])
        outside = boxes[(boxes[:, 0] >= width) | (boxes[:, 1] >= height) | (boxes[:, 2] <= 0) | (boxes[:, 3] <= 0)]
        if len(outside):
            raise ValueError(
                f"boxes must lie in the image, in pixels; given: {outside[0].tolist()} in {name}, which is {height:g} "
                f"pixels high and {width:g} wide."
            )


def _fits_as_xywh(box, size):
    """Whether a reversed box may be (x, y, width, height): it then ends in the image, but for a rounding.

    Of such boxes those in the right or lower part of the image have width < x or height < y.
    """
    x1, y1, x2, y2 = box.tolist()
    inside = size is None or (x1 + x2 <= float(size[1]) + 1 and y1 + y2 <= float(size[0]) + 1)
    return min(x2, y2) > 0 and inside


def _why_flat(box, size):
    """What is wrong with a box without area, and what to do about it."""
    x1, y1, x2, y2 = box.tolist()
    if x2 < x1 or y2 < y1:
        if _fits_as_xywh(box, size):
            return "It looks like (x, y, width, height): add x and y to the last two."
        sides = [name for name, turned in (("x1 and x2", x2 < x1), ("y1 and y2", y2 < y1)) if turned]
        return f"Are {' and '.join(sides)} exchanged?"
    sides = [name for name, none in (("width", x2 == x1), ("height", y2 == y1)) if none]
    verb = "is" if len(sides) == 1 else "are"
    return f"Its {' and '.join(sides)} {verb} 0: leave it out, or give it the label -1."


def _refuse_shares(boxes, padded_size):
    """An error if all boxes look like shares of the image, 0 to 1, in whatever order."""
    if not boxes.size or not (boxes.min() >= 0 and boxes.max() <= 1):
        return
    if padded_size is not None and min(padded_size) <= 1:
        return
    solid = (boxes[:, 2:] > boxes[:, :2]).all()
    if solid or not np.array_equal(boxes, np.round(boxes)):  # all zeros are boxes without area
        order = "" if solid else " Give x1, y1, x2, y2, with x2 > x1 and y2 > y1."
        raise ValueError(
            f"boxes must be in pixels; given: {len(boxes)} boxes that all look like shares of the image, 0 to 1, such "
            f"as {boxes[0].tolist()}. Multiply x by the width of the image and y by its height.{order}"
        )


def _check_masks(masks, objects, padded_size, mask_format):
    check_name(mask_format, MASK_FORMATS, "mask_format")
    square = masks.ndim == 4 and masks.shape[2] == masks.shape[3]
    if masks.ndim != 4 or masks.shape[:2] != objects:
        raise ValueError(f"masks must have the shape ({objects[0]}, {objects[1]}, ., .); given: {masks.shape}.")
    if mask_format == "image" and padded_size is not None and masks.shape[2:] != tuple(padded_size):
        raise ValueError(
            f"masks must have the size of the images, {tuple(padded_size)}, with mask_format='image'; "
            f"given: {masks.shape[2:]}."
        )
    if masks.size and not (masks.min() >= 0 and masks.max() <= 1):  # NaN is neither
        raise ValueError(f"masks must be 0 or 1; given: values from {masks.min():g} to {masks.max():g}.")
    if mask_format == "box" and not square:
        raise ValueError(f"masks must be square with mask_format='box'; given: {masks.shape[2:]}.")


def pad_targets(boxes, labels, number, masks=None, ignored=None):
    """The objects of one image, padded to a fixed number; if there are more, the largest are kept, ignored ones last.

    Args:
        boxes: `(n, 4)`, xyxy in pixels.
        labels: `(n,)` integers.
        number: The number of objects to return.
        masks: `(n, height, width)` or `None`.
        ignored: `(n,)` bool or `None`.

    Returns:
        `(targets, dropped)`: a dict of NumPy arrays with a key for each given array, and the number of objects that
        were left out.

    Raises:
        ValueError: If `number` is not positive.

    >>> import numpy as np
    >>> from zoo.detection.targets import pad_targets
    >>> targets, dropped = pad_targets(np.array([[0, 0, 2, 2], [0, 0, 9, 9]]), np.array([4, 5]), 1)
    >>> targets["labels"].tolist(), dropped
    ([5], 1)
    """
    if number < 1:
        raise ValueError(f"number must be at least 1; given: {number!r}.")
    boxes = np.asarray(boxes, "float32").reshape(-1, 4)
    labels = np.asarray(labels, "int32").reshape(-1)
    area = (boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1])
    # A crowd covers more than any object, and must not take the place of one.
    last = np.zeros(len(boxes), bool) if ignored is None else np.asarray(ignored, bool)
    order = np.sort(np.lexsort((-area, last))[:number])
    padding = number - len(order)
    padded = {
        "boxes": np.pad(boxes[order], ((0, padding), (0, 0))),
        "labels": np.pad(labels[order], (0, padding), constant_values=-1),
    }
    if masks is not None:
        padded["masks"] = np.pad(np.asarray(masks)[order], ((0, padding), (0, 0), (0, 0)))
    if ignored is not None:
        padded["ignored"] = np.pad(np.asarray(ignored, bool)[order], (0, padding))
    return padded, len(boxes) - len(order)
