"""The order of the modules: every import goes from a higher room to a lower one, and no two modules need each other."""

import ast
import pathlib

import pytest

ROOT = pathlib.Path(__file__).parents[1]
PACKAGES = ("keras_apa", "zoo", "training")
# Old names that warn.
MOVED = ("training.evaluation", "training.data.detection_pipeline")
# From the lowest room to the highest. A module belongs to the longest name that fits. Rooms on one line know nothing
# of each other.
TRAINING = (
    ("training.runtime",),
    ("training.errors", "training.files", "training.checks"),
    ("training.image_files", "training.models", "training.reporting"),
    ("training.images",),
    ("training.config",),
    ("training.recipes",),
    ("training.data",),
    ("training.data.classification",),
    ("training.data.detection",),
    ("training.engine",),
    ("training.task",),
    ("training.runs",),
    ("training.classification", "training.detection"),
    ("training.inference",),
    ("training.cli", "training.make_presets"),
    ("training",),
)


def modules():
    """The name of each module, and its file."""
    found = {}
    for package in PACKAGES:
        for path in sorted((ROOT / package).rglob("*.py")):
            name = ".".join(path.relative_to(ROOT).with_suffix("").parts)
            found[name.removesuffix(".__init__")] = path
    return found


def imports(path, known):
    """The modules of ours that a file imports, also inside functions."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            for alias in node.names:
                inner = f"{node.module}.{alias.name}"
                found.add(inner if inner in known else node.module)
    return found & {*known}


def room_of(name, rooms):
    """The number of the room of a module, and the room's own name."""
    fitting = [
        (room, number)
        for number, line in enumerate(rooms)
        for room in line
        if name == room or ("." in room and name.startswith(f"{room}."))
    ]
    if not fitting:
        raise AssertionError(f"{name} must stand in a room of tests/test_layout.py")
    room, number = max(fitting, key=lambda each: len(each[0]))
    return number, room


def circles(graph):
    """Groups of modules that need each other."""

    def below(name):
        seen, todo = set(), list(graph[name])
        while todo:
            other = todo.pop()
            if other not in seen:
                seen.add(other)
                todo += graph[other]
        return seen

    reach = {name: below(name) for name in graph}
    return sorted({tuple(sorted(other for other in reach[n] if n in reach[other])) for n in graph if n in reach[n]})


@pytest.mark.any_backend
@pytest.mark.smoke
def test_no_modules_need_each_other():
    known = modules()
    graph = {name: imports(path, known) - {name} for name, path in known.items()}
    assert circles(graph) == []


@pytest.mark.any_backend
@pytest.mark.smoke
def test_imports_go_down():
    known = modules()
    up = []
    for name, path in known.items():
        if name.split(".")[0] != "training" or name in MOVED:
            continue
        number, room = room_of(name, TRAINING)
        for other in imports(path, known):
            if other.startswith("training"):
                there, inner = room_of(other, TRAINING)
                if there > number or (there == number and inner != room):
                    up.append(f"{name} imports {other}")
    assert sorted(up) == []
