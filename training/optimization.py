"""Optimiser and learning-rate schedule of a recipe."""

from __future__ import annotations

import math

import keras
from keras import ops

from training.recipe import OptimizerOptions


@keras.saving.register_keras_serializable(package="keras_apa")
class WarmupCosine(keras.optimizers.schedules.LearningRateSchedule):
    """Linear warm-up, then half a cosine to zero, changing at every step.

    For step s, W warm-up and T total steps: `peak * (s + 1) / W` while s < W, then
    `peak / 2 * (1 + cos(pi * (s - W) / (T - W)))`.

    >>> schedule = WarmupCosine(peak=1.0, total_steps=10, warmup_steps=2)
    >>> [round(float(schedule(step)), 3) for step in (0, 1, 2, 6, 10)]
    [0.5, 1.0, 1.0, 0.5, 0.0]
    """

    def __init__(self, peak: float, total_steps: int, warmup_steps: int = 0, name: str = "warmup_cosine"):
        super().__init__()
        if not 0 <= warmup_steps < total_steps:
            raise ValueError(
                f"warmup_steps must be at least 0 and below total_steps ({total_steps}), not {warmup_steps}"
            )
        self.peak = peak
        self.total_steps = total_steps
        self.warmup_steps = warmup_steps
        self.name = name

    def __call__(self, step):
        step = ops.cast(step, "float32")
        rising = (step + 1.0) / max(self.warmup_steps, 1)
        done = (step - self.warmup_steps) / (self.total_steps - self.warmup_steps)
        falling = 0.5 * (1.0 + ops.cos(math.pi * ops.clip(done, 0.0, 1.0)))
        return self.peak * ops.where(step < self.warmup_steps, rising, falling)

    def get_config(self):
        return {
            "peak": self.peak,
            "total_steps": self.total_steps,
            "warmup_steps": self.warmup_steps,
            "name": self.name,
        }


def build_optimizer(options: OptimizerOptions, *, epochs: int, steps_per_epoch: int) -> keras.optimizers.Optimizer:
    """The Keras optimiser that `options` describe, over `epochs * steps_per_epoch` steps.

    Raises:
        ValueError: the warm-up is as long as the training.
    """
    if options.warmup_epochs >= epochs:
        raise ValueError(f"optimizer.warmup_epochs must be less than epochs ({epochs}), not {options.warmup_epochs}")
    schedule = WarmupCosine(
        options.learning_rate,
        total_steps=epochs * steps_per_epoch,
        warmup_steps=round(options.warmup_epochs * steps_per_epoch),
    )
    weight_decay = options.weight_decay or None
    if options.name == "adamw":
        return keras.optimizers.AdamW(schedule, weight_decay=weight_decay or 0.0, beta_1=options.momentum)
    return keras.optimizers.SGD(
        schedule, momentum=options.momentum, nesterov=options.nesterov, weight_decay=weight_decay
    )
