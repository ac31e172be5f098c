"""Detectors for serving: a TensorFlow SavedModel with the resizing of images inside."""

import dataclasses
import json

import numpy as np

from keras_apa._checks import check_name
from keras_apa._text import as_text
from zoo.serving.graph import in_float32
from zoo.serving.process import write_on_able_backend
from zoo.serving.saved_model import (
    assert_not_empty,
    check_runs_without_xla,
    decode_each,
    plain_convolutions,
    write_signatures,
    write_warmup_requests,
)
from zoo.serving.target import FORMATS, model_name


@dataclasses.dataclass(frozen=True, kw_only=True)
class DetectorSettings:
    """What `zoo.export` was asked for, checked; it goes to a fresh process as JSON."""

    format: str
    name: str
    image_size: tuple[int, int]
    class_names: tuple[str, ...]
    kind: str = "detector"

    def get_config(self):
        """The fields as JSON can hold them."""
        return dataclasses.asdict(self)

    @classmethod
    def from_config(cls, config):
        """The inverse of `get_config`."""
        sequences = {name: tuple(config[name]) for name in ("image_size", "class_names")}
        return cls(**{**config, **sequences})


def detector_settings(detector, format, name, image_size=None, class_names=None, **others):
    """Checked `DetectorSettings`.

    Raises: ValueError: For what has no place in an exported detector, and for values that are not allowed.

    >>> from zoo.detection import FasterRCNN
    >>> from zoo.detection.export import detector_settings
    >>> detector = FasterRCNN("resnet18", num_classes=2, pyramid_filters=8, box_units=16)
    >>> detector_settings(detector, "tf_saved_model", "birds").image_size
    (1344, 1344)
    """
    if format != "tf_saved_model":
        raise ValueError(
            f"format must be 'tf_saved_model' for a detector; given: {format!r}. Their loops and gathers were not "
            "checked in ONNX and LiteRT, which are for classifiers and features."
        )
    for argument, value in others.items():
        if value is not None:
            raise ValueError(f"{argument} must be left out of the export of a detector; given: {value!r}.")
    transform = detector.preprocessing
    if image_size is None:
        image_size = transform.padded([(transform.max_size, transform.max_size)])
    least = detector.strides[-1]
    given = image_size
    try:
        image_size = tuple(int(side) for side in image_size if int(side) == side)
    except (TypeError, ValueError):
        image_size = ()
    if len(image_size) != 2 or min(image_size) < least:
        raise ValueError(
            f"image_size must be a height and a width of at least {least} pixels, the stride of the last stage; "
            f"given: {given!r}."
        )
    number = detector.num_classes
    if class_names is None:
        class_names = detector.class_names or range(number)
    if isinstance(class_names, str) or len(class_names) != number:
        raise ValueError(f"class_names must have {number} names, one a class; given: {class_names!r}.")
    return DetectorSettings(
        format=format, name=name, image_size=image_size, class_names=tuple(as_text(name) for name in class_names)
    )


def export_detector(
    detector,
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
    """`zoo.export` for a detector; all its arguments, of which some have no place here, and its errors."""
    check_name(format, FORMATS, "format")
    settings = detector_settings(
        detector,
        format,
        model_name(folder, format),
        image_size,
        class_names,
        top_k=None if top_k == 5 else top_k,
        preprocessing=preprocessing,
        activation=activation,
        quantization=quantization,
        representative_images=representative_images,
    )
    return write_on_able_backend(write_detector, detector, folder, settings)


def write_detector(detector, folder, settings, representative_images=None):
    """Write the SavedModel with its signatures, warm-up requests and a description; on the TensorFlow backend."""
    import tensorflow as tf

    detector = in_float32(detector)
    with plain_convolutions(detector):
        functions = {
            "serving_default": serving_default(detector, settings.image_size),
            "serve_jpeg": serve_jpeg(detector, settings),
        }
        write_signatures(detector, folder, functions)
    check_runs_without_xla(folder / "saved_model.pb")
    extra = folder / "assets.extra"
    extra.mkdir()
    description = {
        "class_names": settings.class_names,
        "image_size": settings.image_size,
        "preprocessing": detector.preprocessing.get_config(),
    }
    (extra / "model.json").write_text(json.dumps(description), encoding="utf-8")
    height, width = settings.image_size
    picture = tf.io.encode_jpeg(tf.zeros((height, width, 3), "uint8")).numpy()
    requests = {
        "serving_default": {
            "images": np.zeros((1, height, width, 3), "float32"),
            "image_size": np.array([[height, width]], "int32"),
        },
        "serve_jpeg": {"image_bytes": [picture]},
    }
    write_warmup_requests(extra / "tf_serving_warmup_requests", settings.name, requests)


def serving_default(detector, image_size):
    """The signature for batches of pixels, `images` and `image_size`: what calling the detector with them gives."""
    import tensorflow as tf

    def serve(images, image_size):
        with tf.control_dependencies([assert_not_empty(images)]):
            images = tf.identity(images)
        return detector({"images": images, "image_size": image_size}, training=False)

    specs = [
        tf.TensorSpec((None, *image_size, 3), "float32", name="images"),
        tf.TensorSpec((None, 2), "int32", name="image_size"),
    ]
    return tf.function(serve, input_signature=specs, autograph=False)


def serve_jpeg(detector, settings):
    """The signature for batches of encoded JPEG or PNG images, `image_bytes`; boxes in the pixels of the images."""
    import tensorflow as tf

    transform, (height, width) = detector.preprocessing, settings.image_size

    def fit(image):
        given = tf.shape(image)[:2]
        resized = resized_size(transform, given, (height, width))
        pixels = tf.image.resize(tf.cast(image, "float32"), resized, "bilinear", antialias=False)
        pixels = tf.pad(pixels, ((0, height - resized[0]), (0, width - resized[1]), (0, 0)))
        return tf.ensure_shape(pixels, (height, width, 3)), resized, given

    specs = (
        tf.TensorSpec((height, width, 3), "float32"),
        tf.TensorSpec((2,), "int32"),
        tf.TensorSpec((2,), "int32"),
    )

    def serve(image_bytes):
        pixels, resized, given = decode_each(image_bytes, 3, fit, specs)
        found = detector({"images": pixels, "image_size": resized}, training=False)
        scale = tf.cast(given, "float32") / tf.cast(resized, "float32")
        scale = tf.stack([scale[:, 1], scale[:, 0], scale[:, 1], scale[:, 0]], -1)[:, tf.newaxis]
        names = tf.constant((*settings.class_names, ""))  # that of padding, whose label is -1
        labels = tf.where(found["labels"] < 0, detector.num_classes, found["labels"])
        return {**found, "boxes": found["boxes"] * scale, "classes": tf.gather(names, labels)}

    return tf.function(serve, input_signature=[tf.TensorSpec((None,), "string", name="image_bytes")], autograph=False)


def resized_size(transform, size, most):
    """Height and width after resizing, as `DetectionPreprocessing.resized`, and at most `most`; an int32 tensor."""
    import tensorflow as tf

    size = tf.cast(size, "float64")
    scale = tf.minimum(transform.min_size / tf.reduce_min(size), transform.max_size / tf.reduce_max(size))
    # Where the image of the network is smaller than the bounds.
    scale = tf.minimum(scale, tf.reduce_min(tf.constant(most, "float64") / size))
    return tf.cast(tf.maximum(tf.floor(size * scale), 1.0), "int32")
