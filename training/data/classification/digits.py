"""Long-tailed sets of handwritten digits, made from the 1,797 images that scikit-learn brings along.

`digits100_lt`: numbers of two digits, 100 classes. `digits10_lt`: single digits, 10 classes. Canvas 16x16,
ink 0 to 1 on 0, with Gaussian noise that belongs to the data: without it the classes lie so far apart that
cross entropy has no trouble with the tail; with much more of it nobody learns the tail.

The source digits of the training images and those of the test images are different ones. The class counts
fall exponentially as in CIFAR-LT, in a permuted order of the classes: in natural order the tens digit alone
would give the tail away.
"""

from __future__ import annotations

import numpy as np
from sklearn.datasets import load_digits

from keras_apa.class_counts import ClassCounts, exponential_profile
from training.checks import check_number, check_whole
from training.data.classification.source import LongTailedImages
from zoo import Preprocessing

__all__ = ["LongTailedImages", "digits10_lt", "digits100_lt"]

_CANVAS, _DIGIT = 16, 8
_CLASS_ORDER_SEED = 1
_LOW, _HIGH = -0.5, 1.5


def digits100_lt(
    imbalance_factor: float = 100.0,
    largest_class: int = 500,
    test_images_per_class: int = 20,
    noise: float = 0.3,
    seed: int = 0,
    training_digits: int = 1200,
) -> LongTailedImages:
    """Two-digit numbers: tens in columns 0-7, ones in columns 8-15, each at its own vertical offset 0 to 8.

    Class `10 * tens + ones` has `int(largest_class * imbalance_factor ** (-i / 99))` training images, where i
    is its place in `default_rng(1).permutation(100)`; 10,847 images by default, from 500 to 5 a class.

    Args:
        imbalance_factor: Training images of the largest class over those of the smallest, at least 1.
        largest_class: Training images of the largest class.
        test_images_per_class: Test images of every class.
        noise: Standard deviation of the noise; images are clipped to [-0.5, 1.5].
        seed: Of the split of the source digits, their choice, the offsets and the noise; not of the class
            order.
        training_digits: How many of the 1,797 source digits make the training images; the others make the
            test images.

    Raises:
        ValueError: An argument out of its range, a class without training images, a digit without source
        images.

    >>> digits100_lt()
    LongTailedImages(10847 training and 2000 test images of shape (16, 16, 1), \
ClassCounts(100 classes, 10847 images, 5 to 500 a class))
    """
    names = [f"{number:02d}" for number in range(100)]

    def draw(sources, labels, generator):
        canvas = np.zeros((len(labels), _CANVAS, _CANVAS), dtype=np.float32)
        for digits, column in ((labels // 10, 0), (labels % 10, _DIGIT)):
            rows = generator.integers(0, _CANVAS - _DIGIT + 1, size=len(labels))
            _place(canvas, sources.draw(digits, generator), rows, np.full(len(labels), column))
        return canvas

    return _long_tailed(
        names, draw, imbalance_factor, largest_class, test_images_per_class, noise, seed, training_digits
    )


def digits10_lt(
    imbalance_factor: float = 100.0,
    largest_class: int = 500,
    test_images_per_class: int = 100,
    noise: float = 0.3,
    seed: int = 0,
    training_digits: int = 1200,
) -> LongTailedImages:
    """Single digits, each at a random offset of 0 to 8 rows and columns.

    A class has `int(largest_class * imbalance_factor ** (-i / 9))` training images, where i is its place in
    `default_rng(1).permutation(10)`; 1,236 images by default, from 500 to 5 a class.

    Args and errors: as for `digits100_lt`.

    >>> digits10_lt().class_counts
    ClassCounts(10 classes, 1236 images, 5 to 500 a class)
    """

    def draw(sources, labels, generator):
        canvas = np.zeros((len(labels), _CANVAS, _CANVAS), dtype=np.float32)
        rows, columns = generator.integers(0, _CANVAS - _DIGIT + 1, size=(2, len(labels)))
        _place(canvas, sources.draw(labels, generator), rows, columns)
        return canvas

    names = [str(digit) for digit in range(10)]
    return _long_tailed(
        names, draw, imbalance_factor, largest_class, test_images_per_class, noise, seed, training_digits
    )


def _long_tailed(names, draw, imbalance_factor, largest_class, test_images_per_class, noise, seed, training_digits):
    check_number("imbalance_factor", imbalance_factor, at_least=1)
    check_whole("largest_class", largest_class, at_least=1)
    check_whole("test_images_per_class", test_images_per_class, at_least=1)
    check_number("noise", noise, at_least=0)
    check_whole("seed", seed, at_least=0)
    class_counts = _class_counts(names, largest_class, imbalance_factor)
    # Independent streams: the test images stay what they are when the training set changes its size.
    split, train, test = (np.random.default_rng(child) for child in np.random.SeedSequence(seed).spawn(3))
    training_sources, test_sources = split_digits(training_digits, split)

    def images(sources, labels, generator):
        canvas = draw(sources, labels, generator)
        canvas += np.float32(noise) * generator.standard_normal(canvas.shape, dtype=np.float32)
        return np.clip(canvas, _LOW, _HIGH)[..., None]

    classes = np.arange(len(names), dtype=np.int32)
    train_labels = np.repeat(classes, class_counts.counts)
    test_labels = np.repeat(classes, test_images_per_class)
    train_images = images(training_sources, train_labels, train)
    return LongTailedImages(
        name=f"digits{len(names)}_lt",
        train_images=train_images,
        train_labels=train_labels,
        test_images=images(test_sources, test_labels, test),
        test_labels=test_labels,
        class_counts=class_counts,
        # White ink on black, from 0 to 1.
        preprocessing=Preprocessing(image_size=train_images.shape[1:3], channels=1, mean=(0.0,), std=(1.0,)),
    )


def _class_counts(names, largest_class, imbalance_factor):
    profile = exponential_profile(largest_class, len(names), imbalance_factor)
    if not profile[-1]:
        raise ValueError(
            f"imbalance_factor must be at most largest_class, {largest_class}, or classes are left without "
            f"training images; given: {imbalance_factor:g}."
        )
    counts = np.empty_like(profile)
    counts[np.random.default_rng(_CLASS_ORDER_SEED).permutation(len(names))] = profile
    return ClassCounts(counts, names=names)


class _SourceDigits:
    """A part of scikit-learn's digits, sorted by value."""

    def __init__(self, images, values):
        order = np.argsort(values, kind="stable")
        self.images = images[order]
        self.available = np.bincount(values, minlength=10)
        self.start = np.cumsum(self.available) - self.available

    def draw(self, values, generator):
        """A random image of each value, `(N, 8, 8)`."""
        return self.images[self.start[values] + generator.integers(0, self.available[values])]


def split_digits(training_digits, generator):
    """The source digits of the training and of the test images; both have every digit."""
    digits = load_digits()
    images, values = (digits.images / 16).astype(np.float32), digits.target
    check_whole("training_digits", training_digits, at_least=1, below=len(values))
    order = generator.permutation(len(values))
    parts = [_SourceDigits(images[part], values[part]) for part in np.split(order, [training_digits])]
    for part, what in zip(parts, ("training", "test"), strict=True):
        missing = np.flatnonzero(part.available == 0)
        if len(missing):
            raise ValueError(
                f"training_digits must leave a {what} image of each digit; given: {training_digits} of {len(values)}, "
                f"which leaves none of the digit {missing[0]}."
            )
    return parts


def _place(canvas, digits, rows, columns):
    """Writes each 8x8 digit into its canvas, upper left corner at (row, column)."""
    window = np.arange(_DIGIT)
    image = np.arange(len(canvas))[:, None, None]
    canvas[image, (rows[:, None] + window)[:, :, None], (columns[:, None] + window)[:, None, :]] = digits
