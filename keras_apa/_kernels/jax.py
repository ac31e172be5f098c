"""JAX: `jax.custom_vjp`. Works under jit, vmap and repeated reverse mode; forward mode (`jax.jvp`) is not available."""

import jax
import jax.numpy as jnp

from keras_apa import _keras_internals as internals
from keras_apa._kernels.elementary import softplus_and_sigmoid  # noqa: F401


def differentiable(value, gradient):
    """Return `value(*tensors)`, whose gradients are `gradient(upstream, *tensors)`, one for each tensor."""
    function = jax.custom_vjp(value)
    function.defvjp(
        lambda *inputs: (value(*inputs), inputs),
        # A SavedModel is also written with its gradient, in which constants are Python's numbers.
        lambda inputs, upstream: tuple(gradient(upstream, *(jnp.asarray(x) for x in inputs))),
    )
    return function


def is_converting():
    """Whether a converter to a format without log1p is tracing a model."""
    return internals.in_converter()


def num_replicas():
    """Replicas that a synchronized batch statistic is summed over; 1, since arrays are global under JAX."""
    return 1


def is_compiling():
    """Whether values are hidden without an error; False, since reading a traced value fails here."""
    return False
