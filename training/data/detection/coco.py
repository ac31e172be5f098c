"""Own images for detection: a folder of them, and annotations in the JSON of COCO or LVIS."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any

import numpy as np

from training.checks import check_flag, check_number, check_whole
from training.data.detection.coco_fields import area_notes, crowd_notes, frequency_notes, lvis_notes, object_area, some
from training.data.detection.coco_file import (
    Annotated,
    check_files,
    check_image_files,
    check_same_categories,
    checked_annotations,
    opened_image,
    orientation_as_annotated,
    read_annotations,
    same_names,
    small_images,
    use_masks,
)
from training.data.detection.masks import decode_mask
from training.data.detection.source import AnnotatedImages, DetectionSource, Objects, categories_with_frequency
from training.images import in_front_of_white, upright

__all__ = ["CocoImages", "coco_source"]


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

    Fields that are missing or null mean what COCO and LVIS define: `iscrowd` 0, `area` the pixels of the segmentation,
    or of the box without one. Told in `notes`: areas that are no number above 0, more crowds than objects, an `ignore`
    (only LVIS's metrics pass over it), a `frequency` that the training images do not have. Test images that
    are training images are told too.

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
        check_images: Whether every image file is decoded and its size compared (of more than 20,000 images only their
            heads are read); that it is there is checked anyway.
        name: Of the data set.

    Raises:
        FileNotFoundError: A file or folder, or images that are not there.
        ValueError: All the rest.

    >>> import json, tempfile
    >>> from PIL import Image
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
    parts = {"train": read_annotations(train, images)}
    if test is not None:
        parts["test"] = read_annotations(test, images if test_images is None else test_images)
        check_same_categories(parts["train"], parts["test"])
    masks = use_masks(parts, masks)
    notes = same_names(parts["train"])
    for part in parts.values():
        notes += checked_annotations(part, masks) + crowd_notes(part)
        notes += check_files(part)
        if check_images:
            notes += check_image_files(part)
        notes += small_images(part)
    notes += _trained_on(parts)
    if not _shown(parts["train"]):
        raise ValueError(f"{os.fspath(train)} must have an object to train on; given: none.{_reasons(notes)}")
    if test is not None and not _shown(parts["test"]):
        raise ValueError(f"{os.fspath(test)} must have an object to measure; given: none.{_reasons(notes)}")
    if test is None:
        parts = _split(parts["train"], validation_fraction, seed)
    train_part, test_part = parts["train"], parts["test"]
    if not empty_images:
        train_part, left_out = _without_empty(train_part)
        notes += [f"training images that show no object are left out ({left_out})"] if left_out else []
    category_ids = sorted(_shown(train_part))
    notes += _unseen_classes(parts, category_ids)
    if not _shown(test_part) & _shown(train_part):
        raise ValueError(
            f"{test_part.file} must have an object of a class that is trained on; given: none. Give another file of "
            "test images."
        )
    label_of = {number: label for label, number in enumerate(category_ids)}
    names = tuple(train_part.categories[number] for number in category_ids)
    train_set = _images(train_part, label_of, masks)
    categories = categories_with_frequency(names, category_ids, train_set.image_counts(len(names)))
    notes += [
        *area_notes(test_part, label_of),
        *frequency_notes(train_part, categories),
        *lvis_notes(test_part),
    ]
    return DetectionSource(
        name=name,
        train=train_set,
        test=_images(test_part, label_of, masks),
        class_names=names,
        category_ids=np.array(category_ids, np.int64),
        test_annotations=_annotations(test_part, category_ids, categories),
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
        with opened_image(path, self.image_ids[index]) as image:
            turn = orientation_as_annotated(image, height, width, path, self.image_ids[index])
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


# Parts.


def _reasons(notes):
    """What was left out tells why nothing is there."""
    return "".join(f" {note}." for note in notes)


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
    held_out: list[int] = []
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
        crowds = sum(each["iscrowd"] for own in part.objects.values() for each in own)
        raise ValueError(
            f"{part.file} must have an image with objects that can be held out for testing; given: none without which "
            "each class keeps a training image. Give a file of test images."
            + (f" Its {crowds} crowds (iscrowd 1) are no objects." * (crowds > 0))
        )
    apart = set(held_out)
    return {
        "train": _part(part, [number for number in numbers if number not in apart]),
        "test": _part(part, [number for number in numbers if number in apart]),
    }


def _part(part, numbers):
    return Annotated(
        part.file,
        part.categories,
        {number: part.images[number] for number in numbers},
        {number: part.objects[number] for number in numbers},
        part.records,
    )


def _trained_on(parts):
    """A note on test images that are training images too."""
    if "test" not in parts:
        return []
    train = {os.path.abspath(image["path"]) for image in parts["train"].images.values()}
    test = parts["test"]
    both = [number for number, image in test.images.items() if os.path.abspath(image["path"]) in train]
    if not both:
        return []
    if len(both) == len(test.images):
        return [f"{test.file}: the test images are training images: the numbers say nothing about other images"]
    return [f"{test.file}: {len(both)} of {len(test.images)} test images are training images: id {some(both)}"]


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
    crowds = {each["category_id"] for own in train.objects.values() for each in own if each["iscrowd"]}
    if unseen:
        lost = sum(counts[number] for number in unseen)
        only_crowds = [f"{names[number]!r}" for number in unseen if number in crowds]
        notes.append(
            f"categories without a training image are left out ({len(unseen)}): "
            f"{some([f'{names[number]!r} (id {number})' for number in unseen])}"
            + (f"; with them {lost} test objects" if lost else "")
            + (f"; only as crowds (iscrowd 1): {some(only_crowds)}" if only_crowds else "")
        )
    unmeasured = [number for number in category_ids if not counts[number]]
    if unmeasured:
        notes.append(
            f"classes that are in no test image have no AP ({len(unmeasured)}): "
            f"{some([f'{names[number]!r} (id {number})' for number in unmeasured])}"
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
    for number, own in part.objects.items():
        for each in own:
            if each["category_id"] in known:
                size = part.images[number]["height"], part.images[number]["width"]
                annotation = {**each, "area": object_area(each, *size)}
                if each["iscrowd"] and not each.get("segmentation"):
                    # Masks are measured where only the crowds have none: such a one is its box.
                    x, y, width, height = each["bbox"]
                    annotation["segmentation"] = [[x, y, x + width, y, x + width, y + height, x, y + height]]
                annotations.append(annotation)
    return {"images": images, "annotations": annotations, "categories": categories}
