"""TensorFlow's remarks about the machine, which it prints while it is imported, kept off the terminal."""

from __future__ import annotations

import contextlib
import importlib.abc
import importlib.machinery
import os
import re
import sys
import tempfile
from collections.abc import Iterator

# TensorFlow's log lines begin with their level, month and day. Only a fatal one (F) says why a command ends.
_REMARK = re.compile(rb"WARNING: All log messages before absl::InitializeLog\(\)|[IWE]\d{4} ")


@contextlib.contextmanager
def quiet_tensorflow() -> Iterator[None]:
    """Keeps TensorFlow's log lines off stderr where it is imported inside the block, by whomever.

    Not TF_CPP_MIN_LOG_LEVEL alone: it does not silence the lines before absl's log is set up, which is the whole
    import. What else is printed meanwhile comes out after the import.
    """
    finder = _TensorflowFinder()
    sys.meta_path.insert(0, finder)
    try:
        yield
    finally:
        sys.meta_path.remove(finder)


class _TensorflowFinder(importlib.abc.MetaPathFinder):
    """Finds TensorFlow where Python does, with an import that filters stderr."""

    def find_spec(self, name, path, target=None):
        spec = importlib.machinery.PathFinder.find_spec(name, path, target) if name == "tensorflow" else None
        if spec is None or spec.loader is None:
            return None
        run = spec.loader.exec_module

        def run_filtered(module):
            with _stderr_filtered():
                run(module)

        spec.loader.exec_module = run_filtered  # type: ignore[method-assign]  # of this one loader
        return spec


@contextlib.contextmanager
def _stderr_filtered() -> Iterator[None]:
    """File descriptor 2 into a file while the block runs, since the lines come from C++; then the rest of it."""
    sys.stderr.flush()
    try:
        stderr = os.dup(2)
    except OSError:  # closed: then there is nothing to keep clean
        yield
        return
    with tempfile.TemporaryFile() as printed:
        os.dup2(printed.fileno(), 2)
        try:
            yield
        finally:
            sys.stderr.flush()
            os.dup2(stderr, 2)
            os.close(stderr)
            printed.seek(0)
            for line in printed:
                if not _REMARK.match(line):
                    os.write(2, line)
