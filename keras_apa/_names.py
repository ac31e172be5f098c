"""Clear errors for names that do not exist, and for what is no boolean."""

import difflib


def check_bool(value, argument):
    """Return `value` if it is True or False; otherwise raise a ValueError: `"no"` and 2 would count as True."""
    if not isinstance(value, bool):
        raise ValueError(f"{argument} must be True or False; given: {value!r}.")
    return value


def check_name(value, allowed, argument):
    """Return `value` if it is one of `allowed`; otherwise raise a ValueError that gives the nearest valid names."""
    allowed = list(allowed)
    if value in allowed:
        return value
    near = difflib.get_close_matches(str(value), [name for name in allowed if isinstance(name, str)], n=3)
    hint = f" Nearest: {', '.join(near)}." if near else ""
    raise ValueError(f"Unknown {argument} {value!r}.{hint} Allowed: {', '.join(map(str, allowed))}.")
