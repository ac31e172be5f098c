r"""What is printed: text that a terminal shows as it is, and that any encoding of the output can hold.

Control characters are shown instead of obeyed (`visible`), and what the output's encoding lacks is written as `\xe9`,
`\u732b` or `\U0001f600` (`escaped_output`). Only what is imported at once is used here: the command is not yet to
import Keras.
"""

from __future__ import annotations

import codecs
import contextlib
import importlib.util
import io
import os
import runpy
import sys
from collections.abc import Iterator

_ESCAPE = "keras_apa_escape"


def file_of_keras_apa(name: str) -> str:
    """The path of a module of `keras_apa` that can be run by itself: importing the package would import Keras."""
    spec = importlib.util.find_spec("keras_apa")
    assert spec is not None and spec.submodule_search_locations  # it is installed with this package
    return os.path.join(spec.submodule_search_locations[0], name)


_text = runpy.run_path(file_of_keras_apa("_text.py"))
as_text, visible = _text["as_text"], _text["visible"]


def escape_output() -> list[tuple[io.TextIOWrapper, str | None]]:
    """Makes standard output and error write what their encodings lack as escapes; returns what was changed.

    Without it a class of that name ends a training, such as `猫` in a file on Windows (cp1252), or a folder whose name
    is no UTF-8.
    """
    changed = []
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper) and not stream.closed and stream.errors != _ESCAPE:
            changed.append((stream, stream.errors))
            stream.reconfigure(errors=_ESCAPE)
    return changed


@contextlib.contextmanager
def escaped_output() -> Iterator[None]:
    r"""`escape_output` while a block or a decorated function runs; then the streams are the caller's again.

    >>> stream = io.TextIOWrapper(io.BytesIO(), "ascii")
    >>> with contextlib.redirect_stdout(stream), escaped_output():
    ...     print("猫, caf\udce9")
    >>> stream.seek(0), stream.read()
    (0, '\\u732b, caf\\xe9\n')
    """
    changed = escape_output()
    try:
        yield
    finally:
        for stream, errors in changed:
            with contextlib.suppress(OSError, ValueError):  # nobody reads it any more, or it is closed
                stream.reconfigure(errors=errors)


def _escaped(error: UnicodeError) -> tuple[str, int]:
    if not isinstance(error, UnicodeEncodeError):
        raise error
    text = as_text(error.object[error.start : error.end]).replace("–", "-").replace("…", "...")  # our own, in tables
    return text.encode("ascii", "backslashreplace").decode("ascii"), error.end


codecs.register_error(_ESCAPE, _escaped)
