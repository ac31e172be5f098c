"""Class counts: the number of training images of each class, and the quantities that follow from it.

Losses, metrics and samplers take `class_counts` as a `ClassCounts`, a sequence, an array or a mapping, and read them
with `as_class_counts`. Everything here is numpy: it is computed once, before training.
"""

from __future__ import annotations

import dataclasses
import numbers
import operator
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike, DTypeLike, NDArray

from keras_apa._checks import check_integer, check_number
from keras_apa._text import as_text
from keras_apa._typing import ClassCountsLike
from keras_apa.profiles import exponential_profile, pareto_profile, step_profile

# LVIS: the most training images of a rare and of a common class.
LVIS_RARE, LVIS_COMMON = 10, 100
_MOST_SHOWN = 5

__all__ = ["ClassCounts", "as_class_counts", "exponential_profile", "pareto_profile", "step_profile"]


@dataclasses.dataclass(frozen=True, eq=False, repr=False)
class ClassCounts:
    r"""Number of training images of each class; immutable.

    Args:
        counts: Non-negative whole numbers, one per class, in class order. A class may have no images. Most losses and
            `class_balanced_weights` cannot use such a class; they raise an error that names it.
        names: Class names in the same order, for messages and reports, or `None`. A name may contain bytes that are
            not UTF-8, for example if it is a folder's name. These bytes become text such as `\xe9`.

    Attributes:
        counts: A read-only int64 array of shape `(num_classes,)`.
        names: A tuple of strings, or `None`.

    Raises:
        ValueError: If the counts are negative, not whole or not one-dimensional, or if there are more or fewer names
            than counts.

    >>> counts = ClassCounts([500, 60, 5], names=["cat", "dog", "emu"])
    >>> counts
    ClassCounts(3 classes, 565 images, 5 to 500 a class)
    >>> {group: classes.tolist() for group, classes in counts.shot_groups().items()}
    {'many': [0], 'medium': [1], 'few': [2]}
    >>> counts.imbalance_factor
    100.0
    """

    counts: NDArray[np.int64]
    names: tuple[str, ...] | None = None

    if TYPE_CHECKING:  # what is given may be in other forms than what is kept

        def __init__(self, counts: ArrayLike, names: Sequence[str] | NDArray[np.str_] | None = None) -> None: ...

        @property
        def _total(self) -> int: ...

        @property
        def _largest(self) -> int: ...

        @property
        def _empty(self) -> tuple[int, ...]: ...

    def __post_init__(self) -> None:
        names = _read_names(self.names)
        counts = _read_counts(self.counts, "counts", names)
        counts.setflags(write=False)
        object.__setattr__(self, "counts", counts)
        object.__setattr__(self, "names", names)
        # As Python's numbers: in a loss, torch.compile traces what numpy computes, and breaks its graph at each number
        # that is read from an array.
        values = counts.tolist()
        object.__setattr__(self, "_total", sum(values))  # not numpy's, which wraps round at 2**63 without a word
        object.__setattr__(self, "_largest", max(values))
        object.__setattr__(self, "_empty", tuple(index for index, value in enumerate(values) if not value))

    @classmethod
    def from_labels(
        cls, labels: ArrayLike, num_classes: int | None = None, names: Sequence[str] | NDArray[np.str_] | None = None
    ) -> ClassCounts:
        """Counts how often each class occurs in integer labels.

        Args:
            labels: Integers from 0 to `num_classes - 1`, of shape `(N,)` or `(N, 1)`.
            num_classes: The number of classes. The default is the number of `names`, or without names the largest
                label + 1.
            names: The class names.

        Returns:
            A `ClassCounts`.

        Raises:
            ValueError: If a label is outside the classes. The message names its value and position.

        >>> ClassCounts.from_labels([0, 2, 2], num_classes=4).counts.tolist()
        [1, 0, 2, 0]
        """
        names = _read_names(names)
        labels = np.asarray(labels)
        if labels.ndim == 2 and labels.shape[1] == 1:
            labels = labels[:, 0]
        if labels.ndim != 1:
            raise ValueError(
                f"labels must have shape (N,) or (N, 1); given: shape {labels.shape}. For one-hot labels pass "
                "labels.argmax(axis=-1)."
            )
        labels = _whole_numbers(labels, "labels", "label")
        if num_classes is None:
            if names is None and not len(labels):
                raise ValueError("labels must not be empty; given: no labels. Or give num_classes or names.")
            num_classes = max(int(labels.max()) + 1, 1) if names is None else len(names)
        num_classes = check_integer(num_classes, "num_classes", low=1)
        outside = np.flatnonzero((labels < 0) | (labels >= num_classes))
        if len(outside):
            first = outside[0]
            more = f" (and {len(outside) - 1} more outside)" if len(outside) > 1 else ""
            raise ValueError(
                f"labels must be from 0 to {num_classes - 1}; given: {labels[first]} at position {first}{more}."
            )
        return cls(np.bincount(labels, minlength=num_classes), names)

    @classmethod
    def from_mapping(
        cls, mapping: Mapping[str, int] | Mapping[int, int], num_classes: int | None = None
    ) -> ClassCounts:
        """Reads `{name: count}`, with classes in the given order, or `{index: count}`. An absent index has count 0.

        Args:
            mapping: A mapping whose keys are all strings, or all integers from 0. A `collections.Counter` of labels
                works too.
            num_classes: The number of classes. The default is the number of names or the largest index + 1.

        Returns:
            A `ClassCounts`.

        Raises:
            ValueError: If strings and integers are mixed, if an index is negative, or if an index or the number of
                names does not fit `num_classes`.

        >>> ClassCounts.from_mapping({"cat": 500, "emu": 5}).names
        ('cat', 'emu')
        """
        return _read_mapping(mapping, num_classes, "mapping")

    @property
    def num_classes(self) -> int:
        """Number of classes."""
        return len(self.counts)

    @property
    def total(self) -> int:
        """Number of images of all classes."""
        return self._total

    @property
    def prior(self) -> NDArray[np.float64]:
        """The share of each class, `n / sum(n)`, float64."""
        if not self.total:
            raise ValueError("counts must not all be 0 for a prior; given: no images.")
        return self.counts / float(self.total)

    @property
    def imbalance_factor(self) -> float:
        """The largest count divided by the smallest. It is infinite if a class has no images."""
        smallest = int(self.counts.min())
        return int(self.counts.max()) / smallest if smallest else float("inf")

    def effective_numbers(self, beta: float) -> NDArray[np.float64]:
        """Effective number of images of each class, `(1 - beta^n) / (1 - beta)`, float64.

        At `beta = 0` it is 1 for every class that has images. As `beta` approaches 1, it approaches `n`.

        Args:
            beta: From 0 up to, but not including, 1. Usual values are 0.99 to 0.9999.

        Source: Class-Balanced Loss Based on Effective Number of Samples (CVPR 2019), Eq. 3.
        """
        beta = check_number(beta, "beta", low=0, high=1, open_high=True)
        if beta == 0:
            return (self.counts > 0).astype(np.float64)
        # expm1 keeps the digits that 1 - beta**n loses when beta is close to 1.
        return -np.expm1(self.counts * np.log(beta)) / (1 - beta)

    def class_balanced_weights(self, beta: float) -> NDArray[np.float64]:
        """Weights proportional to `1 / effective_numbers(beta)` that sum to the number of classes, float64.

        Raises:
            ValueError: If a class has no images.

        Source: Class-Balanced Loss Based on Effective Number of Samples (CVPR 2019), section 4.
        """
        _refuse_zero(self, "class_counts")
        inverse = 1 / self.effective_numbers(beta)
        return inverse * (self.num_classes / inverse.sum())

    def shot_groups(self, many_threshold: float = 100, few_threshold: float = 20) -> dict[str, NDArray[np.intp]]:
        """Class indices by training count: `many` above one threshold, `few` below the other, `medium` between.

        A class with exactly as many images as a threshold (100 and 20 by default) is `medium`, as in the papers'
        evaluation. A class without images is `few`.
        """
        for name, value in (("many_threshold", many_threshold), ("few_threshold", few_threshold)):
            if not isinstance(value, numbers.Real) or isinstance(value, bool):
                raise ValueError(f"{name} must be a number; given: {value!r}.")
        if many_threshold < few_threshold:
            raise ValueError(
                f"many_threshold must be at least few_threshold, {few_threshold}; given: {many_threshold}."
            )
        many, few = self.counts > many_threshold, self.counts < few_threshold
        return {
            "many": np.flatnonzero(many),
            "medium": np.flatnonzero(~(many | few)),
            "few": np.flatnonzero(few),
        }

    def lvis_frequency_groups(self) -> dict[str, NDArray[np.intp]]:
        """Class indices by LVIS's groups of image counts: `rare` 1-10, `common` 11-100, `frequent` above 100.

        A class without images is in none of these groups.
        """
        return {
            "rare": np.flatnonzero((self.counts >= 1) & (self.counts <= LVIS_RARE)),
            "common": np.flatnonzero((self.counts > LVIS_RARE) & (self.counts <= LVIS_COMMON)),
            "frequent": np.flatnonzero(self.counts > LVIS_COMMON),
        }

    def smoothed(self, pseudo_count: int = 1) -> ClassCounts:
        """A copy with `pseudo_count` added to every class. Use it if a class has no images."""
        return ClassCounts(self.counts + check_integer(pseudo_count, "pseudo_count", low=1), self.names)

    def describe(self, index: int) -> str:
        """The text `class 3`, or `class 3 ('emu')` if there are names."""
        return _describe(index, self.names)

    def __len__(self) -> int:
        return self.num_classes

    def __iter__(self) -> Iterator[int]:
        return iter(self.counts.tolist())

    def __array__(self, dtype: DTypeLike | None = None, copy: bool | None = None) -> NDArray[Any]:
        if copy is False and dtype not in (None, self.counts.dtype):
            raise ValueError(f"copy must not be False for another dtype than that of the counts; given: {dtype}.")
        return self.counts if copy is False else self.counts.astype(dtype or self.counts.dtype)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, ClassCounts):
            return NotImplemented
        return np.array_equal(self.counts, other.counts) and self.names == other.names

    def __hash__(self) -> int:
        return hash((self.counts.tobytes(), self.names))

    def __repr__(self) -> str:
        return (
            f"ClassCounts({self.num_classes} classes, {self.total} images, "
            f"{self.counts.min()} to {self.counts.max()} a class)"
        )


def as_class_counts(
    value: ClassCountsLike, num_classes: int | None = None, argument: str = "class_counts", allow_zero: bool = False
) -> ClassCounts:
    """Reads class counts in any of the forms that losses, metrics and samplers accept.

    Args:
        value: `ClassCounts`, a sequence or array of counts in class order, or a mapping (see `from_mapping`).
        num_classes: The expected number of classes, if it is known.
        argument: The name of the caller's argument, for error messages.
        allow_zero: Whether a class may have no images.

    Returns:
        A `ClassCounts`.

    Raises:
        ValueError: If the number of classes differs from `num_classes`, if a count is negative or not whole, or if it
            is 0 without `allow_zero`. The message names `argument` and the class, and says what to do.

    >>> as_class_counts({"cat": 500, "emu": 5}, num_classes=2).total
    505
    """
    if isinstance(value, ClassCounts):
        counts = value
    elif isinstance(value, Mapping):
        counts = _read_mapping(value, num_classes, argument)
    elif value is None:
        raise ValueError(f"{argument} must be the number of training images of each class; given: None.")
    else:
        counts = ClassCounts(_read_counts(value, argument, None))
    _check_num_classes(counts, num_classes, argument)
    if not allow_zero:
        _refuse_zero(counts, argument)
    return counts


def _read_mapping(mapping: Mapping[Any, int], num_classes: int | None, argument: str) -> ClassCounts:
    if not isinstance(mapping, Mapping) or not mapping:
        raise ValueError(f"{argument} must be a mapping with at least one class; given: {mapping!r}.")
    if all(isinstance(key, str) for key in mapping):
        names = tuple(mapping)
        counts = ClassCounts(_read_counts(list(mapping.values()), argument, names), names)
        _check_num_classes(counts, num_classes, argument)
        return counts
    try:
        indices = [operator.index(key) for key in mapping]
    except TypeError:
        keys = ", ".join(map(repr, list(mapping)[:_MOST_SHOWN]))
        raise ValueError(f"{argument} must have class names or class indices for all keys; given: {keys}.") from None
    num_classes = max(indices) + 1 if num_classes is None else num_classes
    outside = [index for index in indices if not 0 <= index < num_classes]
    if outside:
        raise ValueError(f"{argument} must have class indices from 0 to {num_classes - 1}; given: {outside[0]}.")
    array = np.zeros(check_integer(num_classes, "num_classes", low=1), dtype=np.int64)
    array[indices] = _whole_numbers(np.asarray(list(mapping.values())), argument, "count")
    return ClassCounts(array)


def _read_names(names: Sequence[str] | NDArray[np.str_] | None) -> tuple[str, ...] | None:
    if names is None:
        return None
    if isinstance(names, str) or not isinstance(names, Sequence | np.ndarray):
        raise ValueError(f"names must be a sequence of class names; given: {names!r}.")
    return tuple(as_text(name) for name in names)


def _read_counts(value: ArrayLike, argument: str, names: tuple[str, ...] | None) -> NDArray[np.int64]:
    """A new int64 vector of non-negative counts."""
    try:
        array = np.asarray(value)
    except (TypeError, ValueError):
        array = None
    if array is None or array.ndim != 1 or not len(array):
        given = f"shape {array.shape}" if array is not None and array.ndim else repr(value)
        raise ValueError(f"{argument} must be a one-dimensional sequence, one number a class; given: {given}.")
    counts = _whole_numbers(array, argument, "count", names)
    if names is not None and len(names) != len(counts):
        raise ValueError(f"names must be {len(counts)}, one a class; given: {len(names)}.")
    negative = np.flatnonzero(counts < 0)
    if len(negative):
        place = _describe(negative[0], names)
        raise ValueError(f"{argument} must not be negative; given: {counts[negative[0]]} for {place}.")
    return counts


def _whole_numbers(
    array: NDArray[Any], argument: str, what: str, names: tuple[str, ...] | None = None
) -> NDArray[np.int64]:
    """A new int64 array; floats are taken where they are whole."""
    if array.dtype.kind in "iu" or not array.size:
        return array.astype(np.int64)
    if array.dtype.kind != "f":
        raise ValueError(f"{argument} must be whole numbers; given: dtype {array.dtype}.")
    broken = np.flatnonzero(~np.isfinite(array) | (array != np.floor(array)))
    if len(broken):
        first = broken[0]
        place = f"for {_describe(first, names)}" if what == "count" else f"at position {first}"
        raise ValueError(f"{argument} must be whole numbers; given: {array[first]} {place}.")
    if np.abs(array).max() >= 2.0**63:
        raise ValueError(f"{argument} must be below 2**63; given: {np.abs(array).max():g}.")
    return array.astype(np.int64)


def _check_num_classes(counts: ClassCounts, num_classes: int | None, argument: str) -> None:
    if num_classes is not None and counts.num_classes != num_classes:
        raise ValueError(f"{argument} must have {num_classes} counts, one a class; given: {counts.num_classes}.")


def _refuse_zero(counts: ClassCounts, argument: str) -> None:
    empty = counts._empty
    if empty:
        more = f" and {len(empty) - 1} more classes" if len(empty) > 1 else ""
        raise ValueError(
            f"{argument} must be above 0; given: no images of {counts.describe(empty[0])}{more}. Leave such classes "
            "out, or smooth the counts with ClassCounts(counts).smoothed(1)."
        )


def _describe(index: int, names: tuple[str, ...] | None) -> str:
    return f"class {index} ({names[index]!r})" if names is not None else f"class {index}"
