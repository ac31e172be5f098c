"""Kinds of options that several commands have, and the choice of the backend."""

from __future__ import annotations

import tyro

from training.errors import usage


def whole_number(at_least: int) -> tyro.constructors.PrimitiveConstructorSpec:
    """An integer option whose error says what is allowed instead of what `int` could not do."""

    def parse(words: list[str]) -> int:
        if not (words[0].isdecimal() and int(words[0]) >= at_least):
            raise ValueError(f"it must be a whole number of at least {at_least}; given: {words[0]!r}.")
        return int(words[0])

    return tyro.constructors.PrimitiveConstructorSpec(
        nargs=1,
        metavar="INT",
        instance_from_str=parse,
        is_instance=lambda value: isinstance(value, int),
        str_from_instance=lambda value: [str(value)],
    )


def sides() -> tyro.constructors.PrimitiveConstructorSpec:
    """Height and width in pixels, or None where they are not given."""

    def parse(words: list[str]) -> tuple[int, int]:
        if not all(word.isdecimal() and int(word) > 0 for word in words):
            raise ValueError(f"it must be height and width, whole numbers above 0; given: {' '.join(words)!r}.")
        return int(words[0]), int(words[1])

    return tyro.constructors.PrimitiveConstructorSpec(
        nargs=2,
        metavar="HEIGHT WIDTH",
        instance_from_str=parse,
        is_instance=lambda value: value is None or isinstance(value, tuple),
        str_from_instance=lambda value: ["None", "None"] if value is None else [str(side) for side in value],
    )


def use_backend(name: str | None) -> None:
    """Chooses the backend before Keras is imported."""
    from training.runtime.backend import choose_backend, leave_accelerators_to

    with usage():
        backend = choose_backend(name)
    leave_accelerators_to(backend)
