"""`from keras_apa import zoo, training`, and models of the zoo and of trainings that load with keras_apa alone."""

import ast
import importlib
import os
import pathlib

import keras
import numpy as np
import pytest
from backends import CURRENT, environment
from warm import run_warm

import keras_apa
import training
import zoo
from keras_apa._siblings import _TRAINING_CLASSES, _ZOO_CLASSES, register_stand_ins

ROOT = os.path.dirname(os.path.dirname(keras_apa.__file__))


def test_the_packages_are_the_installed_ones():
    from keras_apa import training as ours
    from keras_apa import zoo as ours_too

    assert ours is training and ours_too is zoo
    with pytest.raises(AttributeError, match="module 'keras_apa' has no attribute 'zoos'"):
        _ = keras_apa.zoos


@pytest.mark.any_backend
@pytest.mark.parametrize(
    ("name", "file", "place"),
    [("zoo", "zoo.py", "zoo.py"), ("training", "training/__init__.py", "training/__init__.py")],
)
@pytest.mark.parametrize("before", ["", "import {name}; "])
def test_a_file_in_the_way_is_named(tmp_path, name, file, place, before):
    path = tmp_path / file
    path.parent.mkdir(exist_ok=True)
    path.write_text("MINE = True\n")
    program = f"{before.format(name=name)}import sys, keras_apa; loaded = {name!r} in sys.modules\n"
    program += f"try:\n    from keras_apa import {name}\nexcept ImportError as error:\n    print(error)\n"
    program += f"print('run', {name!r} in sys.modules, loaded)"
    result = _run_in(tmp_path, program)
    assert result.stdout.splitlines() == [
        f"{name} must be the package that is installed with keras_apa, {os.path.join(ROOT, name)}; "
        f"given: {tmp_path / place}. Rename it, or run Python from another folder.",
        f"run {bool(before)} {bool(before)}",
    ], result.stderr[-2000:]


@pytest.mark.any_backend
def test_a_folder_of_that_name_without_code_is_not_in_the_way(tmp_path):
    (tmp_path / "training").mkdir()
    result = _run_in(tmp_path, "from keras_apa import training; print(training.__file__)")
    assert result.stdout.strip() == os.path.join(ROOT, "training", "__init__.py"), result.stderr[-2000:]


def test_there_is_a_stand_in_for_each_class_of_the_zoo():
    """Another import of keras_apa, as in a notebook that reloads it, leaves the zoo's own classes."""
    objects = keras.saving.get_custom_objects()
    own = {name: value for name, value in objects.items() if name.startswith("keras_apa>")}
    own = {name: value for name, value in own.items() if value.__module__.partition(".")[0] == "zoo"}
    assert sorted(name.partition(">")[2] for name in own) == sorted(_ZOO_CLASSES)
    register_stand_ins()
    assert {name: objects[name] for name in own} == own


@pytest.mark.any_backend
def test_there_is_a_stand_in_for_each_class_of_the_trainings():
    folder = os.path.join(ROOT, "training")
    own = {}
    for path in pathlib.Path(folder).rglob("*.py"):
        for node in ast.parse(path.read_text(encoding="utf-8")).body:
            if any("register_keras_serializable" in ast.unparse(each) for each in getattr(node, "decorator_list", ())):
                own[node.name] = ".".join(path.relative_to(ROOT).with_suffix("").parts)
    assert own == _TRAINING_CLASSES
    for name, module in own.items():
        there = getattr(importlib.import_module(module), name)
        assert keras.saving.get_custom_objects()[f"keras_apa>{name}"] is there


@pytest.mark.any_backend
def test_a_model_from_the_middle_of_a_training_loads_with_keras_apa_alone(tmp_path):
    """Its scale of the classes (LWS), optimizer and schedule are classes of `training`."""
    from training.classification.network import ClassScale
    from training.engine.optimizers import TorchSGD, WarmupCosine

    inputs = keras.Input((4,))
    model = zoo.Classifier(inputs, ClassScale()(keras.layers.Dense(3)(inputs)))
    schedule = WarmupCosine(0.1, total_steps=10, warmup_steps=2)
    model.compile(TorchSGD(schedule), keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    x = np.ones((2, 4), "float32")
    model.fit(x, np.array([0, 2]), verbose=0)
    model.save(tmp_path / "model.keras")
    _load_elsewhere(tmp_path, x, "...", model.predict(x, verbose=0))


_LOAD = """
import sys, warnings, numpy as np, keras, keras_apa
warnings.filterwarnings("error", category=UserWarning)
first = keras.saving.load_model(sys.argv[1], safe_mode=True)
assert "zoo" in sys.modules
import zoo
again = keras.saving.load_model(sys.argv[1], safe_mode=True)
assert type(again) is type(first) and type(first).__module__.startswith("zoo.")
np.save(sys.argv[3], first.predict(np.load(sys.argv[2]), verbose=0)[{key}])
"""


def test_a_model_of_the_zoo_loads_with_keras_apa_alone(tmp_path):
    model = zoo.create_model("cb_resnet8", classes=3, input_shape=(16, 16, 1), activation="aglu", gate="apa")
    model.preprocessing = zoo.Preprocessing(image_size=(16, 16), channels=1, mean=(0.5,), std=(0.5,))
    model.save(tmp_path / "model.keras")
    x = np.random.default_rng(0).uniform(-1, 1, (2, 16, 16, 1)).astype("float32")
    _load_elsewhere(tmp_path, x, "...", model.predict(x, verbose=0))


@pytest.mark.any_backend("torch")  # the others compile for a minute what the model above shows as well
def test_a_detector_loads_with_keras_apa_alone(tmp_path):
    model = zoo.MaskRCNN("resnet18", num_classes=2, pyramid_filters=8, box_units=8, mask_filters=8)
    model.save(tmp_path / "model.keras")
    x = np.zeros((1, 64, 64, 3), "uint8")
    _load_elsewhere(tmp_path, x, "'scores'", model.predict(x, verbose=0)["scores"])


@pytest.mark.any_backend
def test_a_model_does_not_load_where_another_zoo_is_in_the_way(tmp_path):
    zoo.create_model("resnet8", classes=2, input_shape=(8, 8, 1)).save(tmp_path / "model.keras")
    (tmp_path / "zoo.py").write_text("")
    result = _run_in(tmp_path, "import keras, keras_apa; keras.saving.load_model('model.keras')")
    assert f"ImportError: zoo must be the package that is installed with keras_apa, {ROOT}" in result.stderr
    assert f"given: {tmp_path / 'zoo.py'}. Rename it" in result.stderr


def _run_in(folder, program):
    """Runs a program whose own folder comes first, as that of a script does."""
    env = environment(CURRENT, PYTHONPATH=os.pathsep.join([str(folder), ROOT]))
    return run_warm(program, cwd=folder, env=env)


def _load_elsewhere(folder, x, key, expected):
    np.save(folder / "x.npy", x)
    paths = (folder / "model.keras", folder / "x.npy", folder / "y.npy")
    result = run_warm(_LOAD.format(key=key), *paths, env=environment(CURRENT))
    assert result.returncode == 0, result.stderr[-3000:]
    np.testing.assert_allclose(np.load(folder / "y.npy"), expected, rtol=1e-4, atol=1e-5)
