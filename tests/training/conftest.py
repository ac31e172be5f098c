"""Trainings are seen to run, stop and go on here; their numbers are compared in tests/keras_apa and tests/zoo."""

import keras
import pytest


@pytest.fixture(autouse=True, scope="module")
def _compile_quickly():
    """XLA leaves most of its optimizations out: compiling is most of the time of these small trainings."""
    if keras.backend.backend() != "jax":
        yield
        return
    import jax

    before = jax.config.read("jax_disable_most_optimizations")
    jax.config.update("jax_disable_most_optimizations", True)
    yield
    jax.config.update("jax_disable_most_optimizations", before)
