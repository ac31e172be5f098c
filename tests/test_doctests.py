"""Every docstring example of the three packages runs."""

import doctest
import importlib
import pkgutil

import keras
import pytest

import keras_apa
import training
import zoo

MODULES = [
    info.name
    for package in (keras_apa, zoo, training)
    for info in pkgutil.walk_packages(package.__path__, f"{package.__name__}.")
    if not info.name.startswith("keras_apa._kernels.")
]


def _parameter(name):
    """The others compile detection for minutes; tests/zoo/detection runs the same functions there."""
    if not name.startswith("zoo.detection."):
        return pytest.param(name, marks=pytest.mark.any_backend)
    elsewhere = keras.backend.backend() != "torch"
    return pytest.param(name, marks=pytest.mark.skipif(elsewhere, reason="every line compiles anew"))


@pytest.mark.parametrize("name", [_parameter(name) for name in MODULES])
def test_docstring_examples(name):
    module = importlib.import_module(name)
    result = doctest.testmod(module, extraglobs={"keras": keras}, optionflags=doctest.NORMALIZE_WHITESPACE)
    assert result.failed == 0


def test_every_public_object_has_an_example():
    without = []
    for module in (keras_apa.layers, keras_apa.losses, keras_apa.metrics, keras_apa.ops, keras_apa, zoo):
        for name in module.__all__:
            value = getattr(module, name)
            if name in zoo.list_models() or (isinstance(value, type) and issubclass(value, Exception)):
                continue
            if callable(value) and ">>>" not in (value.__doc__ or ""):
                without.append(f"{module.__name__}.{name}")
    assert without == []
