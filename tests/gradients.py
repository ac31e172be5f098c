"""Values and gradients of a tensor function on whichever backend Keras runs."""

from __future__ import annotations

from collections.abc import Callable

import keras
import numpy as np
from keras import ops


def value_and_gradient(fn: Callable, *arrays, jit: bool = False) -> tuple[np.ndarray, list[np.ndarray]]:
    """The value of `fn(*arrays)` and the gradient of the sum of its output, as numpy arrays.

    `fn` maps tensors to one tensor of any shape. Each array keeps its dtype and gets a gradient of its
    own shape; zeros where `fn` does not depend on it. With `jit`, JAX compiles `fn` in one piece, which is quicker
    than operation by operation if there are hundreds.
    """
    tensors = [ops.convert_to_tensor(array) for array in arrays]
    backend = keras.backend.backend()
    if backend == "tensorflow":
        import tensorflow as tf

        with tf.GradientTape() as tape:
            tape.watch(tensors)
            value = ops.convert_to_tensor(fn(*tensors))
            total = ops.sum(value)
        gradients = tape.gradient(total, tensors, unconnected_gradients=tf.UnconnectedGradients.ZERO)
    elif backend == "jax":
        import jax

        def total(*args):
            value = ops.convert_to_tensor(fn(*args))
            return ops.sum(value), value

        differentiate = jax.value_and_grad(total, argnums=tuple(range(len(tensors))), has_aux=True)
        (_, value), gradients = (jax.jit(differentiate) if jit else differentiate)(*tensors)
    elif backend == "torch":
        import torch

        tensors = [tensor.detach().clone().requires_grad_(True) for tensor in tensors]
        value = ops.convert_to_tensor(fn(*tensors))
        if value.requires_grad:
            gradients = torch.autograd.grad(value.sum(), tensors, allow_unused=True)
        else:
            gradients = [None] * len(tensors)
        gradients = [torch.zeros_like(t) if g is None else g for t, g in zip(tensors, gradients, strict=True)]
        value = value.detach()
    else:
        raise ValueError(f"no gradients for the Keras backend {backend!r}")
    return ops.convert_to_numpy(value), [ops.convert_to_numpy(gradient) for gradient in gradients]
