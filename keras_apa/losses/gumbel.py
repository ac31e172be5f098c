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

    `sum_j t_j exp(-q_j) - (1 - t_j) log(1 - exp(-exp(-q_j)))`, where `q` are the logits clamped to `logit_range`.

    Args:
        y_true: Integer labels `(...)` or `(..., 1)`, or one-hot, multi-hot or soft targets `(..., num_classes)`.
        y_pred: The logits, of shape `(..., num_classes)`.
        logit_range: The range to which the logits are clamped. There is no gradient outside it.
        label_smoothing: The factor `e` of the smoothed targets `(1 - e) t + e / num_classes`. Rows of zeros
            (background) stay as they are.
        background: Whether to accept the label `num_classes`, which stands for an all-zero target.
        class_reduction: How to reduce over classes, `"sum"` or `"mean"`.
        ignore_class: The loss of samples with this label is 0. `None` ignores no label.

    Returns:
        The loss of each sample, a tensor of shape `(...)`.

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

    `sum_j t_j exp(-q_j) - (1 - t_j) log(1 - exp(-exp(-q_j)))`, where `q` are the logits clamped to `logit_range`.
    Values and gradients are exact inside the clamp. At inference, the probabilities are
    `keras_apa.ops.gumbel(logits)`.

    Args:
        logit_range: The range `(low, high)` to which the logits are clamped. There is no gradient outside it. GOL's
            code uses `(-4, 10)`, the later code of APA `(-10, 10)`.
        label_smoothing: The factor `e` of the smoothed targets `(1 - e) t + e / num_classes`, from 0 to 1. Background
            rows stay as they are.
        background: Whether to accept the label `num_classes`, which stands for an all-zero target.
        class_reduction: How to reduce over classes, `"sum"` or `"mean"`.
        ignore_class: The loss of samples with this label is 0, and a mean does not count them. `None` ignores no
            label.
        reduction, name, dtype: As for every Keras loss; the reduction is over samples. Half-precision inputs are
            computed in float32.

    Targets: integer labels `(...)` or `(..., 1)`, or one-hot, multi-hot or soft targets `(..., num_classes)`.
    Logits: `(..., num_classes)`.

    Raises:
        ValueError: If `logit_range` is not two numbers with `low < high`, if the targets have the wrong width, or if
            a label in an eager call is outside `0..num_classes - 1`. Compiled calls are described in
            `trusted_labels`.

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
