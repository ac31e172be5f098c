"""Every error of keras_apa and zoo has one form: what must be, and what was given."""

import ast
import pathlib

import numpy as np
import pytest

import keras_apa
import zoo
from keras_apa._checks import check_bool, check_integer, check_name, check_number

PACKAGE = pathlib.Path(keras_apa.__file__).parent
# By file, how the message of an error begins that has another form.
OTHERS = {
    "__init__.py": "module ",  # Python's own words for an attribute that a module lacks
    "_moved.py": "module ",
}
ZOO = pathlib.Path(zoo.__file__).parent
# What a ValueError of zoo says about the state of a file, or why an export failed, in a plain sentence.
STATES = (
    "The checkpoint ",
    "of this checkpoint",
    "The preset ",
    "of the preset ",
    "cannot be read",
    "cannot be written",
    "cannot write",
    "was not opened",
    "does not fit",
    "holds a ",
    "is not a preset of keras-apa",
    "cannot run this model",
    "ONNX has no operation",
    "needs XLA",
)


@pytest.mark.parametrize(
    ("check", "message"),
    [
        (lambda: check_bool("no", "frozen"), "frozen must be True or False; given: 'no'."),
        (
            lambda: check_name("aap", ("apa", "relu"), "gate"),
            "gate must be one of apa, relu; given: 'aap'. Nearest: apa.",
        ),
        (lambda: check_name(None, ("a",), "gate"), "gate must be 'a'; given: None."),
        (lambda: check_number("1", "tau"), "tau must be a finite number; given: '1'."),
        (lambda: check_number(float("nan"), "tau", low=0), "tau must be a finite number of at least 0; given: nan."),
        (
            lambda: check_number(1, "rate", low=0, high=1, open_high=True),
            "rate must be a finite number of at least 0 and below 1; given: 1.",
        ),
        (lambda: check_number(0, "scale", low=0, open_low=True), "scale must be a finite number above 0; given: 0."),
        (lambda: check_integer(True, "units", low=1), "units must be a whole number of at least 1; given: True."),
        (lambda: check_integer(2.0, "units", high=3), "units must be a whole number at most 3; given: 2.0."),
        (lambda: check_integer("a", "seed", or_none=True), "seed must be a whole number or None; given: 'a'."),
    ],
)
def test_the_message_says_what_must_be_and_what_was_given(check, message):
    with pytest.raises(ValueError) as error:
        check()
    assert str(error.value) == message


def test_what_is_right_comes_back():
    assert check_bool(True, "a") is True and check_name("x", "xy", "a") == "x"
    assert check_number(np.float32(0.5), "a", low=0, high=1) == 0.5
    assert check_integer(np.int64(3), "a", low=3, high=3) == 3 and check_integer(None, "a", or_none=True) is None


def texts_of_errors(path):
    """The exception, line and text of each `raise` of a file that has its text there."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Raise) and isinstance(node.exc, ast.Call):
            parts = [each.value for each in ast.walk(node.exc) if isinstance(each, ast.Constant)]
            if text := "".join(part for part in parts if isinstance(part, str)):
                yield ast.unparse(node.exc.func), node.lineno, text


@pytest.mark.parametrize("path", sorted(PACKAGE.rglob("*.py")), ids=lambda path: str(path.relative_to(PACKAGE)))
def test_every_error_has_that_form(path):
    for _, line, text in texts_of_errors(path):
        if not text.startswith(OTHERS.get(str(path.relative_to(PACKAGE)), "\0")):
            assert " must " in text and "; given: " in text, f"{path.name}:{line}: {text}"


@pytest.mark.parametrize("path", sorted(ZOO.rglob("*.py")), ids=lambda path: str(path.relative_to(ZOO)))
def test_so_has_every_error_of_zoo_about_an_argument(path):
    for kind, line, text in texts_of_errors(path):
        if kind in ("ValueError", "TypeError") and not any(state in text for state in STATES):
            assert " must " in text and "; given: " in text, f"{path.name}:{line}: {text}"
