"""What `keras-apa list` prints."""

from __future__ import annotations

import fnmatch
import importlib.metadata
import inspect
from collections.abc import Callable

from rich.console import Console

from training.checks import check_name, nearest
from training.cli.choices import ListKind
from training.errors import OptionError, usage
from training.runtime.backend import BACKENDS, choose_backend, installed_backends
from training.runtime.console import TextConsole, TextTable, text_console
from training.runtime.output import escaped_output


@escaped_output()
def print_list(kind: ListKind | None = None, pattern: str = "*", console: Console | TextConsole | None = None) -> None:
    """Prints the names of one kind that match, each with a line about it; all kinds where none is given."""
    console = text_console(console)
    if kind is not None:
        check_name("KIND", kind, KINDS)
    found = {}
    for name in [kind] if kind else KINDS:
        rows = {item: about for item, about in KINDS[name]().items() if fnmatch.fnmatch(item, pattern)}
        if rows:
            found[name] = rows
    if not found:
        names = KINDS[kind]() if kind else {item: "" for listed in KINDS.values() for item in listed()}
        raise OptionError(f"PATTERN must match a name; given: {pattern!r}. {nearest(pattern.strip('*'), names)}")
    for name, rows in found.items():
        table = TextTable(title=name, title_justify="left", title_style="bold", show_header=False, box=None)
        table.add_column(no_wrap=True)
        table.add_column(style="dim")
        for item, about in rows.items():
            table.add_row(item, about)
        console.print(table)


def _models() -> dict[str, str]:
    _keras()
    import zoo

    return dict.fromkeys(zoo.list_models(), "")


def _weights() -> dict[str, str]:
    _keras()
    import zoo

    sets = {name: zoo.get_weights(*name.split("/")) for name in zoo.list_weights()}
    return {name: f"top-1 {each.top1}; {each.source}" for name, each in sets.items()}


def _presets() -> dict[str, str]:
    _keras()
    import zoo

    return {name: zoo.preset_config(name)["description"].partition(":")[0] for name in zoo.list_presets()}


def _recipes() -> dict[str, str]:
    from training.recipes import recipes

    return {
        name: f"{recipe.published or 'embedded data'}; {_network(recipe)}, {recipe.title}"
        for name, recipe in recipes().items()
    }


def _network(recipe) -> str:
    backbone = getattr(recipe.model, "backbone", None)
    return recipe.model.name if backbone is None else f"{recipe.model.name} on {backbone}"


def _losses() -> dict[str, str]:
    _keras()
    import keras

    import keras_apa.losses

    return _classes(keras_apa.losses, keras.losses.Loss)


def _layers() -> dict[str, str]:
    _keras()
    import keras

    import keras_apa.layers

    return _classes(keras_apa.layers, keras.layers.Layer)


def _metrics() -> dict[str, str]:
    _keras()
    import keras

    import keras_apa.metrics

    return {name: about for name, about in _classes(keras_apa.metrics, keras.metrics.Metric).items()}


def _backends() -> dict[str, str]:
    installed = installed_backends()
    return {
        name: f"installed, {importlib.metadata.version(name)}"
        if name in installed
        else f'not installed; pip install "keras-apa[{name}]"'
        for name in BACKENDS
    }


KINDS: dict[ListKind, Callable[[], dict[str, str]]] = {
    "models": _models,
    "weights": _weights,
    "presets": _presets,
    "recipes": _recipes,
    "losses": _losses,
    "layers": _layers,
    "metrics": _metrics,
    "backends": _backends,
}


def _keras() -> None:
    """Names are the same on every backend, but Keras needs one before it is imported."""
    with usage():
        choose_backend()


def _classes(module, base: type) -> dict[str, str]:
    """The public classes of a module with the first line of their docstrings."""
    return {
        name: (inspect.getdoc(value) or "").partition("\n")[0]
        for name, value in sorted(vars(module).items())
        if inspect.isclass(value)
        and issubclass(value, base)
        and not name.startswith("_")
        and value.__module__.startswith("keras_apa")
    }
