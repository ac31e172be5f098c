"""Training images of each class of the published data sets, for dry runs where the images are not there."""

from __future__ import annotations

import numpy as np

from zoo.weights import IMAGENET_LT_COUNTS

__all__ = ["IMAGENET_LT", "PLACES_LT", "falling_profile"]

# Of the list that the authors use, largest first.
IMAGENET_LT = np.array(IMAGENET_LT_COUNTS)

# Counted in Places_LT_train.txt, in the order of its labels: 62,500 images.
_PLACES_LT = """
    219 20 115 86 229 33 25 4980 108 2612 33 39 2400 87 12 225 41 98 191 1582 37 78 48 7 1530 56 93 84 18 183 155 72
    92 78 10 120 22 6 143 98 195 36 1487 93 73 1406 8 40 1380 138 11 14 1085 43 59 20 6 129 103 98 46 41 1036 82 14
    23 1023 841 8 91 20 30 19 34 44 11 198 129 135 132 29 830 725 11 689 88 668 48 5 38 643 605 71 6 566 72 34 547
    54 72 6 33 36 97 76 78 521 97 116 157 499 8 99 74 24 62 28 128 176 72 87 482 148 86 40 147 5 108 6 8 35 24 480
    32 140 7 84 6 46 22 104 85 118 59 72 36 34 80 33 100 475 470 79 164 451 7 28 171 65 15 8 80 20 208 450 28 9 60 9
    10 13 431 9 22 34 428 72 17 34 42 73 98 188 422 42 20 60 21 6 39 50 23 408 167 99 5 25 97 13 105 55 13 41 392
    389 383 54 12 17 207 57 18 63 81 374 371 48 367 25 16 366 98 7 104 364 28 89 68 15 17 46 113 334 56 60 12 55 51
    87 58 26 15 22 331 179 318 12 18 8 94 65 71 315 29 173 9 14 315 226 124 33 9 9 51 15 52 309 34 209 61 116 298
    298 149 60 70 89 218 291 290 30 36 16 186 287 36 195 80 283 39 141 14 181 152 11 6 22 39 19 280 11 173 11 43 112
    177 111 279 108 153 103 19 265 264 95 72 40 263 19 229 45 54 12 260 253 32 253 27 52 34 250 10 11 49 250 17 24
    242 74 14 48 216 241 16 238 232 8 33 205 93 46 7 46 82 44 230 91 218 21 69 156 206 103 14 20
"""
PLACES_LT = np.array(list(map(int, _PLACES_LT.split())))


def falling_profile(classes: int, largest: int, smallest: int, total: int) -> np.ndarray:
    """Counts that fall from `largest` to `smallest` and sum to `total`, where nothing else about them is known.

    Class c of C has about `smallest + (largest - smallest) * (1 - c / (C - 1)) ** p`, with the p that gives the sum.

    Args:
        classes: At least 2.
        largest, smallest: Of the first and of the last class.
        total: Between what the extremes allow.

    Returns: int64 `(classes,)`, falling or equal.
    Raises: ValueError: A total that no such counts have.

    >>> falling_profile(5, 100, 2, 150).tolist()
    [100, 36, 10, 2, 2]
    """
    least, most = largest + (classes - 1) * smallest, (classes - 1) * largest + smallest
    if not least <= total <= most:
        raise ValueError(f"total must be from {least} to {most} with these extremes; given: {total}.")
    place = 1 - np.arange(classes) / (classes - 1)
    low, high = 1e-4, 1e4  # the sum falls with the power
    for _ in range(100):
        power = np.sqrt(low * high)
        counts = np.floor(smallest + (largest - smallest) * place**power).astype("int64")
        low, high = (power, high) if counts.sum() > total else (low, power)
    power = high
    counts = np.floor(smallest + (largest - smallest) * place**power).astype("int64")
    counts[0] = largest
    # What rounding down has left over goes to the classes after the first, up to the count before them.
    while (left := total - counts.sum()) > 0:
        free = np.flatnonzero(counts[1:-1] < counts[:-2])[:left] + 1
        counts[free] += 1
    return counts
