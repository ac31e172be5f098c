"""Seesaw loss: a softmax whose negatives are weighed by class counts and by the present scores."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
from keras import ops

from keras_apa._checks import check_bool, check_integer, check_number
from keras_apa._precision import at_least, at_most
from keras_apa._typing import ClassCountsLike, Tensor, TensorLike
from keras_apa.class_counts import as_class_counts
from keras_apa.losses._common import check_ignore_class, full_precision, ignore, read_targets, weighed
from keras_apa.losses.state import StatefulLoss


def seesaw_loss(
    y_true: TensorLike,
    y_pred: TensorLike,
    class_counts: TensorLike,
    p: float = 0.8,
    q: float = 2.0,
    eps: float = 0.01,
    objectness: bool = False,
    ignore_class: int | None = -1,
) -> Tensor:
    """Seesaw loss, `-log(exp(z_i) / sum_j S_ij exp(z_j))` for the class `i` of the sample.

    `S_ij = M_ij C_ij` for `j != i`, otherwise 1. The mitigation is `M_ij = min(1, n_j / n_i) ** p`, with counts `n`
    of at least 1. The compensation is `C_ij = max(1, s_j / max(s_i, eps)) ** q`, where `s` is the softmax of the
    logits. No gradient goes through `S`.

    Args:
        y_true: Integer labels `(...)` or `(..., 1)`, or one-hot targets `(..., num_classes)`.
        y_pred: The logits `z`, of shape `(..., num_classes)`, or `(..., num_classes + 2)` with `objectness`.
        class_counts: The counts `n`, a tensor or an array of shape `(num_classes,)`.
        p: The exponent of the mitigation.
        q: The exponent of the compensation.
        eps: The smallest score to divide by.
        objectness: Whether two more channels, object and background, follow the classes. Their cross entropy is added
            to the loss. The label `num_classes` is background and has no class term.
        ignore_class: The loss of samples with this label is 0. `None` ignores no label.

    Returns:
        The loss of each sample, a tensor of shape `(...)`.

    Source: Seesaw Loss for Long-Tailed Instance Segmentation (CVPR 2021), Eqs. 3-9.

    >>> loss = seesaw_loss([1, 0], [[0.0, 0.0], [0.0, 0.0]], class_counts=[1.0, 4.0], p=1.0)
    >>> [round(float(value), 4) for value in loss]  # log(1 + 1/4), log(1 + 1)
    [0.2231, 0.6931]
    """
    counts = at_least(full_precision(class_counts), 1.0)
    logits, classes, targets, valid = _read(y_true, y_pred, counts.shape[0], objectness, ignore_class)
    loss = _class_term(classes, targets, ops.cast(counts, classes.dtype), p, q, eps)
    if objectness:
        foreground = ops.sum(targets, axis=-1)
        logs = ops.log_softmax(logits[..., -2:], axis=-1)
        loss = loss - weighed(foreground, logs[..., 0]) - weighed(1 - foreground, logs[..., 1])
    return ignore(loss, valid)


def _read(
    y_true: TensorLike, y_pred: TensorLike, num_classes: int, objectness: bool, ignore_class: int | None
) -> tuple[Tensor, Tensor, Tensor, Tensor | None]:
    logits = full_precision(y_pred)
    channels = num_classes + 2 if objectness else num_classes
    if len(logits.shape) == 0 or logits.shape[-1] not in (None, channels):
        raise ValueError(
            f"y_pred must have {channels} channels ({num_classes} classes"
            f"{', object and background' if objectness else ''}); given: shape {tuple(logits.shape)}."
        )
    classes, targets, valid = read_targets(
        y_true,
        logits[..., :num_classes],
        num_classes,
        ignore_class,
        background=objectness,
        kind="one_hot",
        source="the loss",
    )
    return logits, classes, targets, valid


def _class_term(logits: Tensor, targets: Tensor, counts: Tensor, p: float, q: float, eps: float) -> Tensor:
    own_count = at_least(ops.sum(targets * counts, axis=-1, keepdims=True), 1.0)
    log_weight = p * at_most(ops.log(counts) - ops.log(own_count), 0.0)
    scores = ops.stop_gradient(ops.softmax(logits, axis=-1))
    own_score = at_least(ops.sum(targets * scores, axis=-1, keepdims=True), eps)
    log_weight = log_weight + q * ops.log(at_least(scores / own_score, 1.0))
    adjusted = logits + ops.stop_gradient(log_weight * (1 - targets))
    return -ops.sum(weighed(targets, ops.log_softmax(adjusted, axis=-1)), axis=-1)


@keras.saving.register_keras_serializable(package="keras_apa")
class SeesawLoss(StatefulLoss):
    """Seesaw loss: a softmax whose negatives are weighed by class counts and by the present scores.

    `-log(exp(z_i) / sum_j S_ij exp(z_j))`, `S_ij = min(1, n_j / n_i)^p * max(1, s_j / max(s_i, eps))^q` for `j != i`,
    otherwise 1. `n` are the counts of the labels so far, this batch included, and at least 1. `s` is the softmax of
    the logits.

    The counts are state (`cumulative_counts`). Call `keras_apa.losses.attach_loss_state(model, loss)` before `fit`.
    On JAX, training without this call is an error.

    The loss counts samples of weight 0, but not ignored samples. If it is attached to the model, it counts in
    training only. If not, it also counts in `evaluate` and in the validation of `fit`, because a Keras loss cannot
    tell them from training. A balanced validation set then hides the long tail from the counts. If you know the
    training counts, pass them as `class_counts`: the loss then counts nothing and has no state.

    Args:
        num_classes: The number of classes, without background. You may leave it out if you pass `class_counts`.
        p: The exponent of the mitigation, at least 0.
        q: The exponent of the compensation, at least 0.
        eps: The smallest score to divide by, above 0.
        objectness: Whether two more channels, object and background, follow the classes. Their cross entropy is added
            to the loss. The label `num_classes` is background and has no class term. Scores are then
            `softmax(classes) * softmax(last two)[0]`.
        class_counts: Fixed counts to use instead of those seen so far, as `ClassCounts`, a sequence, an array or a
            mapping.
        ignore_class: The loss of samples with this label is 0, and a mean does not count them. `None` ignores no
            label.
        reduction, name, dtype: As for every Keras loss. Half-precision inputs are computed in float32. A mean divides
            both terms by the number of samples, background included.

    Targets: integer labels `(...)` or `(..., 1)`, or one-hot targets `(..., num_classes)`. Soft targets are an error,
    because the weights depend on the one class of the sample.
    Logits: `(..., num_classes)`, or `(..., num_classes + 2)` with `objectness`.

    Raises:
        ValueError: If neither `num_classes` nor `class_counts` is given, if the logits or targets have the wrong
            width, or if an eager call has soft targets or a label that does not exist. Compiled calls are described
            in `trusted_labels`.

    Source: Seesaw Loss for Long-Tailed Instance Segmentation (CVPR 2021), Eqs. 3-9.

    >>> loss = SeesawLoss(num_classes=2)
    >>> round(float(loss([0, 0], [[0.0, 0.0], [0.0, 0.0]])), 4)  # log(1 + (1/2) ** 0.8)
    0.4538
    >>> [float(count) for count in loss.cumulative_counts.value]
    [2.0, 0.0]
    """

    def __init__(
        self,
        num_classes: int | None = None,
        p: float = 0.8,
        q: float = 2.0,
        eps: float = 0.01,
        objectness: bool = False,
        class_counts: ClassCountsLike | None = None,
        ignore_class: int | None = -1,
        reduction: str | None = "sum_over_batch_size",
        name: str = "seesaw_loss",
        dtype: str | keras.DTypePolicy | None = None,
    ) -> None:
        super().__init__(reduction=reduction, name=name, dtype=dtype, ignore_class=ignore_class)
        if num_classes is None and class_counts is None:
            raise ValueError("num_classes must be given where class_counts are not; given: None.")
        if num_classes is not None:
            num_classes = check_integer(num_classes, "num_classes", low=1)
        self.class_counts = None
        if class_counts is not None:
            self.class_counts = as_class_counts(class_counts, num_classes, allow_zero=True)
            num_classes = self.class_counts.num_classes
        assert num_classes is not None  # one of the two is given
        self.num_classes = num_classes
        self.p = check_number(p, "p", low=0)
        self.q = check_number(q, "q", low=0)
        self.eps = check_number(eps, "eps", low=0, open_low=True)
        self.objectness = check_bool(objectness, "objectness")
        check_ignore_class(ignore_class, num_classes, objectness)
        if self.class_counts is None:
            self.cumulative_counts = keras.Variable(
                np.zeros(num_classes, "float32"),
                dtype="float32",
                trainable=False,
                autocast=False,
                # Replicas of tf.distribute count apart; only ratios of counts matter.
                aggregation="mean",
                name="cumulative_counts",
            )

    @property
    def state(self) -> list[keras.Variable]:
        """The counts; empty if they are fixed."""
        return [] if self.class_counts is not None else [self.cumulative_counts]

    def call(self, y_true: TensorLike, y_pred: TensorLike) -> Tensor:
        if self.class_counts is not None:
            counts = ops.convert_to_tensor(self.class_counts.counts.astype(self.dtype))
        else:
            counts = self._count(y_true, y_pred)
        return seesaw_loss(
            y_true,
            y_pred,
            counts,
            p=self.p,
            q=self.q,
            eps=self.eps,
            objectness=self.objectness,
            ignore_class=self.ignore_class,
        )

    def _count(self, y_true: TensorLike, y_pred: TensorLike) -> Tensor:
        if not self.in_training:
            return self.cumulative_counts.value
        self.check_state()
        _, _, targets, valid = _read(y_true, y_pred, self.num_classes, self.objectness, self.ignore_class)
        # A label that does not exist makes this batch's loss NaN, not the counts of all later ones.
        seen = ops.logical_not(ops.isnan(targets))
        if valid is not None:
            seen = ops.logical_and(seen, ops.expand_dims(valid, -1))
        seen = ops.where(seen, targets, 0.0)
        batch = ops.sum(ops.reshape(seen, (-1, self.num_classes)), axis=0)
        self.cumulative_counts.assign(self.cumulative_counts.value + ops.cast(batch, "float32"))
        return self.cumulative_counts.value

    def get_config(self) -> dict[str, Any]:
        return {
            **super().get_config(),
            "num_classes": self.num_classes,
            "p": self.p,
            "q": self.q,
            "eps": self.eps,
            "objectness": self.objectness,
            "class_counts": None if self.class_counts is None else self.class_counts.counts.tolist(),
        }
