"""Checkpoints as training tools write them: each gives the same network, and what is not known is named."""

import warnings

import keras
import numpy as np
import pytest
import torch

import zoo
from training.cli.main import main
from zoo.checkpoint_files import read_state_dict, write_state_dict

pytestmark = pytest.mark.any_backend


class Block(torch.nn.Module):
    def __init__(self, inputs, filters):
        super().__init__()
        self.conv1 = torch.nn.Conv2d(inputs, filters, 3, 1 if inputs == filters else 2, 1, bias=False)
        self.bn1 = torch.nn.BatchNorm2d(filters)
        self.conv2 = torch.nn.Conv2d(filters, filters, 3, 1, 1, bias=False)
        self.bn2 = torch.nn.BatchNorm2d(filters)

    def forward(self, x):
        y = torch.relu(self.bn1(self.conv1(x)))
        y = self.bn2(self.conv2(y))
        if x.shape != y.shape:
            x = x[:, :, ::2, ::2]
            wider = y.shape[1] - x.shape[1]
            x = torch.nn.functional.pad(x, (0, 0, 0, 0, wider // 2, wider - wider // 2))
        return torch.relu(x + y)


class ResNet8(torch.nn.Module):
    def __init__(self, classes=5):
        super().__init__()
        self.conv1, self.bn1 = torch.nn.Conv2d(3, 16, 3, 1, 1, bias=False), torch.nn.BatchNorm2d(16)
        self.layer1, self.layer2, self.layer3 = (
            torch.nn.Sequential(Block(a, b)) for a, b in ((16, 16), (16, 32), (32, 64))
        )
        self.linear = torch.nn.Linear(64, classes)

    def forward(self, x):
        x = self.layer3(self.layer2(self.layer1(torch.relu(self.bn1(self.conv1(x))))))
        return self.linear(x.mean((2, 3)))


@pytest.fixture(scope="module")
def network():
    torch.manual_seed(0)
    network = ResNet8()
    for module in network.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.running_mean.uniform_(-0.5, 0.5)
            module.running_var.uniform_(0.5, 2)
    return network.eval()


def under(prefix, state):
    return {f"{prefix}{key}": value for key, value in state.items()}


def without_head(state):
    return {key: value for key, value in state.items() if not key.startswith("linear")}


def ema_pytorch(network):
    """The state of `ema_pytorch.EMA(network, include_online_model=False)`."""
    counts = {"initted": torch.tensor(True), "step": torch.tensor(7)}
    return {**counts, **under("ema_model.", network.state_dict())}


def mmpretrain(network):
    head = {f"head.fc.{key}": getattr(network.linear, key) for key in ("weight", "bias")}
    return {"meta": {"epoch": 3}, "state_dict": {**under("backbone.", without_head(network.state_dict())), **head}}


# What is written to the file, each from the same network.
WRAPPED = {
    "data parallel": lambda net: torch.nn.DataParallel(net).state_dict(),
    "compiled": lambda net: torch.compile(net, backend="eager").state_dict(),
    "compiled, parallel": lambda net: under("module._orig_mod.", net.state_dict()),
    "parallel, compiled": lambda net: under("_orig_mod.module.", net.state_dict()),
    "a compiled stage": lambda net: {k.replace("layer1.", "layer1._orig_mod."): v for k, v in net.state_dict().items()},
    "a parallel stage": lambda net: {k.replace("layer2.", "layer2.module."): v for k, v in net.state_dict().items()},
    "swa": lambda net: torch.optim.swa_utils.AveragedModel(net).state_dict(),
    "swa in a dict": lambda net: {"swa_model": torch.optim.swa_utils.AveragedModel(net).state_dict(), "epoch": 2},
    "ema-pytorch": ema_pytorch,
    "timm ema alone": lambda net: {"state_dict_ema": under("module.", net.state_dict()), "arch": "resnet8"},
    "lightning": lambda net: {"epoch": 1, "state_dict": under("model.", net.state_dict()), "loops": {}},
    "lightning net": lambda net: {"state_dict": under("net._orig_mod.", net.state_dict()), "hyper_parameters": {}},
    "nested": lambda net: {"net": {"state_dict": under("module.model.", net.state_dict())}, "acc": 0.5},
    "mmpretrain": mmpretrain,
    "with optimizer": lambda net: {
        "optimizer": {"state": {0: {"momentum_buffer": torch.ones(3)}}, "param_groups": [{"lr": 0.1}]},
        "rng": torch.zeros(3, dtype=torch.uint8),
        "model_state_dict": net.state_dict(),
    },
}


@pytest.mark.parametrize("wrap", WRAPPED.values(), ids=WRAPPED.keys())
def test_the_tensors_are_found_in_what_is_wrapped_around_them(wrap, network, tmp_path):
    torch.save(wrap(network), tmp_path / "net.pth")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = read_state_dict(tmp_path / "net.pth")
    found = {key.replace("fc.", "linear."): value for key, value in found.items()}  # either is a classifier's name
    assert found.keys() == network.state_dict().keys()
    for key, value in network.state_dict().items():
        np.testing.assert_array_equal(found[key], value.numpy())


@pytest.mark.parametrize("name", ["mmpretrain", "swa in a dict"])
def test_convert_gives_the_logits_of_the_wrapped_network(name, network, tmp_path):
    torch.save(WRAPPED[name](network), tmp_path / "net.pth")
    assert main(["convert", str(tmp_path / "net.pth"), str(tmp_path / "net.keras"), "--image-size", "16", "16"]) == 0
    x = np.random.default_rng(0).standard_normal((2, 16, 16, 3)).astype("float32")
    with torch.no_grad():
        logits = network(torch.from_numpy(x.transpose(0, 3, 1, 2))).numpy()
    got = keras.models.load_model(tmp_path / "net.keras").predict(x, verbose=0)
    np.testing.assert_allclose(got, logits, atol=1e-4 * np.abs(logits).max())


@pytest.mark.parametrize(
    ("wrap", "places"),
    [
        (lambda state, other: {"state_dict": state, "state_dict_ema": other}, "'state_dict', 'state_dict_ema'"),
        (lambda state, other: {"model": state, "model_ema": under("module.", other)}, "'model', 'model_ema'"),
        (
            lambda state, other: {
                **under("ema_model.", other),
                **under("online_model.", state),
                "step": torch.ones(()),
            },
            "'online_model.', 'ema_model.'",
        ),
        (lambda state, other: {"state_dict": {**under("model.", state), **under("net.", other)}}, "'model.', 'net.'"),
    ],
)
def test_of_weights_and_their_average_the_weights_are_taken_and_it_is_said(wrap, places, network):
    state = network.state_dict()
    with pytest.warns(UserWarning, match="several sets of weights") as told:
        found = read_state_dict(wrap(state, {key: 2 * value for key, value in state.items()}))
    assert f"{places}. Those of" in str(told[0].message)
    assert list(found) == list(state)
    np.testing.assert_array_equal(found["conv1.weight"], state["conv1.weight"].numpy())


@pytest.mark.parametrize(
    ("wrap", "named"),
    [
        (lambda state: under("student.", state), "given: 'student.'. Known before"),
        (lambda state: {"state_dict": under("module.encoder_q.", state)}, "given: 'module.encoder_q.'. Known before"),
        (lambda state: {"student": state, "teacher": state}, "given: 'student', 'teacher'. Give the entry"),
        (lambda state: {"optimizer": {}, "generator": {"a": state}}, "given: 'generator'. Give the entry"),
    ],
)
def test_a_wrapper_that_is_not_known_is_named(wrap, named, network):
    with pytest.raises(ValueError, match="source must hold") as error:
        zoo.detect_architecture(wrap(network.state_dict()))
    assert named in str(error.value)


def test_other_networks_are_still_not_resnets():
    for key in ("model.patch_embed.weight", "features.conv1.weight", "backbone.stem.0.weight"):
        with pytest.raises(ValueError, match="not of a ResNet"):
            zoo.detect_architecture({"state_dict": {key: torch.zeros(8, 3, 4, 4)}})


def test_what_stands_beside_a_wrapped_network_is_named_when_it_is_loaded(network):
    state = {**under("model.", network.state_dict()), "criterion.class_counts": torch.ones(5)}
    with pytest.raises(ValueError, match=r"unexpected: criterion\.class_counts"):
        zoo.load_torch_checkpoint(zoo.create_model("resnet8", classes=5), {"state_dict": state})


@pytest.mark.parametrize("key", ["criterion.weight", "loss_fn.pos_weight", "train_acc.tp"])
def test_buffers_of_losses_and_metrics_can_be_left_out(network, key):
    source = {"state_dict": {**under("model.", network.state_dict()), key: torch.ones(5)}}
    model = zoo.create_model("resnet8", classes=5)
    with pytest.raises(ValueError, match="strict=False"):
        zoo.load_torch_checkpoint(model, source)
    report = zoo.load_torch_checkpoint(model, source, strict=False)
    assert report == {"missing": [], "unexpected": [key], "misshapen": []}
    loaded, expected = zoo.to_torch_state_dict(model), network.state_dict()
    np.testing.assert_array_equal(loaded["conv1.weight"], expected["conv1.weight"].numpy())


def test_layers_of_another_network_are_not_called_buffers(network):
    state = {**network.state_dict(), "layer1.0.se.excitation.0.weight": torch.ones(1, 16)}
    with pytest.raises(ValueError, match="unexpected: layer1.0.se") as error:
        zoo.load_torch_checkpoint(zoo.create_model("resnet8", classes=5), state)
    assert "strict=False" not in str(error.value)


def test_a_wrapped_detector_keeps_its_own_backbone():
    detector = zoo.FasterRCNN("resnet18", num_classes=2, pyramid_filters=8, box_units=16)
    state = zoo.to_torch_state_dict(detector)
    wrapped = {"model": under("module._orig_mod.", state), "epoch": 3}
    assert zoo.load_torch_checkpoint(detector, wrapped)["unexpected"] == []
    assert list(read_state_dict(wrapped)) == list(state)


def test_names_of_transformers_are_those_of_torchvision(tmp_path):
    state = zoo.to_torch_state_dict(zoo.create_model("resnet18", classes=3))
    theirs = {}
    for key, value in state.items():
        layer, _, name = key.rpartition(".")
        parts = layer.split(".")
        if layer in ("conv1", "bn1"):
            new = f"resnet.embedder.embedder.{'convolution' if layer == 'conv1' else 'normalization'}.{name}"
        elif layer == "fc":
            new = f"classifier.1.{name}"
        else:
            place = f"resnet.encoder.stages.{int(parts[0][-1]) - 1}.layers.{parts[1]}"
            if parts[2] == "downsample":
                new = f"{place}.shortcut.{('convolution', 'normalization')[int(parts[3])]}.{name}"
            else:
                kind = "convolution" if parts[2].startswith("conv") else "normalization"
                new = f"{place}.layer.{int(parts[2][-1]) - 1}.{kind}.{name}"
        theirs[new] = value
    write_state_dict(theirs, tmp_path / "model.safetensors")
    found = read_state_dict(tmp_path / "model.safetensors")
    assert sorted(found) == sorted(state)
    assert zoo.detect_architecture(found) == ("resnet18", {"classes": 3})
    for key, value in state.items():
        np.testing.assert_array_equal(found[key], value)


def test_a_file_that_holds_code_or_no_pickle_is_named_without_advice_to_run_it(tmp_path):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # TorchScript is deprecated
        torch.jit.script(torch.nn.Linear(2, 2)).save(tmp_path / "script.pt")
    (tmp_path / "text.pth").write_bytes(b"hello")
    for name, says in (
        ("script.pt", "TorchScript archive, which holds code"),
        ("text.pth", "its content is no pickle"),
    ):
        with pytest.raises(ValueError, match=says) as error:
            read_state_dict(tmp_path / name)
        assert "weights_only" not in str(error.value)
