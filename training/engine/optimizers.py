"""Optimiser and learning-rate schedule of a recipe.

Keras's SGD is another rule than PyTorch's, with which the published models were trained: its weight decay is
decoupled from the gradient, and its momentum buffer contains the learning rate. `TorchSGD` is PyTorch's.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import keras
import numpy as np
from keras import ops

from training.checks import check_flag, check_number, check_whole
from training.config.experiment import OptimizerOptions
from training.errors import OptionError


@keras.saving.register_keras_serializable(package="keras_apa")
class TorchSGD(keras.optimizers.Optimizer):
    """Stochastic gradient descent by PyTorch's rule.

    For a weight w with gradient g, clipped first where clipping is asked for:

        g = g + weight_decay * w                   unless w is excluded from weight decay
        v = momentum * v + g                       v = g at the first step
        w = w - learning_rate * v                  or, with nesterov, w - learning_rate * (g + momentum * v)

    What differs from `keras.optimizers.SGD`: weight decay is L2 in the gradient and so passes through the momentum,
    and v holds no learning rate, so that a change of the learning rate acts on the whole step at once. The published
    numbers were trained by this rule, and Keras's optimizer has no option for it.

    With `gradient_accumulation_steps` the mean gradient of so many calls makes one update. A learning-rate schedule
    counts the calls, not the updates (Keras's rule); EMA is updated at every call too (`build_optimizer` allows for
    it).

    Args:
        learning_rate: A float, a `keras.optimizers.schedules.LearningRateSchedule`, or a callable without arguments.
        momentum: Of at least 0 and below 1; 0 keeps no buffer.
        nesterov: Whether to look ahead along the buffer; needs a momentum.
        weight_decay: L2 strength; None or 0 for none. `exclude_from_weight_decay` and `keras_apa.no_weight_decay`
            exempt variables.
        **kwargs: What every Keras optimizer takes: `clipnorm`, `global_clipnorm`, `clipvalue`, `use_ema`,
            `ema_momentum`, `ema_overwrite_frequency`, `loss_scale_factor`, `gradient_accumulation_steps`, `name`.

    Raises:
        ValueError: A momentum, weight decay or flag outside its range, or nesterov without momentum.

    Source: `torch.optim.SGD` with `dampening=0`, which the authors' training scripts use.

    >>> weight = keras.Variable([1.0])
    >>> optimizer = TorchSGD(0.1, momentum=0.5, weight_decay=0.2)
    >>> for _ in range(2):  # the gradients are 1 + 0.2 * 1, then 1 + 0.2 * 0.88; the second v is 0.5 * 1.2 + 1.176
    ...     optimizer.apply([keras.ops.ones(1)], [weight])
    ...     print(round(float(weight.value[0]), 4))
    0.88
    0.7024
    """

    def __init__(self, learning_rate=0.01, momentum=0.0, nesterov=False, weight_decay=None, **kwargs):
        check_number("momentum", momentum, at_least=0.0, below=1.0)
        check_flag("nesterov", nesterov)
        if weight_decay is not None:
            check_number("weight_decay", weight_decay, at_least=0.0)
        if nesterov and not momentum:
            raise ValueError("nesterov must be False where momentum is 0; given: True.")
        super().__init__(learning_rate, weight_decay=weight_decay, **kwargs)
        self.momentum = momentum
        self.nesterov = nesterov

    def build(self, variables):
        """Makes a momentum buffer of zeros for each variable."""
        if self.built:
            return
        super().build(variables)
        # With v = 0 before the first step, momentum * v + g is the g that PyTorch starts from.
        self.momentums = self.add_optimizer_variables(variables, "momentum") if self.momentum else []

    def update_step(self, gradient, variable, learning_rate):
        """One step of one variable."""
        step = ops.cast(gradient, variable.dtype)
        if self.weight_decay and self._use_weight_decay(variable):
            step = ops.add(step, ops.multiply(variable, self.weight_decay))
        if self.momentum:
            buffer = self.momentums[self._get_variable_index(variable)]
            self.assign(buffer, ops.add(ops.multiply(buffer, self.momentum), step))
            step = ops.add(step, ops.multiply(buffer, self.momentum)) if self.nesterov else buffer
        self.assign_sub(variable, ops.multiply(step, ops.cast(learning_rate, variable.dtype)))

    def _apply_weight_decay(self, variables):
        """Keras's decoupled decay, which it calls between clipping and `update_step`: not here."""

    def get_config(self):
        return {**super().get_config(), "momentum": self.momentum, "nesterov": self.nesterov}


@keras.saving.register_keras_serializable(package="keras_apa")
class WarmupCosine(keras.optimizers.schedules.LearningRateSchedule):
    """Linear warm-up, then half a cosine to zero, changing at every step.

    For step s, W warm-up and T total steps: `peak * (s + 1) / W` while s < W, then
    `peak / 2 * (1 + cos(pi * (s - W) / (T - W)))`, and 0 from T on.

    Args:
        peak: The highest rate.
        total_steps: Batches of the whole training.
        warmup_steps: Batches of the warm-up, fewer than `total_steps`.

    Raises:
        ValueError: A number outside its range.

    >>> schedule = WarmupCosine(peak=1.0, total_steps=10, warmup_steps=2)
    >>> [round(float(schedule(step)), 3) for step in (0, 1, 2, 6, 10)]
    [0.5, 1.0, 1.0, 0.5, 0.0]
    """

    def __init__(self, peak: float, total_steps: int, warmup_steps: int = 0, name: str = "warmup_cosine"):
        super().__init__()
        check_number("peak", peak, above=0.0)
        check_whole("total_steps", total_steps, at_least=1)
        check_whole("warmup_steps", warmup_steps, at_least=0)
        if warmup_steps >= total_steps:
            raise ValueError(f"warmup_steps must be below total_steps ({total_steps}); given: {warmup_steps}.")
        self.peak = peak
        self.total_steps = total_steps
        self.warmup_steps = warmup_steps
        self.name = name

    def __call__(self, step):
        step = ops.cast(step, "int32")
        rising = ops.cast(step + 1, "float32") / max(self.warmup_steps, 1)
        left = ops.cast(self.total_steps - step, "float32") / (self.total_steps - self.warmup_steps)
        # (1 + cos x) / 2 = sin((pi - x) / 2)^2. The sum would cancel at the end of the training, where the rate is
        # 1e-6 of the peak or less: no digit of float32 is left.
        falling = ops.square(ops.sin(0.5 * math.pi * ops.clip(left, 0.0, 1.0)))
        return self.peak * ops.where(step < self.warmup_steps, rising, falling)

    def get_config(self):
        return {
            "peak": self.peak,
            "total_steps": self.total_steps,
            "warmup_steps": self.warmup_steps,
            "name": self.name,
        }


class _EpochSchedule(keras.optimizers.schedules.LearningRateSchedule):
    """A rate for each epoch, `step // steps_per_epoch`, that is computed in double precision beforehand."""

    def __init__(self, peak, steps_per_epoch, warmup_epochs, warmup_start, name):
        super().__init__()
        check_number("peak", peak, above=0.0)
        check_whole("steps_per_epoch", steps_per_epoch, at_least=1)
        check_whole("warmup_epochs", warmup_epochs, at_least=0)
        check_number("warmup_start", warmup_start, above=0.0, below=1.0)
        self.peak = peak
        self.steps_per_epoch = steps_per_epoch
        self.warmup_epochs = warmup_epochs
        self.warmup_start = warmup_start
        self.name = name

    def _set_rates(self, after_warmup: Sequence[float]) -> None:
        start, epochs = self.warmup_start, self.warmup_epochs
        warmup = [start + (1 - start) * epoch / epochs for epoch in range(epochs)]
        self.rates = (self.peak * np.array([*warmup, *after_warmup], "float64")).astype("float32")

    def __call__(self, step):
        epoch = ops.floor_divide(ops.cast(step, "int32"), self.steps_per_epoch)
        return ops.take(ops.convert_to_tensor(self.rates), ops.clip(epoch, 0, len(self.rates) - 1))

    def get_config(self):
        return {
            "peak": self.peak,
            "steps_per_epoch": self.steps_per_epoch,
            "warmup_epochs": self.warmup_epochs,
            "warmup_start": self.warmup_start,
            "name": self.name,
        }


@keras.saving.register_keras_serializable(package="keras_apa")
class EpochCosine(_EpochSchedule):
    """Linear warm-up, then half a cosine towards zero, changing once an epoch.

    For epoch `e = step // steps_per_epoch`, W warm-up and E epochs: `peak * (start + (1 - start) * e / W)` while
    e < W, then `peak / 2 * (1 + cos(pi * (e - W) / (E - W)))`. It is never 0; after the last epoch it stays.

    Args:
        peak: The highest rate.
        epochs: Epochs of the whole training.
        steps_per_epoch: Batches an epoch.
        warmup_epochs: A whole number, below `epochs`.
        warmup_start: The share of `peak` in the first epoch of the warm-up, between 0 and 1.

    Raises:
        ValueError: A number outside its range; a warm-up of a part of an epoch.

    Source: the authors' classification recipes (`utils.py`; PyTorch's LinearLR and CosineAnnealingLR).

    >>> schedule = EpochCosine(peak=1.0, epochs=4, steps_per_epoch=10, warmup_epochs=2)
    >>> [round(float(schedule(step)), 3) for step in (0, 9, 10, 20, 30, 39)]
    [0.01, 0.01, 0.505, 1.0, 0.5, 0.5]
    """

    def __init__(
        self,
        peak: float,
        epochs: int,
        steps_per_epoch: int,
        warmup_epochs: int = 0,
        warmup_start: float = 0.01,
        name: str = "epoch_cosine",
    ):
        super().__init__(peak, steps_per_epoch, warmup_epochs, warmup_start, name)
        check_whole("epochs", epochs, at_least=1)
        if warmup_epochs >= epochs:
            raise ValueError(f"warmup_epochs must be less than epochs ({epochs}); given: {warmup_epochs}.")
        self.epochs = epochs
        falling = epochs - warmup_epochs
        self._set_rates([(1 + math.cos(math.pi * epoch / falling)) / 2 for epoch in range(falling)])

    def get_config(self):
        return {**super().get_config(), "epochs": self.epochs}


@keras.saving.register_keras_serializable(package="keras_apa")
class MultiStep(_EpochSchedule):
    """Linear warm-up, then a rate that is multiplied by `gamma` at each milestone.

    For epoch `e = step // steps_per_epoch` and W warm-up epochs: `peak * (start + (1 - start) * e / W)` while e < W,
    then `peak * gamma ** n`, where n counts the milestones of at most e - W: they count from the end of the warm-up.

    Not `keras.optimizers.schedules.PiecewiseConstantDecay`, which counts in steps, has no warm-up, and keeps a rate for
    one step beyond its boundary.

    Args:
        peak: The highest rate.
        milestones: Rising whole numbers of epochs; none for a constant rate after the warm-up.
        steps_per_epoch: Batches an epoch.
        gamma: Factor of each milestone, above 0.
        warmup_epochs: A whole number.
        warmup_start: The share of `peak` in the first epoch of the warm-up, between 0 and 1.

    Raises:
        ValueError: A number outside its range; milestones that do not rise; a warm-up of a part of an epoch.

    Source: the authors' classification recipes (`utils.py`; PyTorch's LinearLR and MultiStepLR).

    >>> schedule = MultiStep(peak=1.0, milestones=(2, 3), steps_per_epoch=10, warmup_epochs=1)
    >>> [round(float(schedule(step)), 3) for step in (0, 10, 29, 30, 40, 99)]
    [0.01, 1.0, 1.0, 0.1, 0.01, 0.01]
    """

    def __init__(
        self,
        peak: float,
        milestones: Sequence[int],
        steps_per_epoch: int,
        gamma: float = 0.1,
        warmup_epochs: int = 0,
        warmup_start: float = 0.01,
        name: str = "multi_step",
    ):
        super().__init__(peak, steps_per_epoch, warmup_epochs, warmup_start, name)
        self.milestones = list(milestones)
        for earlier, milestone in zip([0, *self.milestones], self.milestones, strict=False):
            check_whole("each of milestones", milestone, at_least=earlier + 1)
        check_number("gamma", gamma, above=0.0)
        self.gamma = gamma
        last = self.milestones[-1] if self.milestones else 0
        self._set_rates([gamma ** sum(epoch >= each for each in self.milestones) for epoch in range(last + 1)])

    def get_config(self):
        return {**super().get_config(), "milestones": self.milestones, "gamma": self.gamma}


def build_optimizer(options: OptimizerOptions, *, epochs: int, steps_per_epoch: int) -> keras.optimizers.Optimizer:
    """The Keras optimiser that `options` describe, over `epochs * steps_per_epoch` batches.

    Batches are counted, also where `options.accumulation_steps` of them make one update: Keras's schedules see the
    number of batches. Keras also updates the moving average of the weights at every batch; the momentum that it is
    given is the `accumulation_steps`-th root, so that `options.ema_momentum` holds for an update.

    Which weights are not decayed is told to the optimizer afterwards: `keras_apa.no_weight_decay`.

    Raises:
        ValueError: the warm-up is as long as the training.

    >>> optimizer = build_optimizer(OptimizerOptions(schedule="epoch_cosine"), epochs=2, steps_per_epoch=5)
    >>> type(optimizer).__name__, round(float(optimizer.learning_rate), 3)
    ('TorchSGD', 0.1)
    """
    settings = {
        "learning_rate": _learning_rate(options, epochs, steps_per_epoch),
        "weight_decay": options.weight_decay,
        "global_clipnorm": options.clip_norm,
    }
    if options.accumulation_steps > 1:
        settings["gradient_accumulation_steps"] = options.accumulation_steps
    if options.ema_momentum is not None:
        settings.update(use_ema=True, ema_momentum=options.ema_momentum ** (1 / options.accumulation_steps))
    if options.name == "adamw":
        return keras.optimizers.AdamW(beta_1=options.momentum, **settings)
    return TorchSGD(momentum=options.momentum, nesterov=options.nesterov, **settings)


def _learning_rate(options, epochs, steps_per_epoch):
    if options.warmup_epochs >= epochs:
        raise OptionError(
            f"optimizer.warmup_epochs must be less than epochs ({epochs}); given: {options.warmup_epochs}."
        )
    peak = options.learning_rate
    if options.schedule == "cosine":
        warmup_steps = round(options.warmup_epochs * steps_per_epoch)
        return WarmupCosine(peak, epochs * steps_per_epoch, min(warmup_steps, epochs * steps_per_epoch - 1))
    warmup = {"warmup_epochs": int(options.warmup_epochs), "warmup_start": options.warmup_start}
    if options.schedule == "epoch_cosine":
        return EpochCosine(peak, epochs, steps_per_epoch, **warmup)
    if options.schedule == "constant" and not options.warmup_epochs:
        return peak
    return MultiStep(peak, options.milestones, steps_per_epoch, options.gamma, **warmup)
