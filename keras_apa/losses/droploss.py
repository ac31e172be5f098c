"""DropLoss and the Gumbel Optimized Loss: rare classes are spared as negatives."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
from keras import ops

from keras_apa._checks import check_bool, check_name, check_number
from keras_apa._precision import at_least
from keras_apa._typing import Activation, ClassCountsLike, ClassReduction, Tensor, TensorLike
from keras_apa.losses._common import (
    ACTIVATIONS,
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


def drop_loss(
    y_true: TensorLike,
    y_pred: TensorLike,
    image_counts: ClassCountsLike,
    num_images: int,
    frequency_threshold: float,
    activation: Activation = "sigmoid",
    logit_range: tuple[float, float] = (-10.0, 10.0),
    background: bool = True,
    class_reduction: ClassReduction = "sum",
    ignore_class: int | None = -1,
    uniform: TensorLike | None = None,
) -> Tensor:
    """Binary cross entropy without the negatives of rare classes.

    `sum_j -t_j log eta(z_j) - w_j (1 - t_j) log(1 - eta(z_j))`

    Class `j` is rare if `image_counts_j / num_images < frequency_threshold`. The weight `w_j` is 1 for the other
    classes. For a rare class, it is 0 on foreground rows, and on background rows it is 0 with probability `1 - rho`.
    `rho` is the share of rare classes among the foreground labels of the batch. A batch without foreground drops
    nothing.

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
        uniform: Random numbers from 0 to 1, in the shape of `y_pred`. On a background row, a rare class is kept where
            its number is below `rho`. By default, new numbers are drawn.

    Returns:
        The loss of each sample, a tensor of shape `(...)`.

    Source: DropLoss for Long-Tail Instance Segmentation (AAAI 2021), Eqs. 4-6.

    >>> loss = drop_loss([0, 1], [[0.0, 0.0], [0.0, 0.0]], [90, 1], num_images=100, frequency_threshold=0.1)
    >>> [round(float(value), 4) for value in loss]  # the negative of class 1 is dropped from the first
    [0.6931, 1.3863]
    """
    counts, frequency = image_frequency(image_counts, num_images)
    logits, targets, valid = read_targets(
        y_true, y_pred, counts.num_classes, ignore_class, background, kind="binary", source="image_counts"
    )
    if uniform is None:
        uniform = keras.random.uniform(ops.shape(logits))
    uniform = ops.cast(uniform, logits.dtype)
    rare = row(frequency < frequency_threshold, logits)
    counted = targets if valid is None else targets * ops.expand_dims(ops.cast(valid, logits.dtype), -1)
    labels = ops.sum(counted)
    # Without labels above every draw. NaN, for a label that does not exist, stays NaN.
    rho = ops.where(ops.equal(labels, 0), 2.0, ops.sum(counted * rare) / at_least(labels, 1.0))
    foreground = ops.any(targets > 0, axis=-1, keepdims=True)
    dropped = ops.logical_or(foreground, uniform >= rho)
    keep = 1 - rare * ops.cast(dropped, logits.dtype) + 0 * rho
    positive, negative = binary_losses(logits, activation, logit_range)
    loss = weighed(targets, positive) + keep * (1 - targets) * negative
    return ignore(reduce_classes(loss, class_reduction), valid)


def gumbel_optimized_loss(
    y_true: TensorLike,
    y_pred: TensorLike,
    image_counts: ClassCountsLike,
    num_images: int,
    frequency_threshold: float,
    logit_range: tuple[float, float] = (-10.0, 10.0),
    background: bool = True,
    class_reduction: ClassReduction = "sum",
    ignore_class: int | None = -1,
    uniform: TensorLike | None = None,
) -> Tensor:
    """`drop_loss` with the Gumbel activation, `eta(z) = exp(-exp(-z))`.

    The arguments and the returned tensor are as in `drop_loss`, without `activation`.

    Source: Long-tailed Instance Segmentation using Gumbel Optimized Loss (ECCV 2022), section 4.

    >>> loss = gumbel_optimized_loss([0, 1], [[0.0, 0.0], [0.0, 0.0]], [90, 1], 100, frequency_threshold=0.1)
    >>> [round(float(value), 4) for value in loss]
    [1.0, 1.4587]
    """
    return drop_loss(
        y_true,
        y_pred,
        image_counts,
        num_images=num_images,
        frequency_threshold=frequency_threshold,
        activation="gumbel",
        logit_range=logit_range,
        background=background,
        class_reduction=class_reduction,
        ignore_class=ignore_class,
        uniform=uniform,
    )


@keras.saving.register_keras_serializable(package="keras_apa")
class DropLoss(RandomLoss):
    """DropLoss: binary cross entropy, summed over classes, without the negatives of rare classes.

    `sum_j -t_j log eta(z_j) - w_j (1 - t_j) log(1 - eta(z_j))`

    Class `j` is rare if `image_counts_j / num_images < frequency_threshold`. The weight `w_j` is 1 for the other
    classes. For a rare class, it is 0 on foreground rows, and on background rows it is 0 with probability `1 - rho`.
    `rho` is the share of rare classes among the foreground labels of the batch (under `tf.distribute`, of the
    replica's part of the batch). A batch without foreground drops nothing.

    The random draws have a state. Call `keras_apa.losses.attach_loss_state(model, loss)` before `fit`. On JAX,
    training without this call is an error.

    Args:
        image_counts: The number of images (not instances) on which each class is annotated, as `ClassCounts`, a
            sequence, an array or a mapping. 0 is allowed.
        num_images: The number of annotated images in the data set (LVIS v1: 99,388). This is not the sum of the
            counts.
        frequency_threshold: A class is rare if its share of the images is below this threshold (LVIS v1: 0.0011, 815
            classes).
        activation: `"sigmoid"`, or `"gumbel"` for `eta(z) = exp(-exp(-z))`.
        logit_range: The range `(low, high)` to which the logits are clamped, for the Gumbel activation. There is no
            gradient outside it.
        background: Whether to accept the label `num_classes`, which stands for an all-zero target.
        class_reduction: How to reduce over classes, `"sum"` or `"mean"`.
        seed: The seed of the random draws. `None` takes a different one each time.
        ignore_class: The loss of samples with this label is 0. A mean and `rho` do not count them. `None` ignores no
            label.
        reduction, name, dtype: As for every Keras loss; the reduction is over samples. Half-precision inputs are
            computed in float32.

    Targets: integer labels `(...)` or `(..., 1)`, or one-hot or multi-hot targets `(..., num_classes)`. Soft targets
    are an error, because the rule above only knows classes that are present or absent.
    Logits: `(..., num_classes)`.

    Raises:
        ValueError: If a class is on more images than `num_images`, if the logits or targets have the wrong width, or
            if an eager call has soft targets or a label outside `0..num_classes`. Compiled calls are described in
            `trusted_labels`.

    Source: DropLoss for Long-Tail Instance Segmentation (AAAI 2021), Eqs. 4-6.

    >>> loss = DropLoss(image_counts=[90, 1], num_images=100, frequency_threshold=0.1, seed=0)
    >>> round(float(loss([0, 1], [[0.0, 0.0], [0.0, 0.0]])), 4)
    1.0397
    """

    def __init__(
        self,
        image_counts: ClassCountsLike,
        num_images: int,
        frequency_threshold: float,
        activation: Activation = "sigmoid",
        logit_range: tuple[float, float] = (-10.0, 10.0),
        background: bool = True,
        class_reduction: ClassReduction = "sum",
        seed: int | None = None,
        ignore_class: int | None = -1,
        reduction: str | None = "sum_over_batch_size",
        name: str = "drop_loss",
        dtype: str | keras.DTypePolicy | None = None,
    ) -> None:
        super().__init__(reduction=reduction, name=name, dtype=dtype, ignore_class=ignore_class, seed=seed)
        self.image_counts, frequency = image_frequency(image_counts, num_images)
        self.num_images = int(num_images)
        self.frequency_threshold = check_number(frequency_threshold, "frequency_threshold", low=0)
        self.rare_classes = np.flatnonzero(frequency < self.frequency_threshold)
        self.activation = check_name(activation, ACTIVATIONS, "activation")
        self.logit_range = check_logit_range(logit_range)
        self.background = check_bool(background, "background")
        self.class_reduction = check_name(class_reduction, CLASS_REDUCTIONS, "class_reduction")
        check_ignore_class(ignore_class, self.image_counts.num_classes, background)

    def call(self, y_true: TensorLike, y_pred: TensorLike) -> Tensor:
        return drop_loss(
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
            uniform=self.draw_like(y_pred),
        )

    def get_config(self) -> dict[str, Any]:
        return {
            **super().get_config(),
            "image_counts": self.image_counts.counts.tolist(),
            "num_images": self.num_images,
            "frequency_threshold": self.frequency_threshold,
            "activation": self.activation,
            "logit_range": list(self.logit_range),
            "background": self.background,
            "class_reduction": self.class_reduction,
        }


@keras.saving.register_keras_serializable(package="keras_apa")
class GumbelOptimizedLoss(DropLoss):
    """GOL: `DropLoss` with the Gumbel activation, `eta(z) = exp(-exp(-z))`.

    At inference, the scores are `keras_apa.ops.gumbel(logits)`.

    Args:
        image_counts, num_images, ...: As in `DropLoss`, without `activation`. The detectors of the GOL paper use
            `logit_range=(-4, 10)`.

    The targets, logits and errors are as in `DropLoss`.

    Source: Long-tailed Instance Segmentation using Gumbel Optimized Loss (ECCV 2022), section 4.

    >>> loss = GumbelOptimizedLoss(image_counts=[90, 1], num_images=100, frequency_threshold=0.1, seed=0)
    >>> round(float(loss([0, 1], [[0.0, 0.0], [0.0, 0.0]])), 4)
    1.2293
    """

    def __init__(
        self,
        image_counts: ClassCountsLike,
        num_images: int,
        frequency_threshold: float,
        logit_range: tuple[float, float] = (-10.0, 10.0),
        background: bool = True,
        class_reduction: ClassReduction = "sum",
        seed: int | None = None,
        ignore_class: int | None = -1,
        reduction: str | None = "sum_over_batch_size",
        name: str = "gumbel_optimized_loss",
        dtype: str | keras.DTypePolicy | None = None,
    ) -> None:
        super().__init__(
            image_counts,
            num_images,
            frequency_threshold,
            activation="gumbel",
            logit_range=logit_range,
            background=background,
            class_reduction=class_reduction,
            seed=seed,
            ignore_class=ignore_class,
            reduction=reduction,
            name=name,
            dtype=dtype,
        )

    def get_config(self) -> dict[str, Any]:
        config = super().get_config()
        del config["activation"]
        return config
