"""How a function with a hand-written gradient is registered with each backend, and how a compiled step refuses its
targets; the only backend-specific code.

`keras.ops.custom_gradient` is not used: on PyTorch its closure is cut off from the graph (no second
derivative, no `torch.func.vmap`), and its calling convention differs between backends.
"""

import keras

_BACKEND = keras.backend.backend()

if _BACKEND == "jax":
    from keras_apa._kernels.jax import differentiable, is_hidden, num_replicas, refuse, softplus_and_sigmoid
elif _BACKEND == "tensorflow":
    from keras_apa._kernels.tensorflow import differentiable, is_hidden, num_replicas, refuse, softplus_and_sigmoid
elif _BACKEND == "torch":
    from keras_apa._kernels.torch import differentiable, is_hidden, num_replicas, refuse, softplus_and_sigmoid
else:
    raise ImportError(f"keras_apa needs the Keras backend tensorflow, jax or torch; KERAS_BACKEND is {_BACKEND!r}.")

__all__ = ["differentiable", "is_hidden", "num_replicas", "refuse", "softplus_and_sigmoid"]
