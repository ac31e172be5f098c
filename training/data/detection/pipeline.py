"""From annotated images to the `tf.data` datasets that train a detector, on every backend.

As in `training.data.classification.pipeline`, what a training sees is a pure function of (seed, epoch, position in the
epoch): the same for every number of parallel calls, and from any step on without reading what comes before. An image is
prepared by NumPy in one call, its few random numbers drawn from those three; keras-cv's layers take no seed for a call.

Every batch has the same shapes: images on a canvas of `image_size`, `max_objects` objects, masks cropped to their
boxes. A mask is cut from the original one by the original box, so that no resampling comes between the two.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import keras
import numpy as np
import tensorflow as tf

from training.checks import check_whole
from training.data.classification.pipeline import PREFETCHED, without_tuning
from training.data.detection.masks import crop_to_boxes
from training.data.detection.repeat_factor import repeat_factor_length, repeat_factor_order, repeat_factors
from training.data.detection.source import AnnotatedImages, DetectionSource, Objects, fitting_scale
from training.runtime.backend import leave_accelerators_to
from zoo.detection import pad_targets

if TYPE_CHECKING:
    from training.config.detection import DetectionRecipe

__all__ = [
    "detection_evaluation_images",
    "detection_notes",
    "detection_steps_per_epoch",
    "detection_training_dataset",
    "place_image",
]

# Images that are read at a time.
_READERS = 8

try:
    leave_accelerators_to(keras.backend.backend())
except RuntimeError:
    # TensorFlow already runs in this process, on what its user gave it.
    pass


def detection_steps_per_epoch(recipe: DetectionRecipe, source: DetectionSource) -> int:
    """Batches of an epoch, all of the same size: the last one is filled up with the first images of the epoch."""
    return -(-_epoch_length(recipe.data, source) // recipe.batch_size)


def detection_training_dataset(
    recipe: DetectionRecipe, source: DetectionSource, *, start_step: int = 0, masks: bool | None = None
) -> tf.data.Dataset:
    """All batches of a training, from `start_step` to the end of its last epoch.

    An image is resized as `zoo.detection.DetectionPreprocessing` does it, but to fit `image_size` and `shorter_side`,
    times a random factor of `augment.scale`; what is larger then is cut at a random place, what is smaller stands in
    the upper left corner. An object of which less than a pixel is left is dropped; the box of one that was cut is drawn
    anew around what is left of its mask. Of more than `max_objects` objects the largest are kept, and ignored regions
    last.

    Args:
        recipe: Of it `data`, `augment`, `epochs`, `batch_size` and `seed`.
        source: The images.
        start_step: Batches that a training which goes on has seen already.
        masks: Whether the targets have masks; by default, if the source has.

    Returns:
        Batches `(inputs, targets)`, as `zoo.detection.MaskRCNN` with `mask_format="box"` takes them:
        `{"images": uint8 (n, height, width, 3), "image_size": float32 (n, 2)}` and `{"boxes": float32 (n, N, 4),
        "labels": int32 (n, N), "ignored": bool (n, N), "masks": uint8 (n, N, M, M)}`.

    Raises:
        ValueError: A `start_step` beyond the end, masks that the source has not.

    >>> from training.data.detection.digit_scenes import digit_scenes_lt
    >>> from training.config.detection import DetectionAugmentOptions, DetectionDataOptions
    >>> from types import SimpleNamespace
    >>> recipe = SimpleNamespace(
    ...     data=DetectionDataOptions(max_objects=8, mask_size=28),
    ...     augment=DetectionAugmentOptions(flip=True),
    ...     batch_size=4, epochs=2, seed=0,
    ... )
    >>> dataset = detection_training_dataset(recipe, digit_scenes_lt(num_train=10, num_test=5))
    >>> len(dataset)
    6
    >>> inputs, targets = next(iter(dataset))
    >>> inputs["images"].shape.as_list(), targets["masks"].shape.as_list()
    ([4, 128, 128, 3], [4, 8, 28, 28])
    """
    data, images = recipe.data, source.train
    masks = images.has_masks if masks is None else masks
    if masks and not images.has_masks:
        raise ValueError(f"masks must be False for {source.name}, whose objects have none; given: True.")
    length, steps = _epoch_length(data, source), detection_steps_per_epoch(recipe, source)
    check_whole("start_step", start_step, at_least=0, below=steps * recipe.epochs + 1)
    first_epoch, first_batch = divmod(start_step, steps)
    factors = _factors(data, source)

    def order(epoch):
        if factors is None:
            generator = np.random.default_rng(np.random.SeedSequence([recipe.seed, int(epoch)]))
            indices = generator.permutation(length)
        else:
            indices = repeat_factor_order(factors, recipe.seed, int(epoch))
        return np.resize(indices, steps * recipe.batch_size).astype(np.int64)

    def load(index, position, epoch):
        # Another stream than that of the order.
        generator = np.random.default_rng(np.random.SeedSequence([recipe.seed, int(epoch), int(position) + 1]))
        image, objects = _loaded(images, int(index), masks)
        image, size, objects = place_image(
            image,
            objects,
            data.image_size,
            data.mask_size,
            generator,
            flip=recipe.augment.flip,
            scale=recipe.augment.scale,
            shorter_side=data.shorter_side,
        )
        targets = _padded(objects, data.max_objects)
        return [image, np.asarray(size, np.float32), *(targets[key] for key in keys)]

    keys = ("boxes", "labels", "ignored") + (("masks",) if masks else ())
    kinds = {"boxes": tf.float32, "labels": tf.int32, "ignored": tf.bool, "masks": tf.uint8}
    shapes = {
        "boxes": (data.max_objects, 4),
        "labels": (data.max_objects,),
        "ignored": (data.max_objects,),
        "masks": (data.max_objects, data.mask_size, data.mask_size),
    }

    def example(index, position, epoch):
        outputs = [tf.uint8, tf.float32, *(kinds[key] for key in keys)]
        image, size, *targets = tf.numpy_function(load, [index, position, epoch], outputs, stateful=False)
        inputs = {
            "images": tf.ensure_shape(image, (*data.image_size, 3)),
            "image_size": tf.ensure_shape(size, (2,)),
        }
        return inputs, {key: tf.ensure_shape(value, shapes[key]) for key, value in zip(keys, targets, strict=True)}

    def one_epoch(epoch):
        indices = tf.numpy_function(order, [epoch], tf.int64, stateful=False)
        indices.set_shape([steps * recipe.batch_size])
        skip = tf.where(epoch == first_epoch, first_batch * recipe.batch_size, 0)
        positions = tf.range(steps * recipe.batch_size, dtype=tf.int64)
        each = tf.data.Dataset.from_tensor_slices((indices[skip:], positions[skip:]))
        each = each.map(lambda index, position: example(index, position, epoch), num_parallel_calls=_READERS)
        return each.batch(recipe.batch_size, drop_remainder=True)

    dataset = tf.data.Dataset.range(first_epoch, recipe.epochs).flat_map(one_epoch)
    remaining = steps * recipe.epochs - start_step
    return without_tuning(dataset.apply(tf.data.experimental.assert_cardinality(remaining)).prefetch(PREFETCHED))


def detection_evaluation_images(source: DetectionSource) -> Iterator[tuple[int, np.ndarray]]:
    """The id and the pixels, uint8 `(height, width, 3)`, of each test image, for `predict_images`.

    >>> from training.data.detection.digit_scenes import digit_scenes_lt
    >>> [(number, image.shape) for number, image in detection_evaluation_images(digit_scenes_lt(10, 5))][:2]
    [(1, (128, 128, 3)), (2, (128, 128, 3))]
    """
    for index, image_id in enumerate(source.test.image_ids.tolist()):
        yield image_id, source.test.image(index)


def detection_notes(recipe: DetectionRecipe, source: DetectionSource) -> tuple[str, ...]:
    """What the recipe does not use of the source, a sentence each.

    >>> from training.data.detection.digit_scenes import digit_scenes_lt
    >>> from training.config.detection import DetectionDataOptions
    >>> from types import SimpleNamespace
    >>> detection_notes(SimpleNamespace(data=DetectionDataOptions(max_objects=4)), digit_scenes_lt(20, 5))
    ('5 objects in 5 training images are left out: an image keeps its 4 largest (data.max_objects)',)
    """
    most = recipe.data.max_objects
    beyond = [len(labels) - most for labels in source.train.labels if len(labels) > most]
    notes = []
    if beyond:
        notes.append(
            f"{sum(beyond)} objects in {len(beyond)} training images are left out: an image keeps its {most} largest "
            "(data.max_objects)"
        )
    return tuple(notes)


def place_image(
    image: np.ndarray,
    objects: Objects,
    canvas: tuple[int, int],
    mask_size: int,
    generator: np.random.Generator,
    flip: bool = False,
    scale: tuple[float, float] = (1.0, 1.0),
    shorter_side: int = 0,
) -> tuple[np.ndarray, tuple[int, int], Objects]:
    """An image on a canvas, with its objects: resized, cut or padded, and mirrored.

    Args:
        image: uint8 `(height, width, 3)`.
        objects: Of that image.
        canvas: Height and width of the result.
        mask_size: Side of the masks in the result.
        generator: Of the random numbers, of which it always takes the same four.
        flip: Mirror every second time.
        scale: Range of the size; at 1 the image fits the canvas.
        shorter_side: The most pixels of the image's shorter side at 1; 0 for no such bound.

    Returns: The canvas, uint8; height and width of the part of it that the image takes; and the objects with boxes in
        pixels of the canvas and masks `(n, mask_size, mask_size)`, each in its box.

    >>> generator = np.random.default_rng(0)
    >>> image, objects = np.zeros((10, 20, 3), "uint8"), Objects([[0, 0, 20, 5]], [0])
    >>> canvas, size, objects = place_image(image, objects, (40, 40), 28, generator)
    >>> canvas.shape, size, objects.boxes.tolist()
    ((40, 40, 3), (20, 40), [[0.0, 0.0, 40.0, 10.0]])
    """
    draws = generator.random(4)
    given, room = np.array(image.shape[:2]), np.array(canvas)
    factor = fitting_scale(given, room, shorter_side) * (scale[0] + draws[0] * (scale[1] - scale[0]))
    # The rounding keeps a product that ought to be whole from falling below it.
    resized = np.maximum(np.floor(np.round(given * factor, 6)).astype(int), 1)
    corner = np.floor(draws[1:3] * (np.maximum(resized - room, 0) + 1)).astype(int)
    size = np.minimum(resized, room)
    part = resized_part(image, resized, corner, size)
    boxes, kept, masks = _objects_in(objects, corner, size, resized / given, mask_size)
    if flip and draws[3] < 0.5:
        part = part[:, ::-1]
        boxes[:, [0, 2]] = size[1] - boxes[:, [2, 0]]
        masks = None if masks is None else masks[:, :, ::-1]
    pixels = np.zeros((*room, 3), np.uint8)
    pixels[: size[0], : size[1]] = part
    return pixels, tuple(size.tolist()), Objects(boxes, objects.labels[kept], masks, objects.ignored[kept])


def resized_part(image: np.ndarray, resized: np.ndarray, corner: np.ndarray, size: np.ndarray) -> np.ndarray:
    """A part of what `zoo.detection.resize_image` makes of an image, without making the rest; rounded.

    Args:
        image: uint8 `(height, width, 3)`.
        resized: Height and width of the whole.
        corner: Row and column of the part.
        size: Height and width of the part.

    >>> resized_part(np.array([[[0], [4]]], "uint8"), (1, 4), (0, 2), (1, 2)).tolist()
    [[[3], [4]]]
    """
    for axis in (0, 1):
        given, wanted = image.shape[axis], resized[axis]
        places = np.arange(corner[axis], corner[axis] + size[axis])
        if given == wanted:
            image = np.take(image, places, axis)
            continue
        position = (places.astype(np.float32) + np.float32(0.5)) * np.float32(given / wanted) - np.float32(0.5)
        position = np.maximum(position, 0)
        low = np.minimum(position.astype(np.int64), given - 1)
        fraction = (position - low).reshape((-1, 1, 1) if axis == 0 else (1, -1, 1)).astype(np.float32)
        high = np.minimum(low + 1, given - 1)
        image = np.take(image, low, axis) * (1 - fraction) + np.take(image, high, axis) * fraction
    return image if image.dtype == np.uint8 else np.rint(image).astype(np.uint8)


def _objects_in(objects, corner, size, scale, mask_size):
    """Boxes in pixels of the part, which objects they belong to, and their masks."""
    # All of it in x, y: the window in pixels of the image, as its boxes are.
    corner, size, scale = corner[::-1], size[::-1], scale[::-1]
    window = np.stack([corner / scale, (corner + size) / scale]).astype(np.float32)
    boxes, kept, masks = [], [], []
    for index, box in enumerate(objects.boxes.reshape(-1, 2, 2)):
        mask = None if objects.masks is None or objects.ignored[index] else objects.masks[index]
        part = np.clip(box, window[0], window[1])
        # Boxes that reach up to the border of the image are not cut by it.
        if np.abs(part - box).max() > 1e-3:
            if mask is not None:
                part = _around(mask, part)
            if ((part[1] - part[0]) * scale < 1).any():
                continue
        if mask is not None:
            masks.append(crop_to_boxes(mask[None], part.reshape(1, 4), mask_size)[0])
        elif objects.masks is not None:
            masks.append(np.zeros((mask_size, mask_size), np.uint8))
        boxes.append(np.clip(part * scale - corner, 0, size).reshape(4))
        kept.append(index)
    of_objects = None if objects.masks is None else np.array(masks, np.uint8).reshape(-1, mask_size, mask_size)
    return np.array(boxes, np.float32).reshape(-1, 4), np.array(kept, np.int64), of_objects


def _around(mask, box):
    """The smallest box around what a mask has within a box; without area, if it has nothing there."""
    (x1, y1), (x2, y2) = np.floor(box[0]).astype(int), np.ceil(box[1]).astype(int)
    part = mask[y1:y2, x1:x2]
    rows, columns = np.flatnonzero(part.any(axis=1)), np.flatnonzero(part.any(axis=0))
    if not len(rows):
        return np.stack([box[0], box[0]])
    tight = np.array([[x1 + columns[0], y1 + rows[0]], [x1 + columns[-1] + 1, y1 + rows[-1] + 1]], np.float32)
    return np.clip(tight, box[0], box[1])


def _loaded(images: AnnotatedImages, index, masks):
    image, objects = images.load(index)
    if not masks:
        objects = Objects(objects.boxes, objects.labels, None, objects.ignored)
    return image, objects


def _padded(objects, number):
    """Targets of a fixed number of objects: the largest, and of ignored regions those for which there is room."""
    area = np.prod(objects.boxes[:, 2:] - objects.boxes[:, :2], axis=1)
    order = np.sort(np.lexsort((-area, objects.ignored))[:number])
    masks = None if objects.masks is None else objects.masks[order]
    return pad_targets(objects.boxes[order], objects.labels[order], number, masks, objects.ignored[order])[0]


def _factors(data, source):
    """Repeat factors of the training images; `None` where each comes once."""
    if data.sampler == "random":
        return None
    return repeat_factors(source.train.labels, source.image_counts, source.num_images, data.repeat_threshold)


def _epoch_length(data, source):
    factors = _factors(data, source)
    return len(source.train) if factors is None else repeat_factor_length(factors)
