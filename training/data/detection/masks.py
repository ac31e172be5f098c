"""COCO's segmentations, polygons and run lengths, into masks and back.

What is a pixel of a polygon is decided by the code of `faster_coco_eval`, as in the evaluation.
"""

from __future__ import annotations

import math
import sys
from typing import Any

import numpy as np
from faster_coco_eval.core import mask as coco_mask

from zoo.detection import crop_masks

__all__ = ["check_segmentation", "crop_to_boxes", "decode_mask", "encode_mask", "is_finite", "is_number"]


def is_number(value: Any) -> bool:
    """Whether a value of JSON is a number; `true` and `false` are none.

    >>> is_number(3), is_number("3"), is_number(True)
    (True, False, False)
    """
    return isinstance(value, int | float) and not isinstance(value, bool)


def is_finite(number: Any) -> bool:
    """Whether a number is neither NaN nor beyond what a float holds, as a whole number of JSON can be.

    >>> is_finite(3), is_finite(float("nan")), is_finite(10**400)
    (True, False, False)
    """
    return abs(number) <= sys.float_info.max


def encode_mask(mask: np.ndarray) -> dict[str, Any]:
    """A mask `(height, width)` as COCO's compressed run lengths, in a form that JSON takes.

    >>> encode_mask(np.ones((2, 3), "uint8"))
    {'size': [2, 3], 'counts': '06'}
    """
    encoded = coco_mask.encode(np.asfortranarray(mask, np.uint8))
    return {"size": [int(side) for side in encoded["size"]], "counts": encoded["counts"].decode("ascii")}


def decode_mask(segmentation: list | dict[str, Any], height: int, width: int) -> np.ndarray:
    """The mask of an annotation's segmentation: polygons, run lengths, or compressed run lengths.

    Args:
        segmentation: What `check_segmentation` has nothing to say against.
        height, width: Of the image.

    Returns: uint8 `(height, width)` of 0 and 1.

    >>> decode_mask([[0, 0, 2, 0, 2, 2, 0, 2]], 2, 4).tolist()
    [[1, 1, 0, 0], [1, 1, 0, 0]]
    """
    if isinstance(segmentation, dict):
        if isinstance(segmentation["counts"], list):
            segmentation = coco_mask.frPyObjects(segmentation, height, width)
        return coco_mask.decode(segmentation)
    parts = [[float(x) for x in part] for part in segmentation if len(part) >= 6]
    return coco_mask.decode(coco_mask.merge(coco_mask.frPyObjects(parts, height, width)))


def run_length_bounds(segmentation: dict[str, Any], height: int, width: int) -> tuple[float, float, float, float]:
    """x1, y1, x2, y2 of the pixels of a mask in run lengths; NaN if it has none.

    >>> run_length_bounds({"size": [4, 4], "counts": [9, 2, 5]}, 4, 4)
    (2.0, 1.0, 3.0, 3.0)
    """
    if isinstance(segmentation["counts"], list):
        segmentation = coco_mask.frPyObjects(segmentation, height, width)
    x, y, w, h = (float(value) for value in np.ravel(coco_mask.toBbox(segmentation)))
    return (x, y, x + w, y + h) if w and h else (math.nan,) * 4


def check_segmentation(segmentation: Any, height: int, width: int) -> str | None:
    """What is wrong with a segmentation for an image of that size; `None` if nothing is.

    Polygons of fewer than three points are no error as long as there is another one: `decode_mask` passes them over.

    >>> check_segmentation({"size": [4, 4], "counts": [16]}, 4, 8)
    'its segmentation must be a mask of 4x8 pixels (height x width), as the image; given: 4x4.'
    """
    if isinstance(segmentation, dict):
        return _check_run_lengths(segmentation, height, width)
    if not isinstance(segmentation, list) or not all(isinstance(part, list) for part in segmentation):
        return (
            f"its segmentation must be a list of polygons or a dict with size and counts; given: {segmentation!r:.80}."
        )
    for part in segmentation:
        if not all(is_number(x) and is_finite(x) for x in part) or len(part) % 2:
            return f"its polygon must be finite numbers x1, y1, x2, y2, ...; given: {part!r:.80}."
    if not any(len(part) >= 6 for part in segmentation):
        return "one of its polygons must have three points; given: fewer."
    return None


def _check_run_lengths(segmentation, height, width):
    size, counts = segmentation.get("size"), segmentation.get("counts")
    if isinstance(size, list) and not all(isinstance(side, int) for side in size):
        return f"size of its segmentation must be two whole numbers, height and width; given: {size!r:.80}."
    if not isinstance(size, list) or len(size) != 2 or not isinstance(counts, list | str):
        return f"its segmentation must have size [height, width] and counts; given: {segmentation!r:.80}."
    if size != [height, width]:
        return (
            f"its segmentation must be a mask of {height}x{width} pixels (height x width), as the image; given: "
            f"{size[0]}x{size[1]}."
        )
    if isinstance(counts, list):
        if not all(isinstance(x, int) and x >= 0 for x in counts) or sum(counts) != height * width:
            return (
                f"the counts of its segmentation must be whole numbers that add up to {height * width}; given: "
                f"{counts!r:.80}."
            )
        return None
    try:
        decode_mask(segmentation, height, width)
    except (ValueError, RuntimeError) as error:
        return f"its segmentation cannot be decoded: {error}"
    return None


def crop_to_boxes(masks: np.ndarray, boxes: np.ndarray, size: int) -> np.ndarray:
    """As `zoo.detection.crop_masks`, with the work of the boxes alone and not of the image.

    A mask without a pixel in its box, such as that of a polygon between the centres of pixels, becomes the box.

    Args:
        masks: uint8 `(n, height, width)`.
        boxes: `(n, 4)`, xyxy in pixels.
        size: Side of the result.

    Returns: uint8 `(n, size, size)`.

    >>> mask = np.zeros((1, 8, 8), "uint8")
    >>> mask[0, 2:4, 2:6] = 1
    >>> crop_to_boxes(mask, np.array([[2.0, 2.0, 6.0, 6.0]]), 4)[0].tolist()
    [[1, 1, 1, 1], [1, 1, 1, 1], [0, 0, 0, 0], [0, 0, 0, 0]]
    """
    cropped = np.zeros((len(masks), size, size), np.uint8)
    for target, mask, box in zip(cropped, masks, np.asarray(boxes, np.float32), strict=True):
        # One pixel more on each side: what lies between its centre and that of the box's first is interpolated.
        x1, y1 = np.maximum(np.floor(box[:2]).astype(int) - 1, 0)
        x2, y2 = np.ceil(box[2:]).astype(int) + 1
        part = mask[y1:y2, x1:x2]
        if part.size:
            target[:] = crop_masks(part[None], (box - np.array([x1, y1, x1, y1], np.float32))[None], size)[0]
        if not target.any():
            target[:] = 1
    return cropped
