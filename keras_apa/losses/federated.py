"""Federated loss: binary cross entropy over the classes of the batch and a random few others."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
from keras import ops
from numpy.typing import NDArray

from keras_apa._checks import check_bool, check_integer, check_name, check_number
from keras_apa._precision import at_least
from keras_apa._typing import Activation, ClassCountsLike, ClassReduction, Tensor, TensorLike
from keras_apa.class_counts import as_class_counts
from keras_apa.losses._common import (
    ACTIVATIONS,
    CLASS_REDUCTIONS,
    binary_losses,
    check_ignore_class,
    check_logit_range,
    ignore,
    read_targets,
    reduce_classes,
    row,
    weighed,
)
from keras_apa.losses.state import RandomLoss

# Of numbers that may be 0 the logarithm is taken; the smallest other number that the backends draw is 1e-7.
_SMALLEST_DRAW = 1e-8


def federated_loss(
    y_true: TensorLike,
    y_pred: TensorLike,
    image_counts: ClassCountsLike,
    num_sampled_classes: int = 50,
    power: float = 0.5,
    activation: Activation = "sigmoid",
    logit_range: tuple[float, float] = (-10.0, 10.0),
    background: bool = False,
    class_reduction: ClassReduction = "sum",
    ignore_class: int | None = -1,
    uniform: TensorLike | None = None,
) -> Tensor:
    """Binary cross entropy over a subset of the classes, the same for the whole batch.

    `sum_(j in S) -t_j log eta(z_j) - (1 - t_j) log(1 - eta(z_j))`

    `S` holds the classes that are present in the batch. It is filled up to `num_sampled_classes` by draws without
    replacement, with weights `image_counts ** power`. Background, if present, counts as one of the classes in `S`.

    Args:
        y_true: Integer labels `(...)` or `(..., 1)`, or one-hot, multi-hot or soft targets `(..., num_classes)`.
        y_pred: The logits `z`, of shape `(..., num_classes)`.
        image_counts: The number of images on which each class is annotated. A class without images is not drawn.
        num_sampled_classes: The size of `S`, unless more classes are present.
        power: The exponent of the weights.
        activation: `"sigmoid"`, or `"gumbel"` for `eta(z) = exp(-exp(-z))`.
        logit_range: The range to which the logits are clamped, for the Gumbel activation.
        background: Whether to accept the label `num_classes`, which stands for an all-zero target.
        class_reduction: `"sum"`, or `"mean"` over all `num_classes`.
        ignore_class: The loss of samples with this label is 0. `None` ignores no label.
        uniform: Random numbers from 0 to 1, one per class. The classes with the largest `log(uniform) / weight` are
            taken. By default, new numbers are drawn.

    Returns:
        The loss of each sample, a tensor of shape `(...)`.

    Source: Probabilistic two-stage detection (2021), section 5.1, and Detectron2's fast_rcnn.py (`use_fed_loss`).

    >>> loss = federated_loss([0, 1], [[0.0] * 3] * 2, image_counts=[5, 5, 5], num_sampled_classes=2)
    >>> [round(float(value), 4) for value in loss]  # the third class is not asked
    [1.3863, 1.3863]
    """
    counts = as_class_counts(image_counts, argument="image_counts", allow_zero=True)
    logits, targets, valid = read_targets(
        y_true, y_pred, counts.num_classes, ignore_class, background, source="image_counts"
    )
    if uniform is None:
        uniform = keras.random.uniform((counts.num_classes,))
    asked = _asked_classes(targets, valid, counts.counts**power * (counts.counts > 0), num_sampled_classes, uniform)
    positive, negative = binary_losses(logits, activation, logit_range)
    loss = asked * (weighed(targets, positive) + (1 - targets) * negative)
    return ignore(reduce_classes(loss, class_reduction), valid)


def _asked_classes(
    targets: Tensor,
    valid: Tensor | None,
    weights: NDArray[np.floating[Any]],
    num_sampled_classes: int,
    uniform: TensorLike,
) -> Tensor:
    """1 for the classes of the subset, 0 for the others; by ranks, since shapes are static."""
    positive = ops.reshape(targets > 0, (-1, weights.size))
    empty = ops.logical_not(ops.any(positive, axis=-1))
    if valid is not None:
        flat = ops.reshape(valid, (-1,))
        positive = ops.logical_and(positive, ops.expand_dims(flat, -1))
        empty = ops.logical_and(empty, flat)
    present = ops.any(positive, axis=0)
    wanted = num_sampled_classes - ops.sum(ops.cast(present, "int32")) - ops.cast(ops.any(empty), "int32")
    drawable = weights > 0
    # Efraimidis and Spirakis: the largest log(u) / w are draws without replacement with weights w.
    uniform = at_least(ops.cast(uniform, targets.dtype), _SMALLEST_DRAW)
    keys = ops.log(uniform) / row(np.where(drawable, weights / weights.max(initial=1e-30), 1.0), targets)
    candidate = ops.logical_and(ops.convert_to_tensor(drawable), ops.logical_not(present))
    keys = ops.where(candidate, keys, -np.inf)
    rank = ops.argsort(ops.argsort(-keys))
    drawn = ops.logical_and(candidate, ops.cast(rank, "int32") < wanted)
    return ops.cast(ops.logical_or(present, drawn), targets.dtype)


@keras.saving.register_keras_serializable(package="keras_apa")
class FederatedLoss(RandomLoss):
    """Federated loss: binary cross entropy over the classes of the batch and a random few others.

    `sum_(j in S) -t_j log eta(z_j) - (1 - t_j) log(1 - eta(z_j))`

    `S` holds the classes that are present in the batch. It is filled up to `num_sampled_classes` by draws without
    replacement, with weights `image_counts ** power`. Background, if present, counts as one of the classes in `S`.

    The random draws have a state. Call `keras_apa.losses.attach_loss_state(model, loss)` before `fit`. On JAX,
    training without this call is an error.

    Args:
        image_counts: The number of images on which each class is annotated, as `ClassCounts`, a sequence, an array or
            a mapping. A class without images (0) is not drawn.
        num_sampled_classes: The size of `S`, unless more classes are present; at most the number of classes. `None`
            is 50, or all classes if there are fewer.
        power: The exponent of the weights.
        activation: `"sigmoid"`, or `"gumbel"` for `eta(z) = exp(-exp(-z))`.
        logit_range: The range `(low, high)` to which the logits are clamped, for the Gumbel activation. There is no
            gradient outside it.
        background: Whether to accept the label `num_classes`, which stands for an all-zero target.
        class_reduction: `"sum"`, or `"mean"` over all classes, including those that were not drawn.
        seed: The seed of the random draws. `None` takes a different one each time.
        ignore_class: The loss of samples with this label is 0. A mean does not count them, and they add no class to
            `S`. `None` ignores no label.
        reduction, name, dtype: As for every Keras loss; the reduction is over samples. Half-precision inputs are
            computed in float32.

    Targets: integer labels `(...)` or `(..., 1)`, or one-hot, multi-hot or soft targets `(..., num_classes)`.
    Logits: `(..., num_classes)`.

    Raises:
        ValueError: If more classes are to be sampled than there are, if the logits or targets have the wrong width,
            or if an eager call has a label that does not exist. Compiled calls are described in `trusted_labels`.

    Source: Probabilistic two-stage detection (2021), section 5.1, and Detectron2's fast_rcnn.py (`use_fed_loss`).

    >>> loss = FederatedLoss(image_counts=[5, 5, 5], num_sampled_classes=2, seed=0)
    >>> round(float(loss([0, 1], [[0.0] * 3] * 2)), 4)
    1.3863
    """

    def __init__(
        self,
        image_counts: ClassCountsLike,
        num_sampled_classes: int | None = None,
        power: float = 0.5,
        activation: Activation = "sigmoid",
        logit_range: tuple[float, float] = (-10.0, 10.0),
        background: bool = False,
        class_reduction: ClassReduction = "sum",
        seed: int | None = None,
        ignore_class: int | None = -1,
        reduction: str | None = "sum_over_batch_size",
        name: str = "federated_loss",
        dtype: str | keras.DTypePolicy | None = None,
    ) -> None:
        super().__init__(reduction=reduction, name=name, dtype=dtype, ignore_class=ignore_class, seed=seed)
        self.image_counts = as_class_counts(image_counts, argument="image_counts", allow_zero=True)
        if num_sampled_classes is None:
            num_sampled_classes = min(50, self.image_counts.num_classes)
        self.num_sampled_classes = check_integer(
            num_sampled_classes, "num_sampled_classes", low=1, high=self.image_counts.num_classes
        )
        self.power = check_number(power, "power", low=0)
        self.activation = check_name(activation, ACTIVATIONS, "activation")
        self.logit_range = check_logit_range(logit_range)
        self.background = check_bool(background, "background")
        self.class_reduction = check_name(class_reduction, CLASS_REDUCTIONS, "class_reduction")
        check_ignore_class(ignore_class, self.image_counts.num_classes, background)

    def call(self, y_true: TensorLike, y_pred: TensorLike) -> Tensor:
        return federated_loss(
            y_true,
            y_pred,
            self.image_counts,
            num_sampled_classes=self.num_sampled_classes,
            power=self.power,
            activation=self.activation,
            logit_range=self.logit_range,
            background=self.background,
            class_reduction=self.class_reduction,
            ignore_class=self.ignore_class,
            uniform=self.draw((self.image_counts.num_classes,)),
        )

    def get_config(self) -> dict[str, Any]:
        return {
            **super().get_config(),
            "image_counts": self.image_counts.counts.tolist(),
            "num_sampled_classes": self.num_sampled_classes,
            "power": self.power,
            "activation": self.activation,
            "logit_range": list(self.logit_range),
            "background": self.background,
            "class_reduction": self.class_reduction,
        }
