"""Random pixels in the shape of a data set, for dry runs where the images are not there."""

from __future__ import annotations

import numpy as np
import tensorflow as tf

from keras_apa.class_counts import ClassCounts
from training.data.classification.source import LabelledImages, Source
from zoo import Preprocessing

IMAGES_PER_CLASS = 4


class SyntheticImages(LabelledImages):
    """Images that are drawn when they are asked for: the same index gives the same pixels.

    >>> images = SyntheticImages(np.arange(3), (8, 8, 3))
    >>> images.load(tf.constant(2, tf.int64)).shape.as_list()
    [8, 8, 3]
    """

    def __init__(self, labels, shape):
        super().__init__(labels, shape)

    def load(self, index):
        seed = tf.stack([tf.constant(0, tf.int32), tf.cast(index, tf.int32)])
        return tf.cast(tf.random.stateless_uniform(self.image_shape, seed, 0, 256, tf.int32), tf.uint8)

    def subset(self, indices):
        return SyntheticImages(self.labels[indices], self.image_shape)


def synthetic(name: str, class_counts: np.ndarray, shape: tuple[int, int, int], preprocessing: Preprocessing) -> Source:
    """A source with a few images of each class, and the class counts and the preprocessing of the real one."""
    num_classes = len(class_counts)
    labels = np.tile(np.arange(num_classes), IMAGES_PER_CLASS)
    images = SyntheticImages(labels, shape)
    return Source(
        name=name,
        train=images,
        test=images.subset(np.arange(min(len(labels), 2 * num_classes))),
        validation=None,
        class_counts=ClassCounts(class_counts),
        preprocessing=preprocessing,
    )
