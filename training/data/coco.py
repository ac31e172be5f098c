"""Own images for detection: a folder of them, and annotations in the JSON of COCO or LVIS."""

from __future__ import annotations

import contextlib
import dataclasses
import math
import os
import warnings
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
from PIL import Image

from training.checks import check_flag, check_number, check_whole
from training.data.coco_masks import check_segmentation, decode_mask, is_finite, is_number
from training.data.detection_source import AnnotatedImages, DetectionSource, Objects, categories_with_frequency
from training.data.list_files import _entry, _read_json
from training.images import FORMATS, exif_orientation, in_front_of_white, upright, why_unreadable

__all__ = ["CocoImages", "coco_source"]

_SHOWN = 5
_SMALL = 32
# What EXIF calls turned by a quarter: the stored sides are exchanged.
_QUARTER_TURNS = (5, 6, 7, 8)


def coco_source(
    train: str | os.PathLike,
    images: str | os.PathLike,
    test: str | os.PathLike | None = None,
    test_images: str | os.PathLike | None = None,
    *,
    validation_fraction: float = 0.1,
    seed: int = 0,
    empty_images: bool = True,
    masks: bool | None = None,
    check_images: bool = True,
    name: str = "coco",
) -> DetectionSource:
    """Images with boxes, and masks where there are any, as COCO and LVIS annotate them.

    Everything is looked at before training. An error, with the file and the id, is: a key that is missing, an id that
    occurs twice, an image or category that an annotation names and the file has not, a box that is not finite, of
    negative width or outside its image, boxes that look like x1, y1, x2, y2 instead of x, y, width, height, a
    segmentation that does not fit its image or lies beside its box, a file that is not there, is no image, or has
    another size than the annotations say.

    Not an error, but told in `notes`: boxes without area (COCO has some) are left out; boxes that reach beyond the
    image are cut to it; classes without a training image are left out, in the test set too; several images may name
    the same file, and several categories have the same name. Annotations with `iscrowd` are regions in which nothing is
    a negative. Images of less than 32 pixels are enlarged as all others are.

    The labels are the categories in the order of their ids, which may have gaps.

    EXIF: pixels are turned upright, except where the stored height and width are those of the annotations and the
    upright ones are not: then the annotations were made on the stored pixels, and these are taken.

    Args:
        train: JSON file with `images`, `annotations` and `categories`.
        images: Folder that the `file_name`s start from (in LVIS v1 the last two parts of `coco_url`).
        test: JSON file of the test images. Without it `validation_fraction` of the images are held out, at random, but
            none that is the last one of a class.
        test_images: Folder of the test images, if it is another one.
        validation_fraction: Above 0 and below 1.
        seed: Of the choice of what is held out.
        empty_images: Whether images without objects are trained on too.
        masks: `False` passes segmentations over. By default they are used if there are any, and then every object needs
            one.
        check_images: Whether the start of every image file is read for its size; that it is there is checked anyway.
        name: Of the data set.

    Raises:
        FileNotFoundError: A file or folder, or images that are not there.
        ValueError: All the rest.

    >>> import json, tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     for number in (1, 2):
    ...         Image.new("RGB", (40, 30)).save(f"{folder}/{number}.png")
    ...     contents = {
    ...         "images": [{"id": n, "file_name": f"{n}.png", "height": 30, "width": 40} for n in (1, 2)],
    ...         "annotations": [{"id": n, "image_id": n, "category_id": 7, "bbox": [1, 2, 10, 20]} for n in (1, 2)],
    ...         "categories": [{"id": 7, "name": "cat"}],
    ...     }
    ...     with open(f"{folder}/a.json", "w") as file:
    ...         json.dump(contents, file)
    ...     source = coco_source(f"{folder}/a.json", folder)
    >>> source, source.train.objects(0).boxes.tolist()
    (DetectionSource(coco: 1 training and 1 test images, 1 classes: r 1, c 0, f 0), [[1.0, 2.0, 11.0, 22.0]])
    """
    check_number("validation_fraction", validation_fraction, above=0.0, below=1.0)
    check_whole("seed", seed, at_least=0)
    for flag, value in (("empty_images", empty_images), ("check_images", check_images)):
        check_flag(flag, value)
    parts = {"train": _read(train, images)}
    if test is not None:
        parts["test"] = _read(test, images if test_images is None else test_images)
        _check_same_categories(parts["train"], parts["test"])
    masks = _use_masks(parts, masks)
    notes = _same_names(parts["train"])
    for part in parts.values():
        notes += _checked_annotations(part, masks)
        notes += _check_files(part)
        if check_images:
            _check_image_files(part)
        notes += _small_images(part)
    if not _shown(parts["train"]):
        # What was left out tells why.
        raise ValueError("; ".join([f"{os.fspath(train)} has no object to train on", *notes]))
    if test is None:
        parts = _split(parts["train"], validation_fraction, seed)
    train_part, test_part = parts["train"], parts["test"]
    if not empty_images:
        train_part, left_out = _without_empty(train_part)
        notes += [f"training images that show no object are left out ({left_out})"] if left_out else []
    category_ids = sorted(_shown(train_part))
    notes += _unseen_classes(parts, category_ids)
    if not _shown(test_part) & _shown(train_part):
        raise ValueError(f"{test_part.file}: no test image shows an object of a class that is trained on")
    label_of = {number: label for label, number in enumerate(category_ids)}
    names = tuple(train_part.categories[number] for number in category_ids)
    train_set = _images(train_part, label_of, masks)
    return DetectionSource(
        name=name,
        train=train_set,
        test=_images(test_part, label_of, masks),
        class_names=names,
        category_ids=np.array(category_ids, np.int64),
        test_annotations=_annotations(
            test_part, category_ids, categories_with_frequency(names, category_ids, train_set.image_counts(len(names)))
        ),
        notes=tuple(notes),
    )


class CocoImages(AnnotatedImages):
    """Image files with annotations, read when they are needed.

    Args:
        image_ids: Integers `(N,)`.
        sizes: Height and width of each image, as annotated.
        paths: Their files.
        objects: For each image a tuple of boxes xyxy `(n, 4)`, labels `(n,)`, ignored `(n,)`, and the segmentations.
        has_masks: Whether the segmentations are used.
    """

    def __init__(
        self,
        image_ids: np.ndarray,
        sizes: np.ndarray,
        paths: Sequence[str],
        objects: Sequence[tuple[np.ndarray, np.ndarray, np.ndarray, list[Any]]],
        has_masks: bool,
    ):
        self.paths, self._objects = list(paths), list(objects)
        labels = tuple(labels[~ignored] for _, labels, ignored, _ in objects)
        super().__init__(image_ids, sizes, labels, has_masks)

    def image(self, index: int) -> np.ndarray:
        height, width = self.sizes[index].tolist()
        path = self.paths[index]
        with _opened(path, self.image_ids[index]) as image:
            turn = _turn(image, height, width, path, self.image_ids[index])
            image.load()
            return np.asarray(upright(in_front_of_white(image, "RGB"), turn))

    def objects(self, index: int) -> Objects:
        boxes, labels, ignored, segmentations = self._objects[index]
        masks = _Masks(segmentations, *self.sizes[index].tolist()) if self.has_masks else None
        return Objects(boxes, labels, masks, ignored)


class _Masks(Sequence):
    """Masks that are decoded when they are asked for: all of an image at once can be hundreds of megabytes."""

    def __init__(self, segmentations, height, width):
        self.segmentations, self.size = segmentations, (height, width)

    def __len__(self):
        return len(self.segmentations)

    def __getitem__(self, index):
        segmentation = self.segmentations[index]
        return np.zeros(self.size, np.uint8) if segmentation is None else decode_mask(segmentation, *self.size)

    def __array__(self, dtype=None, copy=None):
        masks = [self[index] for index in range(len(self))]
        return np.array(masks, dtype or np.uint8).reshape(-1, *self.size)


# Reading.


@dataclasses.dataclass
class _Annotated:
    """An annotation file: names of categories, records of images and lists of annotations by id."""

    file: str
    categories: dict[int, str]
    images: dict[int, dict[str, Any]]
    objects: dict[int, list[dict[str, Any]]]


def _read(file, folder) -> _Annotated:
    """The contents of a file, their keys, ids and references checked."""
    file, folder = os.fspath(file), os.fspath(folder)
    if not os.path.isdir(folder):
        raise FileNotFoundError(f"{folder} must be the folder of the images; it is not there")
    contents = _read_json(file)
    if not isinstance(contents, dict):
        raise ValueError(f"{file} must hold images, annotations and categories, got a {type(contents).__name__}")
    for key in ("images", "annotations", "categories"):
        if not isinstance(contents.get(key), list):
            raise ValueError(f"{file} has no list of {key}; it has {', '.join(sorted(contents)) or 'nothing'}")
    for key in ("images", "categories"):
        if not contents[key]:
            raise ValueError(f"{file} lists no {key}")
    categories, images = {}, {}
    for number, category in _by_id(contents["categories"], "category", "categories", file):
        categories[number] = str(category.get("name", number))
    for number, image in _by_id(contents["images"], "image", "images", file):
        place = f"{file}, image {number}"
        for key in ("height", "width"):
            if _entry(image, key, int, place) < 1:
                raise ValueError(f"{place}: {key} must be at least 1, got {image[key]}")
        images[number] = {**image, "path": os.path.join(folder, _file_name(image, place))}
    objects = {number: [] for number in images}
    for number, annotation in _by_id(contents["annotations"], "annotation", "annotations", file):
        place = f"{file}, annotation {number}"
        image, category = (_entry(annotation, key, int, place) for key in ("image_id", "category_id"))
        if image not in images:
            raise ValueError(f"{place}: image_id {image} is not among the ids of its {len(images)} images")
        if category not in categories:
            raise ValueError(
                f"{place}: category_id {category} is not among the ids of its {len(categories)} categories, "
                f"{_some(sorted(categories))}"
            )
        box = annotation.get("bbox")
        if not isinstance(box, list) or len(box) != 4 or not all(is_number(x) for x in box):
            raise ValueError(f"{place}: bbox must be four numbers x, y, width, height, got {box!r:.80}")
        if not all(is_finite(x) for x in box):
            raise ValueError(f"{place}: bbox must be finite numbers, got {box!r:.80}")
        crowd = annotation.get("iscrowd", 0)
        if crowd not in (0, 1):
            raise ValueError(f"{place}: iscrowd must be 0 or 1, got {crowd!r:.80}")
        objects[image].append({**annotation, "iscrowd": int(crowd)})
    return _Annotated(file, categories, images, objects)


def _by_id(entries, one, many, file):
    """The entries with their ids, each of which may occur once."""
    seen = {}
    for position, entry in enumerate(entries):
        if not isinstance(entry, dict):
            raise ValueError(
                f"{file}, {one} at position {position} must have an id and more by name, got {entry!r:.80}"
            )
        number = _entry(entry, "id", int, f"{file}, {one} at position {position}")
        if number in seen:
            raise ValueError(f"{file}: two {many} have the id {number}, at positions {seen[number]} and {position}")
        seen[number] = position
        yield number, entry


def _file_name(image, place):
    if "file_name" not in image and isinstance(image.get("coco_url"), str):
        return os.path.join(*image["coco_url"].split("/")[-2:])  # LVIS v1
    name = _entry(image, "file_name", str, place)
    if not name:
        raise ValueError(f"{place}: file_name is empty")
    return name


def _check_same_categories(train, test):
    for number, name in test.categories.items():
        if train.categories.get(number, name) != name:
            raise ValueError(
                f"category {number} is {train.categories[number]!r} in {train.file} and {name!r} in {test.file}"
            )


def _same_names(part):
    ids = {}
    for number, name in part.categories.items():
        ids.setdefault(name, []).append(number)
    again = [f"{name!r} (ids {_some(numbers)})" for name, numbers in ids.items() if len(numbers) > 1]
    if not again:
        return []
    return [f"{part.file}: categories of one name are classes of their own ({len(again)}): {_some(again)}"]


def _use_masks(parts, masks):
    """Whether segmentations are used; an error if some objects have one and others have not."""
    if masks is False:
        return False
    found = {True: None, False: None}
    for part in parts.values():
        for own in part.objects.values():
            for each in own:
                if not each["iscrowd"]:
                    has = bool(each.get("segmentation"))
                    found[has] = found[has] or (part.file, each["id"])
    if found[True] and found[False]:
        file, number = found[False]
        raise ValueError(
            f"{file}, annotation {number} has no segmentation, but others have; give every object one, or train a "
            "detector of boxes (model.name faster_rcnn; masks=False), which passes them over"
        )
    if masks and not found[True]:
        raise ValueError("masks must be False: no annotation has a segmentation")
    return found[True] is not None


# Checks of boxes, masks and files.


def _checked_annotations(part, masks):
    """Repairs boxes in place; notes on what was repaired."""
    _refuse_corners(part)
    flat, cut = [], []
    for number, own in part.objects.items():
        image = part.images[number]
        height, width = image["height"], image["width"]
        kept = []
        for each in own:
            place = f"{part.file}, annotation {each['id']}"
            x, y, w, h = each["bbox"]
            if w < 0 or h < 0:
                raise ValueError(f"{place}: width and height of bbox must not be negative, got {each['bbox']}")
            if w == 0 or h == 0:
                flat.append(each["id"])
                continue
            if x >= width or y >= height or x + w <= 0 or y + h <= 0:
                raise ValueError(
                    f"{place}: bbox {each['bbox']} (x, y, width, height) lies outside image {number}, which is "
                    f"{height} pixels high and {width} wide"
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
                left, top, right, bottom = _bounds(each["segmentation"])
                if left > x2 or top > y2 or right < x1 or bottom < y1:
                    raise ValueError(
                        f"{place} of image {number}: its polygons, x from {left:g} to {right:g} and y from {top:g} to "
                        f"{bottom:g}, lie outside its bbox {each['bbox']} (x, y, width, height); both must be pixels"
                    )
            kept.append(each)
        part.objects[number] = kept
    notes = []
    if flat:
        notes.append(f"{part.file}: boxes without area are left out ({len(flat)}): annotation {_some(flat)}")
    if cut:
        notes.append(
            f"{part.file}: boxes that reach beyond their image by more than a pixel are cut ({len(cut)}): annotation "
            f"{_some(cut)}"
        )
    return notes


def _refuse_corners(part):
    """An error if boxes look like x1, y1, x2, y2: by their polygons, or as they do not fit their images otherwise."""
    boxes, sizes, bounds, ids = [], [], [], []
    for number, own in part.objects.items():
        for each in own:
            boxes.append(each["bbox"])
            sizes.append((part.images[number]["width"], part.images[number]["height"]))
            bounds.append(_bounds(each.get("segmentation")))
            ids.append(each["id"])
    if not boxes:
        return
    boxes, sizes, bounds = (np.array(each, np.float64) for each in (boxes, sizes, bounds))
    ends = boxes[:, :2] + boxes[:, 2:]
    beyond = (ends > sizes + 1).any(axis=1)
    as_corners = ((boxes[:, 2:] > boxes[:, :2]) & (boxes[:, 2:] <= sizes + 1)).all(axis=1)
    # Of real x, y, width, height hardly all boxes are wider than their distance from the border, and none is too large.
    suspicious = beyond if as_corners.all() and beyond.mean() >= 0.1 else np.zeros(len(boxes), bool)
    known = np.isfinite(bounds).all(axis=1)
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
            f"{part.file}: bbox must be x, y, width, height, but the boxes look like x1, y1, x2, y2: annotation "
            f"{ids[first]} has {boxes[first].tolist()} in an image {sizes[first, 0]:g} pixels wide and "
            f"{sizes[first, 1]:g} high; subtract x1 and y1 from the last two"
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


def _check_files(part):
    """An error if a file is not there; a note on files that several images name."""
    # A look into every folder instead of at every file: hundreds of thousands of these are slow on a network's disk.
    present, missing = {}, []
    for number, image in part.images.items():
        folder, name = os.path.split(image["path"])
        if folder not in present:
            try:
                present[folder] = {*os.listdir(folder or ".")}
            except OSError:
                present[folder] = frozenset()
        if name not in present[folder]:
            missing.append(f"{image['path']} (id {number})")
    if missing:
        raise FileNotFoundError(
            f"{len(missing)} of the {len(part.images)} images of {part.file} are not there: {_some(missing)}. Is that "
            "the folder which the file names start from?"
        )
    first, again = {}, []
    for number, image in part.images.items():
        if first.setdefault(image["path"], number) != number:
            again.append(f"{number} ({image['file_name']!r}, as {first[image['path']]})")
    if not again:
        return []
    return [
        f"{part.file}: images with the file of another one ({len(again)}), in which the objects of the other count as "
        f"background: id {_some(again)}"
    ]


def _check_image_files(part):
    def wrong(number):
        image = part.images[number]
        try:
            with _opened(image["path"], number) as opened:
                _turn(opened, image["height"], image["width"], image["path"], number)
        except ValueError as error:
            return str(error)
        return None

    with ThreadPoolExecutor(os.cpu_count()) as pool:
        found = [reason for reason in pool.map(wrong, part.images) if reason is not None]
    if found:
        others = f"\n  and {len(found) - _SHOWN} more" if len(found) > _SHOWN else ""
        listed = "\n".join(f"  {reason}" for reason in found[:_SHOWN])
        raise ValueError(f"{len(found)} of the {len(part.images)} images of {part.file}:\n{listed}{others}")


@contextlib.contextmanager
def _opened(path, number):
    """An image file; whatever a decoder raises becomes a ValueError with the file and the id."""
    name = f"{path} (id {number})"
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


def _turn(image, height, width, path, number):
    """What EXIF's orientation is to be used so that the pixels are those that were annotated."""
    orientation = exif_orientation(image)
    stored = image.height, image.width
    upright = stored[::-1] if orientation in _QUARTER_TURNS else stored
    if upright == (height, width):
        return orientation
    if stored == (height, width):
        return 1
    raise ValueError(
        f"{path} (id {number}): the image is {upright[0]} pixels high and {upright[1]} wide, the annotations say "
        f"{height} and {width}"
    )


def _small_images(part):
    small = [number for number, image in part.images.items() if min(image["height"], image["width"]) < _SMALL]
    if not small:
        return []
    return [
        f"{part.file}: images of less than {_SMALL} pixels on a side are enlarged as all are ({len(small)}): id "
        f"{_some(small)}"
    ]


# Parts.


def _shown(part):
    """The categories of which a part has objects."""
    return {each["category_id"] for own in part.objects.values() for each in own if not each["iscrowd"]}


def _split(part, fraction, seed):
    """Holds out `fraction` of the images, at random, but none that is the last one of a class."""
    numbers = list(part.images)
    shown = {
        number: {each["category_id"] for each in own if not each["iscrowd"]} for number, own in part.objects.items()
    }
    left = dict.fromkeys(part.categories, 0)
    for own in shown.values():
        for category in own:
            left[category] += 1
    held_out = []
    wanted = max(round(fraction * len(numbers)), 1)
    order = [numbers[index] for index in np.random.default_rng(seed).permutation(len(numbers))]

    def can_be_spared(number):
        return all(left[category] > 1 for category in shown[number])

    # One that shows something comes first, or there might be nothing to measure.
    first = next((number for number in order if shown[number] and can_be_spared(number)), None)
    order.sort(key=lambda number: number != first)
    for number in order:
        if len(held_out) < wanted and can_be_spared(number):
            held_out.append(number)
            for category in shown[number]:
                left[category] -= 1
    if first is None:
        raise ValueError(
            f"{part.file}: no image with objects can be held out for testing without a class losing its last training "
            "image; give a file of test images"
        )
    held_out = set(held_out)
    return {
        "train": _part(part, [number for number in numbers if number not in held_out]),
        "test": _part(part, [number for number in numbers if number in held_out]),
    }


def _part(part, numbers):
    return _Annotated(
        part.file,
        part.categories,
        {number: part.images[number] for number in numbers},
        {number: part.objects[number] for number in numbers},
    )


def _without_empty(part):
    kept = [number for number, own in part.objects.items() if any(not each["iscrowd"] for each in own)]
    return _part(part, kept), len(part.images) - len(kept)


def _unseen_classes(parts, category_ids):
    """Notes on the categories that are left out, and on classes that cannot be measured."""
    train, test = parts["train"], parts["test"]
    known = set(category_ids)
    counts = dict.fromkeys({**train.categories, **test.categories}, 0)
    for own in test.objects.values():
        for each in own:
            counts[each["category_id"]] += not each["iscrowd"]
    names = {**test.categories, **train.categories}
    unseen = [number for number in sorted(names) if number not in known]
    notes = []
    if unseen:
        lost = sum(counts[number] for number in unseen)
        notes.append(
            f"categories without a training image are left out ({len(unseen)}): "
            f"{_some([f'{names[number]!r} (id {number})' for number in unseen])}"
            + (f"; with them {lost} test objects" if lost else "")
        )
    unmeasured = [number for number in category_ids if not counts[number]]
    if unmeasured:
        notes.append(
            f"classes that are in no test image have no AP ({len(unmeasured)}): "
            f"{_some([f'{names[number]!r} (id {number})' for number in unmeasured])}"
        )
    return notes


def _images(part, label_of, masks):
    """`CocoImages` of a part; annotations of categories without a label are not among them."""
    objects = []
    for own in part.objects.values():
        own = [each for each in own if each["iscrowd"] or each["category_id"] in label_of]
        boxes = np.array([each["bbox"] for each in own], np.float64).reshape(-1, 4)
        boxes[:, 2:] += boxes[:, :2]
        ignored = np.array([each["iscrowd"] for each in own], bool)
        labels = np.array([-1 if each["iscrowd"] else label_of[each["category_id"]] for each in own], np.int32)
        segmentations = [_compact(each["segmentation"]) if masks and not each["iscrowd"] else None for each in own]
        objects.append((boxes.astype(np.float32), labels, ignored, segmentations))
    return CocoImages(
        np.array(list(part.images), np.int64),
        np.array([(image["height"], image["width"]) for image in part.images.values()], np.int32),
        [image["path"] for image in part.images.values()],
        objects,
        masks,
    )


def _compact(segmentation):
    """Polygons as arrays: lists of Python's numbers take several times the memory."""
    if isinstance(segmentation, dict):
        return segmentation
    return [np.array(part, np.float64) for part in segmentation]


def _annotations(part, category_ids, categories):
    """What `faster_coco_eval` needs of a part."""
    known, images = set(category_ids), []
    for number, image in part.images.items():
        image = {key: value for key, value in image.items() if key != "path"} | {"id": number}
        for key in ("neg_category_ids", "not_exhaustive_category_ids"):
            if key in image:
                image[key] = [category for category in image[key] if category in known]
        images.append(image)
    annotations = []
    for own in part.objects.values():
        for each in own:
            if each["category_id"] in known:
                area = each.get("area")
                area = area if is_number(area) and is_finite(area) else each["bbox"][2] * each["bbox"][3]
                annotation = {**each, "area": area}
                if each["iscrowd"] and not each.get("segmentation"):
                    # Masks are measured where only the crowds have none: such a one is its box.
                    x, y, width, height = each["bbox"]
                    annotation["segmentation"] = [[x, y, x + width, y, x + width, y + height, x, y + height]]
                annotations.append(annotation)
    return {"images": images, "annotations": annotations, "categories": categories}


def _some(values):
    others = f" and {len(values) - _SHOWN} more" if len(values) > _SHOWN else ""
    return ", ".join(map(str, values[:_SHOWN])) + others
