"""The `keras-apa` command: parsing, errors and exit codes. The sub-commands are in `training/cli/commands.py`.

Keras is imported only when a command needs it: the backend has to be chosen first, and `--help` should not
wait for Keras. Exit codes: 0 done, 1 failed, 2 wrong usage, 130 interrupted, 141 nobody reads the output.
"""

from __future__ import annotations

import atexit
import contextlib
import errno
import io
import os
import re
import runpy
import sys
from collections.abc import Sequence
from typing import Any

from training.errors import UsageError
from training.runs.ownership import FolderLostError
from training.runtime.output import escape_output, escaped_output, file_of_keras_apa, visible
from training.runtime.quiet import quiet_tensorflow

_NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EACCES)
_NO_READER = 141  # what a shell says of a program that SIGPIPE has ended
EXTRA = 'pip install "keras-apa[training]"'


def console() -> int:
    """The command of the terminal: runs `main` and ends the process after the last line, or at once after Ctrl-C.

    Python would unload the thousands of modules of a backend first, which takes seconds. It would also free memory
    that the threads of tf.data and XLA still use after an interrupted epoch. Sometimes that is a segmentation fault,
    with the exit code -11 instead of 130.
    """
    ended: list[int] = []
    # What is registered first runs last: what libraries register while they are imported comes before it.
    atexit.register(_end, ended)
    escape_output()  # for good, the text of a traceback too
    code = main()
    if code == 130:
        with contextlib.suppress(OSError):  # the other end of a pipe is gone
            sys.stdout.flush()
            sys.stderr.flush()
        os._exit(code)
    try:
        sys.stdout.flush()
    except BrokenPipeError:
        # `keras-apa list | head`: Python would flush again at its end, and complain.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        code = _NO_READER
    ended.append(code)
    return code


def _end(ended: Sequence[int]) -> None:
    """Ends the process with the exit code, if there is one: an error with a traceback has none."""
    if ended:
        with contextlib.suppress(OSError):
            sys.stdout.flush()
            sys.stderr.flush()
        os._exit(ended[0])


@escaped_output()
def main(arguments: Sequence[str] | None = None) -> int:
    """Runs one command line and returns the exit code."""
    arguments = list(sys.argv[1:] if arguments is None else arguments) or ["--help"]
    if "" in arguments:
        return _fail("arguments must not be empty; given: ''. Leave it out or give a value.", 2)
    debug = "--debug" in arguments
    if not debug:
        # For what TensorFlow logs after its import.
        os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    try:
        with contextlib.nullcontext() if debug else quiet_tensorflow():
            return _run(arguments)
    except KeyboardInterrupt:
        return _fail("interrupted", 130)
    except BrokenPipeError:
        return _NO_READER
    except Exception as error:
        if debug:
            raise
        return _fail(*_explain(error))


def _run(arguments: list[str]) -> int:
    if arguments == ["--version"]:
        print(f"keras-apa {version()}")
        return 0
    try:
        return parse(arguments).run()
    except SystemExit as stop:
        return int(stop.code or 0)


def version() -> str:
    """The version of `keras_apa`, read from its file: importing the package would import Keras."""
    return runpy.run_path(file_of_keras_apa("_version.py"))["__version__"]


def _explain(error: Exception) -> tuple[str, int]:
    """What to tell the user, and the exit code."""
    if isinstance(error, UsageError):
        # An OptionError also comes from what is seen only when the network is made.
        return str(error), 2
    if isinstance(error, FolderLostError):
        return str(error), 1
    download = sys.modules.get("zoo.download")
    if download is not None and isinstance(error, download.DownloadError):
        return str(error), 1
    decoding = sys.modules.get("training.data.decoding")
    if decoding is not None and isinstance(error, decoding.UnreadableImageError):
        return str(error), 1
    # A loss that is not finite, and a checkpoint or report that cannot be written: the message says what to do.
    if isinstance(error, OSError) and error.errno in _NO_ROOM and error.filename:
        return f"{error.filename}: {error.strerror}", 1
    if isinstance(error, FloatingPointError) or (isinstance(error, OSError) and error.errno in _NO_ROOM):
        return str(error), 1
    if isinstance(error, ModuleNotFoundError) and error.name:
        package = error.name.partition(".")[0]
        extra = f'pip install "keras-apa[{package}]"' if package in ("jax", "torch") else EXTRA
        return f"the package {package!r} is not installed; {extra}", 1
    if isinstance(error, ImportError) and "pip install" in str(error):
        return str(error), 1
    return f"{type(error).__name__}: {error}\nRun it again with --debug to see where.", 1


def _fail(message: str, code: int) -> int:
    print(f"keras-apa: {visible(message)}", file=sys.stderr)
    return code


def parse(arguments: Sequence[str]) -> Any:
    """The command as a dataclass with `run()`; wrong usage is said in two lines before `SystemExit(2)`."""
    import tyro

    from training.cli.commands import COMMANDS
    from training.cli.options import RULES
    from training.cli.train_options import train_options

    errors = io.StringIO()
    try:
        with contextlib.redirect_stderr(errors), _unbroken(arguments), RULES:
            if arguments[:1] == ["train"] and len(arguments) > 1 and not arguments[1].startswith("-"):
                return train_options(arguments[1:], tyro.cli)
            return tyro.extras.subcommand_cli_from_dict(
                COMMANDS,
                args=list(arguments),
                prog="keras-apa",
                description="Long-tailed visual recognition with Keras 3 on TensorFlow, JAX and PyTorch.\n\n"
                "keras-apa --version prints the version.",
                config=(tyro.conf.FlagCreatePairsOff,),
            )
    except SystemExit:
        if errors.getvalue():
            said = unboxed(errors.getvalue())
            if arguments[0] in COMMANDS:  # tyro does not always say whose help it is
                said = said.replace("keras-apa --help", f"keras-apa {arguments[0]} --help")
            print(f"keras-apa: {visible(said)}", file=sys.stderr)
        raise


@contextlib.contextmanager
def _unbroken(arguments: Sequence[str]):
    """Lets tyro write errors without breaking a long path, after which it would be another one; not the help."""
    columns = os.environ.get("COLUMNS")
    if not {"--help", "-h"} & {*arguments}:
        os.environ["COLUMNS"] = "100000"
    try:
        yield
    finally:
        os.environ.pop("COLUMNS", None)
        if columns is not None:
            os.environ["COLUMNS"] = columns


def unboxed(text: str) -> str:
    """What tyro says in a frame, in two lines: the error with the near names, and where the help is.

    >>> print(unboxed('''
    ... ╭─ Unrecognized options ──────────╮
    ... │ Unrecognized options: dmo       │
    ... │ ─────────────────────────────── │
    ... │ Available subcommands: demo     │
    ... │ ─────────────────────────────── │
    ... │ For full helptext, run x --help │
    ... ╰─────────────────────────────────╯'''))
    Unrecognized options: dmo. Available subcommands: demo
    For full helptext, run x --help

    Where the terminal has only ASCII, the frame is made of hyphens.
    """
    lines = [line.strip("│╭╮╰╯ \t") for line in text.strip().splitlines()]
    paragraphs = re.split(r"(?:^|\n)[─-]{5,}(?=\n|$)", "\n".join(lines[1:]))
    paragraphs = [p.strip().split("\n") for p in paragraphs if p.strip()]
    if not paragraphs:
        return text.strip()
    error = _in_our_form(" ".join(paragraphs[0]))
    for paragraph in paragraphs[1:-1]:
        if paragraph[0].startswith(("Available", "Perhaps")):
            error = f"{error.rstrip('.')}. {' '.join(paragraph[:2])}"
    return f"{error}\n{' '.join(paragraphs[-1])}" if len(paragraphs) > 1 else error


def _in_our_form(error: str) -> str:
    """An error of tyro as `NAME must be ...; given: VALUE.`; one of another kind stays as it is.

    >>> _in_our_form("invalid choice 'tf' for argument '--backend'. Expected one of ('jax', 'torch').")
    "--backend must be one of jax, torch; given: 'tf'."
    >>> _in_our_form("Missing from keras-apa convert: IN The file to read. (required) OUT To write. (required)")
    'IN and OUT must be given.'
    """
    error = re.sub(r"`\[bold\](.+?)\[/bold\]`", r"`\1`", error)
    # Checks of a recipe name the value themselves; what reads the words of one option does not.
    error = re.sub(r"^Error parsing (\S+): it (?=must )", r"\1 ", error)
    error = re.sub(r"^Error parsing [^-]\S*: (?=.* must )", "", error)
    if found := re.fullmatch(r"invalid choice '(.*)' for argument '(\S+)'\. Expected one of \((.*?),?\)\.?", error):
        value, name, choices = found.groups()
        name = name if name.startswith("-") else name.upper()  # a positional, in the help too
        return f"{name} must be one of {choices.replace(chr(39), '')}; given: {value!r}."
    if found := re.fullmatch(r"Missing value for argument '(\S+)'\. Expected (\d+) values\.", error):
        name, number = found.groups()
        return f"{name} must have {'a value; given: none' if number == '1' else f'{number} values; given: fewer'}."
    if found := re.fullmatch(r"Missing from [^:]+: (.+)", error):
        missing = [argument.strip().partition(" ") for argument in found[1].split("(required)") if argument.strip()]
        about = f" {missing[0][2].partition('. ')[0].rstrip('.')}." if len(missing) == 1 else ""
        return f"{' and '.join(name for name, *_ in missing)} must be given.{about}"
    return error
