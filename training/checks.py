"""Checks of settings: each raises a `ValueError` that says what was given and what is allowed."""

from __future__ import annotations

import difflib
import inspect
import json
import math
from collections.abc import Iterable, Mapping, Sequence
from numbers import Integral, Real
from typing import Any

from training.runtime.output import as_text


def nearest(given: str, allowed: Iterable[str], most: int = 5) -> str:
    """The valid names next to what was given, for an error message; all of them where none is near."""
    allowed = sorted(allowed)
    by_lower = {name.lower(): name for name in allowed}
    close = difflib.get_close_matches(str(given).lower(), by_lower, n=most, cutoff=0.5)
    if close:
        return f"nearest: {', '.join(by_lower[name] for name in close)}"
    return f"allowed: {', '.join(allowed)}"


def check_known(what: str, given: Iterable[str], allowed: Iterable[str]) -> None:
    """An error for a key that is not among the allowed ones."""
    allowed = list(allowed)
    for key in given:
        if key not in allowed:
            raise ValueError(f"{what} has no setting {key!r}; {nearest(key, allowed)}")


def check_arguments(what: str, made: type, given: Iterable[str]) -> list[str]:
    """The names of the arguments that a class is made with; an error for a given one that is not among them."""
    accepted = [name for name in inspect.signature(made.__init__).parameters if name != "self"]
    for key in given:
        if key not in accepted:
            raise ValueError(f"{what} has no argument {key!r}; {nearest(key, accepted)}")
    return accepted


def check_text(what: str, value: Any) -> None:
    """A non-empty name."""
    if not isinstance(value, str) or not value:
        raise ValueError(f"{what} must be a name, not {value!r}")


def check_flag(what: str, value: Any) -> None:
    """A boolean, and no number in its place."""
    if not isinstance(value, bool):
        raise ValueError(f"{what} must be True or False, not {value!r}")


def check_choice(what: str, value: Any, allowed: Iterable[str]) -> None:
    """One of the allowed values."""
    if value not in (allowed := list(allowed)):
        raise ValueError(f"{what} must be one of {', '.join(allowed)}, not {value!r}")


def check_whole(what: str, value: Any, *, at_least: int, below: int | None = None) -> None:
    """A whole number within limits; 2.0 is none."""
    valid = isinstance(value, Integral) and not isinstance(value, bool) and value >= at_least
    if not valid or (below is not None and value >= below):
        limit = "" if below is None else f" and below {below}"
        raise ValueError(f"{what} must be a whole number of at least {at_least}{limit}, not {value!r}")


def check_batch_size(batch_size: int, images: int) -> None:
    """A batch is at most an epoch, which a sampler may have made shorter than the data set."""
    if batch_size > images:
        raise ValueError(f"batch_size must be at most the {images} images of an epoch, not {batch_size}")


def check_same_classes(trained: Sequence[object], here: Sequence[object]) -> None:
    """An error where images have other classes than those that a model tells apart, or in another order."""
    names, here = ([as_text(name) for name in each] for each in (trained, here))
    if names != here:
        other = sorted(set(names) ^ set(here)) or [f"{a} in the place of {b}" for a, b in zip(here, names, strict=True)]
        raise ValueError(
            f"the images have other classes than the model was trained on: {len(here)} and {len(names)}; "
            f"{', '.join(other[:5])}"
        )


def check_number(
    what: str,
    value: Any,
    *,
    at_least: float = -math.inf,
    above: float = -math.inf,
    below: float = math.inf,
) -> None:
    """A finite number within limits."""
    valid = isinstance(value, Real) and not isinstance(value, bool) and math.isfinite(value)
    if not (valid and value >= at_least and value > above and value < below):
        limits = [f"at least {at_least}"] * (at_least > -math.inf)
        limits += [f"above {above}"] * (above > -math.inf) + [f"below {below}"] * (below < math.inf)
        raise ValueError(f"{what} must be a finite number {' and '.join(limits)}, not {value!r}")


def check_plain_mapping(what: str, value: Any) -> None:
    """Settings have to survive JSON unchanged, or a written recipe would not be the one that ran."""
    if not isinstance(value, Mapping):
        raise ValueError(f"{what} must map names to values, not {value!r}")
    try:
        unchanged = json.loads(json.dumps(dict(value))) == dict(value)
    except (TypeError, ValueError):
        unchanged = False
    if not unchanged:
        raise ValueError(f"{what} must hold plain numbers, text, lists and dictionaries only, not {value!r}")
