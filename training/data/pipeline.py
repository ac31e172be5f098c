"""From arrays to the `tf.data` datasets that `model.fit` takes, on every backend.

The same seed gives the same batches in the same epochs. Keras's augmentation layers alone do not: their
generator is advanced by every batch that is prefetched, also by those that nobody takes (Keras looks at a
first batch before it trains). So the random numbers are drawn by the dataset, which starts anew with every
epoch's iterator, and the layer only applies them.
"""

from __future__ import annotations

import keras
import numpy as np
import tensorflow as tf

from training.backend import leave_accelerators_to
from training.checks import check_flag, check_whole

__all__ = ["evaluation_dataset", "training_dataset"]

try:
    leave_accelerators_to(keras.backend.backend())
except RuntimeError:
    # TensorFlow already runs in this process, on what its user gave it.
    pass


class GivenTranslation(keras.layers.RandomTranslation):
    """Moves each image by its `translations` (columns, rows), which come with the images."""

    def get_random_transformation(self, data, training=True, seed=None):
        return {"translations": data["translations"], "input_shape": tf.shape(data["images"])}


def training_dataset(
    images: np.ndarray,
    labels: np.ndarray,
    batch_size: int,
    *,
    seed: int,
    augment: bool = True,
    shuffle: bool = True,
    max_shift: int = 1,
    num_classes: int | None = None,
) -> tf.data.Dataset:
    """Batches of images and labels, shuffled and augmented differently in each epoch, the same for the same
    seed.

    The augmentation moves an image by up to `max_shift` whole pixels in each direction; what enters is its
    mirrored border, so that noise stays what it is. The last batch holds the rest and may be smaller.

    Args:
        images: Numbers of shape `(N, height, width, channels)`.
        labels: Integers of shape `(N,)`, or one-hot `(N, num_classes)`.
        batch_size: Images a batch.
        seed: Of order and augmentation; TensorFlow mixes in the one that `keras.utils.set_random_seed`
            was given, if it was called.
        augment: Whether to move the images.
        shuffle: Whether to shuffle, over all images.
        max_shift: Largest move in pixels, below height and width.
        num_classes: Labels of this and above, or one-hot labels of another width, are an error.

    Raises:
        ValueError: Arrays or numbers that do not fit.

    >>> dataset = training_dataset(np.zeros((10, 16, 16, 1), "float32"), np.arange(10), 4, seed=0)
    >>> [tuple(images.shape) for images, labels in dataset]
    [(4, 16, 16, 1), (4, 16, 16, 1), (2, 16, 16, 1)]
    """
    images, labels = _check_arrays(images, labels, num_classes)
    check_whole("batch_size", batch_size, at_least=1)
    check_whole("seed", seed, at_least=0)
    check_flag("augment", augment)
    check_flag("shuffle", shuffle)
    check_whole("max_shift", max_shift, at_least=0, below=min(images.shape[1:3]))
    dataset = tf.data.Dataset.from_tensor_slices((images, labels))
    if shuffle:
        dataset = dataset.shuffle(len(images), seed=seed, reshuffle_each_iteration=True)
    dataset = dataset.batch(batch_size)
    if augment and max_shift:
        dataset = _translated(dataset, max_shift, seed)
    return dataset.prefetch(tf.data.AUTOTUNE)


def evaluation_dataset(
    images: np.ndarray, labels: np.ndarray, batch_size: int, *, num_classes: int | None = None
) -> tf.data.Dataset:
    """Batches of images and labels in their order; the last one may be smaller.

    Args and errors: as for `training_dataset`.

    >>> dataset = evaluation_dataset(np.zeros((3, 16, 16, 1), "float32"), np.arange(3), 2)
    >>> [labels.numpy().tolist() for images, labels in dataset]
    [[0, 1], [2]]
    """
    images, labels = _check_arrays(images, labels, num_classes)
    check_whole("batch_size", batch_size, at_least=1)
    return tf.data.Dataset.from_tensor_slices((images, labels)).batch(batch_size).prefetch(tf.data.AUTOTUNE)


def _translated(dataset, max_shift, seed):
    # Factors are never used: the translations come with the images.
    layer = GivenTranslation(0.0, 0.0, "reflect", "nearest", data_format="channels_last", dtype="float32")

    def move(batch, seeds):
        images, labels = batch
        shifts = tf.random.stateless_uniform(
            (tf.shape(images)[0], 2), seed=seeds, minval=-max_shift, maxval=max_shift + 1, dtype=tf.int32
        )
        moved = layer({"images": images, "translations": tf.cast(shifts, tf.float32)}, training=True)
        return tf.cast(moved["images"], images.dtype), labels

    # A pair of numbers a batch, others in each epoch.
    seeds = tf.data.Dataset.random(seed=seed, rerandomize_each_iteration=True).batch(2, drop_remainder=True)
    return tf.data.Dataset.zip(dataset, seeds).map(move, num_parallel_calls=tf.data.AUTOTUNE, deterministic=True)


def _check_arrays(images, labels, num_classes):
    images, labels = np.asarray(images), np.asarray(labels)
    if images.ndim != 4 or not images.size:
        raise ValueError(f"images must have shape (N, height, width, channels), got {images.shape}")
    if images.dtype.kind not in "iuf":
        raise ValueError(f"images must be numbers, got dtype {images.dtype}")
    if labels.ndim not in (1, 2) or len(labels) != len(images):
        raise ValueError(
            f"labels must have shape ({len(images)},), or ({len(images)}, num_classes) if one-hot, "
            f"to go with the images; got {labels.shape}"
        )
    if labels.ndim == 1 and labels.dtype.kind not in "iu":
        raise ValueError(f"labels must be integers, got dtype {labels.dtype}")
    if labels.ndim == 1 and labels.min() < -1:
        raise ValueError(f"labels must be at least 0, or -1 for images that are ignored; got {labels.min()}")
    if num_classes is not None and labels.ndim == 1 and labels.max() >= num_classes:
        raise ValueError(f"labels must be below the number of classes, {num_classes}; got {labels.max()}")
    if num_classes is not None and labels.ndim == 2 and labels.shape[1] != num_classes:
        raise ValueError(f"one-hot labels must have {num_classes} columns, one a class; got {labels.shape[1]}")
    return images, labels
