"""What the fields of COCO's and LVIS's files mean where they are missing, empty or of no use.

COCO defines `area` as the pixels of the segmentation (of the box where there is none), a missing `iscrowd` as 0, and
`iscrowd` 1 as a region that is neither trained on nor measured. LVIS adds for each image the classes that its
annotators looked for; its metrics measure crowds as objects, and pass over objects with `ignore`. What cannot be read
so is told, or refused.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from typing import Any

import numpy as np
from faster_coco_eval.core import mask as coco_mask

from training.data.detection.masks import check_segmentation, is_finite, is_number

_SHOWN = 5
# Classes that an image's annotators looked for and did not find, and those of which not every object is annotated.
LISTS = ("neg_category_ids", "not_exhaustive_category_ids")


def some(values: Sequence[Any]) -> str:
    """The first few values as text, and how many more there are.

    >>> some([1, 2, 3, 4, 5, 6])
    '1, 2, 3, 4, 5 and 1 more'
    """
    others = f" and {len(values) - _SHOWN} more" if len(values) > _SHOWN else ""
    return ", ".join(map(str, values[:_SHOWN])) + others


def read_lists(image: Mapping[str, Any], place: str) -> dict[str, Any]:
    """The record of an image without LVIS's lists that are null.

    Raises: ValueError: A list is none of whole numbers.
    """
    image = {key: value for key, value in image.items() if key not in LISTS or value is not None}
    for key in set(LISTS) & set(image):
        value = image[key]
        if not isinstance(value, list) or not all(isinstance(x, int) and not isinstance(x, bool) for x in value):
            raise ValueError(f"{place}: {key} must be a list of category ids; given: {value!r:.80}.")
    return image


def segmentation_of(annotation: Mapping[str, Any]) -> Any:
    """The segmentation of an annotation; `None` where it is missing, or where no polygon has a point.

    Polygons of fewer than three points are left out where others have more: COCO's code takes all of them for boxes if
    the first one has two points.

    >>> segmentation_of({"segmentation": [[0, 0, 5, 5], [0, 0, 4, 0, 4, 4]]}), segmentation_of({"segmentation": [[]]})
    ([[0, 0, 4, 0, 4, 4]], None)
    """
    segmentation = annotation.get("segmentation")
    if not isinstance(segmentation, list):
        if isinstance(segmentation, dict) and isinstance(size := segmentation.get("size"), list | tuple):
            # As a whole number may have become in a table: 48.0.
            sides = [
                int(side) if isinstance(side, float | np.number) and float(side).is_integer() else side for side in size
            ]
            segmentation = {**segmentation, "size": sides}
        return None if isinstance(segmentation, dict | str) and not segmentation else segmentation
    if not all(isinstance(part, list | tuple | np.ndarray) for part in segmentation):
        return segmentation
    solid = [part for part in segmentation if len(part) >= 6]
    return solid or [part for part in segmentation if len(part)] or None


def object_area(annotation: Mapping[str, Any], height: int | None = None, width: int | None = None) -> float:
    """The area of an object as COCO defines it, in pixels; what `area` says where that is a number above 0.

    Otherwise the pixels of the segmentation; those of the box if there are none.

    Args:
        annotation: With `bbox`.
        height, width: Of the image; by default as far as the polygons reach.

    >>> box, half = [0, 0, 4, 4], [[0, 0, 4, 0, 4, 2, 0, 2]]
    >>> object_area({"bbox": box, "segmentation": half}), object_area({"bbox": box})
    (8.0, 16.0)
    """
    if _is_area(annotation.get("area")):
        return annotation["area"]
    return _mask_area(annotation, height, width) or float(annotation["bbox"][2] * annotation["bbox"][3])


def _is_area(value):
    value = value.item() if isinstance(value, np.generic) else value  # in Python annotations may be NumPy's
    return is_number(value) and is_finite(value) and value > 0


def _plain(part):
    return part.tolist() if isinstance(part, np.ndarray) else list(part) if isinstance(part, tuple) else part


def _mask_area(annotation, height, width):
    """Pixels of a segmentation; 0 if there is none that can be used."""
    segmentation = segmentation_of(annotation)
    if segmentation is None:
        return 0.0
    if isinstance(segmentation, dict):
        size = segmentation.get("size")
        height, width = size if isinstance(size, list) and len(size) == 2 else (0, 0)
        if isinstance(counts := segmentation.get("counts"), bytes):  # as pycocotools has them
            segmentation = {**segmentation, "counts": counts.decode("ascii")}
    elif isinstance(segmentation, list):
        segmentation = [_plain(part) for part in segmentation]
    if height is None or width is None:
        flat = [x for part in segmentation if isinstance(part, list) for x in part]
        height = width = math.ceil(max((x for x in flat if is_number(x) and is_finite(x)), default=0)) + 1
    if check_segmentation(segmentation, height, width):
        return 0.0
    if isinstance(segmentation, dict):
        counts = segmentation["counts"]
        encoded = coco_mask.frPyObjects(segmentation, height, width) if isinstance(counts, list) else segmentation
    else:
        parts = [[float(x) for x in part] for part in segmentation]
        encoded = coco_mask.merge(coco_mask.frPyObjects(parts, height, width))
    return float(np.ravel(coco_mask.area(encoded))[0])


# Notes: what the user should know before training, a sentence each.


def area_notes(part: Any, known: Collection[int]) -> list[str]:
    """Notes on objects of a test set whose size, small, medium or large, is not what their file says.

    Args:
        part: `training.data.detection.coco_file.Annotated`.
        known: The category ids that are measured.
    """
    unusable, boxes, beyond, within, objects, has_masks = [], [], [], [], 0, False
    for number, own in part.objects.items():
        size = part.images[number]["height"], part.images[number]["width"]
        for each in own:
            if each["iscrowd"] or each["category_id"] not in known:
                continue
            objects += 1
            area, (_, _, w, h) = each.get("area"), each["bbox"]
            has_masks = has_masks or "segmentation" in each
            if not _is_area(area):
                if area is not None:
                    unusable.append(each["id"])
                elif not _mask_area(each, *size):
                    boxes.append(each["id"])
            elif area > (w + 2) * (h + 2):  # two pixels for roundings
                beyond.append(each["id"])
            elif area <= 1 and min(w, h) > 2:
                within.append(each["id"])
    notes = []
    if unusable:
        notes.append(
            f"{part.file}: areas that are no number above 0 are taken from the segmentations, or from the boxes of "
            f"objects without one ({len(unusable)}): annotation {some(unusable)}"
        )
    if boxes and has_masks:  # where nothing has a mask, there is nothing else to go by
        notes.append(
            f"{part.file}: objects with neither area nor segmentation are small, medium or large by their boxes "
            f"({len(boxes)}): annotation {some(boxes)}"
        )
    if beyond:
        notes.append(
            f"{part.file}: areas larger than the box are used as given, to tell small, medium and large objects "
            f"({len(beyond)}): annotation {some(beyond)}"
        )
    if len(within) > objects / 2:  # single ones are thin lines
        notes.append(
            f"{part.file}: areas of a pixel or less, as of shares of the image, are used as given: these objects count "
            f"as small, whatever their boxes ({len(within)} of {objects}): annotation {some(within)}"
        )
    return notes


def crowd_notes(part: Any) -> list[str]:
    """Notes on what may not be used as its file means it: more crowds than objects, and `ignore`."""
    crowds, objects, ignore = [], 0, []
    for own in part.objects.values():
        for each in own:
            if each["iscrowd"]:
                crowds.append(each["id"])
            else:
                objects += 1
                if each.get("ignore"):
                    ignore.append(each["id"])
    notes = []
    if len(crowds) > objects:
        notes.append(
            f"{part.file}: {len(crowds)} of {len(crowds) + objects} annotations are crowds (iscrowd 1), regions that "
            f"are neither trained on nor measured by COCO's metrics: annotation {some(crowds)}"
        )
    if ignore:
        notes.append(
            f"{part.file}: annotations with ignore are trained on; COCO's metrics measure them, as iscrowd alone marks "
            f"what is passed over, and LVIS's metrics pass them over ({len(ignore)}): annotation {some(ignore)}"
        )
    return notes


def frequency_notes(part: Any, categories: Sequence[Mapping[str, Any]]) -> list[str]:
    """A note where LVIS's `frequency` in the file is not that of the training images.

    Args:
        part: `training.data.detection.coco_file.Annotated`.
        categories: With the `frequency` that is used.
    """
    given = {number: part.records.get(number, {}).get("frequency") for number in part.categories}
    others = [
        f"{each['name']!r} ({given[each['id']]!r}, here {each['frequency']!r})"
        for each in categories
        if given.get(each["id"]) is not None and given[each["id"]] != each["frequency"]
    ]
    if not others:
        return []
    return [
        f"{part.file}: rare, common and frequent (r, c, f) are counted in the training images; the file "
        f"has another frequency for {len(others)} classes: {some(others)}"
    ]


def lvis_notes(part: Any) -> list[str]:
    """A note on a test set with LVIS's categories whose images do not say which classes were looked for.

    Args:
        part: `training.data.detection.coco_file.Annotated`.
    """
    if not any("frequency" in record or "synset" in record for record in part.records.values()):
        return []
    if any(key in image for image in part.images.values() for key in LISTS):
        return []
    return [
        f"{part.file}: the categories are LVIS's, but no image has neg_category_ids; every detection of a class that "
        "is not annotated in an image counts as false"
    ]


def federated_notes(annotations: Mapping[str, Any], style: str) -> list[str]:
    """Notes where the style of the evaluation is not that of the annotations.

    Args:
        annotations: Those of the test images, as `training.detection.metrics.evaluate_detections` takes them.
        style: `"coco"` or `"lvis"`.
    """
    images, number = annotations["images"], len(annotations["images"])
    notes = []
    if style == "lvis":
        # Without any of the lists it is a file of COCO, where every class is looked for in every image.
        federated = any(image.get(key) is not None for image in images for key in LISTS)
        for key, means in zip(LISTS, ("every class was looked for", "every object is annotated"), strict=True):
            without = [image["id"] for image in images if image.get(key) is None]
            if federated and without:
                notes.append(
                    f"{len(without)} of {number} test images have no {key}: LVIS's metrics take it that {means} in "
                    f"them: image {some(without)}"
                )
        if crowds := [each["id"] for each in annotations["annotations"] if each.get("iscrowd")]:
            notes.append(
                f"LVIS's metrics measure crowds (iscrowd 1) as objects, as LVIS's code does ({len(crowds)}): "
                f"annotation {some(crowds)}"
            )
        return notes
    shown: dict[int, set[int]] = {image["id"]: set() for image in images}
    for each in annotations["annotations"]:
        shown[each["image_id"]].add(each["category_id"])
    everything = len(annotations["categories"])
    partly = [
        image["id"]
        for image in images
        if image.get("not_exhaustive_category_ids")
        or (image.get(LISTS[0]) is not None and len(shown[image["id"]] | set(image[LISTS[0]])) < everything)
    ]
    if partly:
        notes.append(
            f"in {len(partly)} of {number} test images only some classes were looked for (neg_category_ids, "
            "not_exhaustive_category_ids): COCO's metrics count each detection of another class as false, "
            "--evaluation.style lvis does not"
        )
    return notes
