"""From labelled images to the `tf.data` datasets that `model.fit` takes, on every backend.

What a training sees is a pure function of (seed, epoch, position in the epoch): the order comes from `epoch_order`, and
every draw of an augmentation from a seed that is made of those three numbers. So the same seed gives the same batches,
whatever the number of parallel calls and whoever has looked at a first batch before; and a training that goes on from
a step starts the dataset at that step, before any image is read.
"""

from __future__ import annotations

import os

import keras
import numpy as np
import tensorflow as tf

from training.checks import check_whole
from training.config.classification import Recipe
from training.data.classification.augmentation import augment, mix
from training.data.classification.preparation import prepare
from training.data.classification.samplers import epoch_length, epoch_order
from training.data.classification.source import LabelledImages, Source
from training.errors import OptionError
from training.runtime.backend import leave_accelerators_to

__all__ = ["evaluation_dataset", "images_per_epoch", "steps_per_epoch", "training_dataset", "without_tuning"]

# Images that are prepared at a time; batches that are, and batches that wait for the network.
READERS = os.cpu_count() or 1
PREFETCHED = 2

try:
    leave_accelerators_to(keras.backend.backend())
except RuntimeError:
    # TensorFlow already runs in this process, on what its user gave it.
    pass

# Draws of an image and draws of a batch come from different streams.
_OF_IMAGE, _OF_BATCH = 0, 1


def images_per_epoch(recipe: Recipe, source: Source) -> int:
    """Images of an epoch, copies counted: what the sampler draws, which may be more or fewer than there are."""
    data = recipe.data
    return epoch_length(data.sampler, source.train.labels, source.num_classes, repeats=data.repeats)


def steps_per_epoch(recipe: Recipe, source: Source) -> int:
    """Batches of an epoch; the last one may be smaller than the others."""
    return -(-images_per_epoch(recipe, source) // recipe.batch_size)


def training_dataset(
    recipe: Recipe, source: Source, *, start_step: int = 0, class_weights: np.ndarray | None = None
) -> tf.data.Dataset:
    """All batches of a training, from `start_step` to the end of its last epoch.

    Args:
        recipe: Says how images are drawn, augmented and batched, for how many epochs, from which seed.
        source: The images.
        start_step: Batches that a training which goes on has seen already.
        class_weights: Weights of the samples of each class, `(num_classes,)`, from the epoch on that the recipe says.

    Returns:
        Batches `(images, labels)` or `(images, labels, sample_weights)`: float32 images `(n, height, width,
        channels)`; int32 labels `(n,)`, or float32 targets `(n, num_classes)` where the recipe mixes or smooths them.
        With mixed targets `t` and class weights `w`, the weight of a sample is `s = sum_c w_c t_c` and its target
        `w_c t_c / s`, so that each class's own term of the loss is weighed: `sum_c w_c t_c loss(c)`, as PyTorch's
        cross entropy does it for the authors, for every loss that is linear in its targets (cross entropies, with a
        softmax or a sigmoid). The targets still add up to 1.

    Raises:
        ValueError: A batch that is larger than an epoch, labels beyond the classes, a `start_step` beyond the end.

    >>> from training.data.classification.digits import digits10_lt
    >>> from training.recipes import get_recipe
    >>> recipe = get_recipe("digits10_lt").replace(batch_size=500, epochs=2)
    >>> [len(labels) for images, labels in training_dataset(recipe, digits10_lt(), start_step=2)]
    [236, 500, 500, 236]
    """
    data = recipe.data
    _check_labels(source.train.labels, source.num_classes)
    steps = steps_per_epoch(recipe, source)
    check_whole("start_step", start_step, at_least=0, below=steps * recipe.epochs + 1)
    length = images_per_epoch(recipe, source)
    if recipe.batch_size > length:
        raise OptionError(f"batch_size must be at most the {length} images of an epoch; given: {recipe.batch_size}.")
    first_epoch, first_batch = divmod(start_step, steps)
    # The sides that the recipe asks for, else those that the source has.
    size = data.image_size or source.image_shape[0]

    def order(epoch):
        return epoch_order(
            data.sampler,
            source.train.labels,
            source.num_classes,
            seed=recipe.seed,
            epoch=int(epoch),
            epochs=recipe.epochs,
            repeats=data.repeats,
        ).astype(np.int64)

    def load(index, position, epoch):
        image = source.train.load(index)
        image = augment(
            image,
            _fold(recipe.seed, _OF_IMAGE, epoch, position),
            recipe.augment,
            size,
            source.preprocessing,
        )
        return image, tf.gather(labels, index), epoch, position

    def finish(images, targets, epochs, positions):
        epoch = epochs[0]
        if recipe.augment.mixes:
            targets = tf.one_hot(targets, source.num_classes)
            images, targets = mix(images, targets, _fold(recipe.seed, _OF_BATCH, epoch, positions[0]), recipe.augment)
        if class_weights is None:
            return images, targets
        per_class = tf.constant(class_weights, tf.float32)
        per_class = tf.where(epoch >= recipe.loss.class_weights_from_epoch, per_class, tf.ones_like(per_class))
        if not recipe.augment.mixes:
            return images, targets, tf.gather(per_class, targets)
        weights = tf.linalg.matvec(targets, per_class)
        return images, targets * per_class / weights[:, tf.newaxis], weights

    def one_epoch(epoch):
        indices = tf.numpy_function(order, [epoch], tf.int64, stateful=False)
        indices.set_shape([length])
        skip = tf.where(epoch == first_epoch, first_batch * recipe.batch_size, 0)
        positions = tf.range(length, dtype=tf.int64)
        each = tf.data.Dataset.from_tensor_slices((indices[skip:], positions[skip:]))
        each = each.map(lambda index, position: load(index, position, epoch), num_parallel_calls=READERS)
        return each.batch(recipe.batch_size).map(finish, num_parallel_calls=PREFETCHED)

    labels = tf.constant(np.asarray(source.train.labels, np.int32))
    dataset = tf.data.Dataset.range(first_epoch, recipe.epochs).flat_map(one_epoch)
    remaining = steps * recipe.epochs - start_step
    return without_tuning(dataset.apply(tf.data.experimental.assert_cardinality(remaining)).prefetch(PREFETCHED))


def evaluation_dataset(
    images: LabelledImages, batch_size: int, *, num_classes: int, preprocessing=None
) -> tf.data.Dataset:
    """Batches `(images, labels)` in their order, prepared as at test time; the last one may be smaller.

    Args:
        images: What to evaluate on.
        batch_size: Images a batch.
        num_classes: Labels of this and above are an error.
        preprocessing: A `zoo.Preprocessing`, or None for images that are ready.

    Raises:
        ValueError: As for `training_dataset`.

    >>> from training.data.classification.source import ArrayImages
    >>> images = ArrayImages(np.zeros((3, 16, 16, 1), "float32"), np.arange(3))
    >>> [labels.numpy().tolist() for _, labels in evaluation_dataset(images, 2, num_classes=3)]
    [[0, 1], [2]]
    """
    check_whole("batch_size", batch_size, at_least=1)
    _check_labels(images.labels, num_classes)
    labels = tf.constant(np.asarray(images.labels, np.int32))

    def load(index):
        return prepare(images.load(index), preprocessing), tf.gather(labels, index)

    dataset = tf.data.Dataset.range(len(images)).map(load, num_parallel_calls=READERS)
    return without_tuning(dataset.batch(batch_size).prefetch(PREFETCHED))


def without_tuning(dataset: tf.data.Dataset) -> tf.data.Dataset:
    """The dataset, and all that is made from it, with the numbers of parallel calls that it was given.

    The thread of tf.data that tunes numbers by itself sleeps up to a minute at a time, and at the end of a training the
    iterator waits for it.

    >>> without_tuning(tf.data.Dataset.range(3)).batch(2).options().autotune.enabled
    False
    """
    options = tf.data.Options()
    options.autotune.enabled = False
    return dataset.with_options(options)


def _fold(seed, stream, epoch, position):
    """Two numbers that belong to this place of the training alone."""
    key = tf.random.fold_in(tf.constant([seed % 2**31, stream], tf.int32), tf.cast(epoch, tf.int32))
    return tf.random.fold_in(key, tf.cast(position, tf.int32))


def _check_labels(labels, num_classes):
    labels = np.asarray(labels)
    if labels.ndim != 1 or labels.dtype.kind not in "iu" or not len(labels):
        raise ValueError(f"labels must be integers of shape (N,); given: {labels.dtype} of shape {labels.shape}.")
    if labels.min() < 0:
        raise ValueError(f"labels must be at least 0; given: {labels.min()}.")
    if labels.max() >= num_classes:
        raise ValueError(f"labels must be below the number of classes, {num_classes}; given: {labels.max()}.")
