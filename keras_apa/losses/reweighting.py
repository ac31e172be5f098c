"""Class-balanced losses: every sample weighs the inverse of its class's effective number of images."""

from __future__ import annotations

from typing import Any, Literal

import keras
from keras import ops

from keras_apa._checks import check_name, check_number
from keras_apa._typing import ClassCountsLike, ClassReduction, Tensor, TensorLike
from keras_apa.class_counts import as_class_counts
from keras_apa.losses._common import (
    CLASS_REDUCTIONS,
    LongTailLoss,
    binary_losses,
    ignore,
    read_targets,
    reduce_classes,
    row,
    smooth,
    weighed,
)

_BASES = ("softmax", "sigmoid", "focal")


def class_balanced_crossentropy(
    y_true: TensorLike,
    y_pred: TensorLike,
    class_counts: ClassCountsLike,
    beta: float = 0.9999,
    base: Literal["softmax", "sigmoid", "focal"] = "softmax",
    gamma: float = 2.0,
    label_smoothing: float = 0.0,
    class_reduction: ClassReduction = "sum",
    ignore_class: int | None = -1,
) -> Tensor:
    """A loss `L`, weighted by the class-balanced weight of the sample's class.

    `(sum_j t_j w_j) * L(z, t)` with `w_j` proportional to `(1 - beta) / (1 - beta ** n_j)`. The weights are scaled to
    sum to the number of classes `C`.

    `L` depends on `base`:

    * `"softmax"`: cross entropy.
    * `"sigmoid"`: binary cross entropy, reduced over classes.
    * `"focal"`: the focal loss `-t_j (1 - s_j)^gamma log s_j - (1 - t_j) s_j^gamma log(1 - s_j)` with
      `s = sigmoid(z)`, reduced over classes.

    Args:
        y_true: Integer labels `(...)` or `(..., 1)`, or one-hot, multi-hot or soft targets `(..., num_classes)`.
        y_pred: The logits `z`, of shape `(..., num_classes)`.
        class_counts: The number of training images `n` of each class. Every count must be above 0.
        beta: From 0 (equal weights) to below 1 (towards `1 / n`).
        base: `"softmax"`, `"sigmoid"` or `"focal"`.
        gamma: The exponent of the focal loss.
        label_smoothing: The factor `e` of the smoothed targets `(1 - e) t + e / num_classes`. Only `L` uses them, not
            the weights.
        class_reduction: How to reduce over classes with sigmoid and focal, `"sum"` or `"mean"`.
        ignore_class: The loss of samples with this label is 0. `None` ignores no label.

    Returns:
        The loss of each sample, a tensor of shape `(...)`.

    Source: Class-Balanced Loss Based on Effective Number of Samples (CVPR 2019), Eqs. 4-10.

    >>> loss = class_balanced_crossentropy([0, 1], [[0.0, 0.0], [0.0, 0.0]], class_counts=[2, 1], beta=0.5)
    >>> [round(float(value), 4) for value in loss]  # 0.8 log(2), 1.2 log(2)
    [0.5545, 0.8318]
    """
    counts = as_class_counts(class_counts)
    check_name(base, _BASES, "base")
    logits, targets, valid = read_targets(y_true, y_pred, counts.num_classes, ignore_class)
    weight = ops.sum(targets * row(counts.class_balanced_weights(beta), logits), axis=-1)
    targets = smooth(targets, label_smoothing)
    if base == "softmax":
        loss = -ops.sum(weighed(targets, ops.log_softmax(logits, axis=-1)), axis=-1)
    else:
        positive, negative = binary_losses(logits)
        asked = weighed(targets, positive)
        if base == "focal" and gamma:
            # log(1 - s) = -negative and log(s) = -positive, stable where a power of s is not.
            asked, negative = asked * ops.exp(-gamma * negative), negative * ops.exp(-gamma * positive)
        loss = reduce_classes(asked + (1 - targets) * negative, class_reduction)
    return ignore(weight * loss, valid)


@keras.saving.register_keras_serializable(package="keras_apa")
class ClassBalancedCrossentropy(LongTailLoss):
    """Class-balanced loss: every sample weighs the inverse of its class's effective number of images.

    `(sum_j t_j w_j) * L(z, t)` with `w_j` proportional to `(1 - beta) / (1 - beta ** n_j)`. The weights are scaled to
    sum to the number of classes.

    `L` depends on `base`:

    * `base="softmax"`: cross entropy.
    * `"sigmoid"`: binary cross entropy, reduced over classes.
    * `"focal"`: the focal loss `-t_j (1 - s_j)^gamma log s_j - (1 - t_j) s_j^gamma log(1 - s_j)` with
      `s = sigmoid(z)`, reduced over classes.

    Args:
        class_counts: The number of training images `n` of each class, as `ClassCounts`, a sequence, an array or a
            mapping.
        beta: From 0 (equal weights) to below 1 (towards `1 / n`). The paper uses 0.9 to 0.9999.
        base: `"softmax"`, `"sigmoid"` or `"focal"`.
        gamma: The exponent of the focal loss, at least 0. The other bases do not use it.
        label_smoothing: The factor `e` of the smoothed targets `(1 - e) t + e / num_classes`, from 0 to 1. Only `L`
            uses them, not the weights.
        class_reduction: How to reduce over classes, `"sum"` or `"mean"`. Softmax has one term and takes only `"sum"`.
        ignore_class: The loss of samples with this label is 0, and a mean does not count them. `None` ignores no
            label.
        reduction, name, dtype: As for every Keras loss; the reduction is over samples. Half-precision inputs are
            computed in float32.

    Targets: integer labels `(...)` or `(..., 1)`, or one-hot, multi-hot or soft targets `(..., num_classes)`. A row
    without any class weighs 0, and a row with several classes weighs the sum of their weights.
    Logits: `(..., num_classes)`.

    Raises:
        ValueError: If a count is 0, if `beta` is outside `[0, 1)`, if the base is unknown, if the logits or targets
            have the wrong width, or if a label in an eager call is outside `0..num_classes - 1`. Compiled calls are
            described in `trusted_labels`.

    Source: Class-Balanced Loss Based on Effective Number of Samples (CVPR 2019), Eqs. 4-10.

    >>> loss = ClassBalancedCrossentropy(class_counts=[2, 1], beta=0.5)
    >>> round(float(loss([0, 1], [[0.0, 0.0], [0.0, 0.0]])), 4)
    0.6931
    """

    def __init__(
        self,
        class_counts: ClassCountsLike,
        beta: float = 0.9999,
        base: Literal["softmax", "sigmoid", "focal"] = "softmax",
        gamma: float = 2.0,
        label_smoothing: float = 0.0,
        class_reduction: ClassReduction = "sum",
        ignore_class: int | None = -1,
        reduction: str | None = "sum_over_batch_size",
        name: str = "class_balanced_crossentropy",
        dtype: str | keras.DTypePolicy | None = None,
    ) -> None:
        super().__init__(reduction=reduction, name=name, dtype=dtype, ignore_class=ignore_class)
        self.class_counts = as_class_counts(class_counts)
        self.beta = check_number(beta, "beta", low=0, high=1, open_high=True)
        self.base = check_name(base, _BASES, "base")
        self.gamma = check_number(gamma, "gamma", low=0)
        self.label_smoothing = check_number(label_smoothing, "label_smoothing", low=0, high=1)
        self.class_reduction = check_name(class_reduction, CLASS_REDUCTIONS, "class_reduction")
        if base == "softmax" and class_reduction != "sum":
            raise ValueError(f'class_reduction must be "sum" with base="softmax"; given: {class_reduction!r}.')

    def call(self, y_true: TensorLike, y_pred: TensorLike) -> Tensor:
        return class_balanced_crossentropy(
            y_true,
            y_pred,
            self.class_counts,
            beta=self.beta,
            base=self.base,
            gamma=self.gamma,
            label_smoothing=self.label_smoothing,
            class_reduction=self.class_reduction,
            ignore_class=self.ignore_class,
        )

    def get_config(self) -> dict[str, Any]:
        return {
            **super().get_config(),
            "class_counts": self.class_counts.counts.tolist(),
            "beta": self.beta,
            "base": self.base,
            "gamma": self.gamma,
            "label_smoothing": self.label_smoothing,
            "class_reduction": self.class_reduction,
        }
