"""Models for serving: TensorFlow SavedModel, ONNX and LiteRT, from a model of any backend."""

import importlib
import json
import numbers
import pathlib

import keras
import numpy as np

from keras_apa._checks import check_name
from keras_apa._text import as_text
from zoo.detection.export import DetectorSettings, export_detector, write_detector
from zoo.detection.rcnn import FasterRCNN
from zoo.preprocessing import Preprocessing
from zoo.serving.graph import Settings, choose_activation, image_shape, num_classes
from zoo.serving.litert import write_litert
from zoo.serving.onnx import write_onnx
from zoo.serving.process import write_on_able_backend
from zoo.serving.saved_model import write_saved_model
from zoo.serving.target import FORMATS, model_name

QUANTIZATIONS = ("float16", "int8")


def export(
    model,
    folder,
    format="tf_saved_model",
    preprocessing=None,
    class_names=None,
    top_k=5,
    activation=None,
    quantization=None,
    representative_images=None,
    image_size=None,
):
    """Write a model for a server or a device, with its preprocessing inside.

    Every format has the function `serving_default`. It takes `images`, a float batch of any size with pixels from 0
    to 255, and returns `logits` and `probabilities`. A model without a classifier returns its `features` instead; if
    its output is a dict, the names are those of the dict.

    A SavedModel also has the function `serve_jpeg`. It takes `image_bytes`, a batch of encoded JPEG or PNG images of
    any size, and returns the `top_k` most probable `classes` (names), `indices` and `probabilities`.

    A `keras_apa.layers.PriorCorrection` in the model is part of the graph. Batch normalisation and dropout are in
    inference mode. The numbers are float32, whatever the model's precision.

    A detector (`zoo.FasterRCNN`, `zoo.MaskRCNN`) becomes a SavedModel. Its `serving_default` takes two inputs:
    `images` of `image_size`, and `image_size` `(batch, 2)`, the height and width beyond which an image is padding. It
    returns `boxes`, `scores`, `labels` and `masks`, as a call of the model does. Its `serve_jpeg` resizes and pads
    images of any size. It returns boxes in the pixels of those images, and the `classes` (names) of the labels.

    The TensorFlow backend writes the SavedModel, so that a default TensorFlow Serving server can run it. If another
    backend is running, this happens in a fresh process.

    Args:
        model: A functional or Sequential model of images, or a detector, on any backend.
        folder: `NAME`, in which the next free version is created, or `NAME/VERSION`, where the version is a whole
            number that is free.
        format: `"tf_saved_model"`, `"onnx"` (`model.onnx`) or `"litert"` (`model.tflite`).
        preprocessing: A `zoo.Preprocessing`. `None` takes the model's.
        class_names: One name per class. `None` takes the model's, or `"0"`, `"1"`, ...
        top_k: The number of classes that `serve_jpeg` returns. If the model has fewer, it returns all.
        activation: The function from logits to probabilities: `"softmax"`, `"sigmoid"` or `"gumbel"`. `None` takes
            the activation that the model ends in. If there is none, it is softmax.
        quantization: For LiteRT: `None`, `"float16"` (weights), or `"int8"` (weights and, where there is a kernel for
            it, activations).
        representative_images: For `"int8"`: about 100 images, `(count, height, width, channels)`, with pixels from 0
            to 255.
        image_size: The height and width of a detector's images. `None` takes a square in which every resized image
            fits.

    Returns:
        The path of the version's folder, a `pathlib.Path`.

    Raises:
        ValueError: If an argument is not allowed, the version exists or cannot be written, or the format lacks an
            operation. Nothing is written then.
        ImportError: If a package is missing.
        RuntimeError: If the fresh process fails.

    >>> import pathlib, tempfile, zoo
    >>> model = zoo.create_model("resnet8", classes=2, input_shape=(8, 8, 3))
    >>> model.preprocessing = zoo.Preprocessing(image_size=(8, 8))
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     path = zoo.export(model, folder, format="litert")
    ...     path.name, sorted(file.name for file in path.iterdir())
    ('1', ['model.json', 'model.tflite'])
    """
    if is_detector(model):
        return export_detector(
            model,
            folder,
            format,
            preprocessing,
            class_names,
            top_k,
            activation,
            quantization,
            representative_images,
            image_size,
        )
    check_name(format, FORMATS, "format")
    _check_model(model)
    if image_size is not None:
        raise ValueError(
            f"image_size must be left out for a model that is no detector; given: {image_size!r}. "
            "The size is in the model's preprocessing."
        )
    settings = Settings(
        format=format,
        name=model_name(folder, format),
        preprocessing=_check_preprocessing(model, preprocessing),
        class_names=_check_class_names(model, class_names),
        top_k=_check_top_k(top_k),
        activation=None if num_classes(model) is None else choose_activation(model, activation),
        quantization=quantization,
    )
    images = _check_quantization(model, settings, representative_images)
    return write_on_able_backend(write, model, folder, settings, images)


def write(model, path, settings, representative_images=None):
    """Write the files of `settings.format` into the empty folder `path`, on this process's backend."""
    if is_detector(model):
        write_detector(model, path, settings)
    elif settings.format == "tf_saved_model":
        write_saved_model(model, path, settings)
    elif settings.format == "onnx":
        write_onnx(model, path, settings)
    else:
        write_litert(model, path, settings, representative_images)


def main(job):
    """Do what `job.json` in the folder `job` says; the exit code."""
    job = pathlib.Path(job)
    description = json.loads((job / "job.json").read_text(encoding="utf-8"))
    for name in description["modules"]:
        importlib.import_module(name)
    # Uncompiled: the optimizer's class is the other backend's. Not safe_mode: whoever exports a model has it in memory,
    # so its Python code, if any, has been run already.
    model = keras.saving.load_model(job / "model.keras", compile=False, safe_mode=False)
    images = np.load(job / "images.npy") if (job / "images.npy").exists() else None
    kind = DetectorSettings if description["settings"].get("kind") == "detector" else Settings
    try:
        write(model, pathlib.Path(description["folder"]), kind.from_config(description["settings"]), images)
    except ValueError as error:
        (job / "error.txt").write_text(str(error), encoding="utf-8", errors="surrogatepass")
        return 1
    return 0


def is_detector(model):
    """Whether a model is one of the zoo's detectors."""
    return isinstance(model, FasterRCNN)


def _check_model(model):
    if not isinstance(model, keras.Model):
        raise ValueError(f"model must be a keras.Model; given: {model!r}.")
    if not model.built:
        raise ValueError(
            f"model must be built; given: {model.name!r}, which is not. "
            "Call it on a batch first, or give it an input shape."
        )
    if not isinstance(model, keras.Sequential) and not hasattr(model, "operations"):
        raise ValueError(
            f"model must be functional or Sequential; given: {type(model).__name__}, which overrides call()."
        )
    if not isinstance(model.input_shape, tuple) or len(model.input_shape) != 4:
        raise ValueError(f"model must take one batch of images; given: the input shape {model.input_shape}.")


def _check_preprocessing(model, preprocessing):
    if preprocessing is None:
        preprocessing = getattr(model, "preprocessing", None)
    if preprocessing is None:
        raise ValueError(
            f"preprocessing must be given for {model.name!r}, which does not say how its images are prepared; given: "
            "None. Give preprocessing=zoo.Preprocessing(image_size=(height, width), mean=..., std=...). For a network "
            "that takes pixels from 0 to 255 itself, std is 1/255 for each channel."
        )
    if not isinstance(preprocessing, Preprocessing):
        raise ValueError(f"preprocessing must be a zoo.Preprocessing or None; given: {preprocessing!r}.")
    sizes = image_shape(model, preprocessing.channels)[:2]
    if any(size not in (None, wanted) for size, wanted in zip(sizes, preprocessing.image_size, strict=True)):
        raise ValueError(
            f"preprocessing must make images of the size of the model's input, {sizes}; given: "
            f"{preprocessing.image_size}."
        )
    return preprocessing


def _check_class_names(model, class_names):
    classes = num_classes(model)
    if classes is None:
        if class_names is not None:
            raise ValueError(
                f"class_names must be left out for {model.name!r}, which has no classifier; given: {class_names!r}."
            )
        return None
    if class_names is None:
        class_names = getattr(model, "class_names", None) or range(classes)
    if isinstance(class_names, str) or len(class_names) != classes:
        raise ValueError(f"class_names must have {classes} names, one a class; given: {class_names!r}.")
    return tuple(as_text(name) for name in class_names)


def _check_top_k(top_k):
    if not isinstance(top_k, numbers.Integral) or isinstance(top_k, bool) or top_k < 1:
        raise ValueError(f"top_k must be a whole number of at least 1; given: {top_k!r}.")
    return int(top_k)


def _check_quantization(model, settings, images):
    quantization = settings.quantization
    if quantization is not None:
        check_name(quantization, QUANTIZATIONS, "quantization")
        if settings.format != "litert":
            raise ValueError(
                f"quantization must be left out unless format='litert'; given: {quantization!r} with "
                f"{settings.format!r}."
            )
    if quantization != "int8":
        if images is not None:
            raise ValueError(
                "representative_images must be left out unless quantization='int8'; "
                f"given: {type(images).__name__} with quantization={quantization!r}."
            )
        return None
    if images is None:
        raise ValueError(
            "representative_images must be given with quantization='int8'; given: None. "
            "Give some 100 images, pixels from 0 to 255."
        )
    images = np.asarray(images, "float32")
    shape = image_shape(model, settings.preprocessing.channels)
    if (
        images.ndim != 4
        or not len(images)
        or any(n not in (None, m) for n, m in zip(shape, images.shape[1:], strict=True))
    ):
        raise ValueError(
            f"representative_images must have the shape (count, {', '.join(map(str, shape))}); given: {images.shape}."
        )
    return images
