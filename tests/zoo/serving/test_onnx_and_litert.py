"""ONNX through tf2onnx, and LiteRT. The TensorFlow backend writes them, so this runs there only."""

import itertools

import keras
import numpy as np
import pytest
from backends import CURRENT
from exported import PREPROCESSING, classifier, images, logits, softmax

import zoo
from keras_apa.layers import AGLU
from keras_apa.layers.gates import GATES
from training.data.classification.digits import digits100_lt
from zoo.blocks import CLASSIFIERS
from zoo.export import export

pytestmark = pytest.mark.skipif(CURRENT != "tensorflow", reason="written by the TensorFlow backend")
TOLERANCE = 1e-4


def run_onnx(path, pixels):
    import onnxruntime

    return onnxruntime.InferenceSession(path / "model.onnx").run(["logits"], {"images": pixels})[0]


def run_litert(path, pixels):
    from ai_edge_litert.interpreter import Interpreter

    interpreter = Interpreter(model_path=str(path / "model.tflite"))
    return interpreter.get_signature_runner("serving_default")(images=pixels)["logits"]


def test_litert_outputs_equal_those_of_keras(tmp_path):
    model = classifier()
    path = export(model, tmp_path, format="litert")
    for count in (1, 3):
        found = run_litert(path, images(count))
        np.testing.assert_allclose(found, logits(model, images(count)), rtol=0, atol=TOLERANCE)


# What was measured, times two, as a part of the largest logit.
@pytest.mark.slow
@pytest.mark.parametrize(("quantization", "tolerance"), [("float16", 0.0007), ("int8", 0.13)])
def test_quantized_litert_is_smaller_and_near(quantization, tolerance, tmp_path):
    model = classifier()
    plain = export(model, tmp_path, format="litert") / "model.tflite"
    options = {"representative_images": images(32, seed=5)} if quantization == "int8" else {}
    path = export(model, tmp_path, format="litert", quantization=quantization, **options)
    assert (path / "model.tflite").stat().st_size < 0.7 * plain.stat().st_size
    expected = logits(model, images(16))
    difference = np.abs(run_litert(path, images(16)) - expected).max() / np.abs(expected).max()
    print(f"{quantization}: {difference:.2g} of the largest logit")
    assert difference < tolerance


def test_the_smallest_lambda_survives(tmp_path):
    """`log(1 + x)` is 0 where log1p is not, and is then divided by lambda: here each activation has its own."""
    model = classifier()
    lambdas = [variable for variable in model.variables if variable.name == "lambda"]
    given = [float(lam) for lam, _ in zip(itertools.cycle([-0.01, 0.0, 1e-6, 1e-3, 0.7, 4.0]), lambdas, strict=False)]
    assert len(given) >= 6
    for variable, lam in zip(lambdas, given, strict=True):
        variable.assign(lam)
    expected = logits(model, images(3))
    scale = np.abs(expected).max()
    for format, run in (("onnx", run_onnx), ("litert", run_litert)):
        found = run(export(model, tmp_path / format, format=format), images(3))
        np.testing.assert_allclose(found, expected, rtol=0, atol=1e-5 * scale)
    np.testing.assert_array_equal([variable.numpy() for variable in lambdas], np.float32(given))


# Largest difference of a logit as a part of the largest one, and least share of images with the same best class: about
# twice, and half of the way to, what was measured.
PRESETS = {
    "se_resnet_digits100_lt": {None: (1e-5, 1.0), "float16": (0.0015, 0.99), "int8": (0.8, 0.7)},
    "se_resnet_digits100_lt_baseline": {None: (1e-5, 1.0), "float16": (0.0015, 0.99), "int8": (0.25, 0.94)},
}


@pytest.mark.slow
@pytest.mark.parametrize("name", PRESETS)
def test_the_presets_are_as_good_in_litert(name, tmp_path):
    """Trained weights: lambda has come down to 0 in one layer of the first."""
    data, rng = digits100_lt(), np.random.default_rng(0)
    chosen = rng.permutation(len(data.test_images))[:400]
    pixels, labels = np.clip(data.test_images[chosen] * 255, 0, 255).astype("float32"), data.test_labels[chosen]
    ranges = np.clip(data.train_images[rng.permutation(len(data.train_images))[:100]] * 255, 0, 255)
    model = zoo.from_preset(name)
    expected = logits(model, pixels)
    before = model.get_weights()
    for quantization, (difference, agreement) in PRESETS[name].items():
        options = {"representative_images": ranges} if quantization == "int8" else {}
        path = export(model, tmp_path / str(quantization), format="litert", quantization=quantization, **options)
        found = run_litert(path, pixels)
        apart = np.abs(found - expected).max() / np.abs(expected).max()
        same = (found.argmax(-1) == expected.argmax(-1)).mean()
        accuracy = [(each.argmax(-1) == labels).mean() for each in (expected, found)]
        print(f"{name} {quantization}: {apart:.2g} of the largest logit, same class {same:.3f}, accuracy {accuracy}")
        assert apart < difference and same >= agreement and accuracy[1] > accuracy[0] - 0.03
    assert all(np.array_equal(a, b) for a, b in zip(before, model.get_weights(), strict=True))


def test_grouped_convolutions_stay_one_operation(tmp_path):
    import onnx

    inputs = keras.Input((16, 12, 3))
    x = keras.layers.Conv2D(8, 3)(inputs)
    x = keras.layers.Conv2D(8, 3, groups=4, strides=2, activation="relu")(x)
    model = keras.Model(inputs, keras.layers.Dense(3)(keras.layers.GlobalAveragePooling2D()(x)))
    expected = logits(model, images(3), PREPROCESSING)
    path = export(model, tmp_path / "onnx", format="onnx", preprocessing=PREPROCESSING)
    np.testing.assert_allclose(run_onnx(path, images(3)), expected, rtol=0, atol=TOLERANCE)
    operations = [node.op_type for node in onnx.load(path / "model.onnx").graph.node]
    assert operations.count("Conv") == 2
    path = export(model, tmp_path / "litert", format="litert", preprocessing=PREPROCESSING)
    np.testing.assert_allclose(run_litert(path, images(3)), expected, rtol=0, atol=TOLERANCE)


def test_keras_s_own_onnx_of_a_network_is_right_or_an_error(tmp_path):
    import onnxruntime

    def network(activation):
        inputs = keras.Input((8, 8, 4))
        x = keras.layers.Conv2D(8, 3, groups=4, activation=activation)(inputs)
        return zoo.Classifier(inputs, keras.layers.GlobalAveragePooling2D()(x))

    path, pixels = tmp_path / "model.onnx", np.random.default_rng(0).normal(size=(2, 8, 8, 4)).astype("float32")
    model = network(AGLU())
    expected = model.predict(pixels, verbose=0)  # Keras exports what has been called
    model.export(path, format="onnx", verbose=False)
    session = onnxruntime.InferenceSession(path)
    found = session.run(None, {session.get_inputs()[0].name: pixels})[0]
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-5)
    path.unlink()
    model = network("gelu")
    model(pixels)
    with pytest.raises(ValueError, match=r"no operation for .*Erfc.*zoo\.export\(model"):
        model.export(path, format="onnx", verbose=False)
    assert not list(tmp_path.iterdir())


def test_operation_that_a_format_lacks_is_an_error_and_leaves_nothing(tmp_path):
    import tensorflow as tf

    class Odd(keras.layers.Layer):
        def call(self, x):
            return tf.math.lgamma(x) + tf.math.zeta(2.0 + tf.abs(x), 1.0)

    inputs = keras.Input((16, 12, 3))
    model = keras.Model(inputs, Odd()(inputs))
    with pytest.raises(ValueError, match=r"ONNX has no operation for .*Zeta"):
        export(model, tmp_path / "onnx", format="onnx", preprocessing=PREPROCESSING)
    with pytest.raises(ValueError, match="LiteRT cannot run this model with its built-in operations"):
        export(model, tmp_path / "litert", format="litert", preprocessing=PREPROCESSING)
    assert not list(tmp_path.iterdir())


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "options"),
    [
        *(("se_resnet8", {"gate": gate, "activation": "relu"}) for gate in GATES),
        *(("resnet8", {"classifier": classifier}) for classifier in CLASSIFIERS),
        ("cb_resnet8", {"gate": "gumbel", "spatial_gate": "apa", "activation": "gelu"}),
        ("sp_resnet8", {"spatial_gate": "gumbel", "activation": "silu"}),
    ],
)
def test_every_switch_runs_in_every_format(name, options, tmp_path):
    import tensorflow as tf

    model = classifier(name=name, **options)
    expected = logits(model, images(3))
    scale = max(1, np.abs(expected).max())
    for format, run in (("onnx", run_onnx), ("litert", run_litert)):
        found = run(export(model, tmp_path / format, format=format), images(3))
        np.testing.assert_allclose(softmax(found), softmax(expected), rtol=0, atol=TOLERANCE)
        np.testing.assert_allclose(found, expected, rtol=0, atol=TOLERANCE * scale)
    served = tf.saved_model.load(str(export(model, tmp_path / "saved_model")))
    found = served.signatures["serving_default"](tf.constant(images(3)))["logits"]
    np.testing.assert_allclose(found, expected, rtol=0, atol=TOLERANCE * scale)
