"""Ctrl-C that cannot get lost."""

from __future__ import annotations

import contextlib
import signal
from collections.abc import Iterator

import keras


class InterruptCheck(keras.callbacks.Callback):
    """Raises KeyboardInterrupt at the next batch if Ctrl-C was pressed and something has swallowed it.

    Python raises KeyboardInterrupt wherever the program happens to be. Inside a finaliser, a C callback or a library's
    bare `except:` it disappears, and a training of hours goes on as if nothing had been pressed.
    """

    def __init__(self):
        super().__init__()
        self.pressed = False

    def raise_if_pressed(self) -> None:
        """Raises KeyboardInterrupt if Ctrl-C was pressed since the last one that came through."""
        if self.pressed:
            raise KeyboardInterrupt

    def on_train_batch_begin(self, batch, logs=None):
        self.raise_if_pressed()

    def on_test_batch_begin(self, batch, logs=None):
        self.raise_if_pressed()

    def on_predict_batch_begin(self, batch, logs=None):
        self.raise_if_pressed()


@contextlib.contextmanager
def interruptible() -> Iterator[InterruptCheck]:
    """Notes Ctrl-C while the block runs; yields the callback that makes sure of it.

    The KeyboardInterrupt is raised at once too, as ever. Outside the main thread, where Python takes no handlers, and
    where the program has chosen to ignore the signal, nothing is changed.

    >>> with interruptible() as check:
    ...     check.raise_if_pressed()  # between two steps of long work
    """
    check = InterruptCheck()

    def note(number, frame):
        check.pressed = True
        raise KeyboardInterrupt

    try:
        usual = signal.getsignal(signal.SIGINT) is signal.default_int_handler
        before = signal.signal(signal.SIGINT, note) if usual else None
    except ValueError:
        before = None
    try:
        yield check
    finally:
        if before is not None:
            signal.signal(signal.SIGINT, before)
