"""Callbacks: what kappa and lambda do during training, a progress display, and a guard against NaN."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from typing import Any

import keras
import numpy as np
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from keras_apa._keras_internals import all_layers
from keras_apa.layers import AGLU, APA
from training.engine.checkpoints import Checkpoints, NotFiniteError
from training.runtime.console import TextConsole, text_console
from training.runtime.output import visible


class ActivationParameters(keras.callbacks.Callback):
    """Records the mean kappa and lambda of every APA and AGLU: once before training, then after each epoch.

    `values` maps a layer's path inside the model to `{"kind": "APA" or "AGLU", "kappa": [...],
    "lambda": [...]}`, each list with `epochs + 1` floats, in the order of the layers in the network. A training that
    goes on gives the `values` that it had.
    """

    def __init__(self, values: dict[str, dict[str, Any]] | None = None):
        super().__init__()
        self.values: dict[str, dict[str, Any]] = values or {}

    def on_train_begin(self, logs=None):
        if not self.values:
            self._record()

    def on_epoch_end(self, epoch, logs=None):
        self._record()

    def _record(self):
        for layer in all_layers(self.model):
            if isinstance(layer, APA | AGLU):
                record = self.values.setdefault(
                    layer.path.removeprefix(f"{self.model.name}/"),
                    {"kind": type(layer).__name__, "kappa": [], "lambda": []},
                )
                # Also where they are frozen: the report has a line for each.
                for variable in layer.weights:
                    if variable.name in ("kappa", "lambda"):
                        record[variable.name].append(float(np.mean(keras.ops.convert_to_numpy(variable.value))))


class History(keras.callbacks.Callback):
    """`values` has a list with one number an epoch for each logged quantity, over all parts of a training.

    In an epoch that was cut off, loss and training accuracies are those of its last part.
    """

    def __init__(self, values: dict[str, list[float]] | None = None):
        super().__init__()
        self.values: dict[str, list[float]] = values or {}

    def on_epoch_end(self, epoch, logs=None):
        for name, value in (logs or {}).items():
            # An epoch that is run again replaces what it logged before.
            self.values[name] = [*self.values.get(name, [])[:epoch], float(value)]


class TensorBoardLog(keras.callbacks.Callback):
    """Writes what `fit` logs as scalars that TensorBoard shows, on every backend.

    Not `keras.callbacks.TensorBoard`: this one asks `may_write` whether the run folder is still ours, takes folders
    whose names are not UTF-8, and writes the same scalars on every backend, under the names that `fit` has for them.

    Args:
        folder: Where to.
        may_write: Asked before each epoch is written; None for always.
    """

    def __init__(self, folder, may_write: Callable[[], bool] | None = None):
        super().__init__()
        self.folder = os.fspath(folder)
        self.may_write = may_write
        self._writer: Any = None  # of TensorFlow, which has no types

    def on_epoch_end(self, epoch, logs=None):
        if self.may_write is not None and not self.may_write():
            return
        import tensorflow as tf

        # As bytes: TensorFlow takes no text that is not UTF-8.
        self._writer = self._writer or tf.summary.create_file_writer(os.fsencode(self.folder))
        with self._writer.as_default():
            for name, value in (logs or {}).items():
                tf.summary.scalar(name, float(value), step=epoch + 1)
        self._writer.flush()


class EpochProgress(keras.callbacks.Callback):
    """One bar for the whole training; beside it loss and accuracies of the last epoch, and the time left.

    Where the output is not a terminal (a log file, a pipe), one plain line an epoch instead. `total_steps` and
    `start_step` are given by trainings that go on from a step.
    """

    def __init__(
        self,
        title: str,
        console: Console | TextConsole | None = None,
        *,
        total_steps: int | None = None,
        start_step: int = 0,
    ):
        super().__init__()
        self.title = title
        self.console = text_console(console)
        self.total_steps = total_steps
        self.start_step = start_step
        self._progress: Progress | None = None
        self._begun = False

    def on_train_begin(self, logs=None):
        if self._begun:  # the second part of a training that goes on inside an epoch
            return
        self._begun = True
        self._steps = self.params.get("steps") or 0
        if self.console.is_terminal:
            self._progress = Progress(
                TextColumn("{task.description}", markup=False),
                BarColumn(bar_width=24),
                MofNCompleteColumn(),
                TextColumn("{task.fields[note]}", markup=False),
                TimeElapsedColumn(),
                TextColumn("left"),
                TimeRemainingColumn(),
                console=self.console.rich,
            )
            total = self.total_steps or self.params["epochs"] * self._steps or None
            self._task = self._progress.add_task(
                visible(self.title, lines=False), total=total, completed=self.start_step, note="compiling"
            )
            self._progress.start()
        else:
            self.console.print(self.title)

    def on_train_batch_end(self, batch, logs=None):
        if self._progress is not None:
            self._progress.advance(self._task)

    def on_epoch_end(self, epoch, logs=None):
        note = self._note(logs or {})
        if self._progress is not None:
            self._progress.update(self._task, note=note)
        else:
            self.console.print(f"  epoch {epoch + 1}/{self.params['epochs']}  {note}", highlight=False)

    def close(self):
        """Gives the terminal back, after the training or when it was interrupted."""
        if self._progress is not None:
            self._progress.stop()
            self._progress = None

    @staticmethod
    def _note(logs: dict) -> str:
        parts = [f"loss {float(logs['loss']):.3f}"] if "loss" in logs else []
        for group in ("many", "medium", "few", "all"):
            for key in (f"val_{group}", f"val_shot_accuracy_{group}"):
                if key in logs:
                    parts.append(f"{group} {float(logs[key]):.2f}")
        for kind in ("box", "mask"):
            # NaN in an epoch in which detections were not measured.
            if np.isfinite(value := float(logs.get(f"val_{kind}_AP", np.nan))):
                parts.append(f"{kind} AP {100 * value:.1f}")
        return "  ".join(parts)


class StopOnNaN(keras.callbacks.Callback):
    """Stops training with an error at the first loss that is NaN or infinite.

    Put it before what saves. (`CheckpointCallback` saves no such state wherever it stands.)

    Not `keras.callbacks.TerminateOnNaN`, which names neither the epoch nor the checkpoint to resume from.

    Args:
        checkpoints: Whose newest one the error names.
        resumed: What `Checkpoints.load_latest` returned, to count the batches of the first epoch from its beginning.

    Raises:
        NotFiniteError: In `fit`; it names epoch, batch and the last good checkpoint.

    >>> model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(1)])
    >>> model.compile("sgd", "mse")
    >>> try:
    ...     _ = model.fit(np.full((8, 2), np.nan), np.ones((8, 1)), verbose=0, callbacks=[StopOnNaN()])
    ... except FloatingPointError as error:
    ...     print(str(error).partition(";")[0])
    the loss is nan in epoch 1 at batch 1
    """

    def __init__(self, checkpoints: Checkpoints | None = None, resumed: Mapping[str, Any] | None = None):
        super().__init__()
        self.checkpoints = checkpoints
        self._skipped = int((resumed or {}).get("step_in_epoch", 0))

    def on_epoch_begin(self, epoch, logs=None):
        self._epoch = epoch

    def on_train_batch_end(self, batch, logs=None):
        # The mean of the epoch so far: one value that is not finite shows in it at once.
        loss = (logs or {}).get("loss")
        if loss is not None and not np.isfinite(loss):
            newest = self.checkpoints.newest() if self.checkpoints is not None else None
            raise NotFiniteError(
                f"the loss is {float(loss)} in epoch {self._epoch + 1} at batch {self._skipped + batch + 1}; "
                + (f"the last good checkpoint is {str(newest)!r}" if newest else "there is no checkpoint")
                + "; a lower learning rate or clipped gradients (optimizer.learning_rate, optimizer.clip_norm) may "
                "help, and labels of every image must be below the number of classes"
            )

    def on_epoch_end(self, epoch, logs=None):
        self._skipped = 0
