"""LiteRT (TensorFlow Lite), through a SavedModel; only for processes on the TensorFlow backend."""

import json
import pathlib
import tempfile

from zoo._export_graph import Graph, in_float32
from zoo._export_saved_model import plain_convolutions, serving_default, write_signatures


def write_litert(model, folder, settings, representative_images=None):
    """Write `model.tflite`, with one signature `serving_default`, and a description into `folder`.

    It uses LiteRT's built-in operations only, so that no TensorFlow is needed beside the runtime.

    Raises: ValueError: If the model has an operation that LiteRT lacks.
    """
    import tensorflow as tf

    model = in_float32(model)
    with tempfile.TemporaryDirectory(prefix="keras-apa-export-") as saved_model:
        with Graph(model, settings) as graph, plain_convolutions(model, split=False):
            write_signatures(model, pathlib.Path(saved_model), {"serving_default": serving_default(graph)})
        converter = tf.lite.TFLiteConverter.from_saved_model(saved_model, signature_keys=["serving_default"])
        if settings.quantization is not None:
            converter.optimizations = [tf.lite.Optimize.DEFAULT]
        if settings.quantization == "float16":
            converter.target_spec.supported_types = [tf.float16]
        if settings.quantization == "int8":
            # Where an operation has no int8 kernel, it stays in float32.
            converter.representative_dataset = lambda: ({"images": image[None]} for image in representative_images)
        try:
            content = converter.convert()
        except Exception as error:
            raise ValueError(f"LiteRT cannot run this model with its built-in operations: {error}") from error
    (folder / "model.tflite").write_bytes(content)
    (folder / "model.json").write_text(json.dumps(settings.description()))
