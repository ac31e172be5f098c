"""Keras's own `model.export` of models with layers and functions of this package, in every format that runs here."""

import keras
import numpy as np
import pytest
from backends import CURRENT
from keras import layers

from keras_apa import ops
from keras_apa.layers import (
    AGLU,
    APA,
    CBAM,
    CosineDense,
    Gumbel,
    NormalizedConv2D,
    NormalizedDense,
    PriorCorrection,
    WrappedCauchyDense,
)

pytestmark = pytest.mark.filterwarnings("ignore")  # of converters, about NumPy's old names and traced sizes
LAST = {"data_format": "channels_last"}


def constant(value):
    return keras.initializers.Constant(value)


def everything():
    """One model with an output for each layer and function; the first are those that divide by lambda."""
    inputs = keras.Input((6, 5, 8))
    vector = layers.Flatten()(inputs)[:, :8]
    lambdas = [-0.1, 1e-6, 0.7]
    units = [AGLU(lambda_initializer=constant(value)) for value in lambdas]
    units += [APA(lambda_initializer=constant(value), kappa_initializer="ones") for value in lambdas]
    units += [AGLU(lambda_gradient="paper", per_channel=True), Gumbel(learn_temperature=True)]
    units += [CBAM(4, gate="apa", spatial_gate="gumbel", **LAST), NormalizedConv2D(3, **LAST)]
    outputs = [unit(inputs) for unit in units]
    outputs += [ops.log_gumbel(inputs), ops.log1m_gumbel(inputs), ops.log_apa(inputs, 1.2, 1e-3)]
    heads = [
        CosineDense(3),
        NormalizedDense(3, temperature=20.0),
        WrappedCauchyDense(3),
        PriorCorrection([9] * 7 + [3]),
    ]
    outputs += [head(vector) for head in (*heads, layers.Dense(3, activation=AGLU()))]
    return keras.Model(inputs, outputs)


@pytest.fixture(scope="module")
def exported():
    """The model, images that reach far into both tails, and what it makes of them."""
    keras.utils.set_random_seed(0)
    model = everything()
    images = np.random.default_rng(0).normal(size=(3, 6, 5, 8)) * np.array([0.1, 3.0, 10.0]).reshape(3, 1, 1, 1)
    images = images.astype("float32")
    return model, images, model.predict(images, verbose=0)


def check(found, expected):
    assert len(found) == len(expected)
    for value, wanted in zip(found, expected, strict=True):
        scale = np.maximum(1.0, np.abs(wanted))
        np.testing.assert_allclose(np.asarray(value) / scale, wanted / scale, rtol=0, atol=1e-5)


@pytest.mark.skipif(CURRENT == "jax", reason="Keras needs the package jax2onnx there")
def test_onnx_computes_what_keras_does(exported, tmp_path):
    import onnxruntime

    model, images, expected = exported
    model.export(tmp_path / "model.onnx", format="onnx", verbose=False)
    session = onnxruntime.InferenceSession(tmp_path / "model.onnx")
    check(session.run(None, {session.get_inputs()[0].name: images}), expected)


@pytest.mark.skipif(CURRENT != "tensorflow", reason="Keras needs the package litert-torch on PyTorch; not on JAX")
def test_litert_computes_what_keras_does(exported, tmp_path):
    from ai_edge_litert.interpreter import Interpreter

    model, images, expected = exported
    model.export(tmp_path / "model.tflite", format="litert", verbose=False)
    # An interpreter without TensorFlow's own operations.
    found = Interpreter(str(tmp_path / "model.tflite")).get_signature_runner()(**{model.inputs[0].name: images})
    check([found[f"output_{i}"] for i in range(len(found))], expected)


def small():
    """A model with each of the functions that divide by lambda, and images for it."""
    inputs = keras.Input((8,))
    outputs = [AGLU(lambda_initializer="zeros")(inputs), APA()(inputs), ops.apa(inputs, 1.2, 1e-3)]
    return keras.Model(inputs, outputs), np.random.default_rng(0).normal(size=(1, 8)).astype("float32")


@pytest.mark.skipif(CURRENT == "torch", reason="Keras's own fails there for every model")
def test_saved_model_computes_what_keras_does_with_one_operation_for_log1p(tmp_path):
    import tensorflow as tf

    model, inputs = small()
    model.export(tmp_path / "model", verbose=False)
    loaded = tf.saved_model.load(tmp_path / "model")
    check(loaded.serve(inputs), model.predict(inputs, verbose=0))
    content = (tmp_path / "model/saved_model.pb").read_bytes()
    assert (b"Log1p" if CURRENT == "tensorflow" else b"XlaCallModule") in content


@pytest.mark.skipif(CURRENT != "torch", reason="a format of PyTorch")
def test_exported_program_computes_what_keras_does(tmp_path):
    import torch

    model, inputs = small()
    model.export(tmp_path / "model.pt2", format="torch", verbose=False)
    found = torch.export.load(tmp_path / "model.pt2").module()(torch.tensor(inputs))
    check([value.detach() for value in found], model.predict(inputs, verbose=0))


@pytest.mark.skipif(CURRENT != "torch", reason="what Keras gives to OpenVINO on PyTorch")
def test_traced_module_calls_nothing_back():
    import torch

    traced = torch.jit.trace(small()[0], (torch.ones((1, 8)),))
    assert not [node for node in traced.inlined_graph.nodes() if node.kind() == "prim::PythonOp"]


@pytest.mark.skipif(CURRENT != "tensorflow", reason="operations of TensorFlow's graph")
def test_only_a_converter_gets_other_operations():
    import tensorflow as tf

    def names():
        function = tf.function(lambda x: ops.aglu(x, 1.0, 0.5) + ops.log1m_gumbel(x))
        graph = function.get_concrete_function(tf.TensorSpec((2,))).graph
        return {operation.type for operation in graph.get_operations()}

    assert {"Log1p", "Expm1"} <= names()
    frame = {"__name__": "keras.src.export.openvino", "names": names}
    exec("found = names()", frame)  # from that module, OpenVINO not being installed
    assert not {"Log1p", "Expm1"} & frame["found"]
