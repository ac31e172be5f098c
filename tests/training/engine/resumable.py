"""A small training that is run as a process, killed, and started again with the same command.

    python resumable.py RUN ... [--kill-at STEP | --kill-while-saving STEP]

It has everything whose state the next step depends on: batch normalisation, Dropout, a loss that draws, momentum, an
average of the weights, gradient accumulation, a schedule. `RUN.npz` gets all variables at the end and the history.
Several runs are trained one after the other; the last one is killed.
"""

import argparse
import json
import os
import pathlib
import signal

import keras
import numpy as np
import quick_jax

from keras_apa import no_weight_decay
from keras_apa.losses import DropLoss, attach_loss_state
from training.config.experiment import OptimizerOptions
from training.engine import checkpoints as checkpoint
from training.engine.callbacks import StopOnNaN
from training.engine.checkpoints import Checkpoints
from training.engine.optimizers import build_optimizer
from training.engine.resume import CheckpointCallback, ContinueEpoch

CLASSES = 5
BATCH = 8
STEPS_PER_EPOCH = 10
EPOCHS = 3
EVERY_STEPS = 4


def build_model():
    keras.utils.set_random_seed(11)
    model = keras.Sequential(
        [
            keras.Input((6, 6, 1)),
            keras.layers.Conv2D(8, 3, use_bias=False),
            keras.layers.BatchNormalization(),
            keras.layers.ReLU(),
            keras.layers.Dropout(0.3),
            keras.layers.GlobalAveragePooling2D(),
            keras.layers.Dropout(0.3),
            keras.layers.Dense(CLASSES),
        ]
    )
    options = OptimizerOptions(
        learning_rate=0.05,
        nesterov=True,
        weight_decay=1e-3,
        schedule="epoch_cosine",
        warmup_epochs=1,
        clip_norm=5.0,
        ema_momentum=0.9,
        accumulation_steps=3,
    )
    loss = DropLoss(image_counts=[400, 100, 30, 2, 1], num_images=500, frequency_threshold=0.1, seed=5)
    model.compile(
        build_optimizer(options, epochs=EPOCHS, steps_per_epoch=STEPS_PER_EPOCH),
        attach_loss_state(model, loss),
        metrics=["sparse_categorical_accuracy"],
    )
    no_weight_decay(model.optimizer, model, norms=True)
    return model


def batches_from(step):
    """All batches from `step` on, each a function of its step."""
    import tensorflow as tf

    def batch(index):
        images = tf.random.stateless_normal((BATCH, 6, 6, 1), seed=tf.stack([tf.constant(9, "int64"), index]))
        seed = tf.stack([tf.constant(10, "int64"), index])
        # The label CLASSES is background, on which the loss draws.
        labels = tf.random.stateless_uniform((BATCH,), seed=seed, maxval=CLASSES + 1, dtype=tf.int32)
        return images, labels

    return tf.data.Dataset.range(step, EPOCHS * STEPS_PER_EPOCH).map(batch, tf.data.AUTOTUNE).prefetch(2)


class KillAt(keras.callbacks.Callback):
    """What `kill -9` does, after the given number of batches."""

    def __init__(self, step, first_step):
        super().__init__()
        self.left = step - first_step

    def on_train_batch_end(self, batch, logs=None):
        self.left -= 1
        if self.left == 0:
            os.kill(os.getpid(), signal.SIGKILL)


def kill_while_saving(step):
    replace = os.replace

    def killed(source, target):
        if f"{step:010d}" in str(target):
            os.kill(os.getpid(), signal.SIGKILL)
        replace(source, target)

    checkpoint.os.replace = killed


def train(run, kill_at=None):
    model = build_model()
    checkpoints = Checkpoints(pathlib.Path(run) / "checkpoints")
    state = checkpoints.load_latest(model)
    first = state["step"] if state else 0
    print(f"from step {first}", flush=True)
    save = CheckpointCallback(checkpoints, steps_per_epoch=STEPS_PER_EPOCH, every_steps=EVERY_STEPS, resumed=state)
    validation = np.random.default_rng(0).normal(size=(16, 6, 6, 1)).astype("float32"), np.arange(16) % CLASSES
    model.fit(
        batches_from(first),
        steps_per_epoch=STEPS_PER_EPOCH,
        initial_epoch=state["epoch"] if state else 0,
        epochs=EPOCHS,
        validation_data=validation,
        validation_batch_size=8,
        verbose=0,
        callbacks=[
            ContinueEpoch(STEPS_PER_EPOCH, state),
            StopOnNaN(checkpoints, state),
            *([KillAt(kill_at, first)] if kill_at else []),
            save,
        ],
    )
    return model, save.history


def save_result(path, model, history):
    arrays = {
        f"{part}/{index}": keras.ops.convert_to_numpy(variable.value)
        for part, variables in (("model", model.variables), ("optimizer", model.optimizer.variables))
        for index, variable in enumerate(variables)
    }
    np.savez(path, history=np.array(json.dumps(history)), **arrays)


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("runs", nargs="+", help="folders of runs")
    parser.add_argument("--kill-at", type=int, help="batch of the last run")
    parser.add_argument("--kill-while-saving", type=int, help="step of the last run")
    options = parser.parse_args()
    if keras.backend.backend() == "jax":
        quick_jax.draw_initial_values_with_numpy()
    for run in options.runs:
        last = run == options.runs[-1]
        if last and options.kill_while_saving:
            kill_while_saving(options.kill_while_saving)
        save_result(f"{run}.npz", *train(run, options.kill_at if last else None))


if __name__ == "__main__":
    main()
