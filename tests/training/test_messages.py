"""Every error about a value has one form: `NAME must be ...; given: VALUE.`, then what to do."""

import ast
import pathlib
import re

import pytest

TRAINING = pathlib.Path(__file__).parents[2] / "training"
FORM = re.compile(r"\S.* must .+; given: .+\.(\s.*|X)?", re.DOTALL)
# Raised about what a user gave. Other types tell what happened: a file that is not there, a loss that is not finite.
ABOUT_A_VALUE = {"ValueError", "TypeError", "UsageError", "OptionError"}
# Another error's text with the name of its file before it, and files that are broken, with the reason.
PASSED_ON = re.compile(r"(X( of image X)?: )?X|.*\b(cannot be (read|decoded)|cannot (load|run))\b.*", re.DOTALL)
# A state, which no value is wrong in.
STATES = (
    "X: X; nor can any other image of its class be decoded",
    "X: no regular file",
    "nothing in X is finished yet.",
    "no Keras backend is installed.",
    "the loss of X is not finite",
)


def message(node):
    """The text of an error, with X where a value is filled in."""
    if isinstance(node, ast.Constant):
        return str(node.value)
    if isinstance(node, ast.JoinedStr):
        return "".join(map(message, node.values))
    if isinstance(node, ast.BinOp):
        return message(node.left) + message(node.right)
    return "X"


def raised():
    """Where each error is raised, its type, and its text."""
    for path in sorted(TRAINING.rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Raise) and isinstance(node.exc, ast.Call):
                text = " ".join(message(argument) for argument in node.exc.args)
                yield f"{path.relative_to(TRAINING.parent)}:{node.lineno}", ast.unparse(node.exc.func), text


@pytest.mark.any_backend
def test_an_error_about_a_value_says_what_must_be_and_what_was_given():
    other = []
    for place, kind, text in raised():
        about_a_value = kind in ABOUT_A_VALUE and not PASSED_ON.fullmatch(text) and not text.startswith(STATES)
        # Of every type, what looks like the form has to have it.
        about_a_value |= (
            " must " in text or "; given:" in text or " got " in text or bool(re.search(r", not X\.?$", text))
        )
        # The labels of a loss that is not finite stand among what may help.
        if about_a_value and not FORM.fullmatch(text) and "the loss is X" not in text:
            other.append(f"{place}: {text}")
    assert other == []
