"""Annotation files in the JSON of COCO or LVIS: reading them, and the checks of what they say and of their images."""

from __future__ import annotations

import contextlib
import dataclasses
import math
import os
import warnings
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
from PIL import Image

from training.data.decoding import CHECKING
from training.data.detection.coco_fields import read_lists, segmentation_of, some
from training.data.detection.masks import check_segmentation, is_finite, is_number, run_length_bounds
from training.data.json_files import category_name, entry_of, read_annotation_file
from training.files import missing_files
from training.image_files import FORMATS
from training.images import exif_orientation, in_front_of_white, why_unreadable
from training.runtime.console import with_progress
from training.runtime.output import visible

_SHOWN = 5
_SMALL = 32
_DECODED = 20_000  # so many images are decoded in a minute or two
# What EXIF calls turned by a quarter: the stored sides are exchanged.
_QUARTER_TURNS = (5, 6, 7, 8)


@dataclasses.dataclass
class Annotated:
    """An annotation file: names of categories, records of images and lists of annotations by id.

    `records` are the categories as the file has them.
    """

    file: str
    categories: dict[int, str]
    images: dict[int, dict[str, Any]]
    objects: dict[int, list[dict[str, Any]]]
    records: dict[int, dict[str, Any]] = dataclasses.field(default_factory=dict)


def read_annotations(file, folder) -> Annotated:
    """The contents of a file, their keys, ids and references checked."""
    file, folder = os.fspath(file), os.fspath(folder)
    if not os.path.isdir(folder):
        raise FileNotFoundError(
            f"images must be the folder of the images; given: {os.fspath(folder)!r}, which is not there."
        )
    contents = read_annotation_file(file)
    if not isinstance(contents, dict):
        raise ValueError(f"{file} must hold images, annotations and categories; given: a {type(contents).__name__}.")
    for key in ("images", "annotations", "categories"):
        if not isinstance(contents.get(key), list):
            raise ValueError(f"{file} must have a list of {key}; given: {', '.join(sorted(contents)) or 'nothing'}.")
    for key in ("images", "categories"):
        if not contents[key]:
            raise ValueError(f"{file} must have {key} in its list of {key}; given: an empty list.")
    categories, records, images = {}, {}, {}
    for number, category in _by_id(contents["categories"], "category", "categories", file):
        categories[number] = category_name(category, f"{file}, category {number}")
        records[number] = category
    for number, image in _by_id(contents["images"], "image", "images", file):
        place = f"{file}, image {number}"
        for key in ("height", "width"):
            if entry_of(image, key, int, place) < 1:
                raise ValueError(f"{place}: {key} must be at least 1; given: {image[key]}.")
        images[number] = {**read_lists(image, place), "path": os.path.join(folder, _file_name(image, place))}
    objects: dict[int, list[dict[str, Any]]] = {number: [] for number in images}
    for number, annotation in _by_id(contents["annotations"], "annotation", "annotations", file):
        place = f"{file}, annotation {number}"
        image, category = (entry_of(annotation, key, int, place) for key in ("image_id", "category_id"))
        if image not in images:
            raise ValueError(f"{place}: image_id must be among the ids of the {len(images)} images; given: {image}.")
        if category not in categories:
            raise ValueError(
                f"{place}: category_id must be among the ids of the {len(categories)} categories, "
                f"{some(sorted(categories))}; given: {category}."
            )
        box = annotation.get("bbox")
        if not isinstance(box, list) or len(box) != 4 or not all(is_number(x) for x in box):
            raise ValueError(f"{place}: bbox must be four numbers x, y, width, height; given: {box!r:.80}.")
        if not all(is_finite(x) for x in box):
            raise ValueError(f"{place}: bbox must be finite numbers; given: {box!r:.80}.")
        crowd = annotation.get("iscrowd")
        crowd = 0 if crowd is None else crowd
        if crowd not in (0, 1):
            raise ValueError(f"{place}: iscrowd must be 0 or 1; given: {crowd!r:.80}.")
        annotation = {**annotation, "iscrowd": int(crowd), "segmentation": segmentation_of(annotation)}
        if annotation["segmentation"] is None:
            del annotation["segmentation"]
        objects[image].append(annotation)
    return Annotated(file, categories, images, objects, records)


def _by_id(entries, one, many, file):
    """The entries with their ids, each of which may occur once."""
    seen: dict[int, int] = {}
    for position, entry in enumerate(entries):
        if not isinstance(entry, dict):
            raise ValueError(
                f"{file}, {one} at position {position} must have an id and more by name; given: {entry!r:.80}."
            )
        number = entry_of(entry, "id", int, f"{file}, {one} at position {position}")
        if abs(number) >= 2**63:
            raise ValueError(f"{file}, {one} at position {position}: id must fit 64 bits; given: {number}.")
        if number in seen:
            raise ValueError(
                f"{file}: the ids of {many} must be unique; given: {number} at positions {seen[number]} and {position}."
            )
        seen[number] = position
        yield number, entry


def _file_name(image, place):
    if image.get("file_name") is None and isinstance(image.get("coco_url"), str) and image["coco_url"]:
        return os.path.join(*image["coco_url"].split("/")[-2:])  # LVIS v1
    name = entry_of(image, "file_name", str, place)
    if not name:
        raise ValueError(f"{place}: file_name must be a path; given: ''.")
    return name


def check_same_categories(train, test):
    """An error if an id is another category in the other file."""
    for number, name in test.categories.items():
        if train.categories.get(number, name) != name:
            raise ValueError(
                f"category {number} must have one name; given: {train.categories[number]!r} in {train.file} and "
                f"{name!r} in {test.file}."
            )


def same_names(part):
    """A note on categories that have the same name."""
    ids: dict[str, list[int]] = {}
    for number, name in part.categories.items():
        ids.setdefault(name, []).append(number)
    again = [f"{name!r} (ids {some(numbers)})" for name, numbers in ids.items() if len(numbers) > 1]
    if not again:
        return []
    return [f"{part.file}: categories of one name are classes of their own ({len(again)}): {some(again)}"]


def use_masks(parts, masks):
    """Whether segmentations are used; an error if some objects have one and others have not."""
    if masks is False:
        return False
    found: dict[bool, tuple[str, int] | None] = {True: None, False: None}
    for part in parts.values():
        for own in part.objects.values():
            for each in own:
                if not each["iscrowd"]:
                    has = bool(each.get("segmentation"))
                    found[has] = found[has] or (part.file, each["id"])
    with_masks, without = found[True], found[False]
    if with_masks and without:
        file, number = without
        raise ValueError(
            f"{file}: every object must have a segmentation, or none; given: none for annotation {number}. To pass the "
            "masks over, train a detector of boxes (model.name faster_rcnn; masks=False)."
        )
    if masks and not with_masks:
        raise ValueError("masks must be False where no annotation has a segmentation; given: True.")
    return with_masks is not None


# Checks of boxes, masks and files.


def checked_annotations(part, masks):
    """Repairs boxes in place; notes on what was repaired."""
    _refuse_shares(part)
    _refuse_corners(part)
    flat, cut, blank = [], [], []
    for number, own in part.objects.items():
        image = part.images[number]
        height, width = image["height"], image["width"]
        kept = []
        for each in own:
            place = f"{part.file}, annotation {each['id']}"
            x, y, w, h = each["bbox"]
            if w < 0 or h < 0:
                raise ValueError(f"{place}: width and height of bbox must not be negative; given: {each['bbox']}.")
            if w == 0 or h == 0:
                flat.append(each["id"])
                continue
            if x >= width or y >= height or x + w <= 0 or y + h <= 0:
                raise ValueError(
                    f"{place}: bbox (x, y, width, height) must lie in image {number}, which is {height} pixels high "
                    f"and {width} wide; given: {each['bbox']}."
                )
            x1, y1, x2, y2 = max(x, 0), max(y, 0), min(x + w, width), min(y + h, height)
            if min(x, y) < -1 or x + w > width + 1 or y + h > height + 1:
                cut.append(each["id"])
            if (x1, y1, x2, y2) != (x, y, x + w, y + h):
                each["bbox"] = [x1, y1, x2 - x1, y2 - y1]
            if masks and each.get("segmentation"):
                wrong = check_segmentation(each["segmentation"], height, width)
                if wrong:
                    raise ValueError(f"{place} of image {number}: {wrong}")
                if isinstance(each["segmentation"], dict):
                    left, top, right, bottom = run_length_bounds(each["segmentation"], height, width)
                    if math.isnan(left) and not each["iscrowd"]:
                        blank.append(each["id"])
                else:
                    left, top, right, bottom = _bounds(each["segmentation"])
                    if (left == right or top == bottom) and not each["iscrowd"]:
                        blank.append(each["id"])
                if left > x2 or top > y2 or right < x1 or bottom < y1:
                    raise ValueError(
                        f"{place} of image {number}: the segmentation must lie in its bbox {each['bbox']} (x, y, "
                        f"width, height), both in pixels; given: x from {left:g} to {right:g} and y from {top:g} to "
                        f"{bottom:g}."
                    )
            kept.append(each)
        part.objects[number] = kept
    notes = []
    if flat:
        notes.append(f"{part.file}: boxes without area are left out ({len(flat)}): annotation {some(flat)}")
    if cut:
        notes.append(
            f"{part.file}: boxes that reach beyond their image by more than a pixel are cut ({len(cut)}): annotation "
            f"{some(cut)}"
        )
    if blank:
        notes.append(
            f"{part.file}: masks without a pixel become their whole boxes ({len(blank)}): annotation {some(blank)}"
        )
    return notes


def _refuse_shares(part):
    """An error if boxes look like shares of the image, 0 to 1: all end within its first pixel."""
    boxes = [(each["id"], each["bbox"]) for own in part.objects.values() for each in own]
    if boxes and all(
        -1e-3 <= x and 0 < x + w <= 1.001 and -1e-3 <= y and 0 < y + h <= 1.001 for _, (x, y, w, h) in boxes
    ):
        number, box = boxes[0]
        raise ValueError(
            f"{part.file}: bbox must be in pixels; given: {len(boxes)} boxes that all look like shares of the image, 0 "
            f"to 1 (annotation {number} has {box}). Multiply x and width by the width of the image, y and height by "
            "its height."
        )


def _refuse_corners(part):
    """An error if boxes look like x1, y1, x2, y2: by their polygons, or as they do not fit their images otherwise."""
    given, of_images, of_polygons, ids = [], [], [], []
    for number, own in part.objects.items():
        for each in own:
            given.append(each["bbox"])
            of_images.append((part.images[number]["width"], part.images[number]["height"]))
            of_polygons.append(_bounds(each.get("segmentation")))
            ids.append(each["id"])
    if not given:
        return
    boxes, sizes, bounds = (np.array(each, np.float64) for each in (given, of_images, of_polygons))
    ends = boxes[:, :2] + boxes[:, 2:]
    beyond = (ends > sizes + 1).any(axis=1)
    as_corners = ((boxes[:, 2:] > boxes[:, :2]) & (boxes[:, 2:] <= sizes + 1)).all(axis=1)
    # Of real x, y, width, height hardly all boxes are wider than their distance from the border, and none is too large.
    suspicious = beyond if as_corners.all() and beyond.mean() >= 0.1 else np.zeros(len(boxes), bool)
    # Polygons that lie within the first pixel look like shares of the image; how the boxes are meant they do not tell.
    known = np.isfinite(bounds).all(axis=1) & (bounds[:, 2:].max(axis=1) > 1.001)
    if known.any():
        # How far the polygons are from the boxes, read as corners less than as x, y, width, height.
        gain = np.abs(bounds[:, 2:] - ends).max(axis=1) - np.abs(bounds[:, 2:] - boxes[:, 2:]).max(axis=1)
        corners, sizes_given = known & (gain > 0.5), known & (gain < -0.5)
        # A single one, where it is just the box around its polygons; two pixels allow for sides that are counted as
        # x2 - x1 + 1.
        exact = known & (gain > 2) & (np.abs(bounds - boxes).max(axis=1, initial=0, where=known[:, None]) <= 0.5)
        suspicious = corners if corners.sum() > sizes_given.sum() else exact | (suspicious & ~known)
    if suspicious.any():
        first = np.flatnonzero(suspicious)[0]
        raise ValueError(
            f"{part.file}: bbox must be x, y, width, height; given: boxes that look like x1, y1, x2, y2 (annotation "
            f"{ids[first]} has {boxes[first].tolist()} in an image {sizes[first, 0]:g} pixels wide and "
            f"{sizes[first, 1]:g} high). Subtract x1 and y1 from the last two."
        )


def _bounds(segmentation):
    """x1, y1, x2, y2 of polygons; NaN for what is none."""
    unknown = (math.nan,) * 4
    if not isinstance(segmentation, list) or not segmentation:
        return unknown
    if not all(isinstance(part, list) and part and len(part) % 2 == 0 for part in segmentation):
        return unknown
    if not all(is_number(x) and is_finite(x) for part in segmentation for x in part):
        return unknown
    xs = [x for part in segmentation for x in part[0::2]]
    ys = [y for part in segmentation for y in part[1::2]]
    return min(xs), min(ys), max(xs), max(ys)


def check_files(part):
    """An error if a file is not there; a note on files that several images name."""
    absent = {*missing_files(image["path"] for image in part.images.values())}
    missing = [f"{image['path']} (id {number})" for number, image in part.images.items() if image["path"] in absent]
    if missing:
        raise FileNotFoundError(
            f"{len(missing)} of the {len(part.images)} images of {part.file} are not there: {some(missing)}. Is that "
            "the folder which the file names start from?"
        )
    first: dict[str, int] = {}
    again = []
    for number, image in part.images.items():
        if first.setdefault(image["path"], number) != number:
            again.append(f"{number} ({image['file_name']!r}, as {first[image['path']]})")
    if not again:
        return []
    return [
        f"{part.file}: images with the file of another one ({len(again)}), in which the objects of the other count as "
        f"background: id {some(again)}"
    ]


def check_image_files(part):
    """An error that lists the images which cannot be decoded, or have another size than the annotations say.

    Of very many only the heads are read, which is told in a note.
    """
    decode = len(part.images) <= _DECODED

    def wrong(number):
        image = part.images[number]
        try:
            with opened_image(image["path"], number) as opened:
                orientation_as_annotated(opened, image["height"], image["width"], image["path"], number)
                if decode:
                    opened.load()
                    in_front_of_white(opened, "RGB")
        except ValueError as error:
            return str(error)
        return None

    with ThreadPoolExecutor(os.cpu_count()) as pool:
        reasons = with_progress(pool.map(wrong, part.images), len(part.images), **CHECKING)
        found = [reason for reason in reasons if reason is not None]
    if found:
        others = f"\n  and {len(found) - _SHOWN} more" if len(found) > _SHOWN else ""
        listed = "\n".join(f"  {reason}" for reason in found[:_SHOWN])
        raise ValueError(
            f"the images of {part.file} must be readable and of the size that it states; given: {len(found)} of the "
            f"{len(part.images)} are not.\n{listed}{others}"
        )
    if decode:
        return []
    return [
        f"{part.file}: only the heads of its {len(part.images):,} images are checked before the training; one that is "
        "broken further on is named and ends the training"
    ]


@contextlib.contextmanager
def opened_image(path, number):
    """An image file; whatever a decoder raises becomes a ValueError with the file and the id."""
    name = _named(path, number)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of odd metadata
            image = Image.open(path, formats=FORMATS)
        with image:
            yield image
    except Exception as error:  # a broken file can fail anywhere in a decoder, with any type of error
        if str(error).startswith(name):
            raise
        raise ValueError(f"{name}: {why_unreadable(path, error)}") from error


def _named(path, number):
    """An image in an error, of which TensorFlow loses all if it is no UTF-8."""
    return f"{visible(path, lines=False)} (id {number})"


def orientation_as_annotated(image, height, width, path, number):
    """What EXIF's orientation is to be used so that the pixels are those that were annotated."""
    orientation = exif_orientation(image)
    stored = image.height, image.width
    upright = stored[::-1] if orientation in _QUARTER_TURNS else stored
    if upright == (height, width):
        return orientation
    if stored == (height, width):
        return 1
    raise ValueError(
        f"{_named(path, number)}: the image must be {height} pixels high and {width} wide, as its annotations say; "
        f"given: {upright[0]} and {upright[1]}."
    )


def small_images(part):
    """A note on images that are enlarged."""
    small = [number for number, image in part.images.items() if min(image["height"], image["width"]) < _SMALL]
    if not small:
        return []
    return [
        f"{part.file}: images of less than {_SMALL} pixels on a side are enlarged as all are ({len(small)}): id "
        f"{some(small)}"
    ]
