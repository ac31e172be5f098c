"""Gumbel cross entropy: binary cross entropy whose probability is the Gumbel activation `exp(-exp(-q))`."""

from __future__ import annotations

from typing import Any

import keras

from keras_apa._checks import check_bool, check_name, check_number
from keras_apa._typing import ClassReduction, Tensor, TensorLike
from keras_apa.losses._common import (
    CLASS_REDUCTIONS,
    LongTailLoss,
    binary_losses,
    check_logit_range,
    ignore,
    read_targets,
    reduce_classes,
    smooth,
)


def gumbel_crossentropy(
    y_true: TensorLike,
    y_pred: TensorLike,
    logit_range: tuple[float, float] = (-10.0, 10.0),
    label_smoothing: float = 0.0,
    background: bool = False,
    class_reduction: ClassReduction = "sum",
    ignore_class: int | None = -1,
) -> Tensor:
    """Binary cross entropy of the Gumbel activation.

    `sum_j t_j exp(-q_j) - (1 - t_j) log(1 - exp(-exp(-q_j)))`, with `q` the logits clamped to
    `logit_range`.

    Args:
        y_true: Integer labels `(...)` or `(..., 1)`, or one-hot, multi-hot or soft targets `(...,
            num_classes)`.
        y_pred: Logits, shape `(..., num_classes)`.
        logit_range: Clamp of the logits; no gradient beyond it.
        label_smoothing: `e` in `(1 - e) t + e / num_classes`; rows of zeros (background) are left alone.
        background: Whether the label `num_classes` is allowed, for an all-zero target.
        class_reduction: `"sum"` or `"mean"` over classes.
        ignore_class: Label whose samples are left out, or None.

    Returns:
        One value a sample, shape `(...)`.

    Source: Long-tailed Instance Segmentation using Gumbel Optimized Loss (ECCV 2022), Eqs. 4 and 6.

    >>> loss = gumbel_crossentropy([1], [[0.0, 2.0]])
    >>> [round(float(value), 4) for value in loss]  # -log(1 - 1/e) + exp(-2)
    [0.594]
    """
    logits, targets, valid = read_targets(
        y_true, y_pred, ignore_class=ignore_class, background=background, source="y_pred"
    )
    targets = smooth(targets, label_smoothing)
    positive, negative = binary_losses(logits, "gumbel", logit_range)
    return ignore(reduce_classes(targets * positive + (1 - targets) * negative, class_reduction), valid)


@keras.saving.register_keras_serializable(package="keras_apa")
class GumbelCrossentropy(LongTailLoss):
    """Binary cross entropy, summed over classes, whose probability is the Gumbel activation `exp(-exp(-q))`.

    `sum_j t_j exp(-q_j) - (1 - t_j) log(1 - exp(-exp(-q_j)))`, with `q` the logits clamped to `logit_range`.
    Values and gradients are exact inside the clamp; at inference, probabilities are
    `keras_apa.ops.gumbel(logits)`.

    Args:
        logit_range: Clamp `(low, high)` of the logits, which get no gradient beyond it. GOL's code has `(-4,
            10)`, the later code of APA `(-10, 10)`.
        label_smoothing: `e` in `(1 - e) t + e / num_classes`, from 0 to 1; background rows are left alone.
        background: Whether the label `num_classes` is allowed, for an all-zero target.
        class_reduction: `"sum"` or `"mean"` over classes.
        ignore_class: Label whose samples weigh 0 and are not counted by a mean, or None.
        reduction, name, dtype: As for every Keras loss, over samples; half precision is computed in float32.

    Targets: integer labels `(...)` or `(..., 1)`, or one-hot, multi-hot or soft targets `(..., num_classes)`.
    Logits: `(..., num_classes)`.

    Raises:
        ValueError: A `logit_range` that is none, targets of the wrong width, a label outside `0..num_classes
            - 1` in an eager call (compiled, see `trusted_labels`).

    Source: Long-tailed Instance Segmentation using Gumbel Optimized Loss (ECCV 2022), Eqs. 4 and 6.

    >>> loss = GumbelCrossentropy()
    >>> round(float(loss([1], [[0.0, 2.0]])), 4)
    0.594
    """

    def __init__(
        self,
        logit_range: tuple[float, float] = (-10.0, 10.0),
        label_smoothing: float = 0.0,
        background: bool = False,
        class_reduction: ClassReduction = "sum",
        ignore_class: int | None = -1,
        reduction: str | None = "sum_over_batch_size",
        name: str = "gumbel_crossentropy",
        dtype: str | keras.DTypePolicy | None = None,
    ) -> None:
        super().__init__(reduction=reduction, name=name, dtype=dtype, ignore_class=ignore_class)
        self.logit_range = check_logit_range(logit_range)
        self.label_smoothing = check_number(label_smoothing, "label_smoothing", low=0, high=1)
        self.background = check_bool(background, "background")
        self.class_reduction = check_name(class_reduction, CLASS_REDUCTIONS, "class_reduction")

    def call(self, y_true: TensorLike, y_pred: TensorLike) -> Tensor:
        return gumbel_crossentropy(
            y_true,
            y_pred,
            logit_range=self.logit_range,
            label_smoothing=self.label_smoothing,
            background=self.background,
            class_reduction=self.class_reduction,
            ignore_class=self.ignore_class,
        )

    def get_config(self) -> dict[str, Any]:
        return {
            **super().get_config(),
            "logit_range": list(self.logit_range),
            "label_smoothing": self.label_smoothing,
            "background": self.background,
            "class_reduction": self.class_reduction,
        }
