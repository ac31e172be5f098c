"""Checks of settings: each raises an `OptionError`.

Its message is `NAME must be ...; given: VALUE.`, where NAME is the option or argument as the user types it.
`check_name` is for names from a long list, `check_choice` for a few words, `check_whole` and `check_number` are for
ranges. `keras_apa/_checks.py` has the checks of the layers' and losses' arguments. These are others because the
settings of a recipe are checked before the backend is chosen, and an import of keras_apa imports Keras.
"""

from __future__ import annotations

import difflib
import inspect
import json
import math
from collections.abc import Iterable, Mapping, Sequence
from numbers import Integral, Real
from typing import Any

from training.errors import OptionError
from training.runtime.output import as_text


def nearest(given: str, allowed: Iterable[str], most: int = 5) -> str:
    """A sentence for an error message: the valid names next to what was given; all of them where none is near.

    >>> nearest("dmo", ["demo", "train"]), nearest("x", ["demo", "train"])
    ('Nearest: demo.', 'Allowed: demo, train.')
    """
    allowed = sorted(allowed)
    by_lower = {name.lower(): name for name in allowed}
    close = difflib.get_close_matches(str(given).lower(), by_lower, n=most, cutoff=0.5)
    if close:
        return f"Nearest: {', '.join(by_lower[name] for name in close)}."
    return f"Allowed: {', '.join(allowed)}."


def check_name(what: str, value: str, allowed: Iterable[str], wanted: str = "a known name") -> None:
    """A name from a list that is too long to be read; the error has the nearest ones."""
    if value not in (allowed := list(allowed)):
        raise OptionError(f"{what} must be {wanted}; given: {value!r}. {nearest(value, allowed)}")


def check_known(what: str, given: Iterable[str], allowed: Iterable[str]) -> None:
    """An error for a key that is not among the allowed ones."""
    allowed = list(allowed)
    for key in given:
        if key not in allowed:
            raise OptionError(f"the settings of {what} must be known ones; given: {key!r}. {nearest(key, allowed)}")


def check_arguments(what: str, made: type, given: Iterable[str]) -> list[str]:
    """The names of the arguments that a class is made with; an error for a given one that is not among them.

    >>> check_arguments("loss.options", type("Loss", (), {"__init__": lambda self, tau: None}), ["tau"])
    ['tau']
    """
    initializer = made.__init__  # type: ignore[misc]  # of this very class, whatever its subclasses have
    accepted = [name for name in inspect.signature(initializer).parameters if name != "self"]
    for key in given:
        if key not in accepted:
            raise OptionError(f"{what} must be arguments of {made.__name__}; given: {key!r}. {nearest(key, accepted)}")
    return accepted


def check_text(what: str, value: Any) -> None:
    """A non-empty name."""
    if not isinstance(value, str) or not value:
        raise OptionError(f"{what} must be a name; given: {value!r}.")


def check_flag(what: str, value: Any) -> None:
    """A boolean, and no number in its place."""
    if not isinstance(value, bool):
        raise OptionError(f"{what} must be True or False; given: {value!r}.")


def check_choice(what: str, value: Any, allowed: Iterable[str]) -> None:
    """One of the allowed values."""
    if value not in (allowed := list(allowed)):
        raise OptionError(f"{what} must be one of {', '.join(allowed)}; given: {value!r}.")


def check_whole(what: str, value: Any, *, at_least: int, below: int | None = None) -> None:
    """A whole number within limits; 2.0 is none."""
    valid = isinstance(value, Integral) and not isinstance(value, bool) and int(value) >= at_least
    if not valid or (below is not None and value >= below):
        limit = "" if below is None else f" and below {below}"
        raise OptionError(f"{what} must be a whole number of at least {at_least}{limit}; given: {value!r}.")


def check_batch_size(batch_size: int, images: int) -> None:
    """A batch is at most an epoch, which a sampler may have made shorter than the data set."""
    if batch_size > images:
        raise OptionError(f"batch_size must be at most the {images} images of an epoch; given: {batch_size}.")


def check_same_classes(trained: Sequence[object], here: Sequence[object]) -> None:
    """An error where images have other classes than those that a model tells apart, or in another order."""
    names, here = ([as_text(name) for name in each] for each in (trained, here))
    if names != here:
        other = sorted(set(names) ^ set(here)) or [f"{a} in the place of {b}" for a, b in zip(here, names, strict=True)]
        raise ValueError(
            f"the classes of the images must be the {len(names)} that the model was trained on, in their order; "
            f"given: {len(here)}. They differ in: {', '.join(other[:5])}."
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
        raise OptionError(f"{what} must be a finite number {' and '.join(limits)}; given: {value!r}.")


def check_plain_mapping(what: str, value: Any) -> None:
    """Settings have to survive JSON unchanged, or a written recipe would not be the one that ran."""
    if not isinstance(value, Mapping):
        raise OptionError(f"{what} must map names to values; given: {value!r}.")
    try:
        unchanged = json.loads(json.dumps(dict(value))) == dict(value)
    except (TypeError, ValueError):
        unchanged = False
    if not unchanged:
        raise OptionError(f"{what} must hold plain numbers, text, lists and dictionaries only; given: {value!r}.")
