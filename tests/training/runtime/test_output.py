"""What is printed: names as they are, in whatever encoding the output has."""

import contextlib
import io
import sys

import pytest
from rich.console import Console
from rich.progress import Progress

from training.engine.callbacks import EpochProgress
from training.runtime.console import TextConsole, TextTable, text_console
from training.runtime.output import escaped_output

pytestmark = pytest.mark.any_backend
NOT_UTF8 = b"caf\xe9".decode("utf-8", "surrogateescape")
NAME = "cup [/mug] [bold]x[/bold] :smile: 12 'y'"


def stream(encoding, errors="strict"):
    return io.TextIOWrapper(io.BytesIO(), encoding, errors)


def printed(out):
    out.flush()
    return out.buffer.getvalue()


def test_what_an_encoding_lacks_is_written_as_an_escape():
    for encoding, written in (
        ("cp1252", rb"caf\xe9 \u732b " + "é –\n".encode("cp1252")),
        ("ascii", rb"caf\xe9 \u732b \xe9 -" + b"\n"),
        ("utf-8", rb"caf\xe9 " + "猫 é –\n".encode()),
    ):
        out = stream(encoding)
        with contextlib.redirect_stdout(out), escaped_output():
            print(f"{NOT_UTF8} 猫 é –")
        assert printed(out) == written, encoding


def test_the_streams_of_a_caller_are_as_before_also_after_an_error():
    out, error = stream("ascii"), stream("cp1252", "ignore")

    @escaped_output()
    def fail():
        assert out.errors == error.errors != "strict"
        with escaped_output():  # one entry point calls another
            print("猫")
        print("猫")
        raise ZeroDivisionError

    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(error), pytest.raises(ZeroDivisionError):
        fail()
    assert (out.errors, error.errors, printed(out)) == ("strict", "ignore", b"\\u732b\n\\u732b\n")


def test_streams_that_are_none_of_the_system_or_not_there_are_left_alone(monkeypatch):
    monkeypatch.setattr(sys, "stdout", io.StringIO())
    monkeypatch.setattr(sys, "stderr", None)
    with escaped_output():
        print(NOT_UTF8)
    assert sys.stdout.getvalue() == f"{NOT_UTF8}\n"


def test_a_text_is_no_markup_on_the_console_of_whoever_gives_one():
    given = Console(file=io.StringIO(), width=30, force_terminal=True, color_system="truecolor")
    console = text_console(given)
    assert text_console(console) is console and console.is_terminal
    console.print(f"{NAME}\x1b[31m, at /a/path/that/is/longer/than/the/console/is/wide")
    assert given.file.getvalue() == f"{NAME}\\x1b[31m, at /a/path/that/is/longer/than/the/console/is/wide\n"


def test_cells_of_a_table_are_no_markup_on_any_console():
    table = TextTable("class", box=None)
    table.add_row(NAME)
    table.add_row("two\nlines")
    console = Console(file=io.StringIO(), width=60)
    console.print(table)
    lines = [line.strip() for line in console.file.getvalue().splitlines()]
    assert lines == ["class", NAME, r"two\nlines"]


def test_a_table_in_a_file_is_as_wide_as_it_is(monkeypatch, capsys):
    monkeypatch.delenv("COLUMNS", raising=False)
    path = "/".join(["a folder"] * 30)
    table = TextTable("file")
    table.add_row(path)
    TextConsole().print(table)
    assert path in capsys.readouterr().out


def test_the_title_of_a_training_is_no_markup():
    for terminal in (True, False):
        console = Console(file=io.StringIO(), width=150, force_terminal=terminal, color_system=None)
        progress = EpochProgress(NAME, console)
        progress.set_params({"epochs": 1, "steps": 1})
        progress.on_train_begin()
        assert isinstance(progress._progress, Progress) == terminal
        progress.on_epoch_end(0, {"loss": 1.0})
        progress.close()
        assert NAME in console.file.getvalue() and "loss 1.000" in console.file.getvalue()
