"""Networks with torchvision's weights are torchvision's: its forward pass, written again in plain PyTorch.

torchvision itself is not installed for the tests. What is written here from its `models/resnet.py` reads the state dict
by torchvision's names, and takes depths, widths and groups from the shapes.
"""

import keras
import numpy as np
import pytest
import torch
import torch.nn.functional as F

import zoo

pytestmark = pytest.mark.any_backend  # the parity tests are for each
# name -> (blocks in each stage, convolutions in a block, output over base channels, width of the middle, groups)
NETWORKS = {
    "resnet10": ((1, 1, 1, 1), 2, 1, 64, 1),
    "resnet18": ((2, 2, 2, 2), 2, 1, 64, 1),
    "resnext50_32x4d": ((3, 4, 6, 3), 3, 4, 128, 32),
    "wide_resnet50_2": ((3, 4, 6, 3), 3, 4, 128, 1),
}


def random_state(depths, convolutions, expansion, width, groups, classes=7):
    """Random tensors under torchvision's names, in the scale of a trained network."""
    generator = np.random.default_rng(0)
    state = {}

    def convolution(name, filters, channels, size):
        # A bit above Kaiming's scale, so that no stage fades.
        scale = np.sqrt(2 / (channels * size * size))
        state[f"{name}.weight"] = generator.normal(0, scale, (filters, channels, size, size))

    def norm(name, channels):
        state[f"{name}.weight"] = generator.uniform(0.5, 1, channels)
        state[f"{name}.bias"] = generator.normal(0, 0.1, channels)
        state[f"{name}.running_mean"] = generator.normal(0, 0.1, channels)
        state[f"{name}.running_var"] = generator.uniform(0.5, 1.5, channels)
        state[f"{name}.num_batches_tracked"] = np.array(3)

    convolution("conv1", 64, 3, 7)
    norm("bn1", 64)
    channels = 64
    for stage, depth in enumerate(depths):
        middle, out = width << stage, (64 << stage) * expansion
        sizes = [(middle, 1), (middle, 3), (out, 1)] if convolutions == 3 else [(out, 3), (out, 3)]
        for block in range(depth):
            prefix = f"layer{stage + 1}.{block}"
            before = channels
            for number, (filters, size) in enumerate(sizes, start=1):
                grouped = groups if convolutions == 3 and size == 3 else 1
                convolution(f"{prefix}.conv{number}", filters, channels // grouped, size)
                norm(f"{prefix}.bn{number}", filters)
                channels = filters
            if block == 0 and (stage > 0 or before != out):
                convolution(f"{prefix}.downsample.0", out, before, 1)
                norm(f"{prefix}.downsample.1", out)
    state["fc.weight"] = generator.normal(0, channels**-0.5, (classes, channels))
    state["fc.bias"] = generator.normal(0, 0.1, classes)
    return {key: value.astype("int64" if key.endswith("tracked") else "float32") for key, value in state.items()}


def forward(state, images, convolutions):
    """torchvision's `ResNet.forward` in inference mode, in the precision of `images`."""
    state = {key: torch.from_numpy(value).to(images.dtype) for key, value in state.items()}

    def norm(x, name):
        mean, variance, weight, bias = (
            state[f"{name}.{part}"] for part in ("running_mean", "running_var", "weight", "bias")
        )
        return F.batch_norm(x, mean, variance, weight, bias, training=False, eps=1e-5)

    def convolution(x, name, stride=1):
        kernel = state[f"{name}.weight"]
        groups = x.shape[1] // kernel.shape[1]
        return F.conv2d(x, kernel, stride=stride, padding=kernel.shape[-1] // 2, groups=groups)

    x = F.relu(norm(convolution(images, "conv1", 2), "bn1"))
    x = F.max_pool2d(x, 3, 2, 1)
    for stage in (1, 2, 3, 4):
        block = 0
        while f"layer{stage}.{block}.conv1.weight" in state:
            prefix, shortcut = f"layer{stage}.{block}", x
            stride = 2 if stage > 1 and block == 0 else 1
            for number in range(1, convolutions + 1):
                # The first convolution of a basic block has the stride, and the second one of a bottleneck.
                here = stride if number == convolutions - 1 else 1
                x = norm(convolution(x, f"{prefix}.conv{number}", here), f"{prefix}.bn{number}")
                x = F.relu(x) if number < convolutions else x
            if f"{prefix}.downsample.0.weight" in state:
                shortcut = norm(convolution(shortcut, f"{prefix}.downsample.0", stride), f"{prefix}.downsample.1")
            x = F.relu(x + shortcut)
            block += 1
    return F.linear(x.mean((2, 3)), state["fc.weight"], state["fc.bias"]).numpy()


@pytest.mark.parametrize("name", NETWORKS)
@pytest.mark.any_backend
def test_outputs_with_torchvisions_weights_are_torchvisions(name):
    depths, convolutions, expansion, width, groups = NETWORKS[name]
    state = random_state(depths, convolutions, expansion, width, groups)
    assert zoo.detect_architecture(state) == (name, {"classes": 7})
    model = zoo.create_model(name, classes=7, input_shape=(None, None, 3))
    zoo.load_torch_checkpoint(model, state)
    for size in ((33, 47), (64, 35)):
        images = np.random.default_rng(1).standard_normal((2, 3, *size)).astype("float32")
        exact = forward(state, torch.from_numpy(images).double(), convolutions)
        noise = np.abs(forward(state, torch.from_numpy(images), convolutions) - exact).max()
        ours = keras.ops.convert_to_numpy(model(np.moveaxis(images, 1, -1), training=False))
        assert 0 < noise < 1e-4 * np.abs(exact).max() and np.ptp(exact, axis=0).max() > 0.01
        assert np.abs(ours - exact).max() <= 20 * noise
