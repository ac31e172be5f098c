"""What a command tells the user apart from a fault of the program: wrong usage.

Every message about a value has one form: `NAME must be ...; given: VALUE.`, then what to do where that is not obvious.
NAME is the option or argument as the user types it.
"""

from __future__ import annotations

import contextlib


class UsageError(ValueError):
    """What the user asked for cannot be done; the message says what is allowed."""


class OptionError(UsageError):
    """An option or argument has a value that cannot be used; wrong usage wherever it is found out."""


@contextlib.contextmanager
def usage():
    """Turns the error of a check into a `UsageError`; what fails later is not the user's fault."""
    try:
        yield
    except (ValueError, FileNotFoundError) as error:
        raise UsageError(str(error)) from error
