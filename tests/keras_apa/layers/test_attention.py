"""The gates: structure, both data formats, options. Their numbers are checked inside the networks (tests/zoo)."""

import keras
import numpy as np
import pytest
from backends import convolves_channels_first

from keras_apa.layers import APA, CBAM, ChannelAttention, SpatialAttention, SqueezeExcite, UnbiasedBatchNormalization

KINDS = {
    "squeeze_excite": lambda **o: SqueezeExcite(4, gate="apa", **o),
    "channel": lambda **o: ChannelAttention(4, gate="gumbel", **o),
    "spatial": lambda **o: SpatialAttention(gate="apa", **o),
    "cbam": lambda **o: CBAM(4, gate="apa", spatial_gate="sigmoid_temperature", **o),
}


def array(x):
    return keras.ops.convert_to_numpy(x)


@pytest.mark.parametrize("kind", KINDS)
def test_channels_first_equals_channels_last(kind):
    if kind in ("spatial", "cbam") and not convolves_channels_first():
        with pytest.raises(Exception, match=r"(?i)nchw|NHWC"):
            KINDS[kind](data_format="channels_first")(np.ones((2, 8, 6, 5), "float32"))
        return
    x = np.random.default_rng(0).standard_normal((2, 6, 5, 8)).astype("float32")
    last, first = KINDS[kind](data_format="channels_last"), KINDS[kind](data_format="channels_first")
    expected = array(last(x))
    first.build((None, 8, 6, 5))
    for target, source in zip(first.weights, last.weights, strict=True):
        target.assign(source)
    y = array(first(np.transpose(x, (0, 3, 1, 2))))
    np.testing.assert_allclose(np.transpose(y, (0, 2, 3, 1)), expected, rtol=1e-5, atol=1e-6)


@pytest.mark.smoke
def test_squeeze_excite_is_its_formula():
    x = np.random.default_rng(0).standard_normal((2, 6, 5, 8)).astype("float32")
    layer = SqueezeExcite(4)
    y = array(layer(x))
    w1, w2 = (array(w) for w in layer.weights)
    scale = 1 / (1 + np.exp(-np.maximum(x.mean((1, 2)) @ w1, 0) @ w2))
    np.testing.assert_allclose(y, x * scale[:, None, None], rtol=1e-5)


@pytest.mark.parametrize(
    ("gate", "normalize", "dropout", "weights"),
    [
        ("sigmoid", None, None, ["kernel", "kernel"]),
        ("apa", None, None, ["gamma", "beta", "kernel", "kernel", "kappa", "lambda"]),
        ("apa", False, 0.0, ["kernel", "kernel", "kappa", "lambda"]),
        ("sigmoid_temperature", True, 0.5, ["gamma", "beta", "kernel", "kernel", "temperature"]),
        (APA(), None, None, ["gamma", "beta", "kernel", "kernel", "kappa", "lambda"]),
    ],
)
def test_apa_brings_layer_norm_and_dropout_unless_told_otherwise(gate, normalize, dropout, weights):
    layer = SqueezeExcite(4, gate=gate, normalize=normalize, dropout=dropout)
    layer.build((None, 4, 4, 8))
    assert sorted(w.name for w in layer.weights) == sorted(weights)
    is_apa = gate == "apa" or isinstance(gate, APA)
    assert layer.dropout == (dropout if dropout is not None else 0.1 * is_apa)


def test_weights_of_a_gate_are_named_after_the_layer_that_holds_it():
    layer = CBAM(4, gate="apa", spatial_gate="apa", name="attention")
    layer.build((None, 4, 4, 8))
    paths = [w.path for w in layer.weights if w.name == "kappa"]
    assert paths == ["attention/channel/gate/kappa", "attention/spatial/gate/kappa"]


def test_dropout_acts_in_training_only():
    x = np.random.default_rng(0).standard_normal((4, 3, 3, 16)).astype("float32")
    layer = SqueezeExcite(4, gate="apa", dropout=0.5)
    layer(x)
    np.testing.assert_array_equal(array(layer(x, training=False)), array(layer(x, training=False)))
    assert not np.array_equal(array(layer(x, training=True)), array(layer(x, training=True)))


def test_unbiased_batch_normalization_keeps_the_unbiased_variance():
    x = np.random.default_rng(0).standard_normal((3, 2, 2, 4)).astype("float32") + 1
    ours, keras_layer = UnbiasedBatchNormalization(), keras.layers.BatchNormalization(momentum=0.9, epsilon=1e-5)
    np.testing.assert_allclose(array(ours(x, training=True)), array(keras_layer(x, training=True)), rtol=1e-6)
    expected = 0.9 + 0.1 * x.reshape(-1, 4).var(0, ddof=1)
    np.testing.assert_allclose(array(ours.moving_variance), expected, rtol=1e-5)
    assert [w.name for w in ours.weights] == [w.name for w in keras_layer.weights]
    ours.trainable = False
    before = array(ours.moving_variance)
    ours(x + 5, training=True)
    np.testing.assert_array_equal(array(ours.moving_variance), before)


def test_unbiased_batch_normalization_with_one_value_is_not_nan():
    layer = UnbiasedBatchNormalization()
    layer(np.ones((1, 4), "float32"), training=True)
    assert np.isfinite(array(layer.moving_variance)).all()


def test_unbiased_batch_normalization_counts_masked_positions():
    x = np.random.default_rng(0).standard_normal((2, 6, 3)).astype("float32")
    mask = np.array([[1, 1, 1, 1, 0, 0], [1, 1, 0, 0, 0, 0]], bool)
    layer = UnbiasedBatchNormalization(momentum=0.0)
    layer(x, training=True, mask=keras.ops.convert_to_tensor(mask))
    np.testing.assert_allclose(array(layer.moving_variance), x[mask].var(0, ddof=1), rtol=1e-4)


@pytest.mark.parametrize(
    ("build", "parts"),
    [
        (lambda: SqueezeExcite(gate="aap"), ["gate must be one of sigmoid, apa", "; given: 'aap'. Nearest: apa."]),
        (
            lambda: SpatialAttention(gate="gumbl"),
            ["spatial_gate must be one of ", "; given: 'gumbl'. Nearest: gumbel."],
        ),
        (lambda: CBAM(spatial_gate="relu"), ["spatial_gate must be one of ", "; given: 'relu'."]),
        (lambda: SqueezeExcite(0), ["reduction_ratio must be a whole number of at least 1", "0"]),
        (
            lambda: SqueezeExcite(dropout=1.5),
            ["dropout must be a finite number of at least 0 and below 1; given: 1.5."],
        ),
        (
            lambda: SqueezeExcite(dropout="a"),
            ["dropout must be a finite number of at least 0 and below 1; given: 'a'."],
        ),
        (lambda: SqueezeExcite(gate=keras.activations.relu), ["gate must be a keras layer or one of sigmoid, apa"]),
        (lambda: SpatialAttention(4), ["kernel_size must be a positive odd integer"]),
        (
            lambda: SqueezeExcite(data_format="nchw"),
            ["data_format must be one of channels_last, channels_first; given: 'nchw'."],
        ),
        (lambda: SqueezeExcite().build((None, 8)), ["images of rank 4"]),
        (lambda: SqueezeExcite().build((None, 4, 4, None)), ["known number of channels"]),
    ],
)
def test_bad_options_are_clear_errors(build, parts):
    with pytest.raises(ValueError) as error:
        build()
    for part in parts:
        assert part in str(error.value)


@pytest.mark.parametrize("kind", [SqueezeExcite, ChannelAttention])
@pytest.mark.parametrize("initializer", [None, keras.initializers.HeNormal()])
def test_the_two_denses_start_independently(kind, initializer):
    """One Keras initializer object draws the same numbers each time."""
    layer = kind(4) if initializer is None else kind(4, kernel_initializer=initializer)
    layer.build((None, 4, 4, 32))
    reduce, expand = (array(dense.kernel).ravel() for dense in (layer.reduce, layer.expand))
    assert abs(np.corrcoef(reduce, expand)[0, 1]) < 0.3


def test_one_pair_a_channel_follows_the_data_format():
    layer = SpatialAttention(3, gate=APA(per_channel=True), data_format="channels_first")
    layer.build((None, 8, 5, 7))
    assert tuple(layer.gate.kappa.shape) == (1,)
    layer = SqueezeExcite(4, gate=APA(per_channel=True), data_format="channels_first")
    layer.build((None, 8, 5, 7))
    assert tuple(layer.gate.kappa.shape) == (8,)
