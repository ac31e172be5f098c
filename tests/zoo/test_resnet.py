"""The ImageNet networks against the authors' running code, and what only these networks have."""

import keras
import numpy as np
import pytest
from authors import (
    FULL,
    IMAGENET,
    SPATIAL,
    check_outputs,
    check_state_dict,
    each_or_any_backend,
    filled,
    trainable_parameters,
)
from backends import CURRENT, convolves_channels_first
from reference import load

import zoo
from keras_apa.layers import UnbiasedBatchNormalization
from zoo.blocks import PaddedMaxPooling

# parity/README.md: (name, options) -> trainable parameters, numbers in buffers, tensors in the state dict
COUNTS = [
    ("se_resnet50", {"classifier": "cosine"}, 28_070_976, 53_173, 351),
    ("se_resnet50", {**FULL, "classifier": "cosine"}, 28_101_314, 53_173, 513),
    ("se_resnet50", {**FULL, "classifier": "learned_cosine"}, 28_101_315, 53_173, 514),
    ("se_resnet50", {**FULL, "classifier": "normalized"}, 28_102_314, 53_173, 514),
    ("resnext50_32x4d", {}, 25_028_904, 68_277, 320),
    ("se_resnext50_32x4d", {}, 27_543_848, 68_277, 352),
    ("cb_resnet50", {}, 28_119_832, 53_221, 512),
    ("cb_resnet50", FULL, 28_119_962, 53_221, 642),
    ("sp_resnet50", {}, 25_558_632, 53_221, 416),
    ("cb_resnext50_32x4d", {}, 27_591_704, 68_325, 512),
    ("cb_resnext50_32x4d", FULL, 27_591_834, 68_325, 642),
    ("cb_resnext50_32x4d", {**FULL, **SPATIAL}, 27_591_866, 68_325, 674),
    ("sp_resnext50_32x4d", {}, 25_030_504, 68_325, 416),
    ("sp_resnext50_32x4d", SPATIAL, 25_030_634, 68_325, 546),
    ("se_resnet101", {}, 49_292_328, 105_448, 692),
    ("se_resnet101", FULL, 49_357_618, 105_448, 1024),
    ("se_resnet152", {}, 66_770_984, 151_579, 1032),
    ("se_resnet152", FULL, 66_867_130, 151_579, 1534),
    ("se_resnet152", {**FULL, "classifier": "learned_cosine"}, 66_866_131, 151_579, 1534),
    ("resnet152", {}, 60_192_808, 151_579, 932),
    ("cb_resnet152", {}, 66_922_592, 151_729, 1532),
    ("cb_resnet152", FULL, 66_922_994, 151_729, 1934),
    ("cb_resnet152", {**FULL, **SPATIAL}, 66_923_094, 151_729, 2034),
]
# Published parameter counts of torchvision's networks, which have no row in the authors' table.
TORCHVISION = {
    "resnet18": 11_689_512,
    "resnet34": 21_797_672,
    "resnet101": 44_549_160,
    "resnext101_32x8d": 88_791_336,
    "resnext101_64x4d": 83_455_272,
    "wide_resnet50_2": 68_883_240,
}
# A count is the same on every backend; the big networks take seconds each to make.

# JAX compiles every convolution again for another size; the smaller networks have an odd one on it.
ODD_SIZE = None if CURRENT == "jax" else 75


@pytest.mark.parametrize("reference", each_or_any_backend(IMAGENET))
def test_logits_and_stages_equal_the_authors(reference):
    model, description = filled(reference)
    check_state_dict(model, description)
    stages = {"stem_act": "stem_activation", "stem_pool": "stem_pool"}
    stages |= {f"layer{i}": f"stage{i}_block{n}_activation3" for i, n in enumerate((3, 4, 6, 3), start=1)}
    check_outputs(model, load(f"models/{reference}.npz"), description, stages, ODD_SIZE)


@pytest.mark.any_backend("torch")
@pytest.mark.slow
@pytest.mark.parametrize(("name", "options", "parameters", "buffers", "tensors"), COUNTS)
def test_parameter_counts_equal_the_authors(name, options, parameters, buffers, tensors):
    model = zoo.create_model(name, **options)
    assert trainable_parameters(model) == parameters
    state = zoo.to_torch_state_dict(model)
    assert len(state) == tensors
    assert sum(v.size for k, v in state.items() if k.rpartition(".")[2].startswith(("running", "num_"))) == buffers


@pytest.mark.any_backend("torch")
@pytest.mark.slow
@pytest.mark.parametrize("name", TORCHVISION)
def test_parameter_counts_equal_torchvision(name):
    assert trainable_parameters(zoo.create_model(name)) == TORCHVISION[name]


@pytest.mark.parametrize("size", [(32, 64), (47, 33)])
@pytest.mark.any_backend
def test_non_square_and_odd_images_in_both_data_formats(size):
    options = {"classes": 3, "activation": "aglu", "spatial_gate": "apa"}
    last = zoo.create_model("sp_resnet18", input_shape=(*size, 3), data_format="channels_last", **options)
    first = zoo.create_model("sp_resnet18", input_shape=(3, *size), data_format="channels_first", **options)
    first.set_weights(last.get_weights())
    x = np.random.default_rng(0).standard_normal((2, *size, 3)).astype("float32")
    if not convolves_channels_first():
        with pytest.raises(Exception, match=r"(?i)nchw|NHWC"):
            first(np.transpose(x, (0, 3, 1, 2)), training=False)
        return
    ours, theirs = last(x, training=False), first(np.transpose(x, (0, 3, 1, 2)), training=False)
    ours, theirs = keras.ops.convert_to_numpy(ours), keras.ops.convert_to_numpy(theirs)
    np.testing.assert_allclose(ours, theirs, atol=1e-5 * np.abs(ours).max())


@pytest.mark.parametrize("size", [(8, 8), (7, 7), (1, 5), (6, 9)])
@pytest.mark.parametrize("data_format", ["channels_last", "channels_first"])
def test_max_pooling_is_padded_with_minus_infinity(size, data_format):
    x = np.random.default_rng(0).uniform(-2, -1, (2, *size, 3)).astype("float32")
    padded = np.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0)), constant_values=-np.inf)
    rows, columns = (size[0] + 1) // 2, (size[1] + 1) // 2
    expected = np.empty((2, rows, columns, 3), "float32")
    for i in range(rows):
        for j in range(columns):
            expected[:, i, j] = padded[:, 2 * i : 2 * i + 3, 2 * j : 2 * j + 3].max((1, 2))
    layer = PaddedMaxPooling(data_format=data_format)
    if data_format == "channels_first":
        x, expected = np.moveaxis(x, -1, 1), np.moveaxis(expected, -1, 1)
    assert tuple(layer.compute_output_shape(x.shape)) == expected.shape
    assert (keras.ops.convert_to_numpy(layer(x)) == expected).all()


def test_a_pyramid_has_the_output_of_every_stage():
    model = zoo.create_model("se_resnet50", pyramid=True, input_shape=(64, 96, 3))
    shapes = {name: tuple(value.shape) for name, value in model.output.items()}
    assert shapes == {
        "stage1": (None, 16, 24, 256),
        "stage2": (None, 8, 12, 512),
        "stage3": (None, 4, 6, 1024),
        "stage4": (None, 2, 3, 2048),
    }


def test_the_small_stem_keeps_the_resolution():
    model = zoo.create_model("resnet18", stem="cifar", pyramid=True, input_shape=(16, 16, 3))
    assert tuple(model.output["stage1"].shape) == (None, 16, 16, 64)
    assert tuple(model.output["stage4"].shape) == (None, 2, 2, 512)


def test_frozen_batch_norms_never_change(tmp_path):
    model = zoo.create_model("cb_resnet8", classes=2, input_shape=(8, 8, 3), frozen_batch_norm=True)
    model.save(tmp_path / "model.keras")
    for net in (model, keras.models.load_model(tmp_path / "model.keras")):
        net.trainable = True
        norms = [layer for layer in net._flatten_layers() if isinstance(layer, UnbiasedBatchNormalization)]
        before = [keras.ops.convert_to_numpy(v).copy() for layer in norms for v in layer.weights]
        net.compile("sgd", keras.losses.SparseCategoricalCrossentropy(from_logits=True))
        x = np.random.default_rng(0).standard_normal((4, 8, 8, 3)).astype("float32")
        net.fit(x, np.int32([0, 1, 0, 1]), verbose=0)
        after = [keras.ops.convert_to_numpy(v) for layer in norms for v in layer.weights]
        assert len(norms) == 10 and all((a == b).all() for a, b in zip(before, after, strict=True))
        conv = net.get_layer("stem_conv").trainable_variables
        assert len(conv) == 1


@pytest.mark.any_backend
def test_layer_names_tell_stage_block_and_role():
    names = [layer.name for layer in zoo.create_model("se_resnet50", input_shape=(32, 32, 3)).layers]
    assert names[:5] == ["images", "stem_conv_pad", "stem_conv", "stem_norm", "stem_activation"]
    for name in ("stem_pool", "stage1_block1_shortcut_conv", "stage4_block3_gate", "stage4_block3_add", "classifier"):
        assert name in names


@pytest.mark.parametrize(
    ("options", "parts"),
    [
        ({"input_shape": (31, 64, 3)}, ["input_shape must be at least 32", "(31, 64, 3)"]),
        ({"input_shape": (7, 8, 3), "stem": "cifar"}, ["input_shape must be at least 8"]),
        ({"input_shape": (64, 64, None)}, ["input_shape must say the number of channels"]),
        ({"input_shape": (64, -1, 3)}, ["input_shape must hold positive integers"]),
        ({"stem": "imagnet"}, ["stem must be one of imagenet, cifar; given: 'imagnet'."]),
        ({"pyramid": True, "pooling": "avg"}, ["pyramid=True", "pooling"]),
        ({"data_format": "channels_middle"}, ["data_format"]),
        ({"gate": "apa"}, ["gate must be left out for resnet50", "se_resnet50 or cb_resnet50"]),
    ],
)
@pytest.mark.any_backend
def test_bad_options_are_clear_errors(options, parts):
    with pytest.raises(ValueError) as error:
        zoo.create_model("resnet50", **options)
    for part in parts:
        assert part in str(error.value)
