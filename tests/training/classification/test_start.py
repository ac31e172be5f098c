"""Published weights as the start of a training on one's own images, through the download."""

import argparse
import dataclasses
import http.server
import json
import shutil
import threading

import keras
import numpy as np
import pytest
from backends import CURRENT
from PIL import Image

import zoo
from training.classification.network import start_from
from training.classification.start import prepared_as_started
from training.cli.main import main
from training.config.classification import StartOptions
from training.data.classification.source import ArrayImages, Source
from training.recipes import get_recipe
from zoo import weights as module
from zoo.weights import WeightSet

OPTIONS = {"activation": "aglu", "gate": "apa", "classifier": "linear"}


@pytest.fixture
def published(monkeypatch, tmp_path):
    """A small network with ten classes in a file as the authors write theirs, which a server of this process has."""
    torch = pytest.importorskip("torch", reason="the published files are PyTorch's")
    network = zoo.create_model("se_resnet8", classes=10, input_shape=(None, None, 3), **OPTIONS)
    for layer in network.layers:  # what no new network has
        for variable in layer.weights:
            if variable.name == "gamma":
                variable.assign(variable + 0.01 * np.arange(variable.shape[0]))
    state = {key: torch.from_numpy(value.copy()) for key, value in zoo.to_torch_state_dict(network).items()}
    file = tmp_path / "model_199.pth"
    torch.save({"model": state, "epoch": 199, "args": argparse.Namespace(model="se_resnet8")}, file)

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            content = file.read_bytes()
            self.server.paths.append(self.path)
            self.send_response(200)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, *arguments):
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.paths, server.network = [], network
    threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()
    for name in ("http_proxy", "all_proxy", "HTTP_PROXY", "ALL_PROXY", "KERAS_APA_OFFLINE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("KERAS_APA_CACHE", str(tmp_path / "cache"))
    weights = WeightSet(
        model="se_resnet8",
        name="ten",
        url=f"http://127.0.0.1:{server.server_port}/model_199.pth",
        classes=10,
        options=OPTIONS,
        preprocessing=zoo.preprocessing.cifar(),
        top1=50.0,
        source="a table",
        class_order="digits",
        repository="nobody/nothing",
        correction="raw",
        class_counts=tuple(range(20, 10, -1)),
    )
    monkeypatch.setitem(module._BY_NAME, (weights.model, weights.name), weights)
    yield server
    server.shutdown()
    server.server_close()


@pytest.fixture
def photos(tmp_path):
    rng = np.random.default_rng(0)
    for name, colour, count in (("blue", (40, 60, 220), 12), ("green", (50, 200, 60), 8), ("red", (220, 40, 40), 5)):
        folder = tmp_path / "photos" / name
        folder.mkdir(parents=True)
        for number in range(count):
            pixels = np.clip(rng.normal(colour, 30, (40, 48, 3)), 0, 255).astype("uint8")
            Image.fromarray(pixels).save(folder / f"{number}.png")
    return tmp_path / "photos"


@pytest.mark.any_backend
def test_own_images_are_trained_on_from_published_weights(published, photos, tmp_path, capsys, monkeypatch):
    run = tmp_path / "run"
    arguments = ["train", "folder", "--backend", CURRENT, "--data.path", photos, "--model.name", "se_resnet8",
                 "--data.image-size", "32", "--batch-size", "10", "--epochs", "2", "--optimizer.learning-rate", "0.01",
                 "--start.weights", "se_resnet8/ten", "--start.trainable", "classifier", "--output", run]  # fmt: skip
    prepared = []
    for user in ("task", "train"):
        called = f"training.classification.{user}.prepared_as_started"
        monkeypatch.setattr(
            called, lambda recipe, source: prepared.append(recipe) or prepared_as_started(recipe, source)
        )
    assert main([*map(str, arguments)]) == 0
    assert len(prepared) == 1
    printed = " ".join(capsys.readouterr().out.split())
    assert "images are prepared as those of se_resnet8/ten: mean 0.4914 0.4822 0.4465" in printed
    assert published.paths == ["/model_199.pth"]
    model = keras.saving.load_model(run / "folder.keras")
    assert model.preprocessing == zoo.preprocessing.cifar() and model.class_names == ("blue", "green", "red")
    assert model.output_shape[-1] == 3
    # All that is not trained is what was downloaded, but for the statistics that follow the batches.
    compared = 0
    for layer in published.network.layers:
        if layer.name == "classifier" or not layer.weights:
            continue
        for before, after in zip(layer.weights, model.get_layer(layer.name).weights, strict=True):
            if not before.name.startswith("moving"):
                arrays = [keras.ops.convert_to_numpy(variable) for variable in (before, after)]
                np.testing.assert_array_equal(*arrays, err_msg=before.path)
                compared += 1
    assert compared > 20
    assert json.loads((run / "config.json").read_text())["recipes"][0]["start"]["weights"] == "se_resnet8/ten"
    # The same command shows the result, and needs neither the weights nor the images.
    monkeypatch.delitem(module._BY_NAME, ("se_resnet8", "ten"))
    shutil.rmtree(photos)
    assert main([*map(str, arguments)]) == 0
    assert "This training is finished" in capsys.readouterr().out and len(published.paths) == 1


def test_weights_of_another_network_are_refused_before_training(published, photos, tmp_path, capsys):
    arguments = ["train", "folder", "--backend", CURRENT, "--data.path", photos, "--model.name", "se_resnet14",
                 "--data.image-size", "32", "--batch-size", "8",
                 "--start.weights", "se_resnet8/ten", "--output", tmp_path / "run"]  # fmt: skip
    assert main([*map(str, arguments)]) != 0
    error = capsys.readouterr().err
    assert "start.weights must be of the network se_resnet14; given: 'se_resnet8/ten'" in error
    assert "Traceback" not in error
    # Nothing was done in the folder: it takes a run with other settings.
    (tmp_path / "empty").mkdir()
    arguments[arguments.index("se_resnet8/ten")] = tmp_path / "empty"
    assert main([*map(str, arguments)]) == 2
    assert "start.weights must be a run, a preset or a folder with a .keras file; given: " in capsys.readouterr().err


@pytest.fixture
def first(tmp_path):
    """The file of a small network with an activation that has no parameters."""
    path = tmp_path / "first.keras"
    zoo.create_model("se_resnet8", classes=2, activation="silu", classifier="learned_cosine").save(path)
    return path


def test_an_activation_without_parameters_is_another_network(first):
    """All weights have the same shapes."""
    network = zoo.create_model("se_resnet8", classes=2)
    before = network.get_weights()
    with pytest.raises(ValueError, match=r"of the network se_resnet8; given: .*activation='silu' in the file"):
        start_from(network, StartOptions(weights=str(first)))
    for expected, got in zip(before, network.get_weights(), strict=True):
        np.testing.assert_array_equal(got, expected)


@pytest.mark.parametrize(
    "options", [{"redraw_classifier": True}, {}, {"redraw_classifier": True, "keep_classifier": True}]
)
def test_a_new_classifier_is_drawn_as_asked(first, options):
    network = zoo.create_model("se_resnet8", classes=2, activation="silu", classifier="learned_cosine")
    start_from(network, StartOptions(weights=str(first), **options))
    largest = np.abs(keras.ops.convert_to_numpy(network.get_layer("classifier").kernel)).max()
    # Of 128 draws from U(-a, a): 64 features and 2 classes, a = sqrt(6 / 66) by Xavier, 1 / 8 by default.
    low, high = (0.2, 6**0.5 / 66**0.5) if options == {"redraw_classifier": True} else (0.1, 1 / 8)
    assert low < largest <= high + 1e-6


def source():
    images = ArrayImages(np.zeros((4, 8, 8, 3), "uint8"), np.array([0, 1, 0, 1]))
    return Source("some", images, images, preprocessing=zoo.preprocessing.imagenet())


def test_a_keras_file_brings_its_preparation_along(tmp_path):
    model = zoo.create_model("resnet8", classes=2)
    model.preprocessing = dataclasses.replace(zoo.preprocessing.cifar(), image_size=(48, 48))
    (tmp_path / "run").mkdir()
    model.save(tmp_path / "run" / "first.keras")
    for weights in (tmp_path / "run" / "first.keras", tmp_path / "run"):
        recipe = get_recipe("folder").replace(start={"weights": str(weights)})
        prepared = prepared_as_started(recipe, source())
        assert prepared.preprocessing == model.preprocessing and len(prepared.notes) == 1


def test_published_data_and_files_without_preparation_stay_as_they_are(tmp_path):
    checkpoint = tmp_path / "model.pth"
    checkpoint.touch()
    weights = {"weights": "se_resnet50/imagenet"}
    for recipe in (
        get_recipe("imagenet_lt").replace(start=weights),
        get_recipe("folder"),
        get_recipe("folder").replace(start={"weights": str(checkpoint)}),
    ):
        given = source()
        assert prepared_as_started(recipe, given) is given
    resized = prepared_as_started(get_recipe("folder").replace(start=weights), source()).preprocessing
    assert (resized.image_size, resized.resize_size) == ((224, 224), 232)


@pytest.mark.parametrize("weights", ["nothing.pth", "runs/gol_cifar100_lt_stage1", "se_resnet50/imagenot"])
def test_weights_that_are_not_there_are_named_before_training(weights):
    with pytest.raises(
        ValueError, match=f"start.weights must be a file, a run folder or published weights; given: '{weights}'"
    ) as error:
        prepared_as_started(get_recipe("imagenet_lt").replace(start={"weights": weights}), source())
    expected = (
        "keras-apa train gol_cifar100_lt_stage1 makes it" if "runs" in weights else "Nearest: se_resnet50/imagenet"
    )
    assert expected in str(error.value) or weights == "nothing.pth"
