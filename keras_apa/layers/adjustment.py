"""Correction of logits for the class prior of the training data, at inference only."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any, Literal, TypeAlias

import keras
import numpy as np
from keras import ops
from numpy.typing import NDArray

from keras_apa._checks import check_name, check_number
from keras_apa._keras_internals import losses_of_calling_model
from keras_apa._typing import ClassCountsLike, Shape, Tensor
from keras_apa.class_counts import as_class_counts

Variant: TypeAlias = Literal["raw", "smooth", "rel", "normit", "gombit", "base2", "base10"]


def _normal_quantile(p: NDArray[np.float64]) -> NDArray[np.float64]:
    """Inverse of the standard normal distribution function (bisection in float64; no SciPy needed)."""
    from math import erfc, sqrt

    lower, upper = np.full(p.shape, -40.0), np.full(p.shape, 40.0)
    cdf = np.vectorize(lambda z: 0.5 * erfc(-z / sqrt(2)))
    for _ in range(80):
        middle = (lower + upper) / 2
        below = cdf(middle) < p
        lower, upper = np.where(below, middle, lower), np.where(below, upper, middle)
    return (lower + upper) / 2


# n: images of a class, N: of all classes. The vector is added to the logits.
VARIANTS: dict[str, Callable[[NDArray[np.float64], float], NDArray[np.float64]]] = {
    "raw": lambda n, N: np.log(N / n),
    "smooth": lambda n, N: np.log((N + 1) / (n + 1)) + 1,
    "rel": lambda n, N: np.log((N - n) / n),
    "normit": lambda n, N: -_normal_quantile(n / N),
    "gombit": lambda n, N: -np.log(-np.log1p(-n / N)),
    "base2": lambda n, N: np.log2(N / n),
    "base10": lambda n, N: np.log10(N / n),
}


def prior_correction(class_counts: ClassCountsLike, variant: Variant = "raw") -> NDArray[np.float64]:
    """The vector that `PriorCorrection` adds to the logits, a float64 array with one value per class.

    `n` is the number of images of a class and `N` the number of all images:

    * raw: `ln(N/n)`
    * smooth: `ln((N+1)/(n+1)) + 1`
    * rel: `ln((N-n)/n)`
    * normit: `-probit(n/N)`
    * gombit: `-ln(-ln(1 - n/N))`
    * base2 and base10: the logarithms of `N/n` to base 2 and 10

    Args:
        class_counts: The number of training images of each class. Every count must be above 0.
        variant: One of the names above.

    Returns:
        A float64 array of shape `(num_classes,)`.

    Raises:
        ValueError: If the variant is unknown, a count is below 1, or there is only one class.

    >>> from keras_apa.layers import prior_correction
    >>> prior_correction([50, 50], "base2")
    array([1., 1.])
    """
    check_name(variant, VARIANTS, "variant")
    counts = as_class_counts(class_counts).counts.astype("float64")
    if len(counts) < 2:
        raise ValueError(f"class_counts must have at least two classes; given: {len(counts)}.")
    return VARIANTS[variant](counts, counts.sum())


@keras.saving.register_keras_serializable(package="keras_apa")
class PriorCorrection(keras.layers.Layer):
    """Removes the training prior from logits at inference: `logits + tau * v(class_counts)`; identity in training.

    Put it behind the logits of a network that was trained with plain cross entropy. `predict`, `evaluate` and
    exported models then apply the correction. Do not use it with a Balanced loss, which corrects the logits already;
    the layer warns if the model is compiled with one.

    Args:
        class_counts: The number of training images of each class, as `ClassCounts`, a sequence or a mapping. Every
            count must be above 0.
        variant: `"raw"`, `"smooth"`, `"rel"`, `"normit"`, `"gombit"`, `"base2"` or `"base10"`. `"raw"` is `ln(N/n)`,
            known as PC-softmax or logit adjustment. `prior_correction` lists the formulas.
        tau: The factor of the correction.
        **kwargs: `name`, `dtype` and `trainable`, as for every `keras.layers.Layer`.

    Input shape: logits of shape `(..., classes)`.
    Output shape: the same as the input shape.

    Raises:
        ValueError: If a count is below 1, there is only one class, the variant is unknown, or the logits have another
            width.

    Source: Inverse Image Frequency (IIF, arXiv 2209.04861); Long-tail learning via logit adjustment (ICLR 2021).

    >>> from keras_apa.layers import PriorCorrection
    >>> layer = PriorCorrection([90, 10])
    >>> [round(float(v), 3) for v in layer(keras.ops.zeros((1, 2)))[0]]
    [0.105, 2.303]
    """

    def __init__(
        self, class_counts: ClassCountsLike, variant: Variant = "raw", tau: float = 1.0, **kwargs: Any
    ) -> None:
        super().__init__(**kwargs)
        self.class_counts = as_class_counts(class_counts)
        self.variant = variant
        self.tau = check_number(tau, "tau")
        self._vector = self.tau * prior_correction(self.class_counts, variant)
        self._checked = None

    def build(self, input_shape: Shape) -> None:
        if input_shape[-1] != len(self._vector):
            raise ValueError(
                f"inputs must be logits of the {len(self._vector)} classes of class_counts; "
                f"given: shape {tuple(input_shape)}."
            )
        super().build(input_shape)

    def call(self, inputs: Tensor, training: bool | None = None) -> Tensor:
        self._warn_if_corrected_twice()
        if training:
            return inputs
        return inputs + ops.convert_to_tensor(self._vector, dtype=inputs.dtype)

    def _warn_if_corrected_twice(self) -> None:
        losses = losses_of_calling_model(self)
        if losses is None or losses is self._checked:
            return
        self._checked = losses
        for loss in keras.tree.flatten(losses):
            if getattr(loss, "corrects_prior", False):
                warnings.warn(
                    f"{type(self).__name__} stands behind logits that are trained with {type(loss).__name__}: "
                    "the class prior is corrected twice. Use one of the two.",
                    stacklevel=2,
                )

    def compute_output_shape(self, input_shape: Shape) -> Shape:
        return input_shape

    def get_config(self) -> dict[str, Any]:
        return {
            **super().get_config(),
            "class_counts": [int(count) for count in self.class_counts.counts],
            "variant": self.variant,
            "tau": self.tau,
        }
