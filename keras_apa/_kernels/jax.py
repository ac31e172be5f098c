"""JAX: `jax.custom_vjp`. Works under jit, vmap and repeated reverse mode; forward mode (`jax.jvp`) is not available."""

from __future__ import annotations

import functools
import warnings
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from numpy.typing import NDArray

from keras_apa import _keras_internals as internals
from keras_apa._kernels.elementary import constant, softplus_and_sigmoid  # noqa: F401
from keras_apa._typing import Tensor


def differentiable(value: Callable[..., Tensor], gradient: Callable[..., tuple[Tensor, ...]]) -> Callable[..., Tensor]:
    """Return `value(*tensors)`, whose gradients are `gradient(upstream, *tensors)`, one for each tensor."""
    function = jax.custom_vjp(value)
    function.defvjp(
        lambda *inputs: (value(*inputs), inputs),
        # A SavedModel is also written with its gradient, in which constants are Python's numbers.
        lambda inputs, upstream: tuple(gradient(upstream, *(jnp.asarray(x) for x in inputs))),
    )
    return function


def is_converting() -> bool:
    """Whether a converter to a format without log1p is tracing a model."""
    return internals.in_converter()


def num_replicas() -> int:
    """Replicas that a synchronized batch statistic is summed over; 1, since arrays are global under JAX."""
    return 1


def is_hidden(tensor: Tensor) -> bool:
    """Whether the values of a tensor cannot be looked at, in a step that is compiled."""
    return isinstance(tensor, jax.core.Tracer)


def refuse(wrong: Tensor, given: Tensor, predictions: Tensor, message: Callable[[NDArray[Any] | None], str]) -> Tensor:
    """NaN, from a call of Python where any of `wrong` is true: an error where `predictions` are differentiated.

    An error inside a compiled step takes the model's weights with it: `fit` and `evaluate` of Keras have them nowhere
    else meanwhile. A training would have made them NaN; an evaluation only warns, and goes on with NaN. So does a
    training where there are several devices, of which the others would wait for the one that failed for ever.

    A pure callback, whose result is used: one with an effect takes half a millisecond a step even where it is not
    called, since JAX then starts each step from Python.
    """
    if jax.process_count() > 1:
        return np.nan  # the values of other processes cannot be read

    def tell(stop: bool, wrong: Tensor, given: Tensor) -> NDArray[np.float32]:
        wrong, given = np.asarray(wrong), np.asarray(given)
        if wrong.any():  # under vmap, both branches are run
            text = message(given[np.broadcast_to(wrong, given.shape)])
            if stop:
                raise ValueError(text)
            warnings.warn(f"{text.rstrip('.')}. The result is NaN.", stacklevel=1)
        return np.full((), np.nan, "float32")

    def call(stop: bool, wrong: Tensor, given: Tensor) -> Tensor:
        python, shape = functools.partial(tell, stop), jax.ShapeDtypeStruct((), "float32")
        return jax.lax.cond(
            jnp.any(wrong),
            lambda *tensors: jax.pure_callback(python, shape, *tensors, vmap_method="sequential"),
            lambda *tensors: jnp.full((), jnp.nan, "float32"),
            wrong,
            given,
        )

    # The tensors are arguments: a function that is traced first and differentiated then, as in `scan`, `checkpoint` and
    # a `jit` inside, cannot reach those of its closure any more.
    looked_at = jax.custom_jvp(lambda _, wrong, given: call(False, wrong, given))
    looked_at.defjvp(
        lambda primals, tangents: (call(jax.device_count() == 1, *primals[1:]), jnp.zeros((), "float32")),
    )
    # One number is enough to tell whether they are differentiated.
    wrong, given = jax.lax.stop_gradient((wrong, given))
    return jax.lax.stop_gradient(looked_at(jnp.ravel(predictions)[:1], wrong, given))
