"""Exported models: from each backend, loaded as a server loads them, and equal to Keras; errors."""

import importlib.util
import json
import sys

import exported
import keras
import numpy as np
import pytest
import served
from backends import BLOCK, CURRENT, run
from exported import PREPROCESSING, classifier, encode, images, logits, smooth_picture, softmax

import zoo
from zoo.export import export
from zoo.serving.target import FORMATS

TOLERANCE = 1e-4
_SERVED = pytest.mark.skipif(CURRENT == "torch", reason="JAX's way, through TensorFlow; on PyTorch a detector goes it")


@pytest.fixture(scope="module")
def model():
    return classifier()


@pytest.fixture(scope="module")
def folder(model, tmp_path_factory):
    return export(model, tmp_path_factory.mktemp("models") / "birds", top_k=3)


@_SERVED
def test_served_outputs_equal_those_of_keras(model, folder):
    pixels = images(4)
    # Of the size that the shorter side is resized to: the crop takes it as it is.
    pictures = np.random.default_rng(1).integers(0, 256, (2, 18, 18, 3)).astype("uint8")
    crops = pictures[:, 1:17, 3:15].astype("float32")
    warmup, names = served.read_warmup_requests(folder)
    bad = encode(pictures[0])
    results = served.run(
        folder,
        [
            ("serving_default", {"images": pixels}),
            ("serving_default", {"images": pixels[:1]}),
            ("serve_jpeg", {"image_bytes": [encode(picture) for picture in pictures]}),
            ("serve_jpeg", {"image_bytes": [bad, b"GIF89a", b""]}),
            ("serve_jpeg", {"image_bytes": [bad, bad[:200]]}),
            ("serve_jpeg", {"image_bytes": [encode(smooth_picture(40, 31), "JPEG")]}),
            *warmup,
            ("serving_default", {"images": pixels[:0]}),
        ],
    )
    expected = logits(model, pixels)
    np.testing.assert_allclose(results[0]["logits"], expected, rtol=0, atol=TOLERANCE)
    np.testing.assert_allclose(results[0]["probabilities"], softmax(expected), rtol=0, atol=TOLERANCE)
    np.testing.assert_allclose(results[1]["logits"], expected[:1], rtol=0, atol=TOLERANCE)

    expected = softmax(logits(model, crops))
    order = np.argsort(-expected, axis=-1)[:, :3]
    np.testing.assert_array_equal(results[2]["indices"], order)
    assert [[name.decode() for name in row] for row in results[2]["classes"]] == [
        [exported.CLASS_NAMES[i] for i in row] for row in order
    ]
    top = np.take_along_axis(expected, order, -1)
    np.testing.assert_allclose(results[2]["probabilities"], top, rtol=0, atol=TOLERANCE)

    # A bad image is an error of its request; the session goes on.
    assert "image_bytes must be JPEG or PNG" in results[3] and "[1 2]" in results[3]
    assert "Invalid PNG data" in results[4]
    assert results[5]["classes"].shape == (1, 3)

    assert [name for name, _ in warmup] == ["serving_default", "serve_jpeg"] and set(names) == {"birds"}
    assert "the batch is empty" in results[8]
    assert results[6]["logits"].shape == (1, 5) and results[7]["classes"].shape == (1, 3)


@_SERVED
def test_saved_model_says_what_the_graph_does_not(folder):
    description = json.loads((folder / "assets.extra" / "model.json").read_text())
    assert tuple(description["class_names"]) == exported.CLASS_NAMES
    assert zoo.Preprocessing.from_config(description["preprocessing"]) == PREPROCESSING


@_SERVED
def test_saved_model_needs_no_xla(folder):
    graph = (folder / "saved_model.pb").read_bytes()
    assert b"XlaCallModule" not in graph and b"_XlaMustCompile" not in graph


@pytest.mark.skipif(CURRENT == "jax", reason="JAX has no way of its own: below, through PyTorch")
def test_onnx_outputs_equal_those_of_keras(model, tmp_path):
    import onnx
    import onnxruntime

    path = export(model, tmp_path / "birds", format="onnx") / "model.onnx"
    session = onnxruntime.InferenceSession(path)
    assert [value.name for value in session.get_inputs()] == ["images"]
    assert session.get_inputs()[0].shape == ["batch", 16, 12, 3]
    for count in (1, 3):
        found, probabilities = session.run(["logits", "probabilities"], {"images": images(count)})
        expected = logits(model, images(count))
        np.testing.assert_allclose(found, expected, rtol=0, atol=TOLERANCE)
        np.testing.assert_allclose(probabilities, softmax(expected), rtol=0, atol=TOLERANCE)
    properties = {entry.key: entry.value for entry in onnx.load(path).metadata_props}
    assert json.loads(properties["keras_apa"]) == json.loads((path.parent / "model.json").read_text())
    assert sorted(file.name for file in path.parent.iterdir()) == ["model.json", "model.onnx"]


@pytest.mark.skipif(CURRENT != "jax", reason="TensorFlow exports in its own process, PyTorch as JAX does")
def test_layer_of_a_user_s_module_goes_to_the_fresh_process(tmp_path, monkeypatch):
    (tmp_path / "my_layers.py").write_text(
        "import keras\n"
        "@keras.saving.register_keras_serializable('mine')\n"
        "class Double(keras.layers.Layer):\n"
        "    def call(self, x):\n"
        "        return 2 * x\n"
        "    def compute_output_shape(self, shape):\n"
        "        return shape\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    double = importlib.import_module("my_layers").Double
    inputs = keras.Input((16, 12, 3))
    model = keras.Model(inputs, keras.layers.GlobalAveragePooling2D()(double()(inputs)))
    path = export(model, tmp_path / "out", format="litert", preprocessing=PREPROCESSING)
    assert (path / "model.tflite").stat().st_size > 0

    @keras.saving.register_keras_serializable("mine")
    class Here(keras.layers.Layer):
        def compute_output_shape(self, shape):
            return shape

        def call(self, x):
            return x

    Here.__module__ = "__main__"
    model = keras.Model(inputs, keras.layers.GlobalAveragePooling2D()(Here()(inputs)))
    with pytest.raises(
        ValueError, match=r"Here must be in a module.*defined in the program itself.*Put it into a module"
    ):
        export(model, tmp_path / "out", format="litert", preprocessing=PREPROCESSING)
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["1"]


def test_wrong_arguments_are_named_before_any_work(model, tmp_path):
    subclass = type("Own", (keras.Model,), {"call": lambda self, x: x})
    unbuilt = keras.Sequential([keras.layers.Dense(2)])
    plain = keras.Sequential([keras.Input((16, 12, 3)), keras.layers.GlobalAveragePooling2D()])
    vector = keras.Sequential([keras.Input((4,)), keras.layers.Dense(2)])
    wide = zoo.Preprocessing(image_size=(16, 16))
    cases = (
        (model, {"format": "tflite"}, "format must be one of .*; given: 'tflite'. Nearest: .*litert"),
        (
            model,
            {"quantization": "float16"},
            "quantization must .* format='litert'; given: 'float16' with 'tf_saved_model'",
        ),
        (model, {"format": "litert", "quantization": "int4"}, "quantization must be one of .*; given: 'int4'"),
        (
            model,
            {"format": "litert", "quantization": "int8"},
            "representative_images must be given with quantization='int8'",
        ),
        (
            model,
            {"format": "litert", "quantization": "int8", "representative_images": np.zeros((2, 8, 8, 3))},
            r"must have the shape \(count, 16, 12, 3\); given: \(2, 8, 8, 3\)",
        ),
        (
            model,
            {"representative_images": images(1)},
            "representative_images must be left out unless quantization='int8'",
        ),
        (model, {"top_k": 0}, "top_k must be a whole number of at least 1; given: 0"),
        (model, {"class_names": ["a"]}, "class_names must have 5 names, one a class"),
        (model, {"activation": "tanh"}, "activation must be one of .*; given: 'tanh'"),
        (model, {"preprocessing": wide}, r"preprocessing must make images .*; given: \(16, 16\)"),
        (model, {"preprocessing": exported.GREY}, r"preprocessing must .* \(None, 16, 12, 3\); given: 1 channels"),
        (model, {"preprocessing": {"mean": 0}}, "preprocessing must be a zoo.Preprocessing or None"),
        (plain, {}, r"does not say how its images are prepared; given: None. Give preprocessing=zoo.Preprocessing"),
        (plain, {"preprocessing": PREPROCESSING, "class_names": "abc"}, "class_names must be left out"),
        (unbuilt, {}, "model must be built"),
        (subclass(), {}, "model must be built"),
        (vector, {}, r"must take one batch of images; given: the input shape \(None, 4\)"),
        ("model.keras", {}, "model must be a keras.Model; given: 'model.keras'"),
    )
    for given, options, message in cases:
        with pytest.raises(ValueError, match=message):
            export(given, tmp_path / "birds", **options)
    with pytest.raises(ValueError, match=r"folder must name a folder, in which VERSION/model.onnx is made"):
        export(model, tmp_path / "birds.onnx", format="onnx")
    (tmp_path / "taken" / "3").mkdir(parents=True)
    with pytest.raises(ValueError, match="version must be new; given: 3"):
        export(model, tmp_path / "taken" / "3")
    (tmp_path / "file").touch()
    with pytest.raises(ValueError, match="is a file"):
        export(model, tmp_path / "file")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["file", "taken"]


@pytest.mark.any_backend
def test_keras_s_own_export_names_what_does_not_work(tmp_path, monkeypatch):
    model = zoo.create_model("resnet8", classes=2)
    if keras.backend.backend() == "torch":
        with pytest.raises(ValueError, match=r"given: .tf_saved_model.\. zoo\.export\(model, folder"):
            model.export(tmp_path / "saved")
    monkeypatch.setitem(sys.modules, "openvino", None)
    with pytest.raises(ImportError, match="not installed: openvino; pip install openvino"):
        model.export(tmp_path / "model.xml", format="openvino")
    assert not list(tmp_path.iterdir())


@pytest.mark.any_backend
def test_missing_package_is_named_with_the_extra(tmp_path):
    program = BLOCK.format(blocked=("tensorflow", "tensorflow_serving", "tf2onnx", "onnxscript")) + (
        "import zoo\n"
        "from zoo.export import export\n"
        "from zoo.serving.target import FORMATS\n"
        "model = zoo.create_model('resnet8', classes=2)\n"
        "model.preprocessing = zoo.Preprocessing(image_size=(32, 32))\n"
        "for format in FORMATS:\n"
        "    try:\n"
        f"        export(model, {str(tmp_path)!r}, format=format)\n"
        "    except ImportError as error:\n"
        "        print(error)\n"
    )
    result = run("jax", "-c", program)
    needed = ("tensorflow, tensorflow-serving-api", "tensorflow, tf2onnx", "tensorflow")
    assert result.stdout.splitlines() == [
        f'format={format!r} needs packages that are not installed: {packages}; pip install "keras-apa[export]"'
        for format, packages in zip(FORMATS, needed, strict=True)
    ], result.stderr[-2000:]
    assert not list(tmp_path.iterdir())


@pytest.mark.any_backend
@pytest.mark.slow
def test_onnx_of_jax_goes_through_torch_without_tensorflow(tmp_path):
    program = BLOCK.format(blocked=("tensorflow", "tf2onnx")) + (
        f"sys.path[:0] = {[path for path in sys.path if path]!r}\n"
        "from exported import classifier, images, logits\n"
        "import numpy as np, onnxruntime\n"
        "from zoo.export import export\n"
        "model = classifier()\n"
        f"path = export(model, {str(tmp_path)!r}, format='onnx') / 'model.onnx'\n"
        "found = onnxruntime.InferenceSession(path).run(['logits'], {'images': images(3)})[0]\n"
        "print('difference', np.abs(found - logits(model, images(3))).max())\n"
    )
    result = run("jax", "-c", program)
    assert result.returncode == 0, result.stderr[-2000:]
    assert float(result.stdout.split()[-1]) < TOLERANCE
