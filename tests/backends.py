"""The Keras backends, and how a test starts a process on another one."""

import os
import subprocess
import sys

import keras
import numpy as np

ALL = ("tensorflow", "jax", "torch")
CURRENT = keras.backend.backend()
OTHERS = tuple(name for name in ALL if name != CURRENT)
# With three suites, of which each takes the next, every backend reads and is read once.
NEXT = ALL[(ALL.index(CURRENT) + 1) % len(ALL)]
# Of a property's test: JAX compiles every operation again for every shape that is drawn.
EXAMPLES = 4 if CURRENT == "jax" else 25


def forward(model, x):
    """`model(x)` at inference as numpy arrays; on JAX in one program, as it compiles each operation alone otherwise."""
    if CURRENT == "jax":
        return model.predict_on_batch(x)
    return keras.tree.map_structure(keras.ops.convert_to_numpy, model(x, training=False))


def convolves_channels_first():
    """TensorFlow does on a GPU, and on those CPUs for which it takes oneDNN's kernels; the others always do."""
    try:
        keras.ops.conv(np.ones((1, 1, 2, 2), "float32"), np.ones((1, 1, 1, 1), "float32"), data_format="channels_first")
    except Exception:
        return False
    return True


# Makes the packages look as if they were not installed, to `import` and to `importlib.util.find_spec`.
BLOCK = """
import importlib.machinery, sys
find_spec = importlib.machinery.PathFinder.find_spec
def find(name, path=None, target=None):
    return None if name.split(".")[0] in {blocked} else find_spec(name, path, target)
importlib.machinery.PathFinder.find_spec = staticmethod(find)
"""


def environment(backend, **variables):
    """The environment of a child process on `backend`; XLA's flags are those of `quick_jax`."""
    usual = {"KERAS_BACKEND": backend, "TF_CPP_MIN_LOG_LEVEL": "2"}
    return {**os.environ, **usual, **variables}


def run(backend, *arguments, timeout=900, **variables):
    """Run Python with `arguments` on `backend` and the environment `variables`; the process with its output as text."""
    return subprocess.run(
        [sys.executable, *map(str, arguments)],
        env=environment(backend, **variables),
        capture_output=True,
        text=True,
        timeout=timeout,
    )
