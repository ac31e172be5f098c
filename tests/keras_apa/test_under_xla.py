"""The numbers under XLA's own optimizations, which the other tests on JAX leave out (see `quick_jax`)."""

import pathlib

import pytest
from backends import run

ROOT = pathlib.Path(__file__).parents[2]


@pytest.mark.slow
@pytest.mark.any_backend("jax")
def test_the_optimized_functions_equal_the_references_too():
    files = [ROOT / "tests" / "keras_apa" / name for name in ("test_ops.py", "test_precision.py")]
    chosen = ["-k", "reference or authors or float64 or extremes_are"]
    result = run("jax", "-m", "pytest", "-q", "-p", "no:cacheprovider", *chosen, *files, XLA_FLAGS="")
    assert result.returncode == 0, result.stdout[-3000:]
