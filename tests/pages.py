"""The code blocks of a page of the documentation, and how a test runs them."""

import re
import shlex

from backends import CURRENT, environment
from warm import run_warm


def blocks(page):
    """The code blocks of the Markdown file `page`, each with the language that it names."""
    return re.findall(r"^```(\w*)\n(.*?)^```", page.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)


def program(page):
    """The Python blocks of `page`, one after the other."""
    return "\n".join(block for kind, block in blocks(page) if kind == "python")


def commands(page):
    """The commands in the bash blocks of `page`, without comments."""
    lines = [
        line.partition("  #")[0].strip()
        for kind, block in blocks(page)
        if kind == "bash"
        for line in block.splitlines()
    ]
    return [part for line in lines for part in line.split(" && ")]


def python(folder, code, *arguments, timeout=900):
    """Run `code` in `folder` on the current backend; an exit code that is not 0 fails the test."""
    result = run_warm(code, *arguments, cwd=folder, env=environment(CURRENT), timeout=timeout)
    assert result.returncode == 0, (arguments, result.stderr[-3000:])
    return result


def keras_apa(folder, command, *options, timeout=900):
    """Run the line `command`, which begins with `keras-apa`, in `folder`, with more options."""
    name, *arguments = shlex.split(command)
    assert name == "keras-apa", command
    code = "import sys; from training.cli.main import main; sys.exit(main())"
    return python(folder, code, *arguments, *options, timeout=timeout)
