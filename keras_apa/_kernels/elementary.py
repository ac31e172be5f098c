"""What backends share: elementwise pieces, which XLA can fuse and whose operations every format of a model has."""

from __future__ import annotations

from collections.abc import Callable

from keras import ops
from numpy.typing import ArrayLike

from keras_apa._typing import Tensor


def softplus_and_sigmoid(u: Tensor, log1p: Callable[[Tensor], Tensor] | None = None) -> tuple[Tensor, Tensor]:
    """`softplus(u)` and `sigmoid(u)` from one exponential and one logarithm.

    The branches are chosen by `where`, not by `abs` and `maximum`, whose derivatives at `u = 0` would make the second
    derivatives of the activations wrong there.
    """
    positive = u >= 0.0
    e = ops.exp(ops.where(positive, -u, u))
    softplus = ops.where(positive, u, 0.0) + (log1p or ops.log1p)(e)
    return softplus, ops.where(positive, 1.0, e) / (1.0 + e)


def constant(values: ArrayLike, like: Tensor) -> Tensor:
    """An array as a tensor in the dtype of `like`."""
    return ops.convert_to_tensor(values, dtype=like.dtype)


def plain_log1p(x: Tensor) -> Tensor:
    """`log(1 + x)` of operations that every format has, exact near 0 too.

    ONNX, LiteRT and OpenVINO have no log1p. Their converters write `log(1 + x)`, which is 0 below 6e-8, or an operation
    that no runtime knows. From -1/2 to 1 it is the series of `2 atanh(x / (2 + x))`, exact in float32.
    """
    s = x / (x + 2.0)
    square = s * s
    series = 0.0
    for denominator in (15, 13, 11, 9, 7, 5, 3):
        series = square * (series + 1.0 / denominator)
    near = ops.logical_and(x >= -0.5, x <= 1.0)
    return ops.where(near, 2.0 * s * (1.0 + series), ops.log(ops.where(near, 1.0, 1.0 + x)))
