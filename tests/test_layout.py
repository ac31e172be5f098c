"""Where things stand: no modules need each other, every import goes down, and no file is too long to be read.

The orders below are the map of the three packages. A new module that no level names fails here; a package stands for
all its files that are not named themselves.
"""

import ast
from pathlib import Path

import layout
import pytest

pytestmark = [pytest.mark.any_backend, pytest.mark.smoke]
ROOT = Path(__file__).parents[1]
# From the lowest level to the highest. Files of one level may import each other, if no circle comes of it.
LEVELS = {
    "keras_apa": (
        # names, numbers and texts; what is done differently on each backend
        ("keras_apa._version", "keras_apa._text", "keras_apa._typing", "keras_apa._checks", "keras_apa._moved"),
        ("keras_apa._keras_internals", "keras_apa._kernels"),
        ("keras_apa._precision", "keras_apa._labels"),
        # the functions, and the class counts that losses and metrics take
        ("keras_apa.ops", "keras_apa.profiles", "keras_apa.class_counts", "keras_apa.weight_decay"),
        ("keras_apa.losses", "keras_apa.metrics"),
        ("keras_apa.layers",),
        ("keras_apa", "keras_apa._siblings"),
    ),
    "zoo": (
        # images and files: know no network
        ("zoo._markdown", "zoo.value_range", "zoo.preprocessing", "zoo.download"),
        ("zoo.checkpoint_wrappers", "zoo.checkpoint_files"),
        # a model, whatever it is, for servers and devices
        ("zoo.serving",),
        # the networks, their weights, and every network by name
        ("zoo.classifier", "zoo.blocks", "zoo.resnet", "zoo.cifar_resnet", "zoo.flops"),
        ("zoo.torch_tensors", "zoo.torch_checkpoint", "zoo.detect", "zoo.weight_files", "zoo.weights", "zoo.presets"),
        ("zoo.registry",),
        # detectors stand on a network
        ("zoo.detection",),
        # takes networks and detectors
        ("zoo.checkpoints", "zoo.export"),
        ("zoo",),
    ),
    "training": (
        # before and around Keras; checks, files, images
        ("training.runtime",),
        ("training.errors", "training.files", "training.checks"),
        ("training.image_files", "training.models", "training.reporting", "training.images"),
        # recipes are plain data
        ("training.config",),
        ("training.recipes",),
        ("training.data",),
        ("training.data.classification",),
        ("training.data.detection",),
        # what every `fit` has, and a run folder, whatever the task
        ("training.engine",),
        ("training.task",),
        ("training.runs",),
        # the two tasks
        ("training.classification", "training.detection"),
        ("training.inference",),
        # the command line, which nothing imports
        ("training.cli", "training.make_presets"),
        ("training", "training.evaluation", "training.data.detection_pipeline"),
    ),
}
MOST_LINES, MOST_FILES = 450, 14
# Twins: neither task knows the other, but for two modules: digit_scenes_lt is made of the digits, and both pipelines
# read with tf.data in the same way (`PREFETCHED`, `without_tuning`).
TWINS = (
    ("training.classification", "training.detection"),
    ("training.data.classification", "training.data.detection"),
)
BETWEEN_TWINS = {
    ("training.data.detection.digit_scenes", "training.data.classification.digits"),
    ("training.data.detection.pipeline", "training.data.classification.pipeline"),
}
# Packages from the lowest to the highest; `from keras_apa import zoo` and loading a model of the zoo look upwards.
PACKAGES = ("keras_apa", "zoo", "training")
LOOKS_UP = {"keras_apa._siblings"}
# A backend is imported, or something else done on it, in keras_apa/_kernels, and here; none of it is arithmetic. A
# package stands for all its files.
OWN_BACKEND = {
    "zoo.checkpoint_files": "reads .pth files, which PyTorch alone can",
    "zoo.classifier": "Keras's own export writes no SavedModel on PyTorch, and needs other convolutions on TensorFlow",
    "zoo.detection.export": "a SavedModel is TensorFlow's",
    "zoo.serving": "each format has the exporter of one backend",
    "training.classification.train": "reads images with tf.data on every backend",
    "training.data": "reads images with tf.data on every backend",
    "training.engine.callbacks": "TensorBoard's files are written by TensorFlow",
    "training.engine.checkpoints": "PyTorch's random state is a part of a checkpoint",
    "training.inference.classifier": "runs SavedModels; TensorFlow cannot run channels first on every processor",
    "training.runtime.backend": "chooses the backend, and keeps TensorFlow off the accelerators of others",
}


@pytest.fixture(scope="module", params=PACKAGES)
def package(request):
    return request.param


def test_no_modules_need_each_other(package):
    found = layout.circle(layout.imports(ROOT / package))
    assert not found, f"a circle of imports: {' -> '.join(found)}"


def test_imports_go_down(package):
    found = layout.upward(layout.imports(ROOT / package), LEVELS[package])
    assert not found, "; ".join(found)


def test_no_file_is_too_long_to_read(package):
    lines = {str(path): len(path.read_text(encoding="utf-8").splitlines()) for path in (ROOT / package).rglob("*.py")}
    assert {path: number for path, number in lines.items() if number > MOST_LINES} == {}


def test_the_top_of_training_is_small():
    assert len(list((ROOT / "training").glob("*.py"))) <= MOST_FILES


def test_tasks_do_not_know_each_other():
    graph = layout.imports(ROOT / "training")
    found = {
        (module, other)
        for module, others in graph.items()
        for other in others
        for one, two in (*TWINS, *(pair[::-1] for pair in TWINS))
        if module.startswith(f"{one}.") and other.startswith(f"{two}.")
    }
    assert found == BETWEEN_TWINS


def _modules(package):
    """The name of each module, and its parsed text."""
    for path in (ROOT / package).rglob("*.py"):
        name = ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")
        yield name, ast.parse(path.read_text(encoding="utf-8"))


def test_packages_do_not_look_up(package):
    above = {*PACKAGES[PACKAGES.index(package) + 1 :]}
    found = {name for name, tree in _modules(package) if above & {*layout.top_packages(tree)}}
    assert found - LOOKS_UP == set()


def test_backends_differ_in_the_kernels_only():
    found = {
        name
        for package in PACKAGES
        for name, tree in _modules(package)
        if layout.knows_a_backend(tree) and not f"{name}.".startswith("keras_apa._kernels.")
    }
    listed = {name: {module for module in found if f"{module}.".startswith(f"{name}.")} for name in OWN_BACKEND}
    assert found - set().union(*listed.values()) == set()
    assert [name for name, modules in listed.items() if not modules] == []


@pytest.mark.parametrize(
    ("text", "known"),
    [
        ("def f():\n    import tensorflow as tf", True),
        ("from jax import numpy", True),
        ("import tensorflow_datasets", False),
        ('if keras.backend.backend() == "torch":\n    pass', True),
        ('if "torch" != keras.config.backend():\n    pass', True),
        ('fast = keras.config.backend() in ("jax", "torch")', True),
        ("write = {}[backend()]", True),
        ("running = keras.backend.backend()", True),
        ("running = keras.backend.backend() if keras else None", True),
        ('match keras.backend.backend():\n    case "jax":\n        pass', True),
        ('written = {"backend": keras.config.backend()}', False),
        ("leave_accelerators_to(keras.backend.backend())", False),
        ("print(f'{keras.config.backend()}')", False),
    ],
)
def test_a_file_that_knows_a_backend_is_seen(text, known):
    assert layout.knows_a_backend(ast.parse(text)) == known


def test_imports_inside_functions_and_relative_ones_are_seen(tmp_path):
    package = tmp_path / "house"
    package.mkdir()
    (package / "__init__.py").write_text("from house.roof import tiles\n")
    (package / "roof.py").write_text("def tiles():\n    from house import cellar\n")
    (package / "cellar.py").write_text("from .roof import tiles\n")
    graph = layout.imports(package)
    assert graph == {"house": {"house.roof"}, "house.roof": {"house.cellar"}, "house.cellar": {"house.roof"}}
    assert layout.circle(graph) == ["house.roof", "house.cellar", "house.roof"]
    assert layout.upward(graph, [("house.cellar",), ("house.roof",), ("house",)]) == ["house.cellar imports house.roof"]
    with pytest.raises(ValueError, match=r"house.* has no level"):
        layout.upward(graph, [("house.cellar",)])


def test_tests_mirror_the_packages(tmp_path):
    assert layout.unlike(ROOT / "tests", ROOT, PACKAGES, layout.OF_SEVERAL) == []
    for name in ("house/__init__.py", "house/_roof.py", "tests/house/test_roof.py", "tests/house/cellar/test_wine.py"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    found = layout.unlike(
        tmp_path / "tests", tmp_path, ["house"], {"house/test_roof.py": "", "house/test_walls.py": ""}
    )
    assert found == [
        "house/cellar is no package",
        "house/cellar/test_wine.py has no module wine",
        "house/test_roof.py needs no exception",
        "house/test_walls.py is not there",
    ]
