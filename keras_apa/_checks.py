"""Checks of arguments. Every error has one form: `NAME must be ...; given: VALUE.`, then what to do."""

from __future__ import annotations

import difflib
import math
import numbers
import operator
from collections.abc import Iterable
from typing import Any, TypeVar, overload

from keras_apa._typing import TensorLike

_MOST_NEAR = 3
_Value = TypeVar("_Value")


def check_bool(value: object, argument: str) -> bool:
    """Return `value` if it is True or False; otherwise raise a ValueError: `"no"` and 2 would count as True."""
    if not isinstance(value, bool):
        raise ValueError(f"{argument} must be True or False; given: {value!r}.")
    return value


def check_name(value: _Value, allowed: Iterable[object], argument: str) -> _Value:
    """Return `value` if it is one of `allowed`; otherwise raise a ValueError that gives the nearest valid names."""
    allowed = list(allowed)
    if value in allowed:
        return value
    names = [name for name in allowed if isinstance(name, str)]
    near = difflib.get_close_matches(str(value), names, n=_MOST_NEAR)
    hint = f" Nearest: {', '.join(near)}." if near else ""
    choice = f"one of {', '.join(map(str, allowed))}" if len(allowed) > 1 else repr(*allowed)
    raise ValueError(f"{argument} must be {choice}; given: {value!r}.{hint}")


def check_number(
    value: Any,
    argument: str,
    low: float = -math.inf,
    high: float = math.inf,
    open_low: bool = False,
    open_high: bool = False,
) -> float:
    """Return `value` as a float if it is a finite number in the interval; otherwise raise a ValueError."""
    good = isinstance(value, numbers.Real) and not isinstance(value, bool) and math.isfinite(value)
    if good:
        good = (value > low if open_low else value >= low) and (value < high if open_high else value <= high)
    if not good:
        above = "" if low == -math.inf else f" {'above' if open_low else 'of at least'} {low:g}"
        below = "" if high == math.inf else f"{' and' if above else ''} {'below' if open_high else 'at most'} {high:g}"
        raise ValueError(f"{argument} must be a finite number{above}{below}; given: {value!r}.")
    return float(value)


@overload
def check_integer(value: Any, argument: str, low: float = ..., high: float = ...) -> int: ...


@overload
def check_integer(value: Any, argument: str, low: float = ..., high: float = ..., *, or_none: bool) -> int | None: ...


def check_integer(
    value: Any, argument: str, low: float = -math.inf, high: float = math.inf, or_none: bool = False
) -> int | None:
    """Return `value` as an int if it is a whole number in the interval; otherwise raise a ValueError."""
    if value is None and or_none:
        return None
    try:
        number = None if isinstance(value, bool) else operator.index(value)
    except TypeError:
        number = None
    if number is None or not low <= number <= high:
        above = "" if low == -math.inf else f" of at least {low}"
        below = "" if high == math.inf else f"{' and' if above else ''} at most {high}"
        none = " or None" if or_none else ""
        raise ValueError(f"{argument} must be a whole number{above}{below}{none}; given: {value!r}.")
    return number


def check_targets_are_numbers(y_true: TensorLike) -> None:
    """Raise a ValueError for class names in place of labels, which Keras calls an invalid dtype.

    Of nested lists the first entry is looked at: the rest is for the backend to read.
    """
    first = y_true
    while isinstance(first, (list, tuple)) and first:
        first = first[0]
    # Of numpy's kinds, U and S are text and O is what has no other; TensorFlow names its dtype of text "string".
    dtype = getattr(first, "dtype", None)
    if isinstance(first, (str, bytes)) or getattr(dtype, "kind", "") in ("U", "S", "O") or "string" in str(dtype):
        given = f"class names such as {first!r}" if isinstance(first, (str, bytes)) else f"dtype {dtype}"
        raise ValueError(
            f"y_true must be integer labels or dense targets; given: {given}. "
            "numpy.unique(names, return_inverse=True) makes labels of names."
        )
