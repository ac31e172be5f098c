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
        y_pred: The logits `z`, of shape `(..., num_classes)`.
        image_counts: The number of images on which each class is annotated.
        num_images: The number of annotated images in the data set.
        frequency_threshold: A class is rare if its share of the images is below this threshold.
        activation: `"sigmoid"`, or `"gumbel"` for `eta(z) = exp(-exp(-z))`.
        logit_range: The range to which the logits are clamped, for the Gumbel activation.
        background: Whether to accept the label `num_classes`, which stands for an all-zero target.
        class_reduction: How to reduce over classes, `"sum"` or `"mean"`.
        ignore_class: The loss of samples with this label is 0. `None` ignores no label.

    Returns:
        The loss of each sample, a tensor of shape `(...)`.

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

    `-sum_j t_j log(exp(z_j) / sum_k w_k exp(z_k))` with `w_k = 1 - beta T(f_k) (1 - t_k)`

    `T` is 1 for a rare class (`image_counts_k / num_images < frequency_threshold`), otherwise 0. `beta` is 1 with
    probability `gamma`, otherwise 0. It is drawn for each sample and class.

    Args:
        y_true: Integer labels `(...)` or `(..., 1)`, or one-hot targets `(..., num_classes)`.
        y_pred: The logits `z`, of shape `(..., num_classes)`.
        image_counts: The number of images of each class.
        num_images: The number of images in the data set.
        frequency_threshold: A class is rare if its share of the images is below this threshold.
        gamma: The probability with which a rare class is left out.
        ignore_class: The loss of samples with this label is 0. `None` ignores no label.
        uniform: Random numbers from 0 to 1, in the shape of `y_pred`. `beta = 1` where a number is below `gamma`. By
            default, new numbers are drawn.

    Returns:
        The loss of each sample, a tensor of shape `(...)`.

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
    """Equalization Loss: rare classes are ignored as negatives of other classes.

    A class is rare if `image_counts / num_images < frequency_threshold`.

    * `activation="sigmoid"` or `"gumbel"`: binary cross entropy, summed over classes,
      `sum_j -t_j log eta(z_j) - w_j (1 - t_j) log(1 - eta(z_j))`. `w_j = 0` for rare classes on rows that have a
      class, otherwise 1. Nothing is drawn.
    * `activation="softmax"`: cross entropy `-sum_j t_j log(exp(z_j) / sum_k w_k exp(z_k))`. Each rare negative class
      is left out of the denominator (`w_k = 0`) with probability `gamma`. The random draws have a state: call
      `keras_apa.losses.attach_loss_state(model, loss)` before `fit`. On JAX, training without this call is an error.

    Args:
        image_counts: The number of images on which each class is annotated, as `ClassCounts`, a sequence, an array or
            a mapping. 0 is allowed.
        num_images: The number of annotated images in the data set. For classification, this is the sum of the counts.
        frequency_threshold: A class is rare if its share of the images is below this threshold.
        activation: `"sigmoid"`, `"gumbel"` (`eta(z) = exp(-exp(-z))`) or `"softmax"`.
        gamma: The probability with which a rare class is left out. Only softmax uses it.
        logit_range: The range `(low, high)` to which the logits are clamped. There is no gradient outside it. Only
            Gumbel uses it.
        background: Whether to accept the label `num_classes`, which stands for an all-zero target. Softmax does not
            take it.
        class_reduction: How to reduce over classes, `"sum"` or `"mean"`. Softmax has one term and takes only `"sum"`.
        seed: The seed of the random draws. `None` takes a different one each time.
        ignore_class: The loss of samples with this label is 0, and a mean does not count them. `None` ignores no
            label.
        reduction, name, dtype: As for every Keras loss; the reduction is over samples. Half-precision inputs are
            computed in float32.

    Targets: integer labels `(...)` or `(..., 1)`, or one-hot (with sigmoid and Gumbel also multi-hot) targets
    `(..., num_classes)`. Soft targets are an error, because a class is either a negative or not.
    Logits: `(..., num_classes)`.

    Raises:
        ValueError: If a class is on more images than `num_images`, if `background` is set with softmax, if the logits
            or targets have the wrong width, or if an eager call has soft targets or a label that does not exist.
            Compiled calls are described in `trusted_labels`.

    Source: Equalization Loss for Long-Tailed Object Recognition (CVPR 2020), Eqs. 3-5 (sigmoid), 8-10 (softmax).

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
        """The state of the seed generator. Only the softmax form draws numbers and has one."""
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
