"""Who imports whom in a package, and what is done for one backend only.

Read with `ast`: imports inside functions count, those of examples do not.
"""

import ast
from pathlib import Path


def imports(package):
    """`{module: {modules of the package that it imports}}` for every file below the folder `package`.

    `from a import b` is an import of `a.b` where that is a module, else of `a`. An `__init__.py` is its package.
    """
    package = Path(package)
    files = {_name(path, package.parent): path for path in sorted(package.rglob("*.py"))}
    return {
        module: {found for found in _imported(ast.parse(path.read_text(encoding="utf-8")), module, path, files)}
        for module, path in files.items()
    }


BACKENDS = {"torch", "jax", "tensorflow"}


def top_packages(tree):
    """The top packages that a file imports."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name.partition(".")[0] for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and not node.level:
            yield node.module.partition(".")[0]


def knows_a_backend(tree):
    """Whether a file imports a backend, or does something else on one: what `backend()` returns decides in it.

    It decides where it is compared, picks an entry or is kept in a variable; its name may be written down or passed on.
    """
    if BACKENDS & {*top_packages(tree)}:
        return True
    for node in ast.walk(tree):
        if isinstance(node, ast.Compare):
            deciding = [node]
        elif isinstance(node, ast.Subscript):
            deciding = [node.slice]
        elif isinstance(node, (ast.Assign, ast.AnnAssign, ast.NamedExpr)):
            deciding = [node.value]
            if isinstance(node.value, ast.IfExp):
                deciding = [node.value.body, node.value.orelse]
            deciding = [value for value in deciding if _asks(value)]
        elif isinstance(node, ast.Match):
            deciding = [node.subject]
        else:
            continue
        if any(_asks(inner) for value in deciding for inner in ast.walk(value)):
            return True
    return False


def _asks(node):
    """Whether it is a call of `backend()`, as `keras.backend.backend()` and `keras.config.backend()` are."""
    if not isinstance(node, ast.Call):
        return False
    return getattr(node.func, "attr", getattr(node.func, "id", None)) == "backend"


def _name(path, root):
    parts = path.relative_to(root).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def _imported(tree, module, path, files):
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            parent = node.module or ""
            if node.level:  # relative
                parts = module.split(".")
                parts = parts[: len(parts) - node.level + (path.name == "__init__.py")]
                parent = ".".join([*parts, *([node.module] if node.module else [])])
            names = [f"{parent}.{alias.name}" for alias in node.names]
            names = [name if name in files else parent for name in names]
        else:
            continue
        for name in names:
            if name in files and name != module:
                yield name


def circle(graph):
    """The modules of one import circle in their order, or an empty list."""
    done, path = set(), []

    def visit(module):
        if module in path:
            return [*path[path.index(module) :], module]
        if module in done:
            return []
        path.append(module)
        for other in sorted(graph.get(module, ())):
            if found := visit(other):
                return found
        done.add(path.pop())
        return []

    for module in sorted(graph):
        if found := visit(module):
            return found
    return []


def upward(graph, levels):
    """`"a imports b"` for each import of a file of a higher level.

    Args:
        graph: What `imports` returned.
        levels: Names of modules and packages, the lowest level first; a package stands for all its files that are not
            named themselves. Files of one level may import each other.

    Raises: ValueError: For a module that no level names.
    """
    places = {name: place for place, names in enumerate(levels) for name in names}

    def place(module):
        name = module
        while name not in places:
            name, dot, _ = name.rpartition(".")
            if not dot:
                raise ValueError(f"{module} has no level.")
        return places[name]

    return sorted(
        f"{module} imports {other}"
        for module, others in graph.items()
        for other in others
        if place(other) > place(module)
    )


# Test files that are named after a fact, since no single module brings it about.
OF_SEVERAL = {
    "keras_apa/losses/test_losses_contract.py": "what every loss keeps",
    "keras_apa/losses/test_wrong_labels.py": "an error that every loss raises under fit",
    "keras_apa/test_export.py": "Keras's own export of layers and functions",
    "keras_apa/test_metric_names.py": "the logs of metrics and losses, as Keras's callbacks read them",
    "keras_apa/test_under_xla.py": "formulas of several modules, under XLA's own settings",
    "training/classification/test_paper_training.py": "a recipe's optimizer, AGLU and loss together",
    "training/test_imports.py": "the package and the imports of before",
    "training/test_messages.py": "the form of every error",
    "training/test_names.py": "names on their way through data, reports and the command line",
    "zoo/detection/test_parity.py": "whole detectors beside torchvision's",
    "zoo/serving/test_onnx_and_litert.py": "two formats that one exported model is compared in",
    "zoo/test_keras_internals.py": "what several modules take from inside of Keras",
    "zoo/test_packaged_presets.py": "the files in zoo/presets_data",
    "zoo/test_torchvision.py": "networks and weights beside torchvision's",
}


def unlike(tests, root, packages, exceptions):
    """What in the folders of `tests` does not mirror the packages below `root`, a sentence each.

    The tests of `a/b/c.py` are in `a/b/test_c.py`. `_c.py`, and a package `c`, count as `c` too.
    """
    found = []
    for package in packages:
        for path in sorted((tests / package).rglob("test_*.py")):
            file = path.relative_to(tests)
            name, folder = file.stem.removeprefix("test_"), root / file.parent
            if not (folder / "__init__.py").is_file():
                found.append(f"{file.parent} is no package")
            named = any(
                (folder / f"{before}{name}{end}").is_file() for before in ("", "_") for end in (".py", "/__init__.py")
            )
            if named == (file.as_posix() in exceptions):
                found.append(f"{file} {'needs no exception' if named else f'has no module {name}'}")
    return found + [f"{name} is not there" for name in exceptions if not (tests / name).is_file()]
