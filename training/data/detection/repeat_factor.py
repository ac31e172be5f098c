"""Repeat factor sampling (LVIS): images of rare classes come more often, by a pure function of seed and epoch."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from training.checks import check_number, check_whole

__all__ = ["repeat_factor_length", "repeat_factor_order", "repeat_factors"]


def repeat_factors(
    image_labels: Sequence[np.ndarray], image_counts: np.ndarray, num_images: int, threshold: float = 0.001
) -> np.ndarray:
    """How often each image comes in an epoch: `r_I = max over its classes c of max(1, sqrt(threshold / f_c))`.

    `f_c = image_counts[c] / num_images` is the share of the images that show the class. An image without objects comes
    once.

    Args:
        image_labels: For each of the `N` images the labels of its objects.
        image_counts: Images that show each class, `(C,)`.
        num_images: What the frequencies are shares of.
        threshold: Classes of this frequency and above are not repeated.

    Returns: float64 `(N,)`, at least 1.
    Raises: ValueError: A number out of its range, an image of a class that has no images.
    Source: LVIS: A Dataset for Large Vocabulary Instance Segmentation (CVPR 2019), appendix B.2.

    >>> repeat_factors([[0], [0, 1], []], image_counts=[90, 1], num_images=100, threshold=0.04).tolist()
    [1.0, 2.0, 1.0]
    """
    check_whole("num_images", num_images, at_least=1)
    check_number("threshold", threshold, above=0.0)
    counts = np.asarray(image_counts, np.float64)
    labels = [np.asarray(each, np.int64).reshape(-1) for each in image_labels]
    shown = np.concatenate([np.zeros(0, np.int64), *labels])
    if shown.size and not (shown.min() >= 0 and shown.max() < len(counts)):
        raise ValueError(f"labels must be from 0 to {len(counts) - 1}; given: {shown.min()} to {shown.max()}.")
    absent = shown[counts[shown] == 0]
    if len(absent):
        raise ValueError(f"image_counts of class {absent[0]} must be above 0, as an image shows it; given: 0.")
    # Classes that are shown nowhere have no frequency, and no image asks for theirs.
    per_class = np.maximum(1.0, np.sqrt(threshold * num_images / np.maximum(counts, 1.0)))
    return np.array([per_class[each].max(initial=1.0) for each in labels])


def repeat_factor_length(factors: np.ndarray) -> int:
    """Images in an epoch: the sum of the factors, rounded up; the same for every epoch.

    >>> repeat_factor_length(np.array([1.0, 2.5, 1.2]))
    5
    """
    # A sum of floats that ought to be whole must not be rounded up past it.
    return int(np.ceil(np.round(_checked(factors).sum(), 6)))


def repeat_factor_order(factors: np.ndarray, seed: int, epoch: int) -> np.ndarray:
    """The images of one epoch in random order, image `i` either `floor(r_i)` or `ceil(r_i)` times.

    Which of the two is drawn with the probability that gives `r_i` on average. The draws are not independent: one
    number is drawn, and the fractions of `r`, laid end to end in a random order, are rounded up where it meets a whole
    one. So the number of images is the sum of the factors, up to one, which a random image of the epoch makes up for.

    Args:
        factors: From `repeat_factors`, `(N,)`.
        seed: Of the whole run.
        epoch: From 0.

    Returns: int64 `(repeat_factor_length(factors),)`.
    Raises: ValueError: Factors below 1, a number out of its range.

    >>> np.bincount(repeat_factor_order(np.array([1.0, 3.0]), seed=0, epoch=0)).tolist()
    [1, 3]
    """
    factors = _checked(factors)
    check_whole("seed", seed, at_least=0)
    check_whole("epoch", epoch, at_least=0)
    generator = np.random.default_rng(np.random.SeedSequence([seed, epoch]))
    repeats = np.floor(factors).astype(np.int64)
    order = generator.permutation(len(factors))
    edges = np.concatenate([[0.0], np.cumsum((factors - repeats)[order])]) + generator.random()
    repeats[order] += np.diff(np.floor(edges)).astype(np.int64)
    images = generator.permutation(np.repeat(np.arange(len(factors)), repeats))
    missing = repeat_factor_length(factors) - len(images)
    if missing > 0:
        images = np.concatenate([images, generator.choice(images, missing)])
    return images[: repeat_factor_length(factors)]


def _checked(factors):
    factors = np.asarray(factors, np.float64)
    if factors.ndim != 1 or not factors.size or not np.isfinite(factors).all() or factors.min() < 1:
        raise ValueError(f"factors must be numbers of at least 1, of shape (N,); given: {factors!r}.")
    return factors
