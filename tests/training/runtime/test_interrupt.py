import os
import signal
import threading

import keras
import numpy as np
import pytest

from training.runtime.interrupt import interruptible


def press_and_swallow():
    try:
        signal.raise_signal(signal.SIGINT)
        os.getpid()  # a bytecode boundary, where Python delivers the signal
    except KeyboardInterrupt:
        pass


class Swallows(keras.callbacks.Callback):
    def __init__(self):
        super().__init__()
        self.batches = 0

    def on_train_batch_end(self, batch, logs=None):
        self.batches += 1
        if self.batches == 3:
            press_and_swallow()


@pytest.mark.every_backend
def test_a_swallowed_interrupt_ends_training_at_the_next_batch():
    model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(1)])
    model.compile("sgd", "mse")
    swallows = Swallows()
    with pytest.raises(KeyboardInterrupt), interruptible() as interrupt:
        model.fit(np.ones((64, 2)), np.ones((64, 1)), batch_size=4, verbose=0, callbacks=[swallows, interrupt])
    assert swallows.batches == 3


def test_the_interrupt_is_raised_at_once_and_the_handler_is_given_back():
    before = signal.getsignal(signal.SIGINT)
    with interruptible() as interrupt:
        interrupt.raise_if_pressed()
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)
        with pytest.raises(KeyboardInterrupt):
            interrupt.raise_if_pressed()
    assert signal.getsignal(signal.SIGINT) is before


def test_other_threads_and_ignored_signals_are_left_alone():
    seen = []

    def work():
        with interruptible() as interrupt:
            interrupt.raise_if_pressed()
            seen.append("done")

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        with interruptible():
            assert signal.getsignal(signal.SIGINT) is signal.SIG_IGN
    finally:
        signal.signal(signal.SIGINT, before)
    assert seen == ["done"]
