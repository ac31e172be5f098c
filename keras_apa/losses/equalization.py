"""Equalization Loss in its sigmoid, Gumbel and softmax forms: rare classes are ignored as negatives."""

from __future__ import annotations

from typing import Any, Literal

import keras
import numpy as np
from keras import ops

from keras_apa._checks import check_bool, check_name, check_number
from keras_apa._typing import Activation, ClassCountsLike, ClassReduction, Tensor, TensorLike
from keras_apa.losses._common import (
    CLASS_REDUCTIONS,
    binary_losses,
    check_ignore_class,
    check_logit_range,
    ignore,
    image_frequency,
    read_targets,
    reduce_classes,
    row,
    weighed,
)
from keras_apa.losses.state import RandomLoss

_ACTIVATIONS = ("sigmoid", "gumbel", "softmax")


def equalization_loss(
    y_true: TensorLike,
    y_pred: TensorLike,
    image_counts: ClassCountsLike,
    num_images: int,
    frequency_threshold: float,
    activation: Activation = "sigmoid",
    logit_range: tuple[float, float] = (-10.0, 10.0),
    background: bool = False,
    class_reduction: ClassReduction = "sum",
    ignore_class: int | None = -1,
) -> Tensor:
    """Binary cross entropy without the negatives of rare classes on foreground rows.

    `sum_j -t_j log eta(z_j) - w_j (1 - t_j) log(1 - eta(z_j))` with `w_j = 0` if the row has a class and
    `image_counts_j / num_images < frequency_threshold`, otherwise 1.

    Args:
        y_true: Integer labels `(...)` or `(..., 1)`, or one-hot or multi-hot targets `(..., num_classes)`.
        y_pred: Logits `z`, shape `(..., num_classes)`.
        image_counts: Images on which each class is annotated.
        num_images: Annotated images of the data set.
        frequency_threshold: Share of images below which a class is rare.
        activation: `"sigmoid"`, or `"gumbel"` for `eta(z) = exp(-exp(-z))`.
        logit_range: Clamp of the logits for the Gumbel activation.
        background: Whether the label `num_classes` is allowed, for an all-zero target.
        class_reduction: `"sum"` or `"mean"` over classes.
        ignore_class: Label whose samples are left out, or None.

    Returns:
        One value a sample, shape `(...)`.

    Source: Equalization Loss for Long-Tailed Object Recognition (CVPR 2020), Eqs. 3-5.

    >>> loss = equalization_loss([0, 1], [[0.0, 0.0], [0.0, 0.0]], [90, 1], 100, frequency_threshold=0.1)
    >>> [round(float(value), 4) for value in loss]  # the negative of class 1 is left out of the first
    [0.6931, 1.3863]
    """
    counts, frequency = image_frequency(image_counts, num_images)
    logits, targets, valid = read_targets(
        y_true, y_pred, counts.num_classes, ignore_class, background, kind="binary", source="image_counts"
    )
    rare = row(frequency < frequency_threshold, logits)
    foreground = ops.cast(ops.any(targets > 0, axis=-1, keepdims=True), logits.dtype)
    positive, negative = binary_losses(logits, activation, logit_range)
    loss = weighed(targets, positive) + (1 - rare * foreground) * (1 - targets) * negative
    return ignore(reduce_classes(loss, class_reduction), valid)


def softmax_equalization_loss(
    y_true: TensorLike,
    y_pred: TensorLike,
    image_counts: ClassCountsLike,
    num_images: int,
    frequency_threshold: float,
    gamma: float = 0.9,
    ignore_class: int | None = -1,
    uniform: TensorLike | None = None,
) -> Tensor:
    """Cross entropy of a softmax whose denominator leaves out rare classes, each with probability `gamma`.

    `-sum_j t_j log(exp(z_j) / sum_k w_k exp(z_k))` with `w_k = 1 - beta T(f_k) (1 - t_k)`: `T` is 1 for a
    rare class (`image_counts_k / num_images < frequency_threshold`), `beta` 1 with probability `gamma`,
    otherwise 0, drawn for each sample and class.

    Args:
        y_true: Integer labels `(...)` or `(..., 1)`, or one-hot targets `(..., num_classes)`.
        y_pred: Logits `z`, shape `(..., num_classes)`.
        image_counts: Images of each class.
        num_images: Images of the data set.
        frequency_threshold: Share of images below which a class is rare.
        gamma: Probability with which a rare class is left out.
        ignore_class: Label whose samples are left out, or None.
        uniform: The random draw, from 0 to 1, in the shape of `y_pred`: `beta = 1` where it is below `gamma`.
            Default: drawn anew.

    Returns:
        One value a sample, shape `(...)`.

    Source: Equalization Loss for Long-Tailed Object Recognition (CVPR 2020), Eqs. 8-10.

    >>> loss = softmax_equalization_loss([0, 1], [[0.0, 0.0], [0.0, 0.0]], [90, 1], 100, 0.1, gamma=1.0)
    >>> [round(float(value), 4) for value in loss]
    [0.0, 0.6931]
    """
    counts, frequency = image_frequency(image_counts, num_images)
    logits, targets, valid = read_targets(
        y_true, y_pred, counts.num_classes, ignore_class, kind="one_hot", source="image_counts"
    )
    if uniform is None:
        uniform = keras.random.uniform(ops.shape(logits))
    rare = row(frequency < frequency_threshold, logits) > 0
    left_out = ops.logical_and(rare, ops.cast(uniform, logits.dtype) < gamma)
    left_out = ops.logical_and(left_out, ops.logical_not(targets > 0))
    log_denominator = ops.logsumexp(ops.where(left_out, -1e30, logits), axis=-1, keepdims=True)
    return ignore(ops.sum(weighed(targets, log_denominator - logits), axis=-1), valid)


@keras.saving.register_keras_serializable(package="keras_apa")
class EqualizationLoss(RandomLoss):
    """Equalization Loss: rare classes are ignored where they are somebody else's negative.

    A class is rare if `image_counts / num_images < frequency_threshold`.

    * `activation="sigmoid"` or `"gumbel"`: binary cross entropy, summed over classes,
      `sum_j -t_j log eta(z_j) - w_j (1 - t_j) log(1 - eta(z_j))`, with `w_j = 0` for rare classes on rows
      that have a class, otherwise 1. Nothing is drawn.
    * `activation="softmax"`: cross entropy `-sum_j t_j log(exp(z_j) / sum_k w_k exp(z_k))`, where each rare
      negative class is left out of the denominator (`w_k = 0`) with probability `gamma`. The draw is state:
      call `keras_apa.losses.attach_loss_state(model, loss)` before `fit` (on JAX it is an error not to).

    Args:
        image_counts: Images on which each class is annotated: `ClassCounts`, a sequence, an array or a
            mapping. 0 is allowed.
        num_images: Annotated images of the data set; for classification, the sum of the counts.
        frequency_threshold: Share of images below which a class is rare.
        activation: `"sigmoid"`, `"gumbel"` (`eta(z) = exp(-exp(-z))`) or `"softmax"`.
        gamma: Softmax only: probability with which a rare class is left out.
        logit_range: Gumbel only: clamp `(low, high)` of the logits; no gradient beyond it.
        background: Whether the label `num_classes` is allowed, for an all-zero target (not with softmax).
        class_reduction: `"sum"` or `"mean"` over classes (softmax: `"sum"`, there is one term).
        seed: Seed of the draws; None for a different one each time.
        ignore_class: Label whose samples weigh 0 and are not counted by a mean, or None.
        reduction, name, dtype: As for every Keras loss, over samples; half precision is computed in float32.

    Targets: integer labels `(...)` or `(..., 1)`, or one-hot (with sigmoid and Gumbel also multi-hot) targets
    `(..., num_classes)`. Soft targets are an error: a class is either somebody else's negative or not.
    Logits: `(..., num_classes)`.

    Raises:
        ValueError: A class on more images than there are, `background` with softmax, logits or targets of the
            wrong width, and in an eager call soft targets or a label that does not exist (compiled, see
            `trusted_labels`).

    Source: Equalization Loss for Long-Tailed Object Recognition (CVPR 2020), Eqs. 3-5 (sigmoid), 8-10
    (softmax).

    >>> loss = EqualizationLoss(image_counts=[90, 1], num_images=100, frequency_threshold=0.1)
    >>> round(float(loss([0, 1], [[0.0, 0.0], [0.0, 0.0]])), 4)
    1.0397
    """

    def __init__(
        self,
        image_counts: ClassCountsLike,
        num_images: int,
        frequency_threshold: float,
        activation: Literal["sigmoid", "gumbel", "softmax"] = "sigmoid",
        gamma: float = 0.9,
        logit_range: tuple[float, float] = (-10.0, 10.0),
        background: bool = False,
        class_reduction: ClassReduction = "sum",
        seed: int | None = None,
        ignore_class: int | None = -1,
        reduction: str | None = "sum_over_batch_size",
        name: str = "equalization_loss",
        dtype: str | keras.DTypePolicy | None = None,
    ) -> None:
        super().__init__(reduction=reduction, name=name, dtype=dtype, ignore_class=ignore_class, seed=seed)
        self.image_counts, frequency = image_frequency(image_counts, num_images)
        self.num_images = int(num_images)
        self.frequency_threshold = check_number(frequency_threshold, "frequency_threshold", low=0)
        self.rare_classes = np.flatnonzero(frequency < self.frequency_threshold)
        self.activation = check_name(activation, _ACTIVATIONS, "activation")
        self.gamma = check_number(gamma, "gamma", low=0, high=1)
        self.logit_range = check_logit_range(logit_range)
        self.background = check_bool(background, "background")
        self.class_reduction = check_name(class_reduction, CLASS_REDUCTIONS, "class_reduction")
        check_ignore_class(ignore_class, self.image_counts.num_classes, background)
        if activation == "softmax" and background:
            raise ValueError(
                'background must be False with activation="softmax", which needs one class a sample; '
                "given: True. Give the background a channel and a count of its own."
            )
        if activation == "softmax" and class_reduction != "sum":
            raise ValueError(f'class_reduction must be "sum" with activation="softmax"; given: {class_reduction!r}.')

    @property
    def state(self) -> list[keras.Variable]:
        """The state of the seed generator of the softmax form, which alone draws numbers."""
        return super().state if self.activation == "softmax" else []

    def call(self, y_true: TensorLike, y_pred: TensorLike) -> Tensor:
        if self.activation == "softmax":
            return softmax_equalization_loss(
                y_true,
                y_pred,
                self.image_counts,
                num_images=self.num_images,
                frequency_threshold=self.frequency_threshold,
                gamma=self.gamma,
                ignore_class=self.ignore_class,
                uniform=self.draw_like(y_pred),
            )
        return equalization_loss(
            y_true,
            y_pred,
            self.image_counts,
            num_images=self.num_images,
            frequency_threshold=self.frequency_threshold,
            activation=self.activation,
            logit_range=self.logit_range,
            background=self.background,
            class_reduction=self.class_reduction,
            ignore_class=self.ignore_class,
        )

    def get_config(self) -> dict[str, Any]:
        return {
            **super().get_config(),
            "image_counts": self.image_counts.counts.tolist(),
            "num_images": self.num_images,
            "frequency_threshold": self.frequency_threshold,
            "activation": self.activation,
            "gamma": self.gamma,
            "logit_range": list(self.logit_range),
            "background": self.background,
            "class_reduction": self.class_reduction,
        }
