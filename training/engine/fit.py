"""`model.fit` as every training of a recipe has it: progress kept on disk, Ctrl-C, and an end at the first NaN."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import keras
import numpy as np
from keras import ops

from keras_apa.losses import trusted_labels
from training.engine.callbacks import ActivationParameters, History, StopOnNaN
from training.engine.checkpoints import Checkpoints
from training.engine.resume import CheckpointCallback, ContinueEpoch, saving_on_interrupt


def fit(
    model: keras.Model,
    batches: Callable[[int], Any],
    *,
    epochs: int,
    steps_per_epoch: int,
    measuring: Sequence[keras.callbacks.Callback] = (),
    callbacks: Sequence[keras.callbacks.Callback] = (),
    checkpoints: Checkpoints | None = None,
    checkpoint_steps: int | None = None,
    **options: Any,
) -> tuple[History, ActivationParameters]:
    """Trains a compiled model, or goes on with the training that `checkpoints` has.

    Args:
        model: A compiled model.
        batches: Called with the step to start from; returns the rest of the training as one dataset.
        epochs, steps_per_epoch: As `fit` takes them.
        measuring: Callbacks that add to the logs.
        callbacks: Callbacks that read them.
        checkpoints: Where to save at the end of every epoch, and where a training that was cut off goes on from.
        checkpoint_steps: Steps between two checkpoints inside an epoch.
        **options: Further arguments of `fit`.

    Returns: What was recorded, of the whole training.
    Raises: training.engine.checkpoints.NotFiniteError: The loss is NaN or infinite, with `checkpoints`.
    """
    resumed = checkpoints.load_latest(model) if checkpoints is not None else None
    state = resumed or {"epoch": 0, "step": 0}
    history, parameters = History(state.get("history")), ActivationParameters(state.get("parameters"))
    first = [ContinueEpoch(steps_per_epoch, resumed), *measuring, history, parameters]
    saving: contextlib.AbstractContextManager[None] = contextlib.nullcontext()
    if checkpoints is not None:
        save = CheckpointCallback(
            checkpoints,
            steps_per_epoch=steps_per_epoch,
            every_steps=checkpoint_steps,
            resumed=resumed,
            extra=lambda: {"parameters": parameters.values},
        )
        # The guard before what saves; the state is saved behind whatever changes it.
        callbacks, saving = [StopOnNaN(checkpoints, resumed), *callbacks, save], saving_on_interrupt(save)
    if state["step"] < steps_per_epoch * epochs:
        # The pipelines have checked the labels.
        with saving, trusted_labels():
            model.fit(
                batches(state["step"]),
                initial_epoch=state["epoch"],
                epochs=epochs,
                steps_per_epoch=steps_per_epoch,
                shuffle=False,  # the dataset shuffles
                callbacks=[*first, *callbacks],
                **options,
            )
    else:
        # Cut off between the last checkpoint and the end of `fit`, which puts averaged weights in their place.
        model.optimizer.finalize_variable_values(model.trainable_variables)
    return history, parameters


def try_steps(model: keras.Model, batches: Iterable[Sequence[Any]], title: str) -> str:
    """Trains a few batches, as a dry run does; a line on the losses and on what moved.

    Args:
        model: A compiled model.
        batches: What `train_on_batch` takes, NumPy arrays.
        title: What the error calls the training.

    Raises: ValueError: A loss is not finite.
    """
    before = [ops.convert_to_numpy(variable) for variable in model.trainable_variables]
    with trusted_labels():
        losses = [float(model.train_on_batch(*batch, return_dict=True)["loss"]) for batch in batches]
    if not np.all(np.isfinite(losses)):
        raise ValueError(
            f"the loss of {title} is not finite: {losses}. Try a lower learning rate (optimizer.learning_rate)."
        )
    moved = sum(
        not np.array_equal(ops.convert_to_numpy(variable), earlier)
        for variable, earlier in zip(model.trainable_variables, before, strict=True)
    )
    return f"loss {', '.join(f'{loss:.3f}' for loss in losses)}; {moved} of {len(before)} trained tensors moved"
