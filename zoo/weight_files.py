"""Weights in files of every kind, loaded into a model of the zoo: all of them, or none and an error."""

import collections
import os
from collections.abc import Mapping
from pathlib import Path

import keras

from keras_apa.layers import PriorCorrection
from keras_apa.layers.gates import GATES, make_gate
from zoo.checkpoint_files import ENDINGS, first_line, read_state_dict
from zoo.detect import count_classes
from zoo.torch_checkpoint import load_authors

CLASSIFIER_TENSORS = 3  # at most: kernel, bias and scale
SUFFIXES = (".weights.h5", ".keras", ".pth", ".pt", ".safetensors")
# What a layer computes from its weights at inference does not hang on these settings; all the others must agree.
_FREE = {"name", "trainable", "trainable_parts", "dtype", "seed", "momentum", "renorm_momentum", "rate", "dropout",
         "lambda_gradient", "frozen", "frozen_batch_norm", "synchronized", "data_format", "axis", "build_config",
         "module", "registered_name"}  # fmt: skip
_FREE_ENDINGS = ("_initializer", "_regularizer", "_constraint")
# The head of another file is not this model's, and these layers do nothing at inference, or nothing that is in weights.
_HEAD = ("pool", "classifier", "classifier_activation")
_PASSIVE = (keras.layers.InputLayer, keras.layers.Dropout, PriorCorrection)


def check_path(weights):
    """The path of a file that exists, with one of `SUFFIXES`; a ValueError otherwise."""
    path = Path(weights)
    if not has_suffix(path):
        raise ValueError(f"weights must be a path that ends in {', '.join(SUFFIXES)}; given: {str(path)!r}.")
    if not path.is_file():
        raise ValueError(f"weights must be a file that is there; given: {str(path)!r}.")
    return path


def has_suffix(path):
    """Whether a path ends in one of `SUFFIXES`; those of PyTorch's files may be capital letters."""
    return str(path).endswith(SUFFIXES) or Path(path).suffix.lower() in ENDINGS


def open_weights(path):
    """The file at `path`, ready to be asked for its number of classes and to be loaded into a model.

    Raises: ValueError: For another ending, or where no such file is.

    >>> import tempfile, zoo
    >>> from zoo.weight_files import open_weights
    >>> path = tempfile.mkdtemp() + "/mine.weights.h5"
    >>> zoo.create_model("resnet8", classes=2).save_weights(path)
    >>> open_weights(path).classes(zoo.create_model("resnet8"))
    2
    """
    path = check_path(path)
    if path.name.endswith(".weights.h5"):
        return _H5File(path)
    return _KerasFile(path) if path.suffix == ".keras" else _TorchFile(path)


class _H5File:
    """Keras's `.weights.h5`: tensors in the order of the layers, without names and settings."""

    model = None

    def __init__(self, path):
        self.path = path

    def classes(self, model):
        """Number of classes of the file, as far as the layers of `model`, with a classifier, explain its shapes."""
        return _classes_in_h5(model, self.path)

    def load(self, model, build, new_classifier):
        if not new_classifier:
            load_h5(model, self.path, spare=0 if has_classifier(model) else CLASSIFIER_TENSORS)
            return
        # Keras finds the layers by their order, and so needs a network of the shapes of the file.
        theirs = self.classes(model)
        source = build(classes=theirs) if theirs else build(include_top=False, classifier_activation=None)
        load_h5(source, self.path)
        _copy_weights(source, model, self.path, with_classifier=False)


class _KerasFile:
    """A whole model, `.keras`: layers by name, with all their settings."""

    def __init__(self, path):
        self.path = path
        try:
            self.model = keras.models.load_model(path, compile=False, safe_mode=True)
        except (ValueError, TypeError, KeyError, OSError) as error:
            raise ValueError(f"{path} cannot be read as a Keras model: {first_line(error)}") from error
        if not hasattr(self.model, "layers"):
            raise ValueError(f"{path} holds a {type(self.model).__name__} and not a model.")

    def classes(self, model):
        """Number of classes of the file, 0 without a classifier."""
        return _classes(self.model)

    def load(self, model, build, new_classifier):
        with_classifier = has_classifier(model) and not new_classifier
        if different := different_layers(self.model, model, with_classifier):
            more = f"; and {len(different) - 3} more" if len(different) > 3 else ""
            raise ValueError(
                f"{self.path} does not fit {model.name!r}; nothing was loaded.\n"
                f"of another kind: {'; '.join(different[:3])}{more}. Give the options that the file was made with."
            )
        _copy_weights(self.model, model, self.path, with_classifier)


class _TorchFile:
    """A PyTorch checkpoint: tensors by name, without settings."""

    model = None

    def __init__(self, path):
        self.path = path
        self.arrays = read_state_dict(path)

    def classes(self, model):
        """Number of classes of the file, 0 without a classifier."""
        return count_classes({key: tuple(array.shape) for key, array in self.arrays.items()})

    def load(self, model, build, new_classifier):
        load_authors(model, self.arrays, skip_classifier=new_classifier or not has_classifier(model))


def load_weights(model, file, build=None):
    """Load a file into a model of the zoo with the same architecture: all of it, or none and an error.

    A model without a classifier takes the rest of a file that has one. What layers compute, activations and gates
    without parameters included, is compared where the file says it (`.keras`).

    Args:
        model: A model of `zoo.create_model`.
        file: Path of a file of Keras (`.weights.h5`, `.keras`), or of one that `zoo.load_torch_checkpoint` takes
            (`.pth`, `.pt`, `.safetensors`); or what `open_weights` made of it.
        build: Makes the model with other options; with it, a file that has another number of classes, or no
            classifier, leaves the model's classifier as it is.

    Returns: `None` if all is loaded; else the number of classes of the file, 0 for none.
    Raises: ValueError: If there is no such file, or it does not fit.

    >>> import functools, tempfile, zoo
    >>> from zoo.weight_files import load_weights
    >>> build = functools.partial(zoo.create_model, "resnet8")
    >>> path = tempfile.mkdtemp() + "/mine.weights.h5"
    >>> build(classes=2).save_weights(path)
    >>> load_weights(build(classes=2), path)
    >>> load_weights(build(classes=3), path, build)
    2
    """
    file = open_weights(file) if isinstance(file, (str, os.PathLike)) else file
    theirs = file.classes(model) if build is not None and has_classifier(model) else None
    is_new = theirs is not None and theirs != _classes(model)
    file.load(model, build, is_new)
    return theirs if is_new else None


def has_classifier(model):
    """Whether a model of the zoo has its top."""
    return any(layer.name == "classifier" for layer in model.layers)


def _classes(model):
    """Columns of the classifier, 0 without one."""
    return model.get_layer("classifier").output.shape[-1] if has_classifier(model) else 0


def _h5_shapes(path):
    """How many tensors of each shape a `.weights.h5` file has, the optimizer's left out."""
    import h5py

    def note(name, item):
        if isinstance(item, h5py.Dataset) and not name.startswith("optimizer/"):
            shapes[tuple(item.shape)] += 1

    shapes: collections.Counter[tuple[int, ...]] = collections.Counter()
    try:
        with h5py.File(path) as file:
            file.visititems(note)
    except OSError as error:
        raise ValueError(f"{path} cannot be read as .weights.h5 ({error}).") from error
    return shapes


def _classes_in_h5(model, path):
    """Number of classes with which the model would have the shapes of the file, 0 without classifier.

    The file names a layer after its class and its place, so that only the shapes tell. The model's own number if none
    explains them: then more than the classifier differs.
    """
    shapes, own = _h5_shapes(path), _classes(model)
    head = [tuple(variable.shape) for variable in model.get_layer("classifier").weights]
    rest = collections.Counter(tuple(variable.shape) for variable in model.weights) - collections.Counter(head)
    if shapes == rest:
        return 0
    for classes in {shape[-1] for shape in shapes if shape}:
        there = collections.Counter((*shape[:-1], classes) if shape[-1:] == (own,) else shape for shape in head)
        if shapes == rest + there:
            return classes
    return own


def load_h5(model, path, spare=0):
    """Load `.weights.h5` into a model: all of it, or none and a ValueError.

    Keras ignores what a file has and the model has not (an AGLU network would load into one with ReLU), and skips some
    of what the model has and the file has not. So the shapes are counted first; `spare` tensors may be left over.
    """
    shapes = _h5_shapes(path)
    own = collections.Counter(tuple(variable.shape) for variable in model.weights)
    missing, unexpected = own - shapes, shapes - own
    if missing or unexpected.total() > spare:
        raise _misfit(model, path, missing, unexpected)
    before = model.get_weights()
    try:
        model.load_weights(path)
    except (ValueError, KeyError) as error:
        model.set_weights(before)
        raise _misfit(model, path, str(error).partition("\n")[0], {}) from error


def _copy_weights(source, model, path, with_classifier=True):
    """Weights of one model into another whose layers have the same names."""
    theirs, ours = (
        {layer.name: _in_order(layer) for layer in each.layers if layer.weights} for each in (source, model)
    )
    if not with_classifier:
        theirs.pop("classifier", None)
        ours.pop("classifier", None)
    shapes = [{name: [tuple(w.shape) for w in weights] for name, weights in each.items()} for each in (ours, theirs)]
    missing, unexpected = (
        {name: value for name, value in each.items() if other.get(name) != value}
        for each, other in (shapes, reversed(shapes))
    )
    if missing or unexpected:
        raise _misfit(model, path, missing, unexpected)
    for name, weights in ours.items():
        for variable, other in zip(weights, theirs[name], strict=True):
            variable.assign(keras.ops.convert_to_numpy(other))


def _in_order(layer):
    """Its weights; a gate that was given as a layer is built before the rest of its owner, one that is named after."""
    return sorted(layer.weights, key=lambda variable: (variable.name, tuple(variable.shape)))


def different_layers(source, model, with_classifier=True):
    """Which layers of a loaded model compute something else than those of the same name in the one to load it into.

    Their weights may have the same shapes all the same: a network with ReLU takes those of one with SiLU.

    Args:
        source: The model that was read from a file.
        model: The one that is to have its weights.
        with_classifier: Whether the classifier is compared too.

    Returns: A sentence for each such layer.

    >>> import zoo
    >>> from zoo.weight_files import different_layers
    >>> different_layers(zoo.create_model("resnet8", activation="silu"), zoo.create_model("resnet8"))[0]
    "stem_activation: activation='silu' in the file, activation='relu' in the model"
    """
    theirs, ours = ({layer.name: layer for layer in each.layers} for each in (source, model))
    skipped = () if with_classifier else _HEAD
    different = []
    for name, layer in theirs.items():
        if name in skipped or name == "classifier_activation" or isinstance(layer, _PASSIVE):
            continue
        if name not in ours:
            if not layer.weights:  # what has weights is missed by `_copy_weights`
                different.append(f"{name}: {type(layer).__name__} in the file only")
            continue
        there, here = _settings(layer), _settings(ours[name])
        if there != here:
            kinds: tuple[str, ...] = type(layer).__name__, type(ours[name]).__name__
            if kinds[0] == kinds[1]:
                keys = [key for key in there | here if there.get(key) != here.get(key)]
                kinds = tuple(", ".join(f"{key}={each.get(key)!r}" for key in keys) for each in (there, here))
            different.append(f"{name}: {kinds[0]} in the file, {kinds[1]} in the model")
    return different


def _settings(layer):
    """What a layer was made with, as far as its output hangs on it."""
    return {"class_name": type(layer).__name__, **_bare(layer.get_config())}


def _bare(config):
    if isinstance(config, (list, tuple)):
        return [_bare(each) for each in config]
    if not isinstance(config, Mapping):
        return config
    bare = {}
    for key, value in config.items():
        if key in _FREE or key.endswith(_FREE_ENDINGS):
            continue
        if key in ("gate", "spatial_gate") and isinstance(value, str) and value in GATES:
            value = keras.saving.serialize_keras_object(make_gate(value))
        bare[key] = _bare(value)
    return bare


def _misfit(model, path, missing, unexpected):
    parts = [
        f"{what}: {dict(items) if isinstance(items, Mapping) else items}"
        for what, items in (("missing or of another shape", missing), ("unexpected", unexpected))
        if items
    ]
    return ValueError(f"{path} does not fit {model.name!r}; nothing was loaded.\n" + "\n".join(parts))
