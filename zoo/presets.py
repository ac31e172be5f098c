"""A trained model as a folder: its configuration, weights, preprocessing, class names and metrics.

    NAME/config.json          the model as Keras serializes it, preprocessing, class names, metrics, versions
    NAME/model.weights.h5     or model.safetensors
    NAME/README.md            a model card, in the form of Hugging Face

The folders below `zoo/presets_data` are presets of the package, found by name. `hf://user/repository` is fetched from
the Hugging Face Hub.
"""

import difflib
import json
import os
import re
import secrets
import shutil
from collections.abc import Mapping
from pathlib import Path

import keras
import numpy as np

from keras_apa._checks import check_name
from keras_apa._text import visible
from keras_apa._version import __version__
from keras_apa.layers import PriorCorrection
from zoo._markdown import code, markdown
from zoo.checkpoint_files import first_line, import_safetensors, read_safetensors
from zoo.classifier import Classifier
from zoo.download import DownloadError, alone, is_offline
from zoo.weight_files import load_h5

FORMAT = "keras_apa_preset"
FORMAT_VERSION = 1
CONFIG = "config.json"
WEIGHTS = {"h5": "model.weights.h5", "safetensors": "model.safetensors"}
FOLDER = Path(__file__).parent / "presets_data"
HUB = "hf://"


def list_presets(pattern="*"):
    """Names of the presets inside the package, those that match a shell pattern.

    Args:
        pattern: A pattern with the wildcards `*`, `?` and `[...]`. The default matches all.

    Returns:
        A list of names for `from_preset`.

    >>> from zoo.presets import list_presets
    >>> list_presets("no_such_*")
    []
    """
    return sorted(path.parent.name for path in FOLDER.glob(f"{pattern}/{CONFIG}"))


def save_preset(
    model,
    folder,
    class_names=None,
    preprocessing=None,
    metrics=None,
    description=None,
    weights_format="h5",
    overwrite=False,
):
    """Write a model as a preset: a folder that `from_preset` reads on every backend.

    The folder appears only when it is complete. If two processes write it at once, one gets an error; with
    `overwrite`, the later one wins and the folder stays whole. The optimizer and the losses are not saved.

    Args:
        model: A functional `keras.Model`, such as one from `zoo.create_model`, also with a `PriorCorrection` behind
            it. A built `keras.Sequential` works too; it is loaded as a functional model.
        folder: The folder to create.
        class_names: One name per output. `None` takes the model's, if it has any.
        preprocessing: A `zoo.Preprocessing`. `None` takes the model's.
        metrics: A mapping from name to number, such as `{"top1": 57.9}`, for `config.json` and the model card.
        description: One or more sentences for the model card.
        weights_format: `"h5"` (Keras's own) or `"safetensors"`.
        overwrite: Whether to replace an existing preset. A folder with other contents is never replaced.

    Returns:
        The folder, a `pathlib.Path`.

    Raises:
        ValueError: If the model is of another kind, if the class names or metrics are wrong, or if the folder exists
            or cannot be written.
        ImportError: If you ask for safetensors and it is not installed.

    >>> import tempfile, zoo
    >>> from zoo.presets import save_preset
    >>> model = zoo.create_model("resnet8", classes=2)
    >>> folder = save_preset(model, tempfile.mkdtemp() + "/pets", class_names=["cat", "dog"])
    >>> sorted(path.name for path in folder.iterdir())
    ['README.md', 'config.json', 'model.weights.h5']
    """
    check_name(weights_format, WEIGHTS, "weights_format")
    folder = Path(folder).expanduser().absolute()
    _check_folder(folder, overwrite)
    model = _described(model, class_names, preprocessing)
    config = {
        "format": FORMAT,
        "format_version": FORMAT_VERSION,
        "keras_apa_version": __version__,
        "keras_version": keras.__version__,
        "description": description,
        "metrics": _check_metrics(metrics),
        "weights": WEIGHTS[weights_format],
        "model": keras.saving.serialize_keras_object(model),
    }
    temporary = folder.with_name(f".{folder.name}-{secrets.token_hex(4)}")
    try:
        temporary.mkdir(parents=True)
    except OSError as error:
        raise ValueError(f"The preset {folder} cannot be written: {error.strerror}.") from error
    try:
        (temporary / CONFIG).write_text(json.dumps(config, indent=1) + "\n", encoding="utf-8")
        (temporary / "README.md").write_text(_card(model, visible(folder.name, lines=False), config), encoding="utf-8")
        if weights_format == "h5":
            model.save_weights(temporary / config["weights"])
        else:
            import_safetensors().save_file(
                {key: np.asarray(keras.ops.convert_to_numpy(v), order="C") for key, v in _variables(model).items()},
                temporary / config["weights"],
            )
        with alone(folder.with_name(f".{folder.name}.lock")):
            _check_folder(folder, overwrite)  # another process may have been faster
            _move(temporary, folder)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    return folder


def _check_folder(folder, overwrite):
    if not folder.exists() or (folder.is_dir() and not any(folder.iterdir())):
        return
    is_preset = (folder / CONFIG).is_file() and _read_config(folder).get("format") == FORMAT
    if not is_preset:
        raise ValueError(f"folder must be new, empty or a preset; given: {str(folder)!r}. Choose another folder.")
    if not overwrite:
        raise ValueError(
            f"folder must be new or empty; given: {str(folder)!r}, a preset. Choose another folder, or overwrite=True."
        )


def _move(temporary, folder):
    """`temporary` in the place of `folder`; what was there goes when the new one stands."""
    if not folder.exists():
        os.rename(temporary, folder)
        return
    old = folder.with_name(f"{temporary.name}-old")
    os.rename(folder, old)
    try:
        os.rename(temporary, folder)
    except OSError:
        os.rename(old, folder)
        raise
    shutil.rmtree(old)


def _described(model, class_names, preprocessing):
    """A `Classifier` on the layers of `model`, uncompiled, with what is known about its images and classes."""
    if not isinstance(model, keras.Model) or not getattr(model, "inputs", None):
        raise ValueError(
            "model must be a functional keras.Model, or a Sequential one that has been built; given: "
            f"{type(model).__name__}."
        )
    # A Sequential model has one of each, but no `input` and `output` before it is called.
    sequential = isinstance(model, keras.Sequential)
    inputs, outputs = (model.inputs[0], model.outputs[0]) if sequential else (model.input, model.output)
    return Classifier(
        inputs,
        outputs,
        name=model.name,
        class_names=getattr(model, "class_names", None) if class_names is None else class_names,
        preprocessing=getattr(model, "preprocessing", None) if preprocessing is None else preprocessing,
        batches_tracked=getattr(model, "batches_tracked", None),
        trained_range=getattr(model, "trained_range", None),
    )


def _check_metrics(metrics):
    if metrics is None:
        return {}
    if not isinstance(metrics, Mapping):
        raise ValueError(f"metrics must be a mapping from name to number; given: {type(metrics).__name__}.")
    for name, value in metrics.items():
        # NumPy's and the backends' scalars are numbers too.
        number = not isinstance(value, (str, bytes, bool)) and hasattr(value, "__float__") and np.ndim(value) == 0
        if not number or not np.isfinite(float(value)):
            raise ValueError(f"metrics must be finite numbers; given: {name} = {value!r}.")
    return {str(name): float(value) for name, value in metrics.items()}


def _variables(model):
    """Variables by layer and place: names of inner layers are counted anew in each process."""
    return {
        f"{layer.name}/{place:02d}_{variable.name}": variable
        for layer in model.layers
        for place, variable in enumerate(layer.weights)
    }


def from_preset(preset, load_weights=True):
    """Load a preset.

    Args:
        preset: The name of a preset inside the package (`list_presets()`), a folder that `save_preset` wrote, or
            `"hf://user/repository"` (or `"hf://user/repository@revision"`) on the Hugging Face Hub. If a folder has
            the same name as a preset of the package, write `./NAME` for the folder.
        load_weights: Whether to load the weights. Without them, the network has its start values.

    Returns:
        An uncompiled `zoo.Classifier` with `class_names` and `preprocessing`.

    Raises:
        ValueError: If the name does not exist (the message lists the nearest ones), or if the folder is damaged or
            not a preset.
        zoo.download.DownloadError: If the Hub cannot be reached or has no such repository.
        ImportError: If huggingface_hub or safetensors is needed and not installed.

    >>> import tempfile, zoo
    >>> from zoo.presets import from_preset, save_preset
    >>> folder = tempfile.mkdtemp() + "/pets"
    >>> _ = save_preset(zoo.create_model("resnet8", classes=2), folder, class_names=["cat", "dog"])
    >>> from_preset(folder).class_names
    ('cat', 'dog')
    """
    folder = _find(preset)
    config = _check_config(folder)
    path = folder / config["weights"]
    if load_weights and not path.is_file():
        raise ValueError(f"The preset {folder} has no {config['weights']}.")
    try:
        model = keras.saving.deserialize_keras_object(config["model"], safe_mode=True)
    except (ValueError, TypeError, KeyError) as error:
        raise ValueError(f"The model of the preset {folder} cannot be built: {first_line(error)}") from error
    if not isinstance(model, Classifier):
        raise ValueError(f"The preset {folder} holds a {type(model).__name__} and not a model.")
    if load_weights:
        _load(model, path)
    return model


def preset_config(preset):
    """The contents of a preset's `config.json`, a dict: `description`, `metrics`, versions, the model's configuration.

    The argument and the errors are as in `from_preset`.

    >>> import tempfile, zoo
    >>> from zoo.presets import preset_config, save_preset
    >>> folder = tempfile.mkdtemp() + "/pets"
    >>> _ = save_preset(zoo.create_model("resnet8", classes=2), folder, metrics={"top1": 91.5})
    >>> preset_config(folder)["metrics"]
    {'top1': 91.5}
    """
    return _check_config(_find(preset))


def _find(preset):
    """The folder of a preset, fetched if it is on the Hub."""
    if not isinstance(preset, (str, os.PathLike)) or not str(preset):
        raise ValueError(f"preset must be a name, a folder or {HUB}user/repository; given: {preset!r}.")
    name = os.fspath(preset)
    if name.startswith(HUB):
        return _fetch(name)
    if "://" in name:
        raise ValueError(f"preset must be a name, a folder or {HUB}user/repository; given: {name!r}.")
    if name in list_presets():
        return FOLDER / name
    if Path(name).expanduser().is_dir():
        return Path(name).expanduser()
    near = difflib.get_close_matches(name, list_presets(), n=3)
    raise ValueError(
        f"preset must be the name of a preset or a folder; given: {name!r}."
        + (f" Nearest: {', '.join(near)}." if near else "")
        + f" Presets: {', '.join(list_presets()) or 'none in this installation'}."
    )


def _fetch(handle):
    match = re.fullmatch(r"hf://([\w.-]+/[\w.-]+)(?:@([\w./-]+))?", handle)
    if match is None:
        raise ValueError(
            f"preset must look like hf://user/repository or hf://user/repository@revision; given: {handle!r}."
        )
    try:
        from huggingface_hub import snapshot_download
    except ImportError as error:
        raise ImportError(
            f'{handle} needs the package huggingface_hub: pip install "keras-apa[zoo]".', name="huggingface_hub"
        ) from error
    repository, revision = match.groups()
    try:
        folder = snapshot_download(
            repository,
            revision=revision,
            allow_patterns=[CONFIG, *WEIGHTS.values(), "README.md"],
            library_name="keras-apa",
            library_version=__version__,
            local_files_only=is_offline(),
            endpoint=os.environ.get("HF_ENDPOINT") or None,
        )
    except Exception as error:  # the Hub's own, those of its HTTP library and of the system
        link = f"{os.environ.get('HF_ENDPOINT') or 'https://huggingface.co'}/{repository}"
        raise DownloadError(
            f"Cannot fetch {handle}: {first_line(error)} Fetch {link} yourself and give its folder to from_preset."
        ) from error
    return Path(folder)


def _read_config(folder):
    try:
        config = json.loads((folder / CONFIG).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ValueError(f"{folder} is not a preset: {CONFIG} cannot be read ({first_line(error)}).") from error
    return config if isinstance(config, dict) else {}


def _check_config(folder):
    config = _read_config(folder)
    if config.get("format") != FORMAT:
        models = [path.name for path in sorted(folder.glob("*.keras"))]
        hint = f" The folder holds {', '.join(models)}: name that file." if models else ""
        raise ValueError(f"{folder} is not a preset of keras-apa: its {CONFIG} does not say so.{hint}")
    version = config.get("format_version")
    if version != FORMAT_VERSION:
        raise ValueError(
            f"The preset {folder} has format_version {version!r}, but this keras-apa ({__version__}) reads "
            f"{FORMAT_VERSION}; it was written by keras-apa {config.get('keras_apa_version')}."
        )
    if config.get("weights") not in WEIGHTS.values() or not isinstance(config.get("model"), dict):
        raise ValueError(f"The preset {folder} is damaged: its {CONFIG} names no model or no weights.")
    return config


def _load(model, path):
    if path.name == WEIGHTS["h5"]:
        load_h5(model, path)
        return
    arrays = read_safetensors(path)
    variables = _variables(model)
    shapes = {key: tuple(variable.shape) for key, variable in variables.items()}
    different = sorted(
        key
        for key in shapes.keys() | arrays.keys()
        if key not in arrays or key not in shapes or arrays[key].shape != shapes[key]
    )
    if different:
        raise ValueError(f"{path} does not fit {model.name!r}; nothing was loaded.\n{', '.join(different)}")
    for key, variable in variables.items():
        variable.assign(arrays[key])


def _card(model, name, config):
    """The model card; the head is YAML, in the form of Hugging Face."""
    lines = ["---", "library_name: keras", "pipeline_tag: image-classification", "tags:"]
    lines += [f"- {tag}" for tag in ("keras", "keras-apa", "image-classification", "long-tailed-recognition")]
    lines += ["---", "", f"# {markdown(name)}", ""]
    if config["description"]:
        lines += [visible(config["description"]).strip(), ""]
    lines += [
        f"{code(model.name)} of keras-apa {config['keras_apa_version']}, {model.count_params():,} parameters; loads on "
        "TensorFlow, JAX and PyTorch.",
        "",
        "```python",
        "import zoo",
        "",
        f"model = zoo.from_preset({json.dumps(name, ensure_ascii=False)})  # the folder, or hf://user/{name}",
    ]
    if model.preprocessing is not None:
        lines += ["outputs = model.predict(model.preprocessing(images))  # pixels from 0 to 255"]
    lines += ["```", ""]
    if config["metrics"]:
        lines += ["| metric | value |", "| --- | --- |"]
        lines += [f"| {markdown(metric)} | {value:g} |" for metric, value in config["metrics"].items()] + [""]
    lines += [f"* Input shape: `{model.input_shape}`"]
    if model.preprocessing is not None:
        lines += [f"* {_preprocessing(model.preprocessing)}"]
    for layer in model.layers:
        if isinstance(layer, PriorCorrection):
            lines += [f"* Corrects the class prior of its training data ({layer.variant}, tau {layer.tau:g})."]
    if model.class_names is not None:
        names = ", ".join(map(markdown, model.class_names[:10])) + (", ..." if len(model.class_names) > 10 else "")
        lines += [f"* {len(model.class_names)} classes: {names}"]
    return "\n".join(lines) + "\n"


def _preprocessing(preprocessing):
    height, width = preprocessing.image_size
    resized = f"resized to {height}x{width}"
    if preprocessing.resize_size is not None:
        resized = f"shorter side to {preprocessing.resize_size} pixels, {height}x{width} from the centre"
    return (
        f"Preprocessing: {resized}; mean {preprocessing.mean} and standard deviation {preprocessing.std} of pixels "
        "divided by 255."
    )
