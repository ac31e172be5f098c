"""`keras-apa convert`: from PyTorch to Keras and back without options, and what it refuses."""

import keras
import numpy as np
import pytest
from authors import state_dict
from reference import load, load_json

import zoo
from training.cli.main import main
from zoo.checkpoint_files import read_state_dict, write_state_dict
from zoo.preprocessing import cifar, imagenet


@pytest.mark.any_backend
def test_the_authors_network_there_and_back_without_options(tmp_path, capsys):
    description = load_json("models/se_resnet32_gumbel.json")
    state = {key: np.asarray(value) for key, value in state_dict(description).items()}
    write_state_dict(state, tmp_path / "authors.pth")
    assert main(["convert", str(tmp_path / "authors.pth"), str(tmp_path / "out.keras")]) == 0
    assert str(tmp_path / "out.keras") in capsys.readouterr().out
    model = keras.models.load_model(tmp_path / "out.keras")
    arrays = load("models/se_resnet32_gumbel.npz")
    logits = model.predict(np.transpose(arrays["x"], (0, 2, 3, 1)), verbose=0)
    assert np.abs(logits - arrays["logits_f64"]).max() <= 20 * description["logits_f32_vs_f64_maxabs"]
    assert main(["convert", str(tmp_path / "out.keras"), str(tmp_path / "back.safetensors")]) == 0
    back = read_state_dict(tmp_path / "back.safetensors")
    assert sorted(back) == sorted(state)
    for key, value in state.items():
        np.testing.assert_array_equal(back[key], value)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["authors.pth", "back.safetensors", "out.keras"]
    # The images are prepared as is usual for the network, so that it can be predicted with and exported as it is.
    assert model.preprocessing == cifar()


@pytest.mark.any_backend
def test_how_images_are_prepared_is_an_option(tmp_path, capsys):
    write_state_dict(zoo.to_torch_state_dict(zoo.create_model("resnet18", classes=3)), tmp_path / "net.safetensors")
    for name, expected in ((None, imagenet()), ("none", None)):
        options = [] if name is None else ["--preprocessing", name]
        out = tmp_path / f"{name}.keras"
        assert main(["convert", str(tmp_path / "net.safetensors"), str(out), *options]) == 0
        assert ("mean and deviation of ImageNet" in capsys.readouterr().out) == (name is None)
        assert keras.models.load_model(out).preprocessing == expected
    wrong = ["convert", str(tmp_path / "net.safetensors"), str(tmp_path / "wrong.keras"), "--preprocessing", "imagenot"]
    assert main(wrong) == 2
    assert "imagenet, cifar, none" in capsys.readouterr().err


@pytest.mark.any_backend
def test_what_a_checkpoint_cannot_tell_is_an_option(tmp_path):
    model = zoo.create_model("se_resnet8", classes=3, activation="gelu", gate="gumbel", input_shape=(16, 16, 1))
    write_state_dict(zoo.to_torch_state_dict(model), tmp_path / "net.safetensors")
    options = ["--image-size", "16", "16", "--activation", "gelu", "--gate", "gumbel"]
    assert main(["convert", str(tmp_path / "net.safetensors"), str(tmp_path / "net.keras"), *options]) == 0
    loaded = keras.models.load_model(tmp_path / "net.keras")
    x = np.random.default_rng(0).standard_normal((2, 16, 16, 1)).astype("float32")
    assert loaded.input_shape == (None, 16, 16, 1)
    np.testing.assert_allclose(loaded.predict(x, verbose=0), model.predict(x, verbose=0), rtol=1e-6)


@pytest.mark.parametrize(
    ("arguments", "parts"),
    [
        (["absent.pth", "out.keras"], ["IN must be a file; given: 'absent.pth'"]),
        (["net.pth", "out.pth"], ["one of IN and OUT must end in .keras"]),
        (["net.h5", "out.keras"], ["must end in .pth, .pt, .safetensors", "net.h5"]),
        (["net.pth", "taken.keras"], ["OUT must be new; given: 'taken.keras'", "--overwrite"]),
        (
            ["net.pth", "out.keras", "--activation", "agul"],
            ["activation must be one of", "given: 'agul'. Nearest: aglu"],
        ),
        (["net.pth", "out.keras", "--gate", "apa"], ["gate must be left out for resnet8"]),
        (["net.keras", "out.pth", "--gate", "apa"], ["must be left out unless OUT ends in .keras"]),
        (["bad.pth", "out.keras"], ["bad.pth", "not a checkpoint"]),
        (["bad.keras", "out.pth"], ["bad.keras"]),
        (["net.pth", "net.keras/out.keras"], ["OUT must be a folder that can be written to"]),
    ],
)
def test_bad_arguments_are_clear_errors_and_write_nothing(arguments, parts, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    model = zoo.create_model("resnet8", classes=2, input_shape=(8, 8, 3))
    model.save("net.keras")
    write_state_dict(zoo.to_torch_state_dict(model), "net.pth")
    for name in ("bad.pth", "bad.keras", "taken.keras", "net.h5"):
        (tmp_path / name).write_text("<html>")
    before = sorted(path.name for path in tmp_path.iterdir())
    assert main(["convert", *arguments]) == 2
    message = capsys.readouterr().err
    for part in parts:
        assert part in message
    assert "Traceback" not in message and sorted(path.name for path in tmp_path.iterdir()) == before
