"""Scenes of handwritten digits with boxes and masks, made from the 1,797 images that scikit-learn brings along.

Ten classes with a long tail: from the digit that is in most scenes to one that is in a handful, rare, common and
frequent in the sense of LVIS. A digit is scaled, coloured and pasted on clutter: patches of colour, grain, and strokes
that are as thick as those of the digits. The source digits of the training scenes and those of the test scenes are
different ones, and the test scenes show every class alike, so that each has an AP worth the name.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from PIL import Image, ImageDraw

from training.checks import check_number, check_whole
from training.data.classification.digits import split_digits
from training.data.detection.masks import encode_mask
from training.data.detection.source import ArrayScenes, DetectionSource, Objects, categories_with_frequency

__all__ = ["digit_scenes_lt"]

_CLASS_ORDER_SEED = 1
_MOST_OBJECTS = 5
_SMALLEST, _LARGEST = 18, 48
# Ink of which a pixel belongs to the digit.
_INK = 0.4
# Share of a digit's pixels that later ones may cover.
_MOST_COVERED = 0.2
_TRIES = 20


def digit_scenes_lt(
    num_train: int = 600,
    num_test: int = 120,
    image_size: tuple[int, int] = (128, 128),
    imbalance_factor: float = 200.0,
    seed: int = 0,
    training_digits: int = 1200,
) -> DetectionSource:
    """Scenes of 2 to 5 digits, each 18 to 48 pixels high (less where the image is smaller than 64 pixels).

    The training objects are shared out among the classes by an exponential profile: the class in place i of
    `default_rng(1).permutation(10)` gets a share proportional to `imbalance_factor ** (-i / 9)`, at least one object.
    Test objects are of all classes alike. A digit may cover others, up to a fifth of each one's pixels.

    Args:
        num_train, num_test: Scenes, at least 10 and 1; 10 test scenes or more show every class.
        image_size: Height and width in pixels, at least 32.
        imbalance_factor: Training objects of the largest class over those of the smallest, at least 1.
        seed: Of the split of the source digits and of everything in the scenes; not of the order of the classes.
        training_digits: How many of the 1,797 source digits make the training scenes; the others make the test scenes.

    Raises:
        ValueError: An argument out of its range, a digit without source images.

    >>> digit_scenes_lt(num_train=50, num_test=5)
    DetectionSource(digit_scenes_lt: 50 training and 5 test images, 10 classes: r 6, c 4, f 0)
    """
    check_whole("num_train", num_train, at_least=10)
    check_whole("num_test", num_test, at_least=1)
    for side in image_size:
        check_whole("each side of image_size", side, at_least=32)
    check_number("imbalance_factor", imbalance_factor, at_least=1)
    check_whole("seed", seed, at_least=0)
    # Independent streams: the test scenes stay what they are when the training set changes its size.
    split, train, test = (np.random.default_rng(child) for child in np.random.SeedSequence(seed).spawn(3))
    training_sources, test_sources = split_digits(training_digits, split)
    class_order = np.random.default_rng(_CLASS_ORDER_SEED).permutation(10)
    profile = np.empty(10)
    profile[class_order] = imbalance_factor ** (-np.arange(10) / 9)
    train_scenes = _scenes(num_train, image_size, profile, training_sources, train)
    test_scenes = _scenes(num_test, image_size, np.ones(10), test_sources, test)
    names = tuple(str(digit) for digit in range(10))
    category_ids = np.arange(1, 11)
    return DetectionSource(
        name="digit_scenes_lt",
        train=train_scenes,
        test=test_scenes,
        class_names=names,
        category_ids=category_ids,
        test_annotations=_annotations(test_scenes, names, category_ids, train_scenes.image_counts(10)),
    )


def _scenes(number, image_size, profile, sources, generator):
    """Scenes whose objects are shared out among the classes in proportion to `profile`."""
    counts = generator.integers(2, _MOST_OBJECTS + 1, number)
    labels = generator.permutation(np.repeat(np.arange(10), _shares(profile, counts.sum())))
    images, objects = [], []
    for own in np.split(labels, np.cumsum(counts)[:-1]):
        image = _clutter(image_size, generator)
        masks = _paste(image, own, sources, generator)
        images.append(np.clip(np.rint(image), 0, 255).astype(np.uint8))
        objects.append(Objects(_boxes(masks), own, masks))
    return ArrayScenes(images, objects)


def _shares(profile, total):
    """Whole numbers in proportion to `profile`, at least 1 each if there are enough, that add up to `total`."""
    wanted = profile / profile.sum() * total
    least = 1 if total >= 2 * len(profile) else 0
    shares = np.maximum(np.floor(wanted), least).astype(np.int64)
    for index in np.argsort(shares - wanted, kind="stable")[: max(total - shares.sum(), 0)]:
        shares[index] += 1
    # What the smallest were given above their share is taken from the largest.
    shares[np.argmax(shares)] -= max(shares.sum() - total, 0)
    return shares


def _clutter(image_size, generator):
    """A background, float32 `(height, width, 3)`: patches of colour, strokes, grain."""
    height, width = image_size
    patches = generator.uniform(20, 130, (5, 5, 3)).astype(np.float32)
    patches = [_resized(patches[..., channel], (height, width)) for channel in range(3)]
    image = Image.fromarray(np.clip(np.stack(patches, axis=-1), 0, 255).astype(np.uint8))
    draw = ImageDraw.Draw(image)
    for _ in range(generator.integers(4, 10)):
        x, y = generator.integers(0, width), generator.integers(0, height)
        span = generator.integers(6, 30, 2)
        colour = tuple(int(value) for value in generator.integers(20, 160, 3))
        thickness = int(generator.integers(2, 6))
        if generator.random() < 0.5:
            start = int(generator.integers(0, 360))
            box = [int(x), int(y), int(x + span[0]), int(y + span[1])]
            draw.arc(box, start, start + int(generator.integers(60, 200)), colour, thickness)
        else:
            end = (int(x + span[0] * generator.choice([-1, 1])), int(y + span[1] - 15))
            draw.line([(int(x), int(y)), end], colour, thickness)
    grain = 8 * generator.standard_normal((height, width, 3), dtype=np.float32)
    return np.asarray(image, np.float32) + grain


def _paste(image, labels, sources, generator):
    """Pastes a digit for each label into `image`; their visible parts, uint8 `(n, height, width)`."""
    height, width = image.shape[:2]
    masks = np.zeros((len(labels), height, width), np.uint8)
    areas = np.zeros(len(labels))
    for index, digit in enumerate(sources.draw(labels, generator)):
        ink, row, column = _place(digit, masks[:index], areas[:index], (height, width), generator)
        window = (slice(row, row + ink.shape[0]), slice(column, column + ink.shape[1]))
        covers = ink >= _INK
        masks[(slice(index), *window)] &= ~covers
        masks[(index, *window)] = covers
        areas[index] = covers.sum()
        colour = generator.uniform(150, 255, 3).astype(np.float32)
        image[window] += ink[..., None] * (colour - image[window])
    return masks


def _place(digit, masks, areas, size, generator):
    """The ink of a digit at a random size and place: the first that leaves enough of the others, else the best."""
    largest = min(_LARGEST, int(0.45 * min(size)))
    smallest = min(_SMALLEST, largest // 2)
    best, most_left = None, -1.0
    for _ in range(_TRIES):
        height = int(np.exp(generator.uniform(np.log(smallest), np.log(largest + 1))))
        width = max(int(height * generator.uniform(0.8, 1.1)), 4)
        ink = np.clip(_resized(digit, (height, width)), 0, 1)
        row, column = generator.integers(0, size[0] - height + 1), generator.integers(0, size[1] - width + 1)
        covers = ink >= _INK
        newly_hidden = (masks[:, row : row + height, column : column + width] & covers).sum((1, 2))
        left = ((masks.sum((1, 2)) - newly_hidden) / areas).min(initial=1.0)
        if left > most_left:
            best, most_left = (ink, row, column), left
        if left >= 1 - _MOST_COVERED:
            break
    return best


def _resized(values, size):
    """float32 `(height, width)` resized by Pillow, cubic."""
    return np.asarray(Image.fromarray(values.astype(np.float32)).resize(size[::-1], Image.Resampling.BICUBIC))


def _boxes(masks):
    """The smallest boxes around masks, xyxy."""
    boxes = np.zeros((len(masks), 4), np.float32)
    for box, mask in zip(boxes, masks, strict=True):
        rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
        box[:] = columns[0], rows[0], columns[-1] + 1, rows[-1] + 1
    return boxes


def _annotations(scenes, names, category_ids, image_counts):
    """The scenes in COCO's form, every class annotated in every image."""
    images = []
    annotations: list[dict[str, Any]] = []
    for index, image_id in enumerate(scenes.image_ids.tolist()):
        height, width = scenes.sizes[index].tolist()
        objects = scenes.objects(index)
        shown = set(category_ids[objects.labels].tolist())
        images.append(
            {
                "id": image_id,
                "file_name": f"{image_id}.png",
                "height": height,
                "width": width,
                "neg_category_ids": [number for number in category_ids.tolist() if number not in shown],
                "not_exhaustive_category_ids": [],
            }
        )
        for box, label, mask in zip(objects.boxes, objects.labels, objects.masks, strict=True):
            x1, y1, x2, y2 = box.tolist()
            annotations.append(
                {
                    "id": len(annotations) + 1,
                    "image_id": image_id,
                    "category_id": int(category_ids[label]),
                    "bbox": [x1, y1, x2 - x1, y2 - y1],
                    "area": int(mask.sum()),
                    "iscrowd": 0,
                    "segmentation": encode_mask(mask),
                }
            )
    categories = categories_with_frequency(names, category_ids, image_counts)
    return {"images": images, "annotations": annotations, "categories": categories}
