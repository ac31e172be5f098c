"""How a block is run: as it stands, or compiled by the backend's own compiler."""

import keras
import numpy as np
import pytest
from backends import CURRENT
from keras import ops, tree

# PyTorch compiles for about a minute; only the blocks with gathers and loops are compiled there, in the slow part.
SLOW_ON_TORCH = [pytest.param("compiled", marks=pytest.mark.slow)] if CURRENT == "torch" else ["compiled"]


def compile_function(function):
    """`function` of tensors, compiled."""
    if CURRENT == "jax":
        import jax

        return jax.jit(function)
    if CURRENT == "tensorflow":
        import tensorflow as tf

        return tf.function(function, jit_compile=True)
    import torch

    return torch.compile(function)


def _run(mode):
    def run(function, *arrays):
        """`function(*tensors)` as numpy arrays."""
        tensors = [ops.convert_to_tensor(array) for array in arrays]
        function = compile_function(function) if mode == "compiled" else function
        return tree.map_structure(lambda x: np.asarray(ops.convert_to_numpy(x)), function(*tensors))

    return run


@pytest.fixture(params=["eager", *(["compiled"] if CURRENT != "torch" else [])])
def run(request):
    """Runs a function eagerly and, but on PyTorch, compiled."""
    return _run(request.param)


@pytest.fixture(params=["eager", *SLOW_ON_TORCH])
def run_everywhere(request):
    """Runs a function eagerly and compiled; compiled on PyTorch is slow."""
    return _run(request.param)


@pytest.fixture(scope="session")
def blocks():
    """The arrays of `blocks.npz`, recorded from torchvision."""
    from reference import load

    return load("detection/blocks.npz")


@pytest.fixture(autouse=True)
def _fresh_session():
    yield
    keras.utils.clear_session(free_memory=False)
