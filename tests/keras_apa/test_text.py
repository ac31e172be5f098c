"""Names as text that every file and terminal can hold."""

import os

import keras
import pytest

import zoo
from keras_apa import ClassCounts
from keras_apa._text import as_text, check_utf8, visible
from zoo.export import _check_class_names
from zoo.serving.target import model_name

NOT_UTF8 = b"caf\xe9".decode("utf-8", "surrogateescape")


@pytest.mark.any_backend
def test_bytes_that_are_no_utf8_become_escapes_and_others_their_characters():
    assert as_text(NOT_UTF8) == r"caf\xe9"
    assert as_text(b"\xe7\x8c\xab.jpg".decode("ascii", "surrogateescape")) == "猫.jpg"  # as under a locale of ASCII
    assert as_text("a \ud83d b") == r"a \ud83d b"  # half of an emoji, as JSON can hold it
    for name in ("猫 😀 émü", "", "\x00\n", r"caf\xe9"):
        assert as_text(name) == name
    assert as_text(7) == "7"


@pytest.mark.any_backend
def test_control_characters_are_shown():
    assert visible("a\x1b[31m\rb\x07\x9b\u202ec\td\n") == r"a\x1b[31m\rb\x07\x9b\u202ec" + "\td\n"
    assert visible("a\tb\n", lines=False) == r"a\tb\n"
    assert visible("👩‍🔬 日　本\u00a0é") == "👩‍🔬 日　本\u00a0é"


def test_class_names_are_text_wherever_they_are_given():
    assert ClassCounts([2, 1], names=[NOT_UTF8, "emu"]).names == (r"caf\xe9", "emu")
    model = zoo.create_model("resnet8", classes=2, input_shape=(8, 8, 3))
    model.class_names = [NOT_UTF8, "emu"]
    assert model.class_names == (r"caf\xe9", "emu")
    # As models hold them that were trained before.
    config = {**model.get_config(), "class_names": [NOT_UTF8, "emu"]}
    assert type(model).from_config(config).class_names == (r"caf\xe9", "emu")


@pytest.mark.any_backend
def test_a_saved_model_is_refused_a_folder_that_tensorflow_cannot_name(tmp_path):
    model = zoo.create_model("resnet8", classes=2, input_shape=(8, 8, 3))
    model.preprocessing = zoo.Preprocessing(image_size=(8, 8))
    with pytest.raises(ValueError, match=r"folder must be a path in UTF-8.*caf\\\\xe9"):
        zoo.export(model, tmp_path / NOT_UTF8)
    assert os.listdir(tmp_path) == []
    check_utf8(tmp_path / "猫 [x]", "folder")


@pytest.mark.any_backend
def test_an_export_takes_names_that_are_no_utf8_as_text():
    model = keras.Sequential([keras.Input((8, 8, 3)), keras.layers.Flatten(), keras.layers.Dense(2)])
    model.class_names = [NOT_UTF8, "emu"]
    assert _check_class_names(model, None) == (r"caf\xe9", "emu")
    assert _check_class_names(model, ["emu", NOT_UTF8]) == ("emu", r"caf\xe9")
    assert model_name(f"models/{NOT_UTF8}/3", "onnx") == r"caf\xe9"
    detector = zoo.FasterRCNN("resnet18", num_classes=2, pyramid_filters=8, box_units=16, class_names=[NOT_UTF8, "emu"])
    assert detector.class_names == tuple(detector.get_config()["class_names"]) == (r"caf\xe9", "emu")


@pytest.mark.any_backend
def test_a_preset_holds_any_name_and_its_card_shows_it(tmp_path):
    model = zoo.create_model("resnet8", classes=2, input_shape=(8, 8, 3))
    model.class_names = [NOT_UTF8, "*a* | :smile:\n<b>"]
    folder = zoo.save_preset(model, tmp_path / f"{NOT_UTF8}_[x]", metrics={"a|b": 1.0})
    assert zoo.from_preset(folder).class_names == (r"caf\xe9", "*a* | :smile:\n<b>")
    card = (folder / "README.md").read_text(encoding="utf-8")
    for line in (r"# caf\\xe9\_\[x\]", r"* 2 classes: caf\\xe9, \*a\* \| \:smile:\\n\<b\>", r"| a\|b | 1 |"):
        assert f"\n{line}\n" in card
