"""The page of the activations is what its script writes, and the curves are those of the library."""

import pathlib

import make_activations
import numpy as np
import pages
import pytest
from gradients import value_and_gradient

from keras_apa import ops

DOCS = pathlib.Path(__file__).parents[1] / "docs"


@pytest.mark.any_backend
def test_the_script_writes_the_committed_page(tmp_path):
    make_activations.main(["--output", str(tmp_path)])
    assert (tmp_path / "activations.md").read_text() == (DOCS / "activations.md").read_text()
    made = {path.name: path.read_bytes() for path in (tmp_path / "images").iterdir()}
    assert {path.name for path in (DOCS / "images").iterdir()} == set(made)
    assert all(content.startswith(b"\x89PNG") and 5_000 < len(content) < 100_000 for content in made.values())


def test_the_python_block_runs():
    values = {}
    exec(pages.program(DOCS / "activations.md"), values)
    assert values["gate"].shape == values["unit"].shape == (5,)


@pytest.mark.parametrize(("kappa", "lam"), [(1.0, 0.5), (-0.5, 1.0), (1.702, 2.0)])
def test_the_plotted_derivatives_are_those_of_the_library(kappa, lam):
    z = np.linspace(-6, 6, 121).astype("float32")
    full = np.ones_like(z)
    for function, derivatives in ((ops.apa, "apa_derivatives"), (ops.aglu, "aglu_derivatives")):
        _, gradients = value_and_gradient(function, z, full * np.float32(kappa), full * np.float32(lam))
        plotted = getattr(make_activations, derivatives)(z.astype("float64"), kappa, lam)
        for ours, curve in zip(gradients, plotted, strict=True):
            np.testing.assert_allclose(ours, curve, atol=1e-4)
