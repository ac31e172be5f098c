"""Multiply-adds against what torchvision publishes for its networks."""

import pytest

import zoo
from zoo.flops import count_flops

# "GFLOPS" of the weight tables of torchvision, at 224x224
TORCHVISION = {
    "resnet18": 1.81,
    "resnet34": 3.66,
    "resnet50": 4.09,
    "resnet101": 7.80,
    "resnet152": 11.51,
    "resnext50_32x4d": 4.23,
    "resnext101_32x8d": 16.41,
    "resnext101_64x4d": 15.46,
    "wide_resnet50_2": 11.40,
}


@pytest.mark.any_backend("torch")
@pytest.mark.slow
@pytest.mark.parametrize("name", TORCHVISION)
def test_multiply_adds_equal_torchvisions(name):
    assert round(count_flops(zoo.create_model(name)) / 1e9, 2) == TORCHVISION[name]


def test_gates_and_heads_are_counted():
    plain = count_flops(zoo.create_model("resnet8", classes=10))
    hidden = 2 * (16 * 4 + 32 * 8 + 64 * 16)
    assert count_flops(zoo.create_model("se_resnet8", classes=10)) == plain + hidden
    spatial = 7 * 7 * 2 * (32 * 32 + 16 * 16 + 8 * 8)
    assert count_flops(zoo.create_model("sp_resnet8", classes=10)) == plain + spatial
    assert count_flops(zoo.create_model("cb_resnet8", classes=10)) == plain + spatial + 2 * hidden
    assert count_flops(zoo.create_model("resnet8", classes=10, classifier="cosine")) == plain
    assert count_flops(zoo.create_model("resnet8", include_top=False)) == plain - 64 * 10


def test_data_format_and_unknown_sizes():
    first = zoo.create_model("cb_resnet8", data_format="channels_first")
    unknown = zoo.create_model("cb_resnet8", input_shape=(None, None, 3))
    assert count_flops(first) == count_flops(unknown, (32, 32, 3))
    with pytest.raises(ValueError, match="input_shape must say the size"):
        count_flops(unknown)
