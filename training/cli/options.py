"""Types of options that several commands share, with the rules that read their words and report wrong ones."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from types import NoneType
from typing import Annotated, Any, get_args, get_origin

import tyro
from tyro.constructors import (
    ConstructorRegistry,
    PrimitiveConstructorSpec,
    PrimitiveTypeInfo,
    UnsupportedTypeAnnotationError,
)

from training.errors import usage
from training.runtime.backend import Backend, choose_backend, leave_accelerators_to

BackendOption = Annotated[
    Backend | None,
    tyro.conf.arg(
        help="Backend of Keras. If not given: KERAS_BACKEND, else the first of these that is installed.",
        help_behavior_hint="",
    ),
]
# How the words of every command are read, where tyro's own rules would say it in Python's terms.
RULES = ConstructorRegistry()
_NUMBERS = {int: "whole number", float: "number"}
_asked: list[type] = []


@RULES.primitive_rule
def _choice_or_nothing(info: PrimitiveTypeInfo) -> PrimitiveConstructorSpec | None:
    """`Literal[...] | None` takes and shows the words alone: leaving the option out says None."""
    kinds = [kind for kind in get_args(info.type) if kind is not NoneType]
    if NoneType not in get_args(info.type) or len(kinds) != 1 or kinds[0] is bool:
        return None
    spec = ConstructorRegistry.get_primitive_spec(PrimitiveTypeInfo.make(kinds[0], info.markers))
    if isinstance(spec, UnsupportedTypeAnnotationError) or not spec.choices:
        return None
    return _with_none(spec)


@RULES.primitive_rule
def _flag_or_nothing(info: PrimitiveTypeInfo) -> PrimitiveConstructorSpec | None:
    """`bool | None`, whose words tyro would name in another order each time."""
    if {*get_args(info.type)} != {bool, NoneType}:
        return None
    values = {"None": None, "True": True, "False": False}
    return PrimitiveConstructorSpec(
        nargs=1,
        metavar=f"{{{','.join(values)}}}",
        choices=tuple(values),
        instance_from_str=lambda words: values[words[0]],
        is_instance=lambda value: value is None or isinstance(value, bool),
        str_from_instance=lambda value: [str(value)],
    )


@RULES.primitive_rule
def _said_plainly(info: PrimitiveTypeInfo) -> PrimitiveConstructorSpec | None:
    """Numbers, lists of them and settings are read by tyro's rules, but an error says what is allowed."""
    wanted = _in_words(info.type)
    if wanted is None or info.type in _asked:
        return None
    _asked.append(info.type)
    try:
        spec = ConstructorRegistry.get_primitive_spec(info)
    finally:
        _asked.pop()
    if isinstance(spec, UnsupportedTypeAnnotationError):
        return None

    def parse(words: list[str]) -> Any:
        try:
            return spec.instance_from_str(words)
        except ValueError:
            raise ValueError(f"it must be {wanted}; given: {' '.join(words)!r}.") from None

    return dataclasses.replace(spec, instance_from_str=parse)


def _in_words(kind: Any) -> str | None:
    """What an option of a type takes; None for a type that takes any text, or has words of its own.

    >>> _in_words(int | None), _in_words(tuple[float, ...]), _in_words(tuple[int, int]), _in_words(str)
    ('a whole number', 'numbers', '2 whole numbers', None)
    """
    if kind in _NUMBERS:
        return f"a {_NUMBERS[kind]}"
    if get_origin(kind) is Mapping:
        return "names, each followed by its value"
    inner = [each for each in get_args(kind) if each not in (NoneType, Ellipsis)]
    if not inner or inner[0] not in _NUMBERS:
        return None
    number = _NUMBERS[inner[0]]
    if get_origin(kind) is not tuple:
        return f"a {number}"
    return f"{number}s" if Ellipsis in get_args(kind) else f"{len(inner)} {number}s"


def whole_number(at_least: int) -> PrimitiveConstructorSpec:
    """An integer within limits, or None where it is not given."""

    def parse(words: list[str]) -> int:
        if not (words[0].isdecimal() and int(words[0]) >= at_least):
            raise ValueError(f"it must be a whole number of at least {at_least}; given: {words[0]!r}.")
        return int(words[0])

    return _with_none(
        PrimitiveConstructorSpec(
            nargs=1,
            metavar="INT",
            instance_from_str=parse,
            is_instance=lambda value: isinstance(value, int),
            str_from_instance=lambda value: [str(value)],
        )
    )


def sides() -> PrimitiveConstructorSpec:
    """Height and width in pixels, or None where they are not given."""

    def parse(words: list[str]) -> tuple[int, int]:
        if not all(word.isdecimal() and int(word) > 0 for word in words):
            raise ValueError(f"it must be height and width, whole numbers above 0; given: {' '.join(words)!r}.")
        return int(words[0]), int(words[1])

    return _with_none(
        PrimitiveConstructorSpec(
            nargs=2,
            metavar="HEIGHT WIDTH",
            instance_from_str=parse,
            is_instance=lambda value: isinstance(value, tuple),
            str_from_instance=lambda value: [str(side) for side in value],
        )
    )


def _with_none(spec: PrimitiveConstructorSpec) -> PrimitiveConstructorSpec:
    """The same words, for an option whose default is None."""
    return dataclasses.replace(
        spec,
        is_instance=lambda value: value is None or spec.is_instance(value),
        str_from_instance=lambda value: ["None"] if value is None else spec.str_from_instance(value),
    )


def use_backend(name: str | None) -> None:
    """Chooses the backend before Keras is imported."""
    with usage():
        backend = choose_backend(name)
    leave_accelerators_to(backend)
