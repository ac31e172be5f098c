"""Files of the zoo import downwards only, without a circle, and are short enough to be read."""

from pathlib import Path

import layout
import pytest

import zoo

pytestmark = pytest.mark.any_backend
FOLDER = Path(zoo.__file__).parent
# The lowest first. Files of one level may import each other, if no circle comes of it.
LEVELS = (
    # images and files: know no network
    ("zoo._markdown", "zoo.value_range", "zoo.preprocessing", "zoo.download", "zoo.checkpoint_wrappers",
     "zoo.checkpoint_files"),
    # a model, whatever it is, for servers and devices
    ("zoo.serving",),
    # the networks
    ("zoo.classifier", "zoo.blocks", "zoo.resnet", "zoo.cifar_resnet", "zoo.flops"),
    # their weights
    ("zoo.torch_tensors", "zoo.torch_checkpoint", "zoo.detect", "zoo.weight_files", "zoo.weights", "zoo.presets"),
    # every network by name
    ("zoo.registry",),
    # detectors, which stand on a network
    ("zoo.detection",),
    # what takes networks and detectors
    ("zoo.checkpoints", "zoo.export"),
    # the public names
    ("zoo",),
)  # fmt: skip
MOST_LINES = 450


def test_there_is_no_import_circle():
    found = layout.circle(layout.imports(FOLDER))
    assert not found, f"a circle of imports: {' -> '.join(found)}"


def test_no_file_imports_one_of_a_higher_level():
    found = layout.upward(layout.imports(FOLDER), LEVELS)
    assert not found, "; ".join(found)


def test_no_file_is_too_long_to_read():
    lines = {str(path): len(path.read_text(encoding="utf-8").splitlines()) for path in FOLDER.rglob("*.py")}
    assert {path: number for path, number in lines.items() if number > MOST_LINES} == {}


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
