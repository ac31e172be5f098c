"""Weights in files of every kind, loaded into a model of the zoo: all of them, or none and an error."""

import collections
from collections.abc import Mapping
from pathlib import Path

import keras

from zoo.checkpoint_files import read_state_dict
from zoo.detect import count_classes
from zoo.torch_checkpoint import load_torch_checkpoint

CLASSIFIER_TENSORS = 3  # at most: kernel, bias and scale
SUFFIXES = (".weights.h5", ".keras", ".pth", ".pt", ".safetensors")


def check_path(weights):
    """The path of a file that exists, with one of `SUFFIXES`; a ValueError otherwise."""
    path = Path(weights)
    if not path.name.endswith(SUFFIXES):
        raise ValueError(f"weights must be a path that ends in {', '.join(SUFFIXES)}; given: {str(path)!r}.")
    if not path.is_file():
        raise ValueError(f"weights: there is no file {str(path)!r}.")
    return path


def load_weights(model, path, build=None):
    """Load a file into a model of the zoo with the same architecture: all of it, or none and an error.

    A model without a classifier takes the rest of a file that has one.

    Args:
        model: A model of `zoo.create_model`.
        path: A file of Keras (`.weights.h5`, `.keras`), or one that `zoo.load_torch_checkpoint` takes (`.pth`, `.pt`,
            `.safetensors`).
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
    path = check_path(path)
    own = _classes(model)

    def is_new(theirs):
        return build is not None and own and theirs != own

    if path.name.endswith(".weights.h5"):
        theirs = _classes_in_h5(model, path) if build is not None and own else own
        if not is_new(theirs):
            load_h5(model, path, spare=0 if own else CLASSIFIER_TENSORS)
            return None
        # Keras finds the layers by their order, and so needs a network of the shapes of the file.
        source = build(classes=theirs) if theirs else build(include_top=False, classifier_activation=None)
        load_h5(source, path)
        _copy_weights(source, model, path, with_classifier=False)
    elif path.suffix == ".keras":
        try:
            source = keras.models.load_model(path, compile=False, safe_mode=True)
        except (ValueError, TypeError, KeyError, OSError) as error:
            raise ValueError(f"{path} cannot be read as a Keras model: {str(error).partition(chr(10))[0]}") from error
        theirs = _classes(source)
        _copy_weights(source, model, path, with_classifier=own and not is_new(theirs))
    else:
        arrays = read_state_dict(path)
        theirs = count_classes({key: tuple(array.shape) for key, array in arrays.items()})
        load_torch_checkpoint(model, arrays, skip_classifier=not own or is_new(theirs))
    return theirs if is_new(theirs) else None


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

    shapes = collections.Counter()
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
    theirs, ours = ({layer.name: layer.weights for layer in each.layers if layer.weights} for each in (source, model))
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


def _misfit(model, path, missing, unexpected):
    parts = [
        f"{what}: {dict(items) if isinstance(items, Mapping) else items}"
        for what, items in (("missing or of another shape", missing), ("unexpected", unexpected))
        if items
    ]
    return ValueError(f"{path} does not fit {model.name!r}; nothing was loaded.\n" + "\n".join(parts))
