"""Class counts of benchmarks: long tails that fall exponentially, as a power, or in one step."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from keras_apa._checks import check_integer, check_number

__all__ = ["exponential_profile", "pareto_profile", "step_profile"]


def exponential_profile(max_count: int, num_classes: int, imbalance_factor: float) -> NDArray[np.int64]:
    """Counts that fall exponentially, `int(max_count * imbalance_factor ** (-i / (C - 1)))`, as CIFAR-LT's.

    The counts are truncated. A value that is whole up to float rounding, such as 49 * (1 / 49), is rounded to that
    number instead.

    Args:
        max_count: The number of images of the largest class.
        num_classes: The number of classes C.
        imbalance_factor: The largest count divided by the smallest, at least 1.

    Returns:
        An int64 array of shape `(num_classes,)`, largest class first.

    Source: Learning Imbalanced Datasets with Label-Distribution-Aware Margin Loss (NeurIPS 2019), its code.

    >>> exponential_profile(5000, 10, 100).tolist()
    [5000, 2997, 1796, 1077, 645, 387, 232, 139, 83, 50]
    """
    rank = _profile_rank(max_count, num_classes, imbalance_factor)
    return _truncate(max_count * (1.0 / imbalance_factor) ** rank)


def pareto_profile(max_count: int, num_classes: int, imbalance_factor: float, alpha: float = 6.0) -> NDArray[np.int64]:
    """Counts that fall as a sorted draw from a Pareto distribution of power `alpha`, as ImageNet-LT's.

    The counts follow the distribution's quantiles, `y_i = ((i + 1) / (C + 1)) ** (-1 / alpha) - 1`. They are scaled
    linearly, so that the largest becomes `max_count` and the smallest `max_count / imbalance_factor`, and then
    truncated.

    ImageNet-LT was one random draw. Its authors published the list, but not the code.
    `pareto_profile(1280, 1000, 256)` has the same range (1280 to 5 images) and nearly the same shape: 404 / 456 / 140
    many / medium / few classes against 385 / 479 / 136, and 121,449 images against 115,846. The authors give alpha =
    1.34 for Places-LT (4980 to 5 images).

    Args:
        max_count: The number of images of the largest class.
        num_classes: The number of classes C.
        imbalance_factor: The largest count divided by the smallest, at least 1.
        alpha: The power of the distribution, above 0. A smaller one is steeper.

    Returns:
        An int64 array of shape `(num_classes,)`, largest class first.

    Source: Large-Scale Long-Tailed Recognition in an Open World (CVPR 2019), section 4; issue 38 of its repository
    zhmiao/OpenLongTailRecognition-OLTR for the alpha of Places-LT. The formula is ours.

    >>> pareto_profile(1280, 5, 256).tolist()
    [1280, 688, 373, 162, 5]
    """
    rank = _profile_rank(max_count, num_classes, imbalance_factor)
    alpha = check_number(alpha, "alpha", low=0, open_low=True)
    if num_classes == 1:
        return np.array([max_count], dtype=np.int64)
    # (i + 1) / (C + 1), from the places 0..1 of the classes.
    quantiles = ((rank * (num_classes - 1) + 1) / (num_classes + 1)) ** (-1.0 / alpha)
    share = (quantiles - quantiles[-1]) / (quantiles[0] - quantiles[-1])
    smallest = max_count / imbalance_factor
    return _truncate(smallest + (max_count - smallest) * share)


def step_profile(
    max_count: int, num_classes: int, imbalance_factor: float, minority_fraction: float = 0.5
) -> NDArray[np.int64]:
    """Two levels: `max_count` for the first classes, `int(max_count / imbalance_factor)` for the others.

    Args:
        max_count: The number of images of a majority class.
        num_classes: The number of classes.
        imbalance_factor: The majority count divided by the minority count, at least 1.
        minority_fraction: The share of classes at the lower level, from 0 to 1. Their number is truncated.

    Returns:
        An int64 array of shape `(num_classes,)`, majority classes first.

    Source: A systematic study of the class imbalance problem in convolutional neural networks (Neural Networks 2018),
    section 2.

    >>> step_profile(500, 4, 10).tolist()
    [500, 500, 50, 50]
    """
    _profile_rank(max_count, num_classes, imbalance_factor)
    minority_fraction = check_number(minority_fraction, "minority_fraction", low=0, high=1)
    minority = int(_truncate(num_classes * minority_fraction))
    levels = np.where(np.arange(num_classes) < num_classes - minority, 1.0, 1.0 / imbalance_factor)
    return _truncate(max_count * levels)


def _profile_rank(max_count: int, num_classes: int, imbalance_factor: float) -> NDArray[np.float64]:
    """Checks a profile's arguments; places of the classes from 0 (largest) to 1 (smallest)."""
    check_integer(max_count, "max_count", low=1)
    check_integer(num_classes, "num_classes", low=1)
    check_number(imbalance_factor, "imbalance_factor", low=1)
    return np.arange(num_classes) / max(num_classes - 1, 1)


def _truncate(values: NDArray[np.float64] | float) -> NDArray[np.int64]:
    return np.floor(values * (1 + 1e-12)).astype(np.int64)
