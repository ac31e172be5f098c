"""The batches of a training: those of its images, and where rates are learned a class-balanced one with each."""

from __future__ import annotations

import numpy as np
import tensorflow as tf

from training.config.classification import Recipe
from training.data.classification.pipeline import PREFETCHED, steps_per_epoch, training_dataset
from training.data.classification.source import Source
from training.errors import OptionError


def training_batches(
    recipe: Recipe, source: Source, *, start_step: int = 0, class_weights: np.ndarray | None = None
) -> tf.data.Dataset:
    """The batches of `training_dataset`; where rates are learned, each is followed by a class-balanced batch.

    The second batch has `meta_sampler.batch_size` images, all drawn and augmented from a seed of their own, in the
    order of the class-aware sampler. Only whole batches are used.

    Args and errors: as for `training_dataset`; also a ValueError for a meta batch larger than the training set.

    >>> from training.data.classification.digits import digits10_lt
    >>> from training.recipes import get_recipe
    >>> recipe = get_recipe("digits10_lt").replace(
    ...     batch_size=100, epochs=1, start={"weights": "first.keras", "trainable": "classifier"},
    ...     meta_sampler={"learned": True, "batch_size": 40})
    >>> [len(labels) for images, labels in training_batches(recipe, digits10_lt(), start_step=11)]
    [140, 76]
    """
    batches = training_dataset(recipe, source, start_step=start_step, class_weights=class_weights)
    if not recipe.meta_sampler.learned:
        return batches
    images, size = len(source.train), recipe.meta_sampler.batch_size
    if size > images:
        raise OptionError(f"meta_sampler.batch_size must be at most the {images} training images; given: {size}.")
    last = steps_per_epoch(recipe, source) * recipe.epochs
    whole = images // size  # of an epoch; a partial one may follow
    meta_recipe = recipe.replace(
        data={"sampler": "class_aware"},
        batch_size=size,
        epochs=-(-last // whole),
        # Another stream than that of the first batch.
        seed=int(np.random.SeedSequence([recipe.seed, 1]).generate_state(1)[0]),
    )
    epoch, position = divmod(start_step, whole)
    meta = training_dataset(meta_recipe, source, start_step=epoch * -(-images // size) + position)
    meta = meta.filter(lambda images, labels: tf.shape(labels)[0] == size)

    def joined(first, second):
        return tuple(tf.concat(parts, axis=0) for parts in zip(first, second, strict=True))

    both = tf.data.Dataset.zip((batches, meta)).map(joined)
    return both.apply(tf.data.experimental.assert_cardinality(last - start_step)).prefetch(PREFETCHED)
