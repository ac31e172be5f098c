"""The only backend-specific code of keras_apa.

It registers functions with hand-written gradients, and lets a compiled step refuse its targets.

While a model is converted to ONNX, LiteRT or OpenVINO (`is_converting`), functions consist of operations that these
formats have.

`keras.ops.custom_gradient` is not used: on PyTorch its closure is cut off from the graph (no second
derivative, no `torch.func.vmap`), and its calling convention differs between backends.
"""

from __future__ import annotations

import keras
from keras import ops

from keras_apa._kernels import elementary
from keras_apa._typing import Tensor

_BACKEND = keras.backend.backend()

if _BACKEND == "jax":
    from keras_apa._kernels import jax as _backend
elif _BACKEND == "tensorflow":
    from keras_apa._kernels import tensorflow as _backend
elif _BACKEND == "torch":
    from keras_apa._kernels import torch as _backend
else:
    raise ImportError(f"KERAS_BACKEND must be tensorflow, jax or torch for keras_apa; given: {_BACKEND!r}.")

__all__ = [
    "constant",
    "differentiable",
    "expm1",
    "is_converting",
    "is_hidden",
    "is_on_cpu",
    "log1p",
    "num_replicas",
    "plain_log1p",
    "refuse",
    "softplus_and_sigmoid",
]

constant = _backend.constant
differentiable = _backend.differentiable
is_converting = _backend.is_converting
is_hidden = _backend.is_hidden
num_replicas = _backend.num_replicas
plain_log1p = elementary.plain_log1p
refuse = _backend.refuse


def softplus_and_sigmoid(u: Tensor) -> tuple[Tensor, Tensor]:
    """`softplus(u)` and `sigmoid(u)`."""
    if is_converting():
        return elementary.softplus_and_sigmoid(u, plain_log1p)
    return _backend.softplus_and_sigmoid(u)


def is_on_cpu(tensor: Tensor) -> bool:
    """Whether the values of a tensor that is not hidden can be read without waiting for another device."""
    return "cpu" in str(tensor.device).lower()


def log1p(x: Tensor) -> Tensor:
    """`log(1 + x)`, exact near 0."""
    return plain_log1p(x) if is_converting() else ops.log1p(x)


def expm1(x: Tensor) -> Tensor:
    """`exp(x) - 1`; rounded near 0 in a model that is converted."""
    return ops.exp(x) - 1.0 if is_converting() else ops.expm1(x)
