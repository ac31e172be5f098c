"""What a command tells the user apart from a fault of the program: wrong usage."""

from __future__ import annotations

import contextlib


class UsageError(ValueError):
    """What the user asked for cannot be done; the message says what is allowed."""


@contextlib.contextmanager
def usage():
    """Turns the error of a check into a `UsageError`; what fails later is not the user's fault."""
    try:
        yield
    except (ValueError, FileNotFoundError) as error:
        raise UsageError(str(error)) from error
