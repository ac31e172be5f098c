"""What a loss has to know of Keras's own arithmetic on each backend."""

from __future__ import annotations

import keras
from keras import ops

from keras_apa._typing import TensorLike

_ON_TORCH = keras.backend.backend() == "torch"

__all__ = ["DIVIDES_IN_FLOAT32", "unshared"]

# Whether Keras divides the sum of a loss of float64 in float32.
DIVIDES_IN_FLOAT32 = _ON_TORCH


def unshared(weights: TensorLike | None) -> TensorLike | None:
    """Sample weights that Keras may multiply by a mask in place; gradients reach those that were given.

    On PyTorch a copy: Keras would change the caller's tensor, or the memory of a NumPy array.
    """
    return ops.copy(weights) if _ON_TORCH and weights is not None else weights
