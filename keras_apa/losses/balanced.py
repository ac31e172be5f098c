"""Balanced Softmax and Balanced Sigmoid: cross entropy on logits shifted by the class prior."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import keras
import numpy as np
from keras import ops

from keras_apa._checks import check_bool, check_name, check_number
from keras_apa._typing import ClassCountsLike, ClassReduction, Tensor, TensorLike
from keras_apa.class_counts import as_class_counts
from keras_apa.losses._common import (
    CLASS_REDUCTIONS,
    LongTailLoss,
    binary_losses,
    check_ignore_class,
    ignore,
    read_targets,
    reduce_classes,
    row,
    smooth,
    weighed,
)

if TYPE_CHECKING:
    from keras_apa.class_counts import ClassCounts


def balanced_softmax_crossentropy(
    y_true: TensorLike,
    y_pred: TensorLike,
    class_counts: ClassCountsLike,
    tau: float = 1.0,
    label_smoothing: float = 0.0,
    ignore_class: int | None = -1,
) -> Tensor:
    """Cross entropy of the softmax in which class `j` weighs `n_j ** tau`.

    `-sum_j t_j * log(n_j^tau exp(z_j) / sum_k n_k^tau exp(z_k))`

    Args:
        y_true: Integer labels `(...)` or `(..., 1)`, or one-hot or soft targets `(..., num_classes)`.
        y_pred: The logits `z`, of shape `(..., num_classes)`.
        class_counts: The number of training images `n` of each class. Every count must be above 0.
        tau: The strength of the prior. 0 is plain cross entropy.
        label_smoothing: The factor `e` of the smoothed targets `(1 - e) t + e / num_classes`.
        ignore_class: The loss of samples with this label is 0. `None` ignores no label.

    Returns:
        The loss of each sample, a tensor of shape `(...)`.

    Source: Balanced Meta-Softmax (NeurIPS 2020), Eq. 4; `tau`: Long-tail learning via logit adjustment (ICLR 2021),
    Eq. 10.

    >>> loss = balanced_softmax_crossentropy([0, 1], [[0.0, 0.0], [0.0, 0.0]], class_counts=[3, 1])
    >>> [round(float(value), 4) for value in loss]  # -log(3/4), -log(1/4)
    [0.2877, 1.3863]
    """
    counts = as_class_counts(class_counts)
    logits, targets, valid = read_targets(y_true, y_pred, counts.num_classes, ignore_class)
    targets = smooth(targets, label_smoothing)
    adjusted = logits + row(tau * np.log(counts.prior), logits)
    return ignore(-ops.sum(weighed(targets, ops.log_softmax(adjusted, axis=-1)), axis=-1), valid)


def balanced_sigmoid_crossentropy(
    y_true: TensorLike,
    y_pred: TensorLike,
    class_counts: ClassCountsLike,
    tau: float = 1.0,
    label_smoothing: float = 0.0,
    background: bool = False,
    class_reduction: ClassReduction = "sum",
    ignore_class: int | None = -1,
) -> Tensor:
    """Binary cross entropy over all classes, on logits that are shifted by each class's odds.

    `sum_j -t_j log sigmoid(q_j) - (1 - t_j) log(1 - sigmoid(q_j))` with
    `q_j = z_j - tau * ln[(N/C) / n_j * (N - n_j) / (N - N/C)]`, where `N` is the sum of the counts and `C` the number
    of classes.

    Args:
        y_true: Integer labels `(...)` or `(..., 1)`, or one-hot, multi-hot or soft targets `(..., num_classes)`.
        y_pred: The logits `z`, of shape `(..., num_classes)`.
        class_counts: The number of training images `n` of each class. There must be at least two classes, and every
            count must be above 0.
        tau: The strength of the shift. 0 is plain binary cross entropy.
        label_smoothing: The factor `e` of the smoothed targets `(1 - e) t + e / num_classes`. Rows of zeros
            (background) stay as they are.
        background: Whether to accept the label `num_classes`, which stands for an all-zero target.
        class_reduction: How to reduce over classes, `"sum"` or `"mean"`.
        ignore_class: The loss of samples with this label is 0. `None` ignores no label.

    Returns:
        The loss of each sample, a tensor of shape `(...)`.

    Source: Balanced Activation for Long-tailed Visual Recognition, Eqs. 36, 37 and 46 (48 is its positive term).

    >>> loss = balanced_sigmoid_crossentropy([0, 1], [[0.0, 0.0], [0.0, 0.0]], class_counts=[3, 1])
    >>> [round(float(value), 4) for value in loss]  # -2 log(3/4), -2 log(1/4)
    [0.5754, 2.7726]
    """
    counts = _at_least_two(as_class_counts(class_counts))
    logits, targets, valid = read_targets(y_true, y_pred, counts.num_classes, ignore_class, background)
    targets = smooth(targets, label_smoothing)
    n, total = counts.counts.astype("float64"), float(counts.total)
    mean = total / counts.num_classes
    adjusted = logits - row(tau * np.log(mean / n * (total - n) / (total - mean)), logits)
    positive, negative = binary_losses(adjusted)
    return ignore(reduce_classes(weighed(targets, positive) + (1 - targets) * negative, class_reduction), valid)


def _at_least_two(counts: ClassCounts) -> ClassCounts:
    if counts.num_classes < 2:
        raise ValueError("class_counts must have at least two classes, since odds among one are infinite; given: one.")
    return counts


@keras.saving.register_keras_serializable(package="keras_apa")
class BalancedSoftmaxCrossentropy(LongTailLoss):
    """Balanced Softmax: cross entropy of the softmax in which class `j` weighs `n_j ** tau`.

    `-sum_j t_j * log(n_j^tau exp(z_j) / sum_k n_k^tau exp(z_k))`

    Use it in training only. At inference, use the logits as they are: a prior correction behind them would correct
    twice. With equal counts it equals `keras.losses.CategoricalCrossentropy`.

    Args:
        class_counts: The number of training images `n` of each class, as `ClassCounts`, a sequence, an array or a
            mapping.
        tau: The strength of the prior, at least 0. 0 is plain cross entropy.
        label_smoothing: The factor `e` of the smoothed targets `(1 - e) t + e / num_classes`, from 0 to 1.
        ignore_class: The loss of samples with this label is 0, and a mean does not count them. `None` ignores no
            label.
        reduction, name, dtype: As for every Keras loss. Half-precision inputs are computed in float32.

    Targets: integer labels `(...)` or `(..., 1)`, or one-hot or soft targets `(..., num_classes)`.
    Logits: `(..., num_classes)`.

    Raises:
        ValueError: If a count is 0, if the logits or targets have the wrong width, or if a label in an eager call is
            outside `0..num_classes - 1`. Compiled calls are described in `trusted_labels`.

    Source: Balanced Meta-Softmax (NeurIPS 2020), Eq. 4; `tau`: Long-tail learning via logit adjustment (ICLR 2021),
    Eq. 10.

    >>> loss = BalancedSoftmaxCrossentropy(class_counts=[3, 1])
    >>> round(float(loss([0, 1], [[0.0, 0.0], [0.0, 0.0]])), 4)
    0.837
    """

    corrects_prior = True

    def __init__(
        self,
        class_counts: ClassCountsLike,
        tau: float = 1.0,
        label_smoothing: float = 0.0,
        ignore_class: int | None = -1,
        reduction: str | None = "sum_over_batch_size",
        name: str = "balanced_softmax_crossentropy",
        dtype: str | keras.DTypePolicy | None = None,
    ) -> None:
        super().__init__(reduction=reduction, name=name, dtype=dtype, ignore_class=ignore_class)
        self.class_counts = as_class_counts(class_counts)
        self.tau = check_number(tau, "tau", low=0)
        self.label_smoothing = check_number(label_smoothing, "label_smoothing", low=0, high=1)

    def call(self, y_true: TensorLike, y_pred: TensorLike) -> Tensor:
        return balanced_softmax_crossentropy(
            y_true,
            y_pred,
            self.class_counts,
            tau=self.tau,
            label_smoothing=self.label_smoothing,
            ignore_class=self.ignore_class,
        )

    def get_config(self) -> dict[str, Any]:
        return {
            **super().get_config(),
            "class_counts": self.class_counts.counts.tolist(),
            "tau": self.tau,
            "label_smoothing": self.label_smoothing,
        }


@keras.saving.register_keras_serializable(package="keras_apa")
class BalancedSigmoidCrossentropy(LongTailLoss):
    """Balanced Sigmoid: binary cross entropy over all classes, on logits shifted by each class's odds.

    `sum_j -t_j log sigmoid(q_j) - (1 - t_j) log(1 - sigmoid(q_j))` with
    `q_j = z_j - tau * ln[(N/C) / n_j * (N - n_j) / (N - N/C)]`, where `N` is the sum of the counts and `C` the number
    of classes.

    Keras's own binary cross entropy averages over classes. To do the same here, set `class_reduction="mean"`.

    Args:
        class_counts: The number of training images `n` of each class, as `ClassCounts`, a sequence, an array or a
            mapping.
        tau: The strength of the shift, at least 0. 0 is plain binary cross entropy. The bound in the paper's
            Corollary 1 uses 1/4, its experiments use 1.
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
        ValueError: If a count is 0, if there is only one class, if the logits or targets have the wrong width, or if
            a label in an eager call is outside `0..num_classes - 1`. Compiled calls are described in
            `trusted_labels`.

    Source: Balanced Activation for Long-tailed Visual Recognition, Eqs. 36, 37 and 46 (48 is its positive term).

    >>> loss = BalancedSigmoidCrossentropy(class_counts=[3, 1])
    >>> round(float(loss([0, 1], [[0.0, 0.0], [0.0, 0.0]])), 4)
    1.674
    """

    corrects_prior = True

    def __init__(
        self,
        class_counts: ClassCountsLike,
        tau: float = 1.0,
        label_smoothing: float = 0.0,
        background: bool = False,
        class_reduction: ClassReduction = "sum",
        ignore_class: int | None = -1,
        reduction: str | None = "sum_over_batch_size",
        name: str = "balanced_sigmoid_crossentropy",
        dtype: str | keras.DTypePolicy | None = None,
    ) -> None:
        super().__init__(reduction=reduction, name=name, dtype=dtype, ignore_class=ignore_class)
        self.class_counts = _at_least_two(as_class_counts(class_counts))
        self.tau = check_number(tau, "tau", low=0)
        self.label_smoothing = check_number(label_smoothing, "label_smoothing", low=0, high=1)
        self.background = check_bool(background, "background")
        self.class_reduction = check_name(class_reduction, CLASS_REDUCTIONS, "class_reduction")
        check_ignore_class(ignore_class, self.class_counts.num_classes, background)

    def call(self, y_true: TensorLike, y_pred: TensorLike) -> Tensor:
        return balanced_sigmoid_crossentropy(
            y_true,
            y_pred,
            self.class_counts,
            tau=self.tau,
            label_smoothing=self.label_smoothing,
            background=self.background,
            class_reduction=self.class_reduction,
            ignore_class=self.ignore_class,
        )

    def get_config(self) -> dict[str, Any]:
        return {
            **super().get_config(),
            "class_counts": self.class_counts.counts.tolist(),
            "tau": self.tau,
            "label_smoothing": self.label_smoothing,
            "background": self.background,
            "class_reduction": self.class_reduction,
        }
