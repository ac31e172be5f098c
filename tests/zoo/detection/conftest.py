"""How a block is run: as it stands, or compiled by the backend's own compiler."""

import keras
import numpy as np
import pytest
from backends import CURRENT
from keras import ops, tree

# The way each backend is used most is in the fast part: JAX compiled (it compiles every operation by itself otherwise),
# the others as they stand. PyTorch compiles for about a minute: only the blocks with gathers and loops.
_SLOW = pytest.mark.slow
_JAX = CURRENT == "jax"
EAGER = pytest.param("eager", marks=[_SLOW] if _JAX else [])
COMPILED = pytest.param("compiled", marks=[] if _JAX else [_SLOW])


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


_RARE = {"jax": "eager", "torch": "compiled"}.get(CURRENT)
_seen = set()


def _first_case_only(request):
    """In the mode that compiles longest, each test runs its first case: the others differ in numbers or sizes."""
    if request.param == _RARE:
        if request.function in _seen:
            pytest.skip("as the first case, which took the backend long to compile")
        _seen.add(request.function)
    return _run(request.param)


@pytest.fixture(params=[EAGER, *([COMPILED] if CURRENT != "torch" else [])])
def run(request):
    """Runs a function eagerly and, except on PyTorch, compiled."""
    return _first_case_only(request)


@pytest.fixture(params=[EAGER, COMPILED])
def run_everywhere(request):
    """Runs a function eagerly and compiled, on every backend."""
    return _first_case_only(request)


@pytest.fixture(scope="session")
def blocks():
    """The arrays of `blocks.npz`, recorded from torchvision."""
    from reference import load

    return load("detection/blocks.npz")


@pytest.fixture(autouse=True)
def _fresh_session():
    yield
    keras.utils.clear_session(free_memory=False)
