"""JAX compiles each operation anew for each shape, most of its suite's time. In tests it compiles less."""

import importlib.util
import mmap
import os
import pathlib
import types

# A small operation compiles in 16 ms instead of 48. The numbers of the library under XLA's own settings:
# test_numbers_under_xlas_own_settings in the slow part.
FLAGS = {
    "xla_backend_optimization_level": "0",
    "xla_llvm_disable_expensive_passes": "true",
    "xla_cpu_use_fusion_emitters": "false",
}


def compile_quickly():
    """Make XLA leave out its optimizations, in this process and in those that it starts.

    Before JAX is imported. XLA ends the process at a flag that it does not know, so only known ones are set; flags of
    the caller stay alone.
    """
    found = importlib.util.find_spec("jaxlib")
    if found is None or "XLA_FLAGS" in os.environ:
        return
    libraries = list(pathlib.Path(found.origin).parent.glob("*.so"))
    os.environ["XLA_FLAGS"] = " ".join(f"--{k}={v}" for k, v in FLAGS.items() if any(_has(x, k) for x in libraries))


def _has(library, name):
    with library.open("rb") as stream, mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ) as content:
        return content.find(name.encode()) >= 0


def draw_initial_values_with_numpy():
    """Keras's initializers on JAX draw with numpy from the same seeds: two operations less for each shape of a weight.

    Keras's own drawing is used while JAX traces, and by everything that is no initializer.
    """
    import keras
    import numpy as np
    from jax import numpy as jnp
    from keras.src.backend import random
    from keras.src.initializers import constant_initializers, random_initializers
    from scipy.special import ndtri

    traces = keras.src.utils.jax_utils.is_in_jax_tracing_scope

    def as_array(values, dtype):
        return jnp.asarray(np.asarray(values, "float32"), dtype=dtype or keras.config.floatx())

    def with_numpy(original, draw):
        def function(shape, *args, dtype=None, seed=None, **kwargs):
            if traces():
                return original(shape, *args, dtype=dtype, seed=seed, **kwargs)
            seed = np.asarray(seed.next() if hasattr(seed, "next") else seed).reshape(-1).astype("uint32")
            return as_array(draw(np.random.default_rng(seed), shape, *args, **kwargs), dtype)

        return function

    def normal(rng, shape, mean=0.0, stddev=1.0):
        return mean + stddev * rng.standard_normal(shape)

    def truncated_normal(rng, shape, mean=0.0, stddev=1.0):
        return mean + stddev * np.clip(ndtri(rng.uniform(ndtr_of_minus_2, 1 - ndtr_of_minus_2, shape)), -2, 2)

    def uniform(rng, shape, minval=0.0, maxval=1.0):
        return rng.uniform(minval, maxval, shape)

    ndtr_of_minus_2 = 0.022750131948179195
    random_initializers.random = types.SimpleNamespace(
        **{**vars(random)}
        | {
            function.__name__: with_numpy(getattr(random, function.__name__), function)
            for function in (normal, truncated_normal, uniform)
        }
    )

    def filled(initializer, value_of):
        original = initializer.__call__

        def call(self, shape, dtype=None, **kwargs):
            value = value_of(self)
            if traces() or kwargs or not isinstance(value, (int, float)):
                return original(self, shape, dtype=dtype, **kwargs)
            dtype = keras.backend.standardize_dtype(dtype)
            return jnp.asarray(np.full(shape, value, jnp.dtype(dtype)))

        initializer.__call__ = call

    filled(constant_initializers.Zeros, lambda self: 0)
    filled(constant_initializers.Ones, lambda self: 1)
    filled(constant_initializers.Constant, lambda self: self.value)
