"""Clear errors for names that do not exist, for what is no boolean, and for text where numbers are wanted."""

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


def check_targets_are_numbers(y_true):
    """Raise a ValueError for class names in place of labels, which Keras calls an invalid dtype.

    Of nested lists the first entry is looked at: the rest is for the backend to read.
    """
    first = y_true
    while isinstance(first, (list, tuple)) and first:
        first = first[0]
    # Of numpy's kinds, U and S are text and O is what has no other; TensorFlow names its dtype of text "string".
    dtype = getattr(first, "dtype", None)
    if isinstance(first, (str, bytes)) or getattr(dtype, "kind", "") in ("U", "S", "O") or "string" in str(dtype):
        raise ValueError(
            "y_true must be integer labels or dense targets, not class names"
            + (f" such as {first!r}" if isinstance(first, (str, bytes)) else f" (dtype {dtype})")
            + "; numpy.unique(names, return_inverse=True) makes labels of them."
        )
