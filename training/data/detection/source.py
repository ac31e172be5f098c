"""What every source of detection returns: images with objects that are read by index, and how often classes occur."""

from __future__ import annotations

import abc
import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from keras_apa.class_counts import LVIS_COMMON, LVIS_RARE
from training.checks import check_whole

__all__ = [
    "AnnotatedImages",
    "ArrayScenes",
    "DetectionSource",
    "Objects",
    "categories_with_frequency",
    "fitting_scale",
    "frequency_groups",
    "frequency_threshold",
]


@dataclasses.dataclass(frozen=True, eq=False)
class Objects:
    """The objects of one image.

    Attributes:
        boxes: float32 `(n, 4)`, xyxy in pixels.
        labels: int32 `(n,)` from 0; -1 for an ignored region.
        masks: uint8 `(n, height, width)` of 0 and 1, or a sequence that makes each mask when it is asked for; `None`
            where there are none.
        ignored: bool `(n,)`: regions (crowds) in which nothing is a negative; by default none.

    Raises:
        ValueError: Arrays that do not fit.

    >>> len(Objects([[0, 0, 4, 4]], [1]))
    1
    """

    boxes: np.ndarray
    labels: np.ndarray
    masks: np.ndarray | Sequence[np.ndarray] | None = None
    # Never None behind `__post_init__`.
    ignored: np.ndarray = None  # type: ignore[assignment]

    def __post_init__(self):
        boxes = np.asarray(self.boxes, np.float32).reshape(-1, 4)
        labels = np.asarray(self.labels, np.int32).reshape(-1)
        ignored = np.zeros(len(boxes), bool) if self.ignored is None else np.asarray(self.ignored, bool)
        for name, value in (("labels", labels), ("masks", self.masks), ("ignored", ignored)):
            if value is not None and len(value) != len(boxes):
                raise ValueError(f"{name} must have one entry for each of the {len(boxes)} boxes; given: {len(value)}.")
        for name, value in (("boxes", boxes), ("labels", labels), ("ignored", ignored)):
            object.__setattr__(self, name, value)
        if isinstance(self.masks, list | np.ndarray):
            object.__setattr__(self, "masks", np.asarray(self.masks, np.uint8))

    def __len__(self) -> int:
        return len(self.boxes)


class AnnotatedImages(abc.ABC):
    """Images with objects that are read by index; called from several threads.

    Attributes:
        image_ids: int64 `(N,)`.
        sizes: int32 `(N, 2)`, height and width in pixels.
        labels: A tuple of `N` int32 arrays: the labels of each image's objects, without ignored regions.
        has_masks: Whether objects have masks.
    """

    def __init__(self, image_ids: ArrayLike, sizes: ArrayLike, labels: Sequence[ArrayLike], has_masks: bool):
        self.image_ids = np.asarray(image_ids, np.int64)
        self.sizes = np.asarray(sizes, np.int32).reshape(-1, 2)
        self.labels = tuple(np.asarray(each, np.int32) for each in labels)
        self.has_masks = has_masks
        if not len(self.image_ids) == len(self.sizes) == len(self.labels):
            raise ValueError(
                f"image_ids, sizes and labels must have one entry an image; given: {len(self.image_ids)}, "
                f"{len(self.sizes)} and {len(self.labels)}."
            )

    def __len__(self) -> int:
        return len(self.image_ids)

    @abc.abstractmethod
    def image(self, index: int) -> np.ndarray:
        """The pixels: uint8 `(height, width, 3)`, RGB."""

    @abc.abstractmethod
    def objects(self, index: int) -> Objects:
        """The objects, without reading the image."""

    def load(self, index: int) -> tuple[np.ndarray, Objects]:
        """An image with its objects."""
        return self.image(index), self.objects(index)

    def image_counts(self, num_classes: int) -> np.ndarray:
        """How many images show each class, int64 `(num_classes,)`."""
        counts = np.zeros(num_classes, np.int64)
        for labels in self.labels:
            counts[np.unique(labels)] += 1
        return counts

    def __repr__(self):
        return f"{type(self).__name__}({len(self)} images, {sum(map(len, self.labels))} objects)"


class ArrayScenes(AnnotatedImages):
    """Images and objects in memory.

    Args:
        images: A uint8 array `(height, width, 3)` for each image.
        objects: `Objects` of each.
        image_ids: Integers `(N,)`; by default from 1.

    >>> scenes = ArrayScenes([np.zeros((40, 50, 3), "uint8")], [Objects([[0, 0, 4, 4]], [1])])
    >>> scenes.sizes.tolist(), scenes.image_counts(3).tolist()
    ([[40, 50]], [0, 1, 0])
    """

    def __init__(self, images, objects, image_ids=None):
        self._images, self._objects = list(images), list(objects)
        if len(self._images) != len(self._objects):
            raise ValueError(
                f"objects must have one entry for each of the {len(self._images)} images; given: {len(self._objects)}."
            )
        super().__init__(
            np.arange(1, len(self._images) + 1) if image_ids is None else image_ids,
            [image.shape[:2] for image in self._images],
            [each.labels[~each.ignored] for each in self._objects],
            has_masks=all(each.masks is not None for each in self._objects),
        )

    def image(self, index: int) -> np.ndarray:
        return self._images[index]

    def objects(self, index: int) -> Objects:
        return self._objects[index]


@dataclasses.dataclass(frozen=True, eq=False)
class DetectionSource:
    """A training and a test set of annotated images; what a data module of detection returns.

    Attributes:
        name: Of the data set.
        train, test: The images.
        class_names: Names of the classes, by label.
        category_ids: int64 `(C,)`, the id of each class in the annotation file.
        test_annotations: The test set as COCO's JSON has it: `images`, `annotations` and `categories`, these with
            LVIS's `frequency` r, c or f. For `faster_coco_eval`.
        image_counts: int64 `(C,)`, training images that show each class; by default counted.
        num_images: Training images that show an object; by default counted.
        notes: What the user should know about these data, a sentence each.

    Raises:
        ValueError: No training image or no test image, none with an object, a label beyond the classes, a class
            without a training image.
    """

    name: str
    train: AnnotatedImages
    test: AnnotatedImages
    class_names: tuple[str, ...]
    category_ids: np.ndarray
    test_annotations: dict[str, Any]
    # Never None behind `__post_init__`, which counts.
    image_counts: np.ndarray = None  # type: ignore[assignment]
    num_images: int = None  # type: ignore[assignment]
    notes: tuple[str, ...] = ()

    def __post_init__(self):
        for part in ("train", "test"):
            images = getattr(self, part)
            if not len(images):
                raise ValueError(
                    f"{self.name} must have {'training' if part == 'train' else 'test'} images; given: none."
                )
            labels = np.concatenate([np.zeros(0, np.int32), *images.labels])
            if labels.size and not (labels.min() >= 0 and labels.max() < self.num_classes):
                raise ValueError(
                    f"labels of {self.name} must be from 0 to {self.num_classes - 1}, for {self.num_classes} classes; "
                    f"given: {labels.min()} to {labels.max()} in its {part} images."
                )
        if self.image_counts is None:
            object.__setattr__(self, "image_counts", self.train.image_counts(self.num_classes))
        if self.num_images is None:
            object.__setattr__(self, "num_images", sum(len(labels) > 0 for labels in self.train.labels))
        if not self.num_images:
            raise ValueError(f"{self.name} must have a training image that shows an object; given: none.")
        empty = np.flatnonzero(np.asarray(self.image_counts) == 0)
        if len(empty):
            raise ValueError(
                f"class {empty[0]} ({self.class_names[empty[0]]!r}) of {self.name} must be in a training image; given: "
                + ("none" if len(empty) == 1 else f"none, as for {len(empty) - 1} others")
                + ". Annotate an image with it, or remove it from the categories."
            )

    @property
    def num_classes(self) -> int:
        """Number of classes."""
        return len(self.class_names)

    @property
    def frequency_threshold(self) -> float:
        """See `frequency_threshold`."""
        return frequency_threshold(self.image_counts, self.num_images)

    def __repr__(self):
        sizes = ", ".join(f"{name} {len(own)}" for name, own in frequency_groups(self.image_counts).items())
        return (
            f"DetectionSource({self.name}: {len(self.train)} training and {len(self.test)} test images, "
            f"{self.num_classes} classes: {sizes})"
        )


def fitting_scale(size: Sequence[int] | np.ndarray, canvas: Sequence[int] | np.ndarray, shorter_side: int = 0) -> float:
    """The largest factor by which an image of `size` fits a canvas, its shorter side at most `shorter_side`.

    Args:
        size, canvas: Height and width in pixels.
        shorter_side: In pixels; 0 for no such bound.

    >>> fitting_scale((40, 80), (96, 96)), fitting_scale((40, 80), (96, 96), shorter_side=32)
    (1.2, 0.8)
    """
    scale = min(most / given for given, most in zip(size, canvas, strict=True))
    return min(scale, shorter_side / min(size)) if shorter_side else scale


def frequency_groups(
    image_counts: np.ndarray, rare: int = LVIS_RARE, common: int = LVIS_COMMON
) -> dict[str, np.ndarray]:
    """The classes of LVIS's three groups by the training images that show them.

    Args:
        image_counts: Integers `(C,)`.
        rare, common: The most images of a rare and of a common class; what is in more is frequent.

    Returns: Class indices of `"r"`, `"c"` and `"f"`.

    >>> {name: own.tolist() for name, own in frequency_groups([10, 11, 100, 101]).items()}
    {'r': [0], 'c': [1, 2], 'f': [3]}
    """
    check_whole("rare", rare, at_least=0)
    check_whole("common", common, at_least=rare)
    counts = np.asarray(image_counts)
    in_group = {"r": counts <= rare, "c": (counts > rare) & (counts <= common), "f": counts > common}
    return {name: np.flatnonzero(own) for name, own in in_group.items()}


def categories_with_frequency(names, category_ids, image_counts) -> list[dict[str, Any]]:
    """COCO's categories with LVIS's `frequency`, from the training images that show each class.

    >>> categories_with_frequency(["cat"], [7], [12])
    [{'id': 7, 'name': 'cat', 'frequency': 'c', 'image_count': 12}]
    """
    group = {index: name for name, own in frequency_groups(image_counts).items() for index in own.tolist()}
    return [
        {"id": int(number), "name": name, "frequency": group[index], "image_count": int(image_counts[index])}
        for index, (name, number) in enumerate(zip(names, category_ids, strict=True))
    ]


def frequency_threshold(image_counts: np.ndarray, num_images: int, common: int = LVIS_COMMON) -> float:
    """Lies just above the frequency `image_count / num_images` of the last common class, so that this one is below it.

    `GumbelOptimizedLoss` and its like treat classes below it as rare: they are no negatives of other classes' objects.
    Where all classes are common, or none is, it is the lowest frequency that there can be, below which there is no
    class: if all were rare, nothing would tell them apart.

    >>> frequency_threshold([5, 90, 300], num_images=1000)
    0.0905
    >>> frequency_threshold([5, 90], num_images=1000)
    0.0005
    """
    counts = np.asarray(image_counts)
    below = counts[counts <= common]
    spared = 0 < below.size < counts.size
    return float((below.max() if spared else 0) + 0.5) / num_images
