"""Presets: folders that are written whole, load on every backend, and come from the package, a folder or the Hub."""

import hashlib
import http.server
import importlib
import json
import sys
import threading
import urllib.parse

import keras
import numpy as np
import pytest
from backends import NEXT, environment
from warm import run_warm

import zoo
from keras_apa.layers import AGLU, PriorCorrection
from zoo import presets
from zoo.download import DownloadError
from zoo.preprocessing import Preprocessing
from zoo.presets import from_preset, list_presets, preset_config, save_preset

pytestmark = pytest.mark.any_backend  # folders and files; each backend writes and reads one

NAMES = ["cat", "dog", "emu"]
PREPROCESSING = Preprocessing(image_size=(16, 16), resize_size=20, channels=1, mean=(0.5,), std=(0.25,))


def network(classifier_activation=None):
    """A small network with everything that a preset has to carry, the prior correction included."""
    model = zoo.create_model(
        "se_resnet8",
        classes=3,
        input_shape=(16, 16, 1),
        activation=AGLU(per_channel=True, lambda_gradient="paper"),
        gate="apa",
        classifier="learned_cosine",
    )
    outputs = PriorCorrection([50, 20, 5], name="prior_correction")(model.output)
    if classifier_activation:
        outputs = keras.layers.Activation(classifier_activation)(outputs)
    return keras.Model(model.input, outputs, name="pets")


def outputs(model):
    x = np.random.default_rng(0).standard_normal((4, 16, 16, 1)).astype("float32")
    return keras.ops.convert_to_numpy(model(x, training=False))


@pytest.fixture
def saved(tmp_path):
    """A model and its preset."""
    model = network()
    folder = save_preset(
        model,
        tmp_path / "pets",
        class_names=NAMES,
        preprocessing=PREPROCESSING,
        metrics={"top1": 91.5, "few": np.float32(40)},
        description="Three animals.",
    )
    return model, folder


@pytest.mark.parametrize("weights_format", [pytest.param("h5", marks=pytest.mark.every_backend), "safetensors"])
@pytest.mark.smoke
def test_a_preset_is_the_same_model_again(weights_format, tmp_path):
    model = network("softmax")
    model.compile("adam", "sparse_categorical_crossentropy")
    model.optimizer.build(model.trainable_variables)
    folder = save_preset(model, tmp_path / "pets", NAMES, PREPROCESSING, weights_format=weights_format)
    loaded = from_preset(folder)
    np.testing.assert_array_equal(outputs(loaded), outputs(model))
    assert isinstance(loaded, zoo.Classifier) and not loaded.compiled
    assert loaded.class_names == tuple(NAMES) and loaded.preprocessing == PREPROCESSING
    assert loaded.get_layer("prior_correction").variant == "raw"
    again = save_preset(loaded, tmp_path / "again")
    assert from_preset(again).class_names == tuple(NAMES)


def test_a_sequential_model_is_a_preset_too(tmp_path):
    model = keras.Sequential([keras.layers.Flatten(), keras.layers.Dense(3, activation="softmax")], name="flat")
    with pytest.raises(ValueError, match="or a Sequential one that has been built; given: Sequential"):
        save_preset(model, tmp_path / "flat", NAMES)
    model.build((None, 16, 16, 1))
    loaded = from_preset(save_preset(model, tmp_path / "flat", NAMES, PREPROCESSING))
    np.testing.assert_array_equal(outputs(loaded), outputs(model))
    assert loaded.name == "flat" and loaded.class_names == tuple(NAMES)


def test_what_is_known_stands_in_the_config_and_on_the_card(saved):
    _, folder = saved
    assert sorted(path.name for path in folder.iterdir()) == ["README.md", "config.json", "model.weights.h5"]
    config = preset_config(folder)
    assert config["metrics"] == {"top1": 91.5, "few": 40.0} and config["description"] == "Three animals."
    card = (folder / "README.md").read_text()
    head, body = card.removeprefix("---\n").split("\n---\n")
    assert "library_name: keras" in head and "- keras-apa" in head
    for part in (
        "# pets",
        "Three animals.",
        "| top1 | 91.5 |",
        "16x16 from the centre",
        "cat, dog, emu",
        "class prior",
    ):
        assert part in body


def test_saving_leaves_the_model_as_it_is(saved):
    model, _ = saved
    assert type(model) is not zoo.Classifier and not hasattr(model, "class_names")


def test_without_weights_the_network_has_its_start_values(saved):
    model, folder = saved
    (folder / "model.weights.h5").unlink()
    assert from_preset(folder, load_weights=False).count_params() == model.count_params()
    with pytest.raises(ValueError, match=r"has no model\.weights\.h5"):
        from_preset(folder)


@pytest.mark.every_backend
def test_a_preset_of_this_backend_loads_on_the_next(saved, tmp_path):
    model, folder = saved
    program = (
        "import sys, keras, numpy as np, zoo, zoo.presets\n"
        "model = zoo.presets.from_preset(sys.argv[1])\n"
        "x = np.random.default_rng(0).standard_normal((4, 16, 16, 1)).astype('float32')\n"
        "np.save(sys.argv[2], keras.ops.convert_to_numpy(model(x, training=False)))\n"
        "print(keras.backend.backend(), *model.class_names)\n"
    )
    result = run_warm(program, folder, tmp_path / "outputs.npy", env=environment(NEXT))
    assert f"{NEXT} cat dog emu" in result.stdout, result.stderr[-2000:]
    np.testing.assert_allclose(np.load(tmp_path / "outputs.npy"), outputs(model), atol=1e-5)


def test_an_existing_preset_is_replaced_only_when_asked(saved):
    model, folder = saved
    with pytest.raises(
        ValueError, match="folder must be new or empty; .*, a preset. Choose another folder, or overwrite=True"
    ):
        save_preset(model, folder)
    save_preset(model, folder, class_names=["a", "b", "c"], overwrite=True)
    assert from_preset(folder).class_names == ("a", "b", "c")
    assert [path.name for path in folder.parent.iterdir()] == ["pets"]


@pytest.mark.any_backend
@pytest.mark.parametrize("overwrite", [False, True])
def test_of_presets_written_at_once_one_stands_whole(overwrite, tmp_path, monkeypatch):
    """All have seen that the folder is free, or that a preset is there, before the first one is moved there."""
    model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(1)])
    folder, barrier, results = tmp_path / "one", threading.Barrier(4), []
    if overwrite:
        save_preset(model, folder)

    def card(*given):
        barrier.wait()
        return ""

    monkeypatch.setattr(presets, "_card", card)

    def write(number):
        try:
            save_preset(model, folder, description=str(number), overwrite=overwrite)
            results.append("saved")
        except ValueError as error:
            results.append(str(error))

    threads = [threading.Thread(target=write, args=[number]) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    refused = (
        f"folder must be new or empty; given: {str(folder)!r}, a preset. Choose another folder, or overwrite=True."
    )
    assert sorted(results) == sorted(["saved"] * 4 if overwrite else ["saved", *[refused] * 3])
    assert [path.name for path in tmp_path.iterdir()] == ["one"]
    assert preset_config(folder)["description"] in "0123" and from_preset(folder).count_params() == 3


def test_a_folder_with_something_else_is_never_replaced(tmp_path):
    (tmp_path / "thesis.txt").write_text("years of work")
    with pytest.raises(ValueError, match="folder must be new, empty or a preset"):
        save_preset(network(), tmp_path, overwrite=True)
    assert (tmp_path / "thesis.txt").exists()


def test_nothing_is_left_when_writing_fails(saved, tmp_path):
    model, folder = saved
    with pytest.raises(ValueError, match="cannot be written: File name too long"):
        save_preset(model, tmp_path / ("n" * 250))
    before = (folder / "config.json").read_bytes()
    with pytest.raises(ValueError, match="3 names"):
        save_preset(model, folder, class_names=["one"], overwrite=True)
    assert (folder / "config.json").read_bytes() == before
    assert [path.name for path in tmp_path.iterdir()] == ["pets"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"metrics": {"top1": float("nan")}}, "metrics must be finite numbers; given: top1 = nan"),
        ({"metrics": {"top1": "high"}}, "metrics must be finite numbers; given: top1 = 'high'"),
        ({"metrics": {"top1": None}}, "metrics must be finite numbers; given: top1 = None"),
        ({"metrics": [1]}, "metrics must be a mapping"),
        ({"weights_format": "npz"}, "weights_format must be one of .*; given: 'npz'"),
        ({"class_names": ["one"]}, "3 names"),
        ({"preprocessing": "imagenet"}, "preprocessing must be a zoo.Preprocessing"),
    ],
)
def test_bad_arguments_are_clear_errors(arguments, message, tmp_path):
    with pytest.raises(ValueError, match=message):
        save_preset(network(), tmp_path / "pets", **arguments)
    assert list(tmp_path.iterdir()) == []


def test_only_a_functional_model_can_be_saved(tmp_path):
    with pytest.raises(ValueError, match="functional keras.Model, .* given: Subclass"):
        save_preset(type("Subclass", (keras.Model,), {})(), tmp_path / "pets")


def test_names_of_the_package_are_found_and_unknown_ones_are_explained(saved, monkeypatch):
    model, folder = saved
    monkeypatch.setattr(presets, "FOLDER", folder.parent)
    assert list_presets() == ["pets"] and list_presets("cars*") == []
    np.testing.assert_array_equal(outputs(from_preset("pets")), outputs(model))
    with pytest.raises(ValueError, match=r"preset must be .*; given: 'pest'\. Nearest: pets\. Presets: pets\."):
        from_preset("pest")


def test_other_handles_are_refused():
    with pytest.raises(ValueError, match="hf://user/repository; given: 'kaggle://a/b'"):
        from_preset("kaggle://a/b")
    with pytest.raises(ValueError, match="must look like hf://user/repository"):
        from_preset("hf://user")
    for preset in (3, "", None):
        with pytest.raises(ValueError, match="preset must be a name, a folder or hf://user/repository; given: "):
            from_preset(preset)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda c: c.update(format="other"), "does not say so"),
        (lambda c: c.update(format_version=2), "has format_version 2, but this keras-apa .* reads 1"),
        (lambda c: c.update(weights="../../secret.h5"), "is damaged"),
        (lambda c: c.pop("model"), "is damaged"),
        (lambda c: c["model"].update(registered_name="keras_apa>Nothing", class_name="Nothing"), "cannot be built"),
    ],
)
def test_a_damaged_config_is_a_clear_error(change, message, saved):
    _, folder = saved
    config = json.loads((folder / "config.json").read_text())
    change(config)
    (folder / "config.json").write_text(json.dumps(config))
    with pytest.raises(ValueError, match=message):
        from_preset(folder)


def test_code_in_a_config_is_refused(saved):
    _, folder = saved
    config = json.loads((folder / "config.json").read_text())
    unsafe = keras.layers.Lambda(lambda x: x)
    config["model"]["config"]["layers"][1] = {
        **config["model"]["config"]["layers"][1],
        **keras.saving.serialize_keras_object(unsafe),
    }
    (folder / "config.json").write_text(json.dumps(config))
    with pytest.raises(ValueError, match="cannot be built.*[Ll]ambda"):
        from_preset(folder)


@pytest.mark.parametrize("weights_format", ["h5", "safetensors"])
def test_damaged_or_foreign_weights_are_clear_errors(weights_format, tmp_path):
    folder = save_preset(network(), tmp_path / "pets", weights_format=weights_format)
    other = zoo.create_model("se_resnet8", classes=5, input_shape=(16, 16, 1))
    path = folder / presets.WEIGHTS[weights_format]
    foreign = save_preset(other, tmp_path / "other", weights_format=weights_format) / path.name
    path.write_bytes(foreign.read_bytes())
    with pytest.raises(ValueError, match="does not fit 'pets'; nothing was loaded"):
        from_preset(folder)
    path.write_bytes(b"half a file")
    with pytest.raises(ValueError, match="does not fit|cannot be read"):
        from_preset(folder)


def test_a_folder_that_is_no_preset_is_said(tmp_path):
    with pytest.raises(ValueError, match="is not a preset: config.json cannot be read"):
        from_preset(tmp_path)


def test_a_folder_of_a_training_hints_at_its_model(tmp_path):
    (tmp_path / "config.json").write_text("{}")
    (tmp_path / "cats.keras").write_bytes(b"")
    with pytest.raises(ValueError, match=r"is not a preset of keras-apa.*The folder holds cats\.keras: name that file"):
        from_preset(tmp_path)


class Hub(http.server.BaseHTTPRequestHandler):
    """As much of the Hugging Face Hub as `snapshot_download` asks for: revisions, the tree, and the files."""

    commit = "c" * 40

    def log_message(self, *arguments):
        pass

    def do_HEAD(self):
        self.do_GET()

    def do_GET(self):
        path = urllib.parse.unquote(urllib.parse.urlsplit(self.path).path)
        self.server.requests.append(path)
        files = {file.name: file.read_bytes() for file in self.server.folder.iterdir()}
        if path in ("/api/models/user/pets/revision/main", "/api/models/user/pets/revision/v1"):
            self.send(json.dumps({"id": "user/pets", "sha": self.commit, "siblings": []}).encode())
        elif path == f"/api/models/user/pets/tree/{self.commit}":
            tree = [
                {"type": "file", "path": name, "size": len(data), "oid": hashlib.sha1(data).hexdigest()}
                for name, data in files.items()
            ]
            self.send(json.dumps(tree).encode())
        elif path.startswith(f"/user/pets/resolve/{self.commit}/"):
            data = files[path.rpartition("/")[2]]
            self.send(data, {"ETag": f'"{hashlib.sha1(data).hexdigest()}"', "X-Repo-Commit": self.commit})
        else:
            self.send(b'{"error": "Repository not found"}', {"X-Error-Code": "RepoNotFound"}, status=404)

    def send(self, body, headers=(), status=200):
        self.send_response(status)
        for name, value in dict(headers).items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)


@pytest.fixture
def hub(saved, monkeypatch, tmp_path):
    constants = importlib.import_module("huggingface_hub.constants")
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Hub)
    server.folder, server.requests = saved[1], []
    threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY", "KERAS_APA_OFFLINE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HF_ENDPOINT", f"http://127.0.0.1:{server.server_port}")
    # Read from the environment when the package is imported.
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    yield server
    server.shutdown()
    server.server_close()


@pytest.mark.parametrize("handle", ["hf://user/pets", "hf://user/pets@v1"])
def test_a_handle_of_the_hub_is_fetched_and_then_cached(handle, hub, saved, monkeypatch):
    model, folder = saved
    (folder / "unrelated.bin").write_bytes(b"x" * 10)
    np.testing.assert_array_equal(outputs(from_preset(handle)), outputs(model))
    assert not any("unrelated" in path for path in hub.requests)
    count = len(hub.requests)
    monkeypatch.setenv("KERAS_APA_OFFLINE", "1")
    np.testing.assert_array_equal(outputs(from_preset(handle)), outputs(model))
    assert len(hub.requests) == count


def test_a_handle_that_does_not_exist_is_said(hub):
    with pytest.raises(DownloadError, match=r"Cannot fetch hf://user/cars: .*Fetch http://127\.0\.0\.1:\d+/user/cars"):
        from_preset("hf://user/cars")


def test_offline_a_handle_that_is_not_cached_is_said(hub, monkeypatch):
    monkeypatch.setenv("KERAS_APA_OFFLINE", "1")
    with pytest.raises(DownloadError, match="Cannot fetch hf://user/pets"):
        from_preset("hf://user/pets")
    assert hub.requests == []


def test_without_a_connection_the_link_is_named(hub):
    hub.shutdown()
    hub.server_close()
    with pytest.raises(DownloadError, match="Cannot fetch hf://user/pets.*give its folder to from_preset"):
        from_preset("hf://user/pets")


def test_without_huggingface_hub_the_extra_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    with pytest.raises(ImportError, match=r'pip install "keras-apa\[zoo\]"'):
        from_preset("hf://user/pets")


def test_a_folder_that_cannot_be_made_is_an_error(saved, tmp_path):
    (tmp_path / "file").write_text("no folder")
    with pytest.raises(ValueError, match="pets cannot be written: Not a directory"):
        save_preset(saved[0], tmp_path / "file" / "pets")


def test_a_folder_of_the_user_is_written_and_read_by_its_short_name(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    save_preset(network(), "~/pets")
    assert (tmp_path / "pets" / "config.json").is_file() and from_preset("~/pets").output_shape == (None, 3)


def test_preprocessing_keeps_numbers_of_numpy_as_those_of_json():
    given = Preprocessing(
        image_size=np.array([8, 8]), mean=np.float32([0.5, 0.25, 1]), std=np.float32([1, 2, 4]), resize_size=np.int64(9)
    )
    assert json.loads(json.dumps(given.get_config())) == given.get_config()
    assert given == Preprocessing(image_size=(8, 8), mean=(0.5, 0.25, 1.0), std=(1.0, 2.0, 4.0), resize_size=9)
