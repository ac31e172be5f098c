"""Callbacks: what kappa and lambda do during training, a progress display, and a guard against NaN."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import keras
import numpy as np
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from keras_apa.layers import AGLU, APA
from training.checkpoint import Checkpoints, NotFiniteError


class ActivationParameters(keras.callbacks.Callback):
    """Records the mean kappa and lambda of every APA and AGLU: once before training, then after each epoch.

    `values` maps a layer's path inside the model to `{"kind": "APA" or "AGLU", "kappa": [...],
    "lambda": [...]}`, each list with `epochs + 1` floats, in the order of the layers in the network.
    """

    def __init__(self):
        super().__init__()
        self.values: dict[str, dict[str, Any]] = {}

    def on_train_begin(self, logs=None):
        self.values = {}
        self._record()

    def on_epoch_end(self, epoch, logs=None):
        self._record()

    def _record(self):
        for layer in self.model._flatten_layers():
            if isinstance(layer, APA | AGLU):
                record = self.values.setdefault(
                    layer.path.removeprefix(f"{self.model.name}/"),
                    {"kind": type(layer).__name__, "kappa": [], "lambda": []},
                )
                for variable in layer.trainable_variables:
                    if variable.name in ("kappa", "lambda"):
                        record[variable.name].append(float(np.mean(keras.ops.convert_to_numpy(variable.value))))


class EpochProgress(keras.callbacks.Callback):
    """One bar for the whole training, with loss and shot-group accuracies of the last epoch beside it.

    Where the output is not a terminal (a log file, a pipe), one plain line an epoch instead.
    """

    def __init__(self, title: str, console: Console | None = None):
        super().__init__()
        self.title = title
        self.console = console or Console()

    def on_train_begin(self, logs=None):
        self._steps = self.params.get("steps") or 0
        self._progress = None
        if self.console.is_terminal:
            self._progress = Progress(
                TextColumn("{task.description}"),
                BarColumn(bar_width=24),
                MofNCompleteColumn(),
                TextColumn("{task.fields[note]}"),
                TimeElapsedColumn(),
                console=self.console,
            )
            self._task = self._progress.add_task(
                self.title, total=self.params["epochs"] * self._steps or None, note="compiling"
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

    def on_train_end(self, logs=None):
        self.close()

    def close(self):
        """Gives the terminal back; needed when training is interrupted, harmless otherwise."""
        if getattr(self, "_progress", None) is not None:
            self._progress.stop()
            self._progress = None

    @staticmethod
    def _note(logs: dict) -> str:
        parts = [f"loss {float(logs['loss']):.3f}"] if "loss" in logs else []
        for group in ("many", "medium", "few", "all"):
            for key in (f"val_{group}", f"val_shot_accuracy_{group}"):
                if key in logs:
                    parts.append(f"{group} {float(logs[key]):.2f}")
        return "  ".join(parts)


class StopOnNaN(keras.callbacks.Callback):
    """Stops training with an error at the first loss that is NaN or infinite.

    Put it before what saves. (`CheckpointCallback` saves no such state wherever it stands.)

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
