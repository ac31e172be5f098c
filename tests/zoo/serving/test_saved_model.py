"""The SavedModel in detail. The TensorFlow backend writes it, so this runs there only."""

import subprocess
import sys
from pathlib import Path

import exported
import keras
import numpy as np
import pytest
import served
from backends import CURRENT, environment
from exported import GREY, PREPROCESSING, classifier, encode, images, logits, smooth_picture, softmax
from keras import layers

import zoo
from zoo.export import export

pytestmark = pytest.mark.skipif(CURRENT != "tensorflow", reason="written by the TensorFlow backend")
TOLERANCE = 1e-4


def serve(folder, inputs, signature="serving_default"):
    """One call in this process."""
    import tensorflow as tf

    model = tf.saved_model.load(str(folder))
    return {key: value.numpy() for key, value in model.signatures[signature](tf.constant(inputs)).items()}


def grouped(data_format="channels_last"):
    """Grouped, strided and dilated convolutions, in a layer of a model in the model."""
    shape = (16, 12, 3) if data_format == "channels_last" else (3, 16, 12)
    options = {"groups": 4, "padding": "same", "data_format": data_format}
    axis = -1 if data_format == "channels_last" else 1
    inner = keras.Sequential(
        [
            keras.Input((None, None, 8) if axis == -1 else (8, None, None)),
            layers.Conv2D(16, 3, activation="relu", strides=2, **options),
            layers.BatchNormalization(axis=axis),
            layers.Conv2D(8, 3, dilation_rate=2, **options),
        ]
    )
    inputs = keras.Input(shape)
    x = inner(layers.Conv2D(8, 3, data_format=data_format)(inputs))
    x = layers.GlobalAveragePooling2D(data_format=data_format)(x)
    return exported.randomize(keras.Model(inputs, layers.Dense(4)(x)))


def test_grouped_convolutions_need_no_xla(tmp_path):
    from zoo.serving.saved_model import check_runs_without_xla

    model = grouped()
    expected = logits(model, images(3), PREPROCESSING)
    model.export(tmp_path / "keras", verbose=False)
    with pytest.raises(ValueError, match=r"needs XLA \(_XlaMustCompile\)"):
        check_runs_without_xla(tmp_path / "keras" / "saved_model.pb")

    folder = export(model, tmp_path / "zoo", preprocessing=PREPROCESSING)
    assert served.read_signatures(folder)["serve_jpeg"]
    requests = [("serving_default", {"images": images(3)})]
    # oneDNN, which this machine has and others have not, could run them as they are.
    for onednn in "01":
        found = served.run(folder, requests, TF_ENABLE_ONEDNN_OPTS=onednn)[0]["logits"]
        np.testing.assert_allclose(found, expected, rtol=0, atol=TOLERANCE)
    # The model itself is as it was.
    assert not any("convolution_op" in vars(layer) for layer in model._flatten_layers())
    np.testing.assert_array_equal(logits(model, images(3), PREPROCESSING), expected)


def test_channels_first_runs_on_a_processor_without_onednn(tmp_path):
    first, last = grouped("channels_first"), grouped()
    last.set_weights(first.get_weights())
    folder = export(first, tmp_path, preprocessing=PREPROCESSING)
    requests = [("serving_default", {"images": images(3)})]
    found = served.run(folder, requests, TF_ENABLE_ONEDNN_OPTS="0")[0]["logits"]
    np.testing.assert_allclose(found, logits(last, images(3), PREPROCESSING), rtol=0, atol=TOLERANCE)


def test_operation_that_needs_xla_is_an_error_and_leaves_nothing(tmp_path):
    import tensorflow as tf

    class Compiled(layers.Layer):
        def call(self, x):
            return tf.function(lambda x: 2 * x, jit_compile=True)(x)

    inputs = keras.Input((16, 12, 3))
    model = keras.Model(inputs, Compiled()(inputs))
    with pytest.raises(ValueError, match=r"needs XLA \(_XlaMustCompile\), which a default TensorFlow Serving server"):
        export(model, tmp_path / "model", preprocessing=PREPROCESSING)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("preprocessing", [PREPROCESSING, GREY], ids=["crop", "stretch_grey"])
@pytest.mark.parametrize("interpolation", ["bilinear", "bicubic"])
def test_images_are_prepared_as_by_the_command(preprocessing, interpolation, tmp_path):
    import dataclasses

    import tensorflow as tf

    from training.images import read_image
    from zoo.serving.saved_model import decode

    preprocessing = dataclasses.replace(preprocessing, interpolation=interpolation)
    pictures = {
        "wide.png": encode(smooth_picture(37, 90)),
        "high.png": encode(smooth_picture(101, 23)),
        "small.png": encode(smooth_picture(5, 9)),
        "thin.png": encode(smooth_picture(1, 3000)),
        "grey.png": encode(smooth_picture(40, 40, 1)),
        "photo.jpg": encode(smooth_picture(40, 50), "JPEG", quality=95),
        "grey.jpg": encode(smooth_picture(40, 50, 1), "JPEG", quality=95),
    }
    found = decode(tf.constant(list(pictures.values())), preprocessing).numpy()
    assert found.shape == (7, *preprocessing.image_size, preprocessing.channels)
    for (name, content), pixels in zip(pictures.items(), found, strict=True):
        (tmp_path / name).write_bytes(content)
        # Pillow rounds to whole numbers after each of the two directions, and colours to grey before.
        difference = np.abs(pixels - read_image(tmp_path / name, preprocessing)).max()
        assert difference <= (2.0 if preprocessing is PREPROCESSING else 3.0), (name, difference)


def huge(content):
    """The file with a header that says 20000 x 20000 pixels."""
    side = (20_000).to_bytes(4, "big")
    if content.startswith(b"\x89PNG"):
        return content[:16] + side + side + content[24:]
    frame = content.index(b"\xff\xc0") + 5
    return content[:frame] + side[2:] + side[2:] + content[frame + 4 :]


def test_what_is_wrong_with_a_batch_of_files_is_said():
    import tensorflow as tf

    from zoo.serving.saved_model import decode

    good = [encode(smooth_picture(20, 20), format) for format in ("PNG", "JPEG")]
    for content in good:
        with pytest.raises(tf.errors.InvalidArgumentError, match=r"89478485 pixels; more .* from 0:\W+2\b"):
            decode(tf.constant([*good, huge(content)]), PREPROCESSING)
        with pytest.raises(tf.errors.InvalidArgumentError, match="Invalid (PNG|JPEG)"):
            decode(tf.constant([*good, content[:20]]), PREPROCESSING)
    with pytest.raises(tf.errors.InvalidArgumentError, match="the batch is empty"):
        decode(tf.constant([], "string"), PREPROCESSING)
    assert decode(tf.constant(good), PREPROCESSING).shape == (2, 16, 12, 3)


def test_one_channel_model_serves_jpeg(tmp_path):
    model = classifier(GREY, "resnet8")
    folder = export(model, tmp_path, top_k=99)
    picture = smooth_picture(16, 16, 1)
    outputs = serve(folder, [encode(picture)], "serve_jpeg")
    expected = softmax(logits(model, picture[None].astype("float32")))
    assert outputs["probabilities"].shape == (1, 5)
    np.testing.assert_allclose(np.sort(expected[0])[::-1], outputs["probabilities"][0], rtol=0, atol=TOLERANCE)


@pytest.mark.parametrize("ending", ["layer", "argument", "softmax_layer", "operation", "cast", "sigmoid", "given"])
def test_logits_are_what_stands_before_the_last_activation(ending, tmp_path):
    inputs = keras.Input((16, 12, 3))
    pooled = layers.GlobalAveragePooling2D()(inputs)
    dense = layers.Dense(3, activation="softmax" if ending == "argument" else None)
    outputs = dense(pooled)
    outputs = {
        "layer": lambda x: layers.Activation("softmax")(x),
        "softmax_layer": lambda x: layers.Softmax()(x),
        "operation": keras.ops.softmax,
        "cast": lambda x: layers.Activation("linear")(layers.Activation("softmax")(x)),
        "sigmoid": lambda x: layers.Activation("sigmoid")(x),
    }.get(ending, lambda x: x)(outputs)
    model = keras.Model(inputs, outputs)
    before = logits(model, images(2), PREPROCESSING)
    activation = "sigmoid" if ending == "given" else None
    found = serve(export(model, tmp_path, preprocessing=PREPROCESSING, activation=activation), images(2))
    features = keras.ops.convert_to_numpy(PREPROCESSING(images(2))).mean((1, 2))
    expected = features @ dense.get_weights()[0]
    np.testing.assert_allclose(found["logits"], expected, rtol=0, atol=TOLERANCE)
    probabilities = 1 / (1 + np.exp(-expected)) if ending in ("sigmoid", "given") else softmax(expected)
    np.testing.assert_allclose(found["probabilities"], probabilities, rtol=0, atol=TOLERANCE)
    np.testing.assert_array_equal(logits(model, images(2), PREPROCESSING), before)
    if ending == "layer":
        with pytest.raises(ValueError, match="activation must be None or 'softmax', in which the model ends"):
            export(model, tmp_path, preprocessing=PREPROCESSING, activation="sigmoid")


def test_model_without_classifier_gives_features(tmp_path):
    inputs = keras.Input((None, None, 3))
    fine = layers.Conv2D(4, 3, padding="same")(inputs)
    pyramid = keras.Model(inputs, {"fine": fine, "coarse": layers.MaxPooling2D()(fine)})
    folder = export(pyramid, tmp_path / "pyramid", preprocessing=PREPROCESSING)
    outputs = serve(folder, images(2)[:, :10, :10])
    expected = logits(keras.Model(inputs, fine), images(2)[:, :10, :10], PREPROCESSING)
    np.testing.assert_allclose(outputs["fine"], expected, rtol=0, atol=TOLERANCE)
    assert outputs["coarse"].shape == (2, 5, 5, 4)
    assert serve(folder, [encode(smooth_picture(30, 30))], "serve_jpeg")["coarse"].shape == (1, 8, 6, 4)

    backbone = zoo.create_model("resnet8", include_top=False, pooling="avg", input_shape=(16, 12, 3))
    folder = export(backbone, tmp_path / "backbone", preprocessing=PREPROCESSING)
    np.testing.assert_allclose(
        serve(folder, images(2))["features"], logits(backbone, images(2), PREPROCESSING), rtol=0, atol=TOLERANCE
    )


def test_unknown_class_names_are_numbers(tmp_path):
    model = zoo.create_model("resnet8", classes=3, input_shape=(16, 12, 3))
    folder = export(model, tmp_path, preprocessing=PREPROCESSING)
    outputs = serve(folder, [encode(smooth_picture(30, 30))], "serve_jpeg")
    assert sorted(name.decode() for name in outputs["classes"][0]) == ["0", "1", "2"]


@pytest.mark.slow
@pytest.mark.parametrize("policy", ["mixed_float16", "mixed_bfloat16", "bfloat16"])
def test_other_precisions_are_exported_in_float32(policy, tmp_path):
    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy(policy)
    try:
        model = classifier()
    finally:
        keras.config.set_dtype_policy(before)
    same = classifier()
    same.set_weights([np.asarray(weights, "float32") for weights in model.get_weights()])
    found = serve(export(model, tmp_path), images(2))["logits"]
    assert found.dtype == "float32"
    np.testing.assert_allclose(found, logits(same, images(2)), rtol=0, atol=TOLERANCE)


@pytest.mark.slow
def test_saved_model_cli_runs_a_signature(tmp_path):
    model = classifier()
    folder = export(model, tmp_path / "birds")
    np.save(tmp_path / "images.npy", images(2))
    cli = Path(sys.executable).with_name("saved_model_cli")
    common = ["--dir", str(folder), "--tag_set", "serve", "--signature_def", "serving_default"]
    command = [str(cli), "run", *common, "--inputs", f"images={tmp_path}/images.npy", "--outdir", str(tmp_path)]
    result = subprocess.run(command, env=environment("tensorflow"), capture_output=True, text=True, timeout=600)
    assert result.returncode == 0, result.stderr[-2000:]
    found = np.load(tmp_path / "logits.npy")
    np.testing.assert_allclose(found, logits(model, images(2)), rtol=0, atol=TOLERANCE)


@pytest.mark.slow
def test_resnext_runs_without_xla_and_without_onednn(tmp_path):
    preprocessing = zoo.Preprocessing(image_size=(64, 64))
    model = classifier(preprocessing, "se_resnext50_32x4d")
    folder = export(model, tmp_path)
    pixels = images(2, preprocessing)
    found = served.run(folder, [("serving_default", {"images": pixels})], TF_ENABLE_ONEDNN_OPTS="0")[0]["logits"]
    expected = logits(model, pixels)
    np.testing.assert_allclose(found, expected, rtol=0, atol=TOLERANCE * max(1, np.abs(expected).max()))
