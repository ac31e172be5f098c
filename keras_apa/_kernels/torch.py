"""PyTorch: `torch.autograd.Function`. Works eagerly, compiled, under `torch.func.vmap` and for second derivatives."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from numpy.typing import ArrayLike, NDArray

from keras_apa._typing import Tensor


def differentiable(value: Callable[..., Tensor], gradient: Callable[..., tuple[Tensor, ...]]) -> Callable[..., Tensor]:
    """Return `value(*tensors)`, whose gradients are `gradient(upstream, *tensors)`, one for each tensor."""

    class Function(torch.autograd.Function):
        generate_vmap_rule = True

        @staticmethod
        def forward(*inputs: Tensor) -> Tensor:
            return value(*inputs)

        @staticmethod
        def setup_context(ctx: Any, inputs: tuple[Tensor, ...], output: Tensor) -> None:
            # Only the inputs are kept: the gradient recomputes what it needs, and so can be differentiated again.
            ctx.save_for_backward(*inputs)

        @staticmethod
        def backward(ctx: Any, upstream: Tensor) -> tuple[Tensor, ...]:
            return tuple(gradient(upstream, *ctx.saved_tensors))

    def function(*inputs: Tensor) -> Tensor:
        # A traced graph would call the class back, which another runtime does not have.
        return value(*inputs) if is_converting() else Function.apply(*inputs)

    return function


def is_converting() -> bool:
    """Whether a model is traced for another runtime, whose softplus may be `log(1 + exp(x))`, 0 for small numbers."""
    return torch.compiler.is_exporting() or torch.onnx.is_in_onnx_export() or torch.jit.is_tracing()


def num_replicas() -> int:
    """Replicas that a synchronized batch statistic is summed over; 1, since Keras has none on PyTorch."""
    return 1


def is_hidden(tensor: Tensor) -> bool:
    """Whether `torch.compile` is tracing: reading a value then would not fail, but split the graph."""
    return torch.compiler.is_compiling()


def softplus_and_sigmoid(u: Tensor) -> tuple[Tensor, Tensor]:
    """`softplus(u)` and `sigmoid(u)`: run eagerly, each operation is a pass over memory, so the built-in ones."""
    # Above the threshold softplus(u) is u itself: 2e-9 off at PyTorch's own 20, which is nothing in float32 only.
    threshold = 40.0 if u.dtype == torch.float64 else 20.0
    return torch.nn.functional.softplus(u, threshold=threshold), torch.sigmoid(u)


def constant(values: ArrayLike, like: Tensor) -> Tensor:
    """An array as a tensor in the dtype of `like`: torch.compile breaks its graph where Keras asks for its dtype."""
    return torch.as_tensor(values, dtype=like.dtype, device=like.device)


def refuse(wrong: Tensor, given: Tensor, predictions: Tensor, message: Callable[[NDArray[Any] | None], str]) -> Tensor:
    """NaN, behind an assertion that none of `wrong` is true; it reads no value, and so does not split the graph."""
    torch._assert_async(torch.logical_not(torch.any(wrong)), message(None))
    return float("nan")
