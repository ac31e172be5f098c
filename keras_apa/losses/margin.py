"""LDAM: cross entropy with a margin that is larger for rarer classes."""

from __future__ import annotations

from typing import Any

import keras
from keras import ops

from keras_apa._checks import check_number
from keras_apa._typing import ClassCountsLike, Tensor, TensorLike
from keras_apa.class_counts import as_class_counts
from keras_apa.losses._common import LongTailLoss, ignore, read_targets, row, weighed


def ldam(
    y_true: TensorLike,
    y_pred: TensorLike,
    class_counts: ClassCountsLike,
    max_margin: float = 0.5,
    scale: float = 30.0,
    ignore_class: int | None = -1,
) -> Tensor:
    """Cross entropy of `scale * z`, with a margin taken off the logit of the sample's class `i`.

    `-log softmax(scale * (z - margin_i onehot_i))_i`

    `margin_i = max_margin * (n_min / n_i) ** (1/4)`

    Args:
        y_true: Integer labels `(...)` or `(..., 1)`, or one-hot targets `(..., num_classes)`.
        y_pred: The cosines `z` from a normalised head, of shape `(..., num_classes)`.
        class_counts: The number of training images `n` of each class. Every count must be above 0.
        max_margin: The margin of the rarest class.
        scale: The factor of the cosines.
        ignore_class: The loss of samples with this label is 0. `None` ignores no label.

    Returns:
        The loss of each sample, a tensor of shape `(...)`.

    Source: Learning Imbalanced Datasets with Label-Distribution-Aware Margin Loss (NeurIPS 2019), Eqs. 10 and 13.

    >>> loss = ldam([0, 1], [[0.0, 0.0], [0.0, 0.0]], class_counts=[16, 1], scale=2.0)
    >>> [round(float(value), 4) for value in loss]  # log(1 + exp(0.5)), log(1 + exp(1))
    [0.9741, 1.3133]
    """
    counts = as_class_counts(class_counts)
    cosines, targets, valid = read_targets(y_true, y_pred, counts.num_classes, ignore_class, kind="one_hot")
    margin = row(max_margin * (counts.counts.min() / counts.counts) ** 0.25, cosines)
    log_probabilities = ops.log_softmax(scale * (cosines - margin * targets), axis=-1)
    return ignore(-ops.sum(weighed(targets, log_probabilities), axis=-1), valid)


@keras.saving.register_keras_serializable(package="keras_apa")
class LDAM(LongTailLoss):
    """Label-Distribution-Aware Margin loss: cross entropy with a margin that is larger for rarer classes.

    `-log softmax(scale * (z - margin_i onehot_i))_i` with `margin_i = max_margin * (n_min / n_i) ** (1/4)`, for the
    class `i` of the sample.

    `z` are cosines from a normalised head, such as `keras_apa.layers.NormalizedDense(use_bias=False)`. The `scale`
    belongs to the loss, not to the head.

    Args:
        class_counts: The number of training images `n` of each class, as `ClassCounts`, a sequence, an array or a
            mapping.
        max_margin: The margin of the rarest class, at least 0.
        scale: The factor of the cosines, above 0.
        ignore_class: The loss of samples with this label is 0, and a mean does not count them. `None` ignores no
            label.
        reduction, name, dtype: As for every Keras loss. Half-precision inputs are computed in float32.

    Targets: integer labels `(...)` or `(..., 1)`, or one-hot targets `(..., num_classes)`. Soft targets are an error,
    because the margin depends on the one class of the sample.
    Logits: `(..., num_classes)`.

    Raises:
        ValueError: If a count is 0, if the logits or targets have the wrong width, or if an eager call has soft
            targets or a label outside `0..num_classes - 1`. Compiled calls are described in `trusted_labels`.

    Source: Learning Imbalanced Datasets with Label-Distribution-Aware Margin Loss (NeurIPS 2019), Eqs. 10 and 13.

    >>> loss = LDAM(class_counts=[16, 1], scale=2.0)
    >>> round(float(loss([0, 1], [[0.0, 0.0], [0.0, 0.0]])), 4)
    1.1437
    """

    def __init__(
        self,
        class_counts: ClassCountsLike,
        max_margin: float = 0.5,
        scale: float = 30.0,
        ignore_class: int | None = -1,
        reduction: str | None = "sum_over_batch_size",
        name: str = "ldam",
        dtype: str | keras.DTypePolicy | None = None,
    ) -> None:
        super().__init__(reduction=reduction, name=name, dtype=dtype, ignore_class=ignore_class)
        self.class_counts = as_class_counts(class_counts)
        self.max_margin = check_number(max_margin, "max_margin", low=0)
        self.scale = check_number(scale, "scale", low=0, open_low=True)

    def call(self, y_true: TensorLike, y_pred: TensorLike) -> Tensor:
        return ldam(
            y_true,
            y_pred,
            self.class_counts,
            max_margin=self.max_margin,
            scale=self.scale,
            ignore_class=self.ignore_class,
        )

    def get_config(self) -> dict[str, Any]:
        return {
            **super().get_config(),
            "class_counts": self.class_counts.counts.tolist(),
            "max_margin": self.max_margin,
            "scale": self.scale,
        }
