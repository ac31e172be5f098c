"""Networks by name, and the errors for names and options that do not exist."""

import inspect

import keras
import numpy as np
import pytest

import keras_apa
import zoo
from keras_apa.layers import CosineDense

pytestmark = pytest.mark.any_backend  # names and options


def test_list_models_matches_patterns():
    assert len(zoo.list_models()) == 24 + 40
    assert zoo.list_models("cb_resnext*") == ["cb_resnext50_32x4d", "cb_resnext101_32x8d", "cb_resnext101_64x4d"]


@pytest.mark.smoke
def test_every_name_is_a_function_too():
    assert zoo.se_resnet8(classes=3).output_shape == (None, 3)
    assert {name for name in zoo.list_models() if callable(getattr(zoo, name))} == set(zoo.list_models())


@pytest.mark.parametrize(
    ("name", "options", "parts"),
    [
        ("se_resnet23", {}, ["model must be one of", "given: 'se_resnet23'. Nearest: se_resnet"]),
        ("resnet8", {"gate": "apa"}, ["gate must be left out for resnet8", "se_resnet8 or cb_resnet8"]),
        (
            "se_resnet8",
            {"spatial_gate": "apa"},
            ["spatial_gate must be left out for se_resnet8", "cb_resnet8 or sp_resnet8"],
        ),
        ("sp_resnet8", {"gate_dropout": 0.1}, ["gate_dropout must be left out for sp_resnet8"]),
        ("se_resnet8", {"gate": "sigmiod"}, ["gate must be one of", "; given: 'sigmiod'. Nearest: sigmoid"]),
        ("se_resnet8", {"activation": "agul"}, ["activation must be one of", "given: 'agul'. Nearest: aglu"]),
        ("se_resnet8", {"classifier": "cosin"}, ["classifier must be one of", "given: 'cosin'. Nearest: cosine"]),
        ("se_resnet8", {"classes": 0}, ["classes must be a positive integer", "0"]),
        ("se_resnet8", {"classes": 2.5}, ["classes must be a positive integer"]),
        ("se_resnet8", {"input_shape": (32, 32)}, ["input_shape must have three numbers"]),
        (
            "se_resnet8",
            {"pooling": "sum", "include_top": False},
            ["pooling must be one of None, avg, max; given: 'sum'."],
        ),
        (
            "se_resnet8",
            {"weights": "imagenet"},
            ["weights must be published ones of se_resnet8 or a path", "'imagenet'"],
        ),
        ("se_resnet8", {"clases": 3}, ["an option of se_resnet8 must be one of", "given: 'clases'. Nearest: classes"]),
        ("se_resnet8", {"gate_dropout": 1.5}, ["gate_dropout must be a finite", "given: 1.5."]),
        ("se_resnet8", {"gate_normalization": "no"}, ["gate_normalization must be True or False"]),
        ("se_resnet8", {"include_top": "no"}, ["include_top must be True or False"]),
        (
            "se_resnet8",
            {"classifier_activation": "softmx"},
            ["classifier_activation must be one of", "given: 'softmx'. Nearest: softmax"],
        ),
        ("se_resnet8", {"activation": "glu"}, ["activation must be one of", "given: 'glu'."]),
        (
            "se_resnet8",
            {"classes": 10, "classifier": CosineDense(5)},
            ["classes must be 5, the outputs of the classifier", "; given: 10."],
        ),
        ("se_resnet8", {"input_shape": 32}, ["input_shape must have three numbers"]),
        ("se_resnet8", {"activation": keras.activations.relu}, ["activation must be a name or a keras layer"]),
    ],
)
@pytest.mark.smoke
def test_bad_names_and_options_are_clear_errors(name, options, parts):
    with pytest.raises(ValueError) as error:
        zoo.create_model(name, **options)
    for part in parts:
        assert part in str(error.value)


def test_functions_list_every_option():
    parameters = inspect.signature(zoo.resnet8).parameters
    assert list(parameters)[:2] == ["weights", "classes"]
    assert {"name", "input_tensor", "input_shape", "pooling", "classifier_activation"} <= set(parameters)


def test_two_networks_of_a_kind_stand_in_one_model_under_their_names(tmp_path):
    assert zoo.create_model("resnet8", classes=2).name == "resnet8"
    images = keras.Input((16, 16, 3))
    left, right = (zoo.resnet8(classes=2, input_shape=(16, 16, 3), name=name) for name in ("left", "right"))
    model = keras.Model(images, [left(images), right(images)])
    assert [layer.name for layer in model.layers[1:]] == ["left", "right"]
    model.save(tmp_path / "two.keras")
    x = np.random.default_rng(0).standard_normal((2, 16, 16, 3)).astype("float32")
    outputs = keras.models.load_model(tmp_path / "two.keras")(x, training=False)
    for found, network in zip(outputs, (left, right), strict=True):
        expected = keras.ops.convert_to_numpy(network(x, training=False))
        np.testing.assert_allclose(keras.ops.convert_to_numpy(found), expected, atol=1e-6)


@pytest.mark.every_backend
def test_a_network_starts_from_a_tensor():
    images = keras.Input((16, 24, 3), name="photos")
    model = zoo.se_resnet8(classes=2, input_tensor=images)
    assert model.input is images and model.output_shape == (None, 2)
    scaled = zoo.se_resnet8(classes=2, input_tensor=keras.layers.Rescaling(1 / 255, name="scaled")(images), name="own")
    assert scaled.input is images and scaled.name == "own"
    scaled.set_weights(model.get_weights())
    pixels = np.random.default_rng(0).uniform(0, 255, (2, 16, 24, 3)).astype("float32")
    found, expected = (keras.ops.convert_to_numpy(v) for v in (scaled(pixels), model(pixels / 255)))
    np.testing.assert_allclose(found, expected, atol=1e-5)
    zoo.load_torch_checkpoint(scaled, zoo.to_torch_state_dict(model))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"input_tensor": np.zeros((1, 32, 32, 3))}, "input_tensor must be a keras.Input.*given: ndarray"),
        ({"input_tensor": keras.Input((32, 3))}, "must be a batch of images, of rank 4"),
        (
            {"input_tensor": keras.Input((32, 32, 3)), "input_shape": (16, 16, 3)},
            r"input_shape must be .*\(32, 32, 3\), .*; given: \(16",
        ),
        ({"input_tensor": keras.Input((3, 32, 3))}, "input_shape must be at least 4 pixels"),
        (
            {"pyramid": True, "classifier_activation": "softmax"},
            "classifier_activation must be left out with pyramid=True, .*; given: 'softmax'",
        ),
    ],
)
def test_bad_tensors_are_clear_errors(options, message):
    with pytest.raises(ValueError, match=message):
        zoo.create_model("resnet8", **options)


def test_pooling_is_ignored_with_the_top_as_in_keras_applications():
    layers = [layer.name for layer in zoo.create_model("resnet8", pooling="max").layers]
    assert layers == [layer.name for layer in zoo.create_model("resnet8").layers]


@pytest.mark.any_backend
def test_weights_from_a_file(tmp_path):
    model = zoo.create_model("se_resnet8", classes=3, activation="aglu", gate="apa")
    model.save_weights(tmp_path / "net.weights.h5")
    path = tmp_path / "net.weights.h5"
    again = zoo.create_model("se_resnet8", weights=path, classes=3, activation="aglu", gate="apa")
    x = keras.ops.ones((1, 32, 32, 3))
    ours, theirs = (keras.ops.convert_to_numpy(m(x, training=False)) for m in (model, again))
    assert (ours == theirs).all()


def test_classes_may_be_an_integer_of_numpy():
    assert zoo.create_model("resnet8", classes=np.arange(3).max() + 1).output_shape == (None, 3)


@pytest.mark.every_backend
def test_the_gumbel_function_may_end_a_model_that_is_saved(tmp_path):
    model = zoo.resnet8(classes=3, classifier_activation=keras_apa.ops.gumbel)
    model.save(tmp_path / "net.keras")
    x = np.random.default_rng(0).standard_normal((2, 32, 32, 3)).astype("float32")
    found = keras.saving.load_model(tmp_path / "net.keras").predict(x, verbose=0)
    np.testing.assert_allclose(found, model.predict(x, verbose=0), atol=1e-6)
