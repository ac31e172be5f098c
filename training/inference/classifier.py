"""Predicts the classes of image files with a saved model."""

from __future__ import annotations

import dataclasses
import functools
import json
import logging
import os
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import keras
import numpy as np

from keras_apa._keras_internals import all_layers
from keras_apa._text import check_utf8
from training.images import read_image
from training.inference.detector import MIN_SCORE, DetectionPredictor
from training.models import load_model
from zoo import Preprocessing
from zoo.export import is_detector
from zoo.presets import CONFIG, list_presets
from zoo.serving.graph import final_activation, num_classes

# Beside the warm-up requests of a SavedModel: its preprocessing and class names, which the graph does not tell.
DESCRIPTION = "model.json"


@dataclasses.dataclass(frozen=True)
class Predictor:
    """A model of any kind, as a function of pixels.

    Attributes:
        probabilities: Maps a uint8 batch `(batch, height, width, channels)` to an array `(batch, classes)`.
        preprocessing: The images that it wants.
        class_names: A name for each class; the numbers of the classes if unknown.
        assumption: What was taken for granted where the model does not say what it wants; empty otherwise.
    """

    probabilities: Callable[[np.ndarray], np.ndarray]
    preprocessing: Preprocessing
    class_names: tuple[str, ...]
    assumption: str = ""


def predict_files(
    predictor: Predictor, files: Sequence[str], top_k: int = 5, batch_size: int = 16
) -> Iterator[dict[str, Any]]:
    """What the model sees in each file, in their order; not more than a batch of images is in memory.

    Yields: `{"file", "predictions": [{"rank", "index", "class", "probability"}, ...]}`, the most probable first, or
        `{"file", "error"}`.
    """
    preprocessing = predictor.preprocessing
    # One shape of batch: another one would be compiled anew.
    shape = (min(batch_size, len(files)), *preprocessing.image_size, preprocessing.channels)
    for start in range(0, len(files), batch_size):
        chosen = files[start : start + batch_size]
        pixels, errors = {}, {}
        for file in chosen:
            try:
                pixels[file] = read_image(file, preprocessing)
            except ValueError as error:
                errors[file] = str(error).removeprefix(f"{file}: ")
        found = {}
        if pixels:
            batch = np.zeros(shape, "uint8")
            batch[: len(pixels)] = list(pixels.values())
            found = dict(zip(pixels, predictor.probabilities(batch), strict=False))
        for file in chosen:
            if file in found and not np.isfinite(found[file]).all():
                errors[file] = "the model's output for it is not finite"
            if file in errors:
                yield {"file": file, "error": errors[file]}
            else:
                yield {"file": file, "predictions": _ranked(found[file], predictor.class_names, top_k)}


def _ranked(probabilities: np.ndarray, class_names: Sequence[str], top_k: int) -> list[dict[str, Any]]:
    order = np.argsort(-probabilities, kind="stable")[:top_k]
    return [
        {"rank": rank, "index": int(i), "class": class_names[i], "probability": float(probabilities[i])}
        for rank, i in enumerate(order, start=1)
    ]


def load_predictor(
    model: str | os.PathLike,
    *,
    class_names: str | os.PathLike | None = None,
    image_size: tuple[int, int] | None = None,
    min_score: float | None = None,
    pictures: str | os.PathLike | None = None,
) -> Predictor | DetectionPredictor:
    """Opens a `.keras` file, a SavedModel folder (`NAME` or `NAME/VERSION`) or a preset (folder or name).

    Args:
        model: One of these.
        class_names: A text file with a name a line, instead of the model's own names.
        image_size: Height and width to feed, instead of the model's own; `resize_size` grows with them. Of a detector
            the bounds of the shorter and the longer side.
        min_score: Of a detector: what scores higher is detected, instead of its own threshold; `None` for 0.5.
        pictures: Of a detector: a folder for pictures with what was found.

    Raises: ValueError: If there is no such model, or it cannot be fed with images, or an argument does not fit it.
    """
    loaded = _load(os.fspath(model))
    if isinstance(loaded, keras.Model):
        if not all(np.isfinite(keras.ops.convert_to_numpy(weight)).all() for weight in loaded.weights):
            raise ValueError(f"the weights of {model} must be finite, or it detects nothing; given: NaN or infinity.")
        # Before masks are pasted, which are as large as the image.
        threshold = MIN_SCORE if min_score is None else min_score
        loaded.options = dataclasses.replace(loaded.options, score_threshold=threshold)
        return DetectionPredictor(
            loaded,
            _choose_names(model, class_names, loaded.class_names, loaded.num_classes),
            True if image_size is None else (min(image_size), max(image_size)),
            None if pictures is None else Path(pictures),
        )
    for name, value in (("--min-score", min_score), ("--pictures", pictures)):
        if value is not None:
            raise ValueError(
                f"{name} must be left out for {model}, a classifier; given: {str(value)!r}. It is for detectors."
            )
    preprocessing = _choose_preprocessing(loaded, image_size)
    return Predictor(
        functools.partial(loaded.probabilities, preprocessing),
        preprocessing,
        _choose_names(model, class_names, loaded.class_names, loaded.classes),
        assumption=_assumption(loaded, preprocessing),
    )


def _choose_names(
    model: str | os.PathLike, class_names: str | os.PathLike | None, own: Sequence[str] | None, number: int
) -> tuple[str, ...]:
    """A name for each class: those of the file `class_names`, the model's own, or numbers."""
    names = own if class_names is None else read_class_names(class_names)
    if names is not None and len(names) != number:
        raise ValueError(f"{class_names or model} must have the {number} class names of {model}; given: {len(names)}.")
    return tuple(names or map(str, range(number)))


def read_class_names(path: str | os.PathLike) -> list[str]:
    """The lines of a text file, in the order of the classes.

    Raises: ValueError: If it cannot be read as UTF-8, or has an empty line before its end.
    """
    try:
        names = [line.strip() for line in Path(path).read_text(encoding="utf-8-sig").rstrip().split("\n")]
    except OSError as error:
        raise ValueError(f"--class-names must be a file that can be read; given: {path} ({error.strerror}).") from error
    except UnicodeDecodeError as error:
        raise ValueError(f"--class-names must be a text file in UTF-8; given: {path}.") from error
    if "" in names:
        raise ValueError(
            f"--class-names must be a file with a name a line; given: {path}, whose line {names.index('') + 1} is "
            "empty."
        )
    return names


@dataclasses.dataclass(frozen=True)
class _Loaded:
    """A model as it was opened; `probabilities` maps preprocessing and uint8 pixels to `(batch, classes)`."""

    name: str
    probabilities: Callable[[Preprocessing, np.ndarray], np.ndarray]
    classes: int
    height_width_channels: tuple[int | None, ...]
    preprocessing: Preprocessing | None
    class_names: Sequence[str] | None
    normalizes: bool = False
    trained_range: tuple[float, float] | None = None


def _load(name: str) -> _Loaded | keras.Model:
    """The model as it was opened; a detector as it is."""
    if saved_model := find_saved_model(name):
        return _load_saved_model(name, saved_model)
    if Path(name).is_dir() and name not in list_presets() and not (Path(name) / CONFIG).is_file():
        raise ValueError(
            "MODEL must be a .keras file, a SavedModel (NAME or NAME/VERSION, with saved_model.pb), or a preset (its "
            f"name, hf:// handle or folder, with {CONFIG}); given: the folder {name!r}."
        )
    model = load_model(name)
    return model if is_detector(model) else _describe_keras_model(name, model)


def _describe_keras_model(name: str, model: keras.Model) -> _Loaded:
    shape, output = getattr(model, "input_shape", None), getattr(model, "output_shape", None)
    if not (isinstance(shape, tuple) and len(shape) == 4 and isinstance(output, tuple) and len(output) == 2):
        raise ValueError(
            f"{name} must be a classifier of images; given: a model with input {shape} and output {output}."
        )
    if num_classes(model) is None:
        raise ValueError(
            f"{name} must have a classifier; given: a model that ends in {output[-1]} features of the image."
        )
    formats = (getattr(layer, "data_format", None) for layer in all_layers(model))
    data_format = next(filter(None, formats), "channels_last")
    if data_format == "channels_first":
        _check_channels_first(name)
    activation = final_activation(model)

    def probabilities(preprocessing: Preprocessing, pixels: np.ndarray) -> np.ndarray:
        images = keras.ops.convert_to_numpy(preprocessing(pixels, "channels_last"))
        if data_format == "channels_first":
            images = np.moveaxis(images, -1, 1)
        outputs = np.asarray(model.predict_on_batch(images), "float64")
        if activation:
            return outputs
        link = keras.ops.sigmoid if outputs.shape[-1] == 1 else keras.ops.softmax
        return keras.ops.convert_to_numpy(link(outputs))

    known = getattr(model, "preprocessing", None)
    return _Loaded(
        name,
        probabilities,
        output[-1],
        shape[1:] if data_format == "channels_last" else (*shape[2:], shape[1]),
        known if isinstance(known, Preprocessing) else None,
        getattr(model, "class_names", None),
        trained_range=getattr(model, "trained_range", None),
    )


def _check_channels_first(name: str) -> None:
    """TensorFlow convolves channels first on a GPU and with oneDNN's kernels, which it takes for some CPUs only."""
    if keras.backend.backend() != "tensorflow":
        return
    try:
        keras.ops.conv(np.ones((1, 1, 1, 1), "float32"), np.ones((1, 1, 1, 1), "float32"), data_format="channels_first")
    except Exception as error:
        raise ValueError(
            f"cannot run {name} with channels first: TensorFlow does not convolve them on this processor. Set "
            "TF_ENABLE_ONEDNN_OPTS=1, or KERAS_BACKEND to jax or torch."
        ) from error


def find_saved_model(path: str | os.PathLike) -> Path | None:
    """The folder of a SavedModel: `path` itself, or the highest version in it; `None` if it is neither."""
    path = Path(path)
    if (path / "saved_model.pb").is_file():
        return path
    versions = [file.parent for file in path.glob("*/saved_model.pb") if file.parent.name.isdecimal()]
    return max(versions, key=lambda folder: int(folder.name), default=None)


def _load_saved_model(name: str, folder: Path) -> _Loaded:
    check_utf8(folder, "MODEL")
    import tensorflow as tf

    log = logging.getLogger("absl")
    level = log.level
    # It warns that gradients of the graph are not there; nothing is trained here.
    log.setLevel(logging.ERROR)
    try:
        model = tf.saved_model.load(str(folder))
    except (OSError, tf.errors.OpError) as error:
        raise ValueError(f"cannot load {str(folder)!r}: {str(error).strip().partition(chr(10))[0]}") from error
    finally:
        log.setLevel(level)
    signature = model.signatures.get("serving_default")
    inputs = signature.structured_input_signature[1] if signature else {}
    images = next(iter(inputs.values()), None)
    outputs = signature.structured_outputs if signature else {}
    classes = outputs["probabilities"].shape[-1] if "probabilities" in outputs else None
    if len(inputs) != 1 or images is None or images.shape.rank != 4 or classes is None:
        raise ValueError(
            f"the SavedModel {folder} must have a signature 'serving_default' from a batch of images to "
            "'probabilities'; given: none. Write it with keras-apa export, from a classifier."
        )

    dtype = images.dtype

    def probabilities(preprocessing: Preprocessing, pixels: np.ndarray) -> np.ndarray:
        # By way of the model: a signature does not keep the variables that it needs.
        serve = model.signatures["serving_default"]
        return serve(**{next(iter(inputs)): tf.constant(pixels, dtype)})["probabilities"].numpy()

    description = folder / "assets.extra" / DESCRIPTION
    known = json.loads(description.read_text(encoding="utf-8")) if description.is_file() else {}
    preprocessing = known.get("preprocessing")
    return _Loaded(
        name,
        probabilities,
        classes,
        tuple(images.shape[1:]),
        preprocessing and Preprocessing.from_config(preprocessing),
        known.get("class_names"),
        normalizes=True,
    )


def _choose_preprocessing(loaded: _Loaded, image_size: tuple[int, int] | None) -> Preprocessing:
    """The model's own preprocessing, at `image_size` if given; plain stretching if the model has none."""
    *fixed, channels = loaded.height_width_channels
    own = loaded.preprocessing
    if own is None:
        if channels not in (1, 3):
            raise ValueError(f"{loaded.name} must take images with 1 or 3 channels; given: {channels}.")
        size: Any = image_size or tuple(fixed)
        if None in size:
            raise ValueError(
                f"--image-size must be given for {loaded.name}, which takes images of any size; given: none. Use "
                "--image-size HEIGHT WIDTH."
            )
        std = 1 / 255 if _wants_pixels(loaded) else 1.0
        chosen = Preprocessing(image_size=size, channels=channels, mean=(0.0,) * channels, std=(std,) * channels)
    elif image_size is not None:
        chosen = own.at_size(image_size)
    else:
        chosen = own
    wanted = (*chosen.image_size, chosen.channels)
    if any(size not in (None, given) for size, given in zip(loaded.height_width_channels, wanted, strict=True)):
        shape = "x".join("any" if size is None else str(size) for size in loaded.height_width_channels)
        source = "its preprocessing" if image_size is None else "--image-size"
        raise ValueError(
            f"{source} must make images of {shape}, as {loaded.name} takes them; given: {'x'.join(map(str, wanted))}."
        )
    return chosen


def _assumption(loaded: _Loaded, preprocessing: Preprocessing) -> str:
    if loaded.preprocessing is not None:
        return ""
    height, width = preprocessing.image_size
    stretched = f"they are stretched to {height}x{width} pixels"
    if loaded.normalizes:
        return stretched
    if _wants_pixels(loaded):
        return f"{stretched}, with values from 0 to 255 as in its training"
    scaled = f"{stretched} and scaled to 0..1"
    if loaded.trained_range is None or not (loaded.trained_range[0] < -0.01 or loaded.trained_range[1] > 1.01):
        return scaled
    low, high = loaded.trained_range
    trained = f"it was trained on values from {low:.4g} to {high:.4g}"
    return f"{scaled}, but {trained}: set model.preprocessing and save it again"


def _wants_pixels(loaded: _Loaded) -> bool:
    """Whether a model without preprocessing was trained on pixels as they are."""
    return loaded.trained_range is not None and loaded.trained_range[0] >= 0 and loaded.trained_range[1] > 20
