"""What zoo imports from here: see `keras_apa._checks`."""

import difflib

from keras_apa._checks import check_bool as check_bool


def check_name(value, allowed, argument):
    """Return `value` if it is one of `allowed`; otherwise raise a ValueError that gives the nearest valid names."""
    allowed = list(allowed)
    if value in allowed:
        return value
    near = difflib.get_close_matches(str(value), [name for name in allowed if isinstance(name, str)], n=3)
    hint = f" Nearest: {', '.join(near)}." if near else ""
    raise ValueError(f"Unknown {argument} {value!r}.{hint} Allowed: {', '.join(map(str, allowed))}.")
