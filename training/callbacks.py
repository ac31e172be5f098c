"""Callbacks: what kappa and lambda do during training, and a progress display."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from keras_apa.layers import AGLU, APA


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
