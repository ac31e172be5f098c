r"""Names as text: of classes, files and folders, which may hold what no terminal and no UTF-8 file can.

One rule for all of them. What is printed, exported or written for people is text in UTF-8: a byte of a file's name that
is none stands there as `\xe9`, a control character as `\x1b`. Class names are such text from the beginning, so that a
model that was trained can also be exported. Paths stay as the system gave them, and are made readable where they are
shown; in JSON they keep their bytes.
"""

from __future__ import annotations

import os
import re

# What moves the cursor, rings, or turns the direction of writing; no line break and no tabulator.
_CONTROL = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u2069]")
_CONTROL_AND_LINES = re.compile(f"{_CONTROL.pattern}|[\t\n]")


def as_text(name: object) -> str:
    r"""Text that UTF-8 can hold: what Python makes of other bytes in the name of a file becomes `\xe9`.

    Bytes that are UTF-8 after all, which Python takes apart under a locale of ASCII, become the characters they are.

    >>> as_text(b"caf\xe9".decode("utf-8", "surrogateescape"))
    'caf\\xe9'
    >>> as_text("\udcc3\udca9mu \ud800")
    'ému \\ud800'
    """
    name = re.sub("[\ud800-\udc7f\udd00-\udfff]", lambda found: f"\\u{ord(found[0]):04x}", str(name))
    return name.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")


def check_utf8(path: str | os.PathLike[str], argument: str) -> None:
    """Raise a ValueError for a path that is no UTF-8, or not in this locale: TensorFlow takes no other."""
    path = os.path.abspath(path)
    if as_text(path) != path:
        raise ValueError(
            f"{argument} must be a path in UTF-8, as TensorFlow needs it; given: {as_text(path)!r}. Rename it, or "
            "choose another folder, and a locale of UTF-8."
        )


def visible(text: object, lines: bool = True) -> str:
    r"""`as_text` without control characters, for terminals and pages; without line breaks too if not `lines`.

    >>> visible("red \x1b[31m"), visible("a\nb", lines=False)
    ('red \\x1b[31m', 'a\\nb')
    """
    pattern = _CONTROL if lines else _CONTROL_AND_LINES
    return pattern.sub(lambda found: found[0].encode("unicode_escape").decode("ascii"), as_text(text))
