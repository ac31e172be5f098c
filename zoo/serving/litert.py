"""LiteRT (TensorFlow Lite), through a SavedModel; only for processes on the TensorFlow backend."""

import contextlib
import json
import pathlib
import tempfile
import warnings

import numpy as np

from keras_apa import _keras_internals as internals
from keras_apa.layers import AGLU, APA
from zoo.serving.graph import Graph, in_float32, plain_log1p
from zoo.serving.saved_model import plain_convolutions, serving_default, write_signatures

# Inside APA and AGLU, which divide by lambda: after a rounding to 256 steps there is little left to see.
_IN_FLOAT = ["ADD", "DIV", "EXP", "GREATER_EQUAL", "LESS_EQUAL", "LOG", "LOGICAL_AND", "MAXIMUM", "MUL", "NEG", "RELU",
             "SELECT", "SELECT_V2", "SUB"]  # fmt: skip
# Half precision has nothing between 0 and 6e-8. The curve with this lambda differs from those below it by 3e-4 at most.
_SMALLEST_LAMBDA = 1e-3


def write_litert(model, folder, settings, representative_images=None):
    """Write `model.tflite`, with one signature `serving_default`, and a description into `folder`.

    It uses LiteRT's built-in operations only, so that no TensorFlow is needed beside the runtime.

    Raises: ValueError: If the model has an operation that LiteRT lacks.
    """
    import tensorflow as tf

    model = in_float32(model)
    with tempfile.TemporaryDirectory(prefix="keras-apa-export-") as saved_model:
        lambdas = _lambdas_at_least(model, _SMALLEST_LAMBDA if settings.quantization else 0.0)
        with lambdas, Graph(model, settings) as graph, plain_convolutions(model, split=False), plain_log1p():
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
            content = _convert_in_part(converter) if _is_mixed(model, settings) else converter.convert()
            _open(content)
        except Exception as error:
            raise ValueError(f"LiteRT cannot run this model with its built-in operations: {error}") from error
    (folder / "model.tflite").write_bytes(content)
    (folder / "model.json").write_text(json.dumps(settings.description()), encoding="utf-8")


def _learned(model):
    return [layer for layer in internals.all_layers(model) if isinstance(layer, (APA, AGLU))]


@contextlib.contextmanager
def _lambdas_at_least(model, least):
    """While it lasts, no lambda of the model is smaller."""
    changed = [
        (variable, variable.numpy())
        for layer in _learned(model)
        for variable in layer.weights
        if variable.name == "lambda" and least
    ]
    try:
        for variable, value in changed:
            variable.assign(np.maximum(value, least))
        yield
    finally:
        for variable, value in changed:
            variable.assign(value)


def _is_mixed(model, settings):
    return settings.quantization == "int8" and bool(_learned(model))


def _convert_in_part(converter):
    """In int8, but for the operations that learned activations are made of."""
    import tensorflow as tf

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of an interpreter that TensorFlow calls old
        options = tf.lite.experimental.QuantizationDebugOptions(denylisted_ops=_IN_FLOAT)
        debugger = tf.lite.experimental.QuantizationDebugger(
            converter=converter, debug_dataset=converter.representative_dataset, debug_options=options
        )
        return debugger.get_nondebug_quantized_model()


def _open(content):
    """Make the interpreter ready as a user's does; a file that cannot be opened is not worth writing."""
    import tensorflow as tf

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        tf.lite.Interpreter(model_content=content).allocate_tensors()
