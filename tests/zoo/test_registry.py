"""Networks by name, and the errors for names and options that do not exist."""

import keras
import pytest

import zoo
from keras_apa.layers import CosineDense


def test_list_models_matches_patterns():
    assert len(zoo.list_models()) == 24 + 40
    assert zoo.list_models("cb_resnext*") == ["cb_resnext50_32x4d", "cb_resnext101_32x8d", "cb_resnext101_64x4d"]


def test_every_name_is_a_function_too():
    assert zoo.se_resnet8(classes=3).output_shape == (None, 3)
    assert {name for name in zoo.list_models() if callable(getattr(zoo, name))} == set(zoo.list_models())


@pytest.mark.parametrize(
    ("name", "options", "parts"),
    [
        ("se_resnet23", {}, ["Unknown model 'se_resnet23'", "se_resnet20"]),
        ("resnet8", {"gate": "apa"}, ["resnet8 has no place for gate", "se_resnet8 or cb_resnet8"]),
        ("se_resnet8", {"spatial_gate": "apa"}, ["no place for spatial_gate", "cb_resnet8 or sp_resnet8"]),
        ("sp_resnet8", {"gate_dropout": 0.1}, ["no place for gate_dropout"]),
        ("se_resnet8", {"gate": "sigmiod"}, ["Unknown gate 'sigmiod'", "sigmoid"]),
        ("se_resnet8", {"activation": "agul"}, ["Unknown activation 'agul'", "aglu"]),
        ("se_resnet8", {"classifier": "cosin"}, ["Unknown classifier 'cosin'", "cosine"]),
        ("se_resnet8", {"classes": 0}, ["classes must be a positive integer", "0"]),
        ("se_resnet8", {"classes": 2.5}, ["classes must be a positive integer"]),
        ("se_resnet8", {"input_shape": (32, 32)}, ["input_shape must have three numbers"]),
        ("se_resnet8", {"pooling": "sum", "include_top": False}, ["Unknown pooling 'sum'"]),
        ("se_resnet8", {"weights": "imagenet"}, ["Unknown weights 'imagenet' for se_resnet8", "must be a path"]),
        ("se_resnet8", {"clases": 3}, ["option of se_resnet8: 'clases'", "classes"]),
        ("se_resnet8", {"gate_dropout": 1.5}, ["gate_dropout must be in [0, 1)", "1.5"]),
        ("se_resnet8", {"gate_normalization": "no"}, ["gate_normalization must be True or False"]),
        ("se_resnet8", {"include_top": "no"}, ["include_top must be True or False"]),
        ("se_resnet8", {"classifier_activation": "softmx"}, ["classifier_activation 'softmx'", "softmax"]),
        ("se_resnet8", {"activation": "glu"}, ["Unknown activation 'glu'"]),
        ("se_resnet8", {"classes": 10, "classifier": CosineDense(5)}, ["classes is 10", "has 5 outputs"]),
        ("se_resnet8", {"input_shape": 32}, ["input_shape must have three numbers"]),
        ("se_resnet8", {"activation": keras.activations.relu}, ["activation must be a name or a keras layer"]),
    ],
)
def test_bad_names_and_options_are_clear_errors(name, options, parts):
    with pytest.raises(ValueError) as error:
        zoo.create_model(name, **options)
    for part in parts:
        assert part in str(error.value)


def test_weights_from_a_file(tmp_path):
    model = zoo.create_model("se_resnet8", classes=3, activation="aglu", gate="apa")
    model.save_weights(tmp_path / "net.weights.h5")
    path = tmp_path / "net.weights.h5"
    again = zoo.create_model("se_resnet8", weights=path, classes=3, activation="aglu", gate="apa")
    x = keras.ops.ones((1, 32, 32, 3))
    ours, theirs = (keras.ops.convert_to_numpy(m(x, training=False)) for m in (model, again))
    assert (ours == theirs).all()
