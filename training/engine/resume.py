"""Saving during `fit`, and going on in the middle of an epoch, which `keras.callbacks.BackupAndRestore` cannot."""

from __future__ import annotations

import contextlib
import signal
import sys
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import keras
import numpy as np
from keras import ops

from training.checks import check_whole
from training.engine.checkpoints import Checkpoints, NotFiniteError, global_random_state, set_global_random_state


class CheckpointCallback(keras.callbacks.Callback):
    """Saves after each epoch, and every `every_steps` batches.

    Put it last, behind what changes the state that `extra` returns. Besides that, a checkpoint has `epoch` and
    `step_in_epoch`, where training goes on, `history`, and in the middle of an epoch `metrics`, the sums behind the
    numbers of the epoch so far.

    `history` maps the name of each number that `fit` logs to its values, one an epoch, those before a resumption too.

    Args:
        checkpoints: Where to save.
        steps_per_epoch: Batches an epoch, as `fit` has them.
        every_steps: Batches between two checkpoints inside an epoch; None for the ends of epochs only.
        resumed: What `Checkpoints.load_latest` returned.
        extra: Called without arguments at each saving; returns what else there is to remember.

    Raises:
        ValueError: A number below 1; `extra` returns a key that is taken.
        OSError, NotFiniteError: From `Checkpoints.save`, in `fit`.

    >>> import tempfile
    >>> model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(1)])
    >>> model.compile("sgd", "mse")
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     checkpoints = Checkpoints(folder, keep=3)
    ...     save = CheckpointCallback(checkpoints, steps_per_epoch=5, every_steps=3)
    ...     _ = model.fit(np.ones((10, 2)), np.ones((10, 1)), batch_size=2, epochs=2, verbose=0, callbacks=[save])
    ...     names = [path.name for path in checkpoints.paths()]
    ...     state = checkpoints.load_latest(model)
    >>> names
    ['step-0000000005.npz', 'step-0000000008.npz', 'step-0000000010.npz']
    >>> state["epoch"], state["step_in_epoch"], len(state["history"]["loss"])
    (2, 0, 2)
    """

    def __init__(
        self,
        checkpoints: Checkpoints,
        *,
        steps_per_epoch: int,
        every_steps: int | None = None,
        resumed: Mapping[str, Any] | None = None,
        extra: Callable[[], Mapping[str, Any]] | None = None,
    ):
        super().__init__()
        check_whole("steps_per_epoch", steps_per_epoch, at_least=1)
        if every_steps is not None:
            check_whole("every_steps", every_steps, at_least=1)
        self.checkpoints = checkpoints
        self.steps_per_epoch = steps_per_epoch
        self.every_steps = every_steps
        self.extra = extra
        resumed = resumed or {}
        self.history = {name: list(values) for name, values in resumed.get("history", {}).items()}
        self.stop_requested = False
        # Batches of the present epoch that were trained before `fit` began.
        self._skipped = int(resumed.get("step_in_epoch", 0))
        self._saved_at = int(resumed.get("step", 0))

    def request_stop(self) -> None:
        """Asks for a checkpoint and KeyboardInterrupt after the present batch, as a signal handler may."""
        self.stop_requested = True

    def on_epoch_begin(self, epoch, logs=None):
        self._epoch = epoch

    def on_train_batch_end(self, batch, logs=None):
        position = self._skipped + batch + 1
        if position >= self.steps_per_epoch:
            return  # the end of the epoch saves, with its validation
        step = self._epoch * self.steps_per_epoch + position
        due = self.every_steps is not None and step - self._saved_at >= self.every_steps
        if due or self.stop_requested:
            self._save(self._epoch, position, logs)
        self._stop_if_requested()

    def on_epoch_end(self, epoch, logs=None):
        self._skipped = 0
        for name, value in (logs or {}).items():
            self.history.setdefault(name, []).append(float(value))
        self._save(epoch + 1, 0, logs)
        self._stop_if_requested()

    def _save(self, epoch, position, logs):
        step = epoch * self.steps_per_epoch + position
        loss = (logs or {}).get("loss", 0.0)
        if not np.isfinite(loss):
            # The weights may still be finite, but the step that made this loss was no good one.
            raise NotFiniteError(f"the loss is {loss} at step {step}; {self.checkpoints._last_good()}")
        state = {"epoch": epoch, "step_in_epoch": position, "history": self.history}
        if position:
            if hasattr(self.model, "jax_state_sync"):
                self.model.jax_state_sync()
            state["metrics"] = [ops.convert_to_numpy(each.value) for each in self.model.metrics_variables]
        extra = dict(self.extra()) if self.extra is not None else {}
        if taken := sorted({*state, "step", "metrics"} & set(extra)):
            raise ValueError(
                f"extra must use other names than {', '.join(taken)}, which the checkpoint has itself; given: "
                f"{', '.join(extra)}."
            )
        self.checkpoints.save(self.model, step=step, extra={**state, **extra})
        self._saved_at = step

    def _stop_if_requested(self):
        if self.stop_requested:
            raise KeyboardInterrupt


class ContinueEpoch(keras.callbacks.Callback):
    """Begins the first epoch where an interrupted training was, and ends it after the batches that were left of it.

    `fit` has epochs of one length. A training that goes on after 30 of 100 batches reads a dataset that starts at
    batch 30, and its first epoch is 70 batches long: its validation, its end and its number are those of the training
    that was not interrupted, and so are its mean loss and metrics, of which the checkpoint has the sums. Give `fit` the
    rest of the training as one dataset, with `steps_per_epoch`.

    On PyTorch, where a Dropout without a seed draws from the global random numbers, it also sets these: before the
    first batch of each epoch to what they were at the end of the one before. In between, PyTorch's data loader draws
    from them too, in a training that goes on more often than in one that never stopped.

    Put it first, so that another callback that stops the training at the end of that epoch is heard.

    Args:
        steps_per_epoch: Batches an epoch, as `fit` has them.
        resumed: What `Checkpoints.load_latest` returned; None for a training that begins.

    Raises:
        ValueError: The checkpoint lies beyond the epoch: it was written with another number of batches.

    >>> model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(1)])
    >>> model.compile(keras.optimizers.SGD(0.1), "mse")
    >>> first = ContinueEpoch(5, {"epoch": 1, "step_in_epoch": 3})
    >>> x, y = np.ones((14, 2)), np.ones((14, 1))  # 2 batches of the second epoch, 5 of the third
    >>> epochs = {"initial_epoch": 1, "epochs": 3, "steps_per_epoch": 5}
    >>> _ = model.fit(x, y, batch_size=2, shuffle=False, verbose=0, callbacks=[first], **epochs)
    >>> int(model.optimizer.iterations)
    7
    """

    def __init__(self, steps_per_epoch: int, resumed: Mapping[str, Any] | None = None):
        super().__init__()
        check_whole("steps_per_epoch", steps_per_epoch, at_least=1)
        position = int((resumed or {}).get("step_in_epoch", 0))
        if not 0 <= position < steps_per_epoch:
            raise ValueError(
                f"steps_per_epoch must be as when the checkpoint was written, after {position} batches of an epoch; "
                f"given: {steps_per_epoch}. Resume with the batch size and the data that it was written with."
            )
        self._metrics = list((resumed or {}).get("metrics", ()))
        self._random = dict((resumed or {}).get("random", {}))
        self._left = steps_per_epoch - position if position else None

    def on_train_batch_begin(self, batch, logs=None):
        set_global_random_state(self._random)
        self._random = {}

    def on_epoch_begin(self, epoch, logs=None):
        self._add_metrics()

    def on_train_batch_end(self, batch, logs=None):
        # On TensorFlow the first batch makes the variables of the metrics.
        self._add_metrics()
        if self._left is not None and batch + 1 >= self._left:
            # The only way out of an epoch; it is taken back before `fit` looks whether to begin another.
            self.model.stop_training = True

    def _add_metrics(self):
        """Adds the sums of the interrupted epoch, once, to those of this one: none yet, or those of a batch."""
        if not self._metrics:
            return
        if hasattr(self.model, "jax_state_sync"):
            self.model.jax_state_sync()
        variables = self.model.metrics_variables
        if [np.shape(each) for each in self._metrics] == [tuple(each.shape) for each in variables]:
            for variable, value in zip(variables, self._metrics, strict=True):
                variable.assign_add(value)
            self._metrics = []

    def on_epoch_end(self, epoch, logs=None):
        self._random = global_random_state()
        if self._left is not None:
            self.model.stop_training = False
            self._left = None
            self._metrics = []


@contextlib.contextmanager
def saving_on_interrupt(callback: CheckpointCallback) -> Iterator[None]:
    """Ctrl-C lets the present batch end and saves, then raises KeyboardInterrupt; a second one raises at once.

    An interrupt in the middle of a step would leave variables of two steps, from which no training can go on. Outside
    the main thread, and where the program has a handler of its own or ignores the signal, nothing is changed.

    >>> save = CheckpointCallback(Checkpoints("checkpoints"), steps_per_epoch=10)
    >>> with saving_on_interrupt(save):
    ...     save.stop_requested
    False
    """

    def note(number, frame):
        if callback.stop_requested:
            raise KeyboardInterrupt
        callback.request_stop()
        print("\nsaving after this batch; Ctrl-C again stops at once", file=sys.stderr, flush=True)

    try:
        usual = signal.getsignal(signal.SIGINT) is signal.default_int_handler
        before = signal.signal(signal.SIGINT, note) if usual else None
    except ValueError:
        before = None
    try:
        yield
    finally:
        if before is not None:
            signal.signal(signal.SIGINT, before)
