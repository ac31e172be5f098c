"""What the losses share: reading targets, ignored samples, binary terms, checks of arguments, the base class.

Targets are integer labels if their rank is one less than that of the logits, or if their last axis is 1 and
that of the logits is not (as for `keras.losses.SparseCategoricalCrossentropy`). Targets of the logits' own
shape are dense: one-hot, multi-hot or soft.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, NamedTuple

import keras
import numpy as np
from keras import ops
from numpy.typing import ArrayLike, NDArray

from keras_apa import _keras_internals as internals
from keras_apa import ops as apa_ops
from keras_apa._checks import check_integer, check_name, check_number, check_targets_are_numbers
from keras_apa._kernels import constant
from keras_apa._kernels.losses import DIVIDES_IN_FLOAT32, unshared
from keras_apa._labels import nan_or_error, outside_message
from keras_apa._precision import at_least, at_most, is_float64, mean_loss, softplus
from keras_apa._typing import Activation, ClassCountsLike, ClassReduction, Tensor, TensorLike
from keras_apa.class_counts import ClassCounts, as_class_counts

ACTIVATIONS = ("sigmoid", "gumbel")
CLASS_REDUCTIONS = ("sum", "mean")

# Soft targets made in half precision may exceed 1 by that much.
_SOFT_TARGET_SLACK = 1e-2


class Targets(NamedTuple):
    """Logits and dense targets, both (..., num_classes) and in full precision; `valid` is None or (...)."""

    logits: Tensor
    targets: Tensor
    valid: Tensor | None


# ---------------------------------------------------------------------------------------------------
# Targets


def read_targets(
    y_true: TensorLike,
    y_pred: TensorLike,
    num_classes: int | None = None,
    ignore_class: int | None = -1,
    background: bool = False,
    kind: str = "soft",
    source: str = "class_counts",
) -> Targets:
    """Checks `y_true` against `y_pred` and turns it into dense targets.

    Args:
        y_true: Labels (...) or (..., 1), or dense targets (..., num_classes).
        y_pred: Logits (..., num_classes).
        num_classes: Width that the logits must have; None takes it from them.
        ignore_class: Label whose samples are left out, or None.
        background: Whether the label `num_classes` stands for an all-zero target.
        kind: What dense targets may be: `"soft"` (anything from 0 to 1), `"binary"` (0 or 1), `"one_hot"`
            (one 1 a row, or none where `background`).
        source: What told `num_classes`, for the error message.

    Returns:
        `Targets`. A row whose label is outside the allowed ones is NaN: where values can be seen, it is an
        error.
    """
    logits = full_precision(y_pred)
    check_targets_are_numbers(y_true)
    y_true = ops.convert_to_tensor(y_true)
    width = logits.shape[-1] if len(logits.shape) else None
    if len(logits.shape) == 0 or (num_classes is not None and width not in (None, num_classes)):
        raise ValueError(
            f"y_pred must be logits of shape (..., {num_classes}), since {source} has {num_classes} classes; "
            f"given: shape {tuple(logits.shape)}."
        )
    num_classes = width if num_classes is None else num_classes
    if num_classes is None:
        raise ValueError(f"y_pred must have a known number of classes; given: shape {tuple(logits.shape)}.")
    check_ignore_class(ignore_class, num_classes, background)
    y_true, is_labels = _drop_label_axis(y_true, logits, num_classes, source)
    if not is_labels:
        return Targets(logits, _read_dense(y_true, logits, background, kind), None)
    return _read_labels(y_true, logits, num_classes, ignore_class, background)


def _drop_label_axis(y_true: Tensor, logits: Tensor, num_classes: int, source: str) -> tuple[Tensor, bool]:
    rank = len(logits.shape)
    if len(y_true.shape) == rank and y_true.shape[-1] == 1 and num_classes != 1:
        y_true = ops.squeeze(y_true, axis=-1)
    is_labels = len(y_true.shape) == rank - 1
    if len(y_true.shape) not in (rank - 1, rank) or (not is_labels and y_true.shape[-1] not in (None, num_classes)):
        raise ValueError(
            f"y_true must be integer labels of shape {tuple(logits.shape[:-1])} or dense targets of the "
            f"shape of y_pred, {tuple(logits.shape)} ({num_classes} classes from {source}); "
            f"given: shape {tuple(y_true.shape)}."
        )
    for given, allowed in zip(y_true.shape, logits.shape[: rank - 1], strict=False):
        if given is not None and allowed is not None and given != allowed:
            raise ValueError(
                f"y_true must hold the samples of y_pred, of shape {tuple(logits.shape)}; "
                f"given: shape {tuple(y_true.shape)}."
            )
    return y_true, is_labels


def _read_labels(
    labels: Tensor, logits: Tensor, num_classes: int, ignore_class: int | None, background: bool
) -> Targets:
    labels = ops.cast(labels, logits.dtype)
    inside = ops.logical_and(labels >= 0, labels < num_classes)
    inside = ops.logical_and(inside, ops.equal(labels, ops.floor(labels)))
    allowed = inside
    if background:
        allowed = ops.logical_or(allowed, ops.equal(labels, num_classes))
    valid = None
    if ignore_class is not None:
        valid = ops.not_equal(labels, ignore_class)
        inside = ops.logical_and(inside, valid)
        allowed = ops.logical_or(allowed, ops.logical_not(valid))

    def message(bad: NDArray[Any] | None) -> str:
        return outside_message(bad, num_classes, background, ignore_class)

    nan = nan_or_error(ops.logical_not(allowed), labels, logits, message)
    one_hot = ops.one_hot(ops.cast(ops.where(inside, labels, 0), "int32"), num_classes, dtype=logits.dtype)
    targets = one_hot * ops.expand_dims(ops.cast(inside, logits.dtype), -1)
    # one_hot gives a plausible all-zero row for a label that does not exist.
    targets = ops.where(ops.expand_dims(allowed, -1), targets, nan)
    if valid is not None:
        logits = ops.where(ops.expand_dims(valid, -1), logits, 0.0)
    return Targets(logits, targets, valid)


def _read_dense(targets: Tensor, logits: Tensor, background: bool, kind: str) -> Tensor:
    targets = ops.cast(targets, logits.dtype)
    if kind == "soft":
        fine = ops.logical_and(targets >= -_SOFT_TARGET_SLACK, targets <= 1 + _SOFT_TARGET_SLACK)
        expected = "values from 0 to 1"
    else:
        fine = ops.logical_or(ops.equal(targets, 0), ops.equal(targets, 1))
        expected = "only 0 and 1 (soft or smoothed targets have no meaning for this loss)"
    fine = ops.all(fine, axis=-1, keepdims=True)
    if kind == "one_hot":
        total = ops.sum(targets, axis=-1, keepdims=True)
        single = ops.equal(total, 1)
        if background:
            single = ops.logical_or(single, ops.equal(total, 0))
        fine = ops.logical_and(fine, single)
        expected = f"{'at most' if background else 'exactly'} one 1 a sample and zeros, or be integer labels"

    shape = tuple(targets.shape)

    def message(bad: NDArray[Any] | None) -> str:
        given = "others" if bad is None else f"values from {np.min(bad):g} to {np.max(bad):g} in a row"
        return (
            f"y_true must have {expected} when it has the shape of y_pred, {shape}; given: {given}. "
            "(Samples are ignored by an integer label or by sample_weight.)"
        )

    return ops.where(fine, targets, nan_or_error(ops.logical_not(fine), targets, logits, message))


def ignore(loss: Tensor, valid: Tensor | None) -> Tensor:
    """Zero loss where a sample is not valid; the mask makes `keras.losses.Loss` leave it out of the mean."""
    if valid is None:
        return loss
    loss = ops.where(valid, loss, 0.0)
    internals.set_keras_mask(loss, valid)
    return loss


def smooth(targets: Tensor, label_smoothing: float) -> Tensor:
    """`(1 - e) t + e / C`; rows without any class (background) stay as they are."""
    if not check_number(label_smoothing, "label_smoothing", low=0, high=1):
        return targets
    uniform = ops.cast(ops.any(targets > 0, axis=-1, keepdims=True), targets.dtype) / targets.shape[-1]
    return (1.0 - label_smoothing) * targets + label_smoothing * uniform


def full_precision(x: TensorLike) -> Tensor:
    """Half precision (and whole numbers) to float32; float64 stays."""
    x = ops.convert_to_tensor(x)
    return x if is_float64(x) else ops.cast(x, "float32")


def row(values: ArrayLike, like: Tensor) -> Tensor:
    """One number a class, as a constant in the dtype of `like`."""
    return constant(np.asarray(values, "float64"), like)


# ---------------------------------------------------------------------------------------------------
# Binary terms


def binary_losses(
    logits: Tensor, activation: Activation = "sigmoid", logit_range: tuple[float, float] = (-10.0, 10.0)
) -> tuple[Tensor, Tensor]:
    """The losses of every logit as a positive and as a negative, `(-log eta, -log(1 - eta))`.

    `eta` is the sigmoid, or the Gumbel activation `exp(-exp(-q))` with `q` the logits clamped to
    `logit_range` (no gradient beyond it; the sigmoid is not clamped).
    """
    if check_name(activation, ACTIVATIONS, "activation") == "sigmoid":
        return softplus(-logits), softplus(logits)
    low, high = check_logit_range(logit_range)
    # Not ops.clip: at the ends themselves its gradient differs between backends.
    q = at_least(at_most(logits, high), low)
    return -apa_ops.log_gumbel(q), -apa_ops.log1m_gumbel(q)


def weighed(targets: Tensor, values: Tensor) -> Tensor:
    """`targets * values`, and 0 where the target is 0 though the value is infinite: a logit of -inf rules a class out.

    What is not asked for is left out before the product: 0 * inf is NaN, in the gradient too.
    """
    return targets * ops.where(ops.equal(targets, 0), 0.0, values)


def reduce_classes(values: Tensor, class_reduction: ClassReduction) -> Tensor:
    """Sum or mean over the last axis."""
    check_name(class_reduction, CLASS_REDUCTIONS, "class_reduction")
    return ops.sum(values, axis=-1) if class_reduction == "sum" else ops.mean(values, axis=-1)


# ---------------------------------------------------------------------------------------------------
# Checks of arguments


def check_logit_range(value: Iterable[float]) -> tuple[float, float]:
    """`value` as two floats, the first below the second; otherwise a ValueError."""
    try:
        low, high = (check_number(end, "logit_range") for end in value)
    except (TypeError, ValueError):
        low, high = 0.0, 0.0
    if not low < high:
        raise ValueError(f"logit_range must be two finite numbers (low, high) with low < high; given: {value!r}.")
    return low, high


def check_ignore_class(value: int | None, num_classes: int | None = None, background: bool = False) -> int | None:
    """`value` if it is None or a label, and not that of the background; otherwise a ValueError."""
    value = check_integer(value, "ignore_class", or_none=True)
    if background and num_classes is not None and value == num_classes:
        raise ValueError(f"ignore_class must not be the label of the background, {num_classes}; given: {value}.")
    return value


def check_seed(value: int | None) -> int | None:
    """`value` if it is None or a whole number of at least 0; otherwise a ValueError."""
    return check_integer(value, "seed", low=0, or_none=True)


def image_frequency(image_counts: ClassCountsLike, num_images: int) -> tuple[ClassCounts, NDArray[np.float64]]:
    """`ClassCounts`, and the share of the annotated images that show each class."""
    counts = as_class_counts(image_counts, argument="image_counts", allow_zero=True)
    num_images = check_integer(num_images, "num_images", low=1)
    most = counts._largest
    if most > num_images:
        raise ValueError(
            f"num_images must be the number of annotated images, at least the {most} of class "
            f"{int(np.argmax(counts.counts))}; given: {num_images}."
        )
    return counts, counts.counts / num_images


# ---------------------------------------------------------------------------------------------------
# Base class


class LongTailLoss(keras.losses.Loss):
    """`keras.losses.Loss` that computes in float32 (float64 if asked) whatever dtype it is given.

    Keras casts labels to a loss's dtype: in half precision, class 257 would become class 256. `corrects_prior` says
    whether the logits are free of the class prior already, so that `PriorCorrection` behind them would be the second.
    """

    corrects_prior = False

    def __init__(
        self, reduction: str | None, name: str, dtype: str | keras.DTypePolicy | None, ignore_class: int | None = -1
    ) -> None:
        policy = keras.dtype_policies.get(dtype or keras.config.floatx())
        self.ignore_class = check_ignore_class(ignore_class)
        full = "float64" if policy.compute_dtype == "float64" else "float32"
        super().__init__(name=name, reduction=reduction, dtype=full)

    def __call__(self, y_true: TensorLike, y_pred: TensorLike, sample_weight: TensorLike | None = None) -> Tensor:
        means = ("sum_over_batch_size", "mean", "mean_with_sample_weight")
        if self.dtype != "float64" or self.reduction not in means or not DIVIDES_IN_FLOAT32:
            return super().__call__(y_true, y_pred, unshared(sample_weight))
        masks = [internals.get_keras_mask(y_pred)]
        y_true, y_pred = (ops.convert_to_tensor(y, dtype=self.dtype) for y in (y_true, y_pred))
        losses = self.call(y_true, y_pred)
        masks = [mask for mask in (*masks, internals.get_keras_mask(losses)) if mask is not None]
        mask = masks[0] & masks[-1] if masks else None
        return mean_loss(losses, sample_weight, mask, self.reduction == "mean_with_sample_weight")

    @property
    def state(self) -> list[keras.Variable]:
        """The `keras.Variable`s that a call updates; empty for most losses."""
        return []

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "dtype": self.dtype, "ignore_class": self.ignore_class}
