"""PyTorch checkpoints there and back: files, layouts, what is refused, and which network a checkpoint is of."""

import argparse
import os
import pickle
import re

import keras
import numpy as np
import pytest
import safetensors.numpy
import torch
from authors import FULL, REFERENCES, SPATIAL
from backends import CURRENT, run
from reference import load_json

import zoo
from keras_apa.layers import AGLU, APA
from zoo.checkpoint_files import read_state_dict, write_state_dict

pytestmark = pytest.mark.any_backend  # keys and files; each backend writes and reads one of each kind

OPTIONS = {"classes": 5, "input_shape": (None, None, 3)}


@pytest.mark.parametrize("reference", REFERENCES)
def test_the_authors_networks_are_told_from_their_keys(reference):
    name, options = REFERENCES[reference]
    description = load_json(f"models/{reference}.json")
    state = {row["key"]: np.empty(row["shape"]) for row in description["state_dict"]}
    classes = 1000 if "50" in name else 100
    assert zoo.detect_architecture(state) == (name, {**options, "classes": classes})


@pytest.mark.parametrize("classifier", zoo.blocks.CLASSIFIERS)
@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("resnet8", {}),
        ("se_resnet14", FULL),
        ("cb_resnet8", {"gate": "apa"}),
        ("sp_resnet18", SPATIAL),
        ("se_resnet8", {"gate_normalization": True, "stem": "imagenet"}),
        ("cb_resnet8", {"gate_normalization": False, "activation": "aglu"}),
    ],
)
def test_options_with_parameters_are_told_from_a_checkpoint(name, options, classifier):
    model = zoo.create_model(name, classes=7, classifier=classifier, **options)
    expected = {**options, "classes": 7, "classifier": classifier}
    if classifier == "linear":
        del expected["classifier"]
    assert zoo.detect_architecture(zoo.to_torch_state_dict(model)) == (name, expected)


def test_checkpoints_of_other_networks_are_refused_with_what_was_found():
    with pytest.raises(ValueError, match=r"not of a ResNet.*patch_embed"):
        zoo.detect_architecture({"patch_embed.weight": np.zeros((8, 3, 4, 4))})
    state = zoo.to_torch_state_dict(zoo.create_model("resnet8"))
    state["layer1.1.conv1.weight"] = state["layer1.0.conv1.weight"]
    with pytest.raises(ValueError, match=r"No network of the zoo.*depths \(2, 1, 1\)"):
        zoo.detect_architecture(state)


@pytest.mark.parametrize(
    ("key", "shape", "said"),
    [
        ("conv1.weight", (), "conv1.weight has the shape ()"),
        ("conv1.weight", (16, 0, 3, 3), "conv1.weight has the shape (16, 0, 3, 3)"),
        ("layer1.0.conv2.weight", (16,), "layer1.0.conv2.weight has the shape (16,)"),
        ("linear.weight", (3, 4, 5), "linear.weight has the shape (3, 4, 5)"),
        ("linear.bias", (), "linear.bias has the shape ()"),
        ("layer99999999999.0.conv2.weight", (1,), "it has the key layer99999999999.0.conv2.weight"),
    ],
)
def test_tensors_of_another_rank_are_refused(key, shape, said):
    state = {**zoo.to_torch_state_dict(zoo.create_model("resnet8", classes=3)), key: np.zeros(shape)}
    with pytest.raises(ValueError, match="is not of a ResNet") as error:
        zoo.detect_architecture(state)
    assert said in str(error.value)


@pytest.mark.parametrize("kind", ["sparse", "meta"])
def test_tensors_without_plain_numbers_are_named(kind):
    tensor = torch.zeros(2, 2).to_sparse() if kind == "sparse" else torch.zeros(2, device="meta")
    with pytest.raises(ValueError, match="source must hold plain tensors of numbers; given: 'fc.bias'"):
        zoo.detect_architecture({"fc.bias": tensor})


@pytest.mark.parametrize("ending", [pytest.param(".pth", marks=pytest.mark.every_backend), ".pt", ".safetensors"])
@pytest.mark.smoke
def test_files_there_and_back_are_exact_buffers_included(ending, tmp_path):
    model = zoo.create_model("cb_resnet8", **FULL, **OPTIONS)
    state = zoo.to_torch_state_dict(model)
    counters = [key for key in state if key.endswith("num_batches_tracked")]
    for i, key in enumerate(counters):
        state[key] = np.asarray(1000 + i, "int64")
    write_state_dict(state, tmp_path / f"there{ending}")
    assert [path.name for path in tmp_path.iterdir()] == [f"there{ending}"]
    loaded = zoo.create_model("cb_resnet8", **FULL, **OPTIONS)
    zoo.load_torch_checkpoint(loaded, tmp_path / f"there{ending}")
    loaded.save(tmp_path / "model.keras")
    back = zoo.to_torch_state_dict(keras.models.load_model(tmp_path / "model.keras"))
    assert list(back) == list(state) and len(counters) == 10
    for key, value in state.items():
        assert back[key].dtype == value.dtype and back[key].shape == value.shape
        np.testing.assert_array_equal(back[key], value)


def test_the_file_of_the_training_script_is_opened_and_unwrapped(tmp_path):
    state = {
        f"module.{key}": torch.tensor(value)
        for key, value in zoo.to_torch_state_dict(zoo.create_model("resnet8", **OPTIONS)).items()
    }
    state["module.linear.bias"] = torch.full((5,), 0.5, dtype=torch.bfloat16)
    parameter = torch.nn.Parameter(torch.zeros(3))
    optimizer = torch.optim.SGD([parameter], lr=0.1, momentum=0.9)
    optimizer.zero_grad()
    parameter.sum().backward()
    optimizer.step()
    saved = {
        "model": state,
        "optimizer": optimizer.state_dict(),
        "lr_scheduler": torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, 3).state_dict(),
        "epoch": 3,
        "acc": np.float64(52.3),
        "args": argparse.Namespace(lr=0.1, model="resnet8", decay=[1, 2]),
    }
    torch.save(saved, tmp_path / "model.pth")
    name, options = zoo.detect_architecture(tmp_path / "model.pth")
    model = zoo.create_model(name, weights=tmp_path / "model.pth", **options)
    loaded = zoo.to_torch_state_dict(model)
    np.testing.assert_array_equal(loaded["conv1.weight"], state["module.conv1.weight"].numpy())
    np.testing.assert_array_equal(loaded["linear.bias"], 0.5)


def test_the_two_halves_of_balanced_meta_softmax_are_joined(tmp_path):
    state = zoo.to_torch_state_dict(zoo.create_model("resnet32", **OPTIONS))
    halves = {
        "feat_model": {f"module.{k}": torch.tensor(v) for k, v in state.items() if not k.startswith("linear")},
        "classifier": {f"module.fc.{k}": torch.tensor(state[f"linear.{k}"]) for k in ("weight", "bias")},
    }
    torch.save({"state_dict_best": halves, "best_acc": 0.4, "centroids": {}}, tmp_path / "model.pth")
    assert zoo.detect_architecture(tmp_path / "model.pth") == ("resnet32", {"classes": 5})
    model = zoo.create_model("resnet32", **OPTIONS)
    zoo.load_torch_checkpoint(model, tmp_path / "model.pth")
    for key, value in zoo.to_torch_state_dict(model).items():
        np.testing.assert_array_equal(value, state[key])


def test_torchvision_and_timm_layouts_without_gates_are_the_authors():
    """The keys of torchvision's resnet18, written out: timm's are the same."""
    block = ["conv1.weight", "conv2.weight"]
    norms = ["weight", "bias", "running_mean", "running_var", "num_batches_tracked"]
    block += [f"bn{i}.{name}" for i in (1, 2) for name in norms]
    expected = {"conv1.weight", "fc.weight", "fc.bias", *(f"bn1.{name}" for name in norms)}
    for stage in (1, 2, 3, 4):
        expected |= {f"layer{stage}.{i}.{name}" for i in (0, 1) for name in block}
        if stage > 1:
            expected |= {f"layer{stage}.0.downsample.{name}" for name in ["0.weight", *(f"1.{n}" for n in norms)]}
    assert set(zoo.to_torch_state_dict(zoo.create_model("resnet18"))) == expected


def test_timms_gates_are_refused_with_the_reason():
    state = zoo.to_torch_state_dict(zoo.create_model("resnet18", classes=3))
    state |= {"layer1.0.se.fc1.weight": np.zeros((4, 64, 1, 1)), "layer1.0.se.fc1.bias": np.zeros(4)}
    with pytest.raises(ValueError, match=r"timm's layout.*with a bias in the gates' layers"):
        zoo.load_torch_checkpoint(zoo.create_model("se_resnet18", classes=3), state)


def timm_gates(state):
    """The state dict with timm's names for the layers of the gates, which are 1x1 convolutions there."""
    places = {"excitation.0": "fc1", "excitation.2": "fc2"}
    renamed = {}
    for key, value in state.items():
        place = next((name for name in places if f".se.{name}.weight" in key), None)
        renamed[key.replace(place, places[place]) if place else key] = value[..., None, None] if place else value
    return renamed


def test_timms_gates_without_biases_load_exactly():
    state = zoo.to_torch_state_dict(zoo.create_model("se_resnet8", **OPTIONS))
    timm = timm_gates(state)
    assert timm["layer1.0.se.fc1.weight"].shape == (4, 16, 1, 1) and not any("excitation" in key for key in timm)
    assert zoo.detect_architecture(timm) == ("se_resnet8", {"classes": 5})
    model = zoo.create_model("se_resnet8", **OPTIONS)
    zoo.load_torch_checkpoint(model, timm)
    for key, value in zoo.to_torch_state_dict(model).items():
        np.testing.assert_array_equal(value, state[key])


def test_timms_gates_with_biases_are_not_taken_for_a_network_of_the_zoo():
    timm = timm_gates(zoo.to_torch_state_dict(zoo.create_model("se_resnet8", **OPTIONS)))
    with pytest.raises(ValueError, match="with a bias in the gates' layers"):
        zoo.detect_architecture({**timm, "layer1.0.se.fc1.bias": np.zeros(4)})


def test_one_pair_of_parameters_a_channel_is_told_as_a_layer():
    aglu, apa = AGLU(per_channel=True), APA(per_channel=True)
    state = zoo.to_torch_state_dict(zoo.create_model("se_resnet8", activation=aglu, gate=apa, classes=5))
    name, options = zoo.detect_architecture(state)
    assert options["activation"].per_channel and options["gate"].per_channel
    model = zoo.create_model(name, **options)
    zoo.load_torch_checkpoint(model, state)
    for key, value in zoo.to_torch_state_dict(model).items():
        np.testing.assert_array_equal(value, state[key])


def test_the_shape_of_the_images_is_in_the_order_of_the_configuration():
    state = zoo.to_torch_state_dict(zoo.create_model("resnet8", classes=5, input_shape=(8, 8, 1)))
    assert zoo.detect_architecture(state)[1]["input_shape"] == (None, None, 1)
    keras.config.set_image_data_format("channels_first")
    try:
        name, options = zoo.detect_architecture(state)
        assert options["input_shape"] == (1, None, None)
        zoo.load_torch_checkpoint(zoo.create_model(name, **options), state)
    finally:
        keras.config.set_image_data_format("channels_last")


@pytest.mark.parametrize("kind", ["text", "object", "datetime64[s]", "complex64"])
def test_a_tensor_that_is_no_real_number_is_named_before_anything_is_loaded(kind):
    model = zoo.create_model("resnet8", **OPTIONS)
    before = zoo.to_torch_state_dict(model)
    state = {key: value + 1 for key, value in before.items()}
    bad = np.full((5, 64), "x") if kind == "text" else np.zeros((5, 64), kind)
    message = f"linear.weight: dtype {re.escape(str(bad.dtype))} given, a real number is needed"
    with pytest.raises(ValueError, match=f"nothing was loaded.\nmisshapen: {message}"):
        zoo.load_torch_checkpoint(model, {**state, "linear.weight": bad})
    after = zoo.to_torch_state_dict(model)
    assert all((after[key] == value).all() for key, value in before.items())


@pytest.mark.parametrize("number", [np.nan, np.inf])
def test_a_tensor_of_a_training_that_diverged_is_named_before_anything_is_loaded(number):
    model = zoo.create_model("resnet8", **OPTIONS)
    before = zoo.to_torch_state_dict(model)
    state = {key: value + 1 for key, value in before.items()}
    state["linear.weight"][2, 3:5] = number
    message = "2 of the 320 numbers of linear.weight are NaN or infinite; nothing was loaded"
    for strict in (True, False):
        with pytest.raises(ValueError, match=message):
            zoo.load_torch_checkpoint(model, state, strict=strict)
    after = zoo.to_torch_state_dict(model)
    assert all((after[key] == value).all() for key, value in before.items())


@pytest.mark.parametrize(
    "count", [np.array("x"), np.zeros(2), np.array(np.nan), np.array(0.5), np.array(2.0**63), np.array(-1)], ids=str
)
def test_a_counter_that_is_no_number_is_named_before_anything_is_loaded(count):
    model = zoo.create_model("resnet8", **OPTIONS)
    before = zoo.to_torch_state_dict(model)
    state = {key: value + 1 for key, value in before.items()}
    with pytest.raises(ValueError, match=r"bn1.num_batches_tracked: .* one whole number is needed"):
        zoo.load_torch_checkpoint(model, {**state, "bn1.num_batches_tracked": count})
    after = zoo.to_torch_state_dict(model)
    assert all((after[key] == value).all() for key, value in before.items())


@pytest.mark.parametrize("classifier", ["cosine", "learned_cosine"])
def test_skipping_is_offered_where_only_tensors_of_the_classifier_are_missing_or_unexpected(classifier):
    model = zoo.create_model("resnet8", classifier=classifier, **OPTIONS)
    linear = zoo.to_torch_state_dict(zoo.create_model("resnet8", **OPTIONS))
    backbone = {key: value for key, value in linear.items() if not key.startswith("linear.")}
    for state in (linear, backbone):
        with pytest.raises(ValueError, match="skip_classifier=True"):
            zoo.load_torch_checkpoint(model, state)
        zoo.load_torch_checkpoint(model, state, skip_classifier=True)
        with pytest.raises(ValueError) as error:
            zoo.load_torch_checkpoint(model, {k: v for k, v in state.items() if k != "conv1.weight"})
        assert "skip_classifier" not in str(error.value)


@pytest.mark.parametrize("ending", [".pth", ".safetensors"])
def test_numbers_without_an_axis_and_tensors_are_written(ending, tmp_path):
    path = tmp_path / f"a{ending}"
    write_state_dict({"a": np.int64(3), "b": 2.5, "c": torch.ones(2), "d": np.ones((2, 3)).T}, path)
    found = read_state_dict(path)
    assert {key: value.tolist() for key, value in found.items()} == {
        "a": 3,
        "b": 2.5,
        "c": [1, 1],
        "d": [[1, 1]] * 3,
    }
    with pytest.raises(ValueError, match="'e' must be an array of numbers; given: dtype <U1"):
        write_state_dict({"e": "x"}, tmp_path / f"e{ending}")
    with pytest.raises(ValueError, match="path must be in a folder that is there"):
        write_state_dict({"a": np.ones(2)}, tmp_path / "missing" / f"a{ending}")
    (tmp_path / f"folder{ending}").mkdir()
    with pytest.raises(ValueError, match=f"folder{ending}' cannot be written: "):
        write_state_dict({"a": np.ones(2)}, tmp_path / f"folder{ending}")
    assert sorted(file.name for file in tmp_path.iterdir()) == [f"a{ending}", f"folder{ending}"]


def test_another_number_of_classes_is_offered_to_skip_the_classifier():
    state = zoo.to_torch_state_dict(zoo.create_model("resnet8", classes=7))
    model = zoo.create_model("resnet8", classes=10)
    head = keras.ops.convert_to_numpy(model.get_layer("classifier").kernel)
    with pytest.raises(ValueError, match="skip_classifier=True loads the rest"):
        zoo.load_torch_checkpoint(model, state)
    assert zoo.load_torch_checkpoint(model, state, skip_classifier=True)["unexpected"] == []
    loaded = zoo.to_torch_state_dict(model)
    np.testing.assert_array_equal(loaded["conv1.weight"], state["conv1.weight"])
    np.testing.assert_array_equal(keras.ops.convert_to_numpy(model.get_layer("classifier").kernel), head)
    backbone = zoo.create_model("resnet8", include_top=False)
    zoo.load_torch_checkpoint(backbone, state, skip_classifier=True)


class _Code:
    def __reduce__(self):
        return os.system, ("touch /tmp/keras-apa-was-run",)


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        ("code", "was not opened: it refers to posix.system"),
        ("html", "is not a checkpoint, or is damaged"),
        ("pickle", "is not a checkpoint, or is damaged"),
        ("cut", "cannot be read as a PyTorch checkpoint, or is damaged"),
        ("empty", "cannot be read as a PyTorch checkpoint, or is damaged"),
        ("absent", "source must be a file that is there"),
        ("list", "net.pth' must hold a mapping from key to tensor; given: list."),
        ("numbers", "net.pth' must map names to tensors; given: 'lr': float."),
        ("ending", "must end in .pth, .pt, .safetensors; given: "),
        ("safetensors", "cannot be read as safetensors"),
    ],
)
def test_what_is_no_checkpoint_is_refused(kind, message, tmp_path):
    path = tmp_path / {"ending": "net.bin", "safetensors": "net.safetensors"}.get(kind, "net.pth")
    if kind == "code":
        torch.save({"model": {}, "x": _Code()}, path)
    elif kind in ("html", "safetensors"):
        path.write_text("<html>Too many users have viewed this file</html>")
    elif kind == "pickle":
        path.write_bytes(pickle.dumps({"x": np.zeros(3)}))
    elif kind == "cut":
        torch.save({"x": torch.zeros(10000)}, path)
        path.write_bytes(path.read_bytes()[:9000])
    elif kind == "empty":
        path.touch()
    elif kind == "list":
        torch.save([1, 2], path)
    elif kind == "numbers":
        torch.save({"lr": 0.1}, path)
    with pytest.raises(ValueError) as error:
        zoo.load_torch_checkpoint(zoo.create_model("resnet8"), path)
    assert message in str(error.value)
    assert not os.path.exists("/tmp/keras-apa-was-run")


@pytest.mark.any_backend
def test_safetensors_are_read_where_torch_is_not_installed(tmp_path):
    from backends import BLOCK

    state = zoo.to_torch_state_dict(zoo.create_model("resnet8", **OPTIONS))
    safetensors.numpy.save_file(state, tmp_path / "net.safetensors")
    (tmp_path / "net.pth").touch()
    program = BLOCK.format(blocked=("torch",)) + (
        "import zoo\n"
        f"name, options = zoo.detect_architecture({str(tmp_path / 'net.safetensors')!r})\n"
        "print(name, options, 'torch' in sys.modules)\n"
        f"try: zoo.detect_architecture({str(tmp_path / 'net.pth')!r})\n"
        "except ImportError as error: print(error)"
    )
    result = run("jax" if CURRENT == "torch" else CURRENT, "-c", program)
    assert "resnet8 {'classes': 5} False" in result.stdout, result.stderr[-2000:]
    assert "keras-apa[torch]" in result.stdout


@pytest.mark.any_backend
def test_bfloat16_safetensors_are_read(tmp_path):
    import safetensors.torch

    safetensors.torch.save_file({"x": torch.tensor([1.5, -2.0], dtype=torch.bfloat16)}, tmp_path / "x.safetensors")
    np.testing.assert_array_equal(read_state_dict(tmp_path / "x.safetensors")["x"], np.float32([1.5, -2.0]))
