"""The pieces that every ResNet of the zoo is made of, named by stage, block and role."""

import dataclasses
from typing import Any

import keras
from keras import layers, ops

from keras_apa._checks import check_bool, check_name
from keras_apa.layers import (
    AGLU,
    CBAM,
    CosineDense,
    NormalizedDense,
    SpatialAttention,
    SqueezeExcite,
    UnbiasedBatchNormalization,
    WrappedCauchyDense,
)
from keras_apa.layers.attention import check_rate
from keras_apa.layers.gates import check_gate

CLASSIFIERS = ("linear", "cosine", "learned_cosine", "normalized", "wrapped_cauchy")
# `glu` halves the channels; the others are not activations.
_NO_ACTIVATIONS = ("deserialize", "get", "glu", "serialize")
ACTIVATIONS = tuple(
    sorted(name for name in dir(keras.activations) if name[0].islower() and name not in _NO_ACTIVATIONS)
)


@keras.saving.register_keras_serializable(package="keras_apa")
class PadShortcut(layers.Layer):
    """Parameter-free shortcut (option A of ResNet): every second position, zero channels added on both sides.

    Args:
        filters: Channels of the output, at least those of the input; an odd difference leaves one more at the end.
        strides: Step between the positions that are kept.
        data_format: `"channels_last"` or `"channels_first"`; `None` takes `keras.config.image_data_format()`.

    Input shape: `(batch, height, width, channels)` or `(batch, channels, height, width)`.
    Output shape: the same with `ceil(height / strides)`, `ceil(width / strides)` and `filters`.
    Raises: ValueError: If the input has more channels than `filters`.
    Source: Deep Residual Learning (CVPR 2016), Sec. 4.2; the zeros on both sides are the authors' CIFAR networks'.

    >>> from zoo.blocks import PadShortcut
    >>> PadShortcut(32, 2, data_format="channels_last")(keras.ops.ones((1, 7, 7, 16))).shape == (1, 4, 4, 32)
    True
    """

    def __init__(self, filters, strides=2, data_format=None, **kwargs):
        super().__init__(**kwargs)
        self.filters = filters
        self.strides = strides
        self.data_format = data_format or keras.config.image_data_format()

    def build(self, input_shape):
        channels = input_shape[-1 if self.data_format == "channels_last" else 1]
        missing = self.filters - channels
        if missing < 0:
            raise ValueError(f"filters must be at least the input's channels, {channels}; given: {self.filters}.")
        self._before, self._after = missing // 2, missing - missing // 2
        super().build(input_shape)

    def call(self, inputs):
        step, sides = self.strides, (self._before, self._after)
        if self.data_format == "channels_last":
            return ops.pad(inputs[:, ::step, ::step, :], ((0, 0), (0, 0), (0, 0), sides))
        return ops.pad(inputs[:, :, ::step, ::step], ((0, 0), sides, (0, 0), (0, 0)))

    def compute_output_shape(self, input_shape):
        def halved(size):
            return None if size is None else -(-size // self.strides)

        if self.data_format == "channels_last":
            return (input_shape[0], halved(input_shape[1]), halved(input_shape[2]), self.filters)
        return (input_shape[0], self.filters, halved(input_shape[2]), halved(input_shape[3]))

    def get_config(self):
        return {
            **super().get_config(),
            "filters": self.filters,
            "strides": self.strides,
            "data_format": self.data_format,
        }


@keras.saving.register_keras_serializable(package="keras_apa")
class PaddedMaxPooling(layers.MaxPooling2D):
    """Max pooling of 3x3 windows with stride 2, padded by one on every side, as in the stem of ResNet.

    The padding repeats the edge. Every window that reaches the padding holds the edge too, so the result is that of
    PyTorch, which pads with minus infinity, without an infinity for a quantised model to represent. Keras's
    `padding="same"` pads images of even size on the far side only, and zeros would hide the negative values of AGLU.

    Args:
        data_format: `"channels_last"` or `"channels_first"`; `None` takes `keras.config.image_data_format()`.
        **kwargs: `name`, `dtype`, `trainable` of `keras.layers.Layer`.

    Input shape: `(batch, height, width, channels)` or `(batch, channels, height, width)`.
    Output shape: the same with `ceil(height / 2)` and `ceil(width / 2)`.
    Source: Deep Residual Learning (CVPR 2016), Table 1.

    >>> from zoo.blocks import PaddedMaxPooling
    >>> PaddedMaxPooling(data_format="channels_last")(keras.ops.ones((1, 8, 7, 2))).shape == (1, 4, 4, 2)
    True
    """

    def __init__(self, data_format=None, **kwargs):
        super().__init__(3, strides=2, padding="valid", data_format=data_format, **kwargs)

    def call(self, inputs):
        for axis in (1, 2) if self.data_format == "channels_last" else (2, 3):
            ahead = (slice(None),) * axis
            first, last = inputs[(*ahead, slice(None, 1))], inputs[(*ahead, slice(-1, None))]
            inputs = ops.concatenate([first, inputs, last], axis=axis)
        return super().call(inputs)

    def compute_output_shape(self, input_shape):
        sides = (1, 2) if self.data_format == "channels_last" else (2, 3)
        return tuple(size if i not in sides or size is None else (size + 1) // 2 for i, size in enumerate(input_shape))

    def get_config(self):
        config = super().get_config()
        return {name: value for name, value in config.items() if name not in ("pool_size", "strides", "padding")}


def channel_axis(data_format):
    """Axis of the channels of an image tensor."""
    return -1 if data_format == "channels_last" else 1


def clone(layer, name=None, **changes):
    """A new layer with the configuration of `layer`, `changes` to it, and start values of its own."""
    config = {**layer.get_config(), **changes}
    if name is not None:
        config["name"] = name
    else:
        config.pop("name", None)
    return type(layer).from_config(config)


def check_activation(activation):
    """Raise a ValueError unless `activation` is a layer, `"aglu"` or the name of a Keras activation."""
    if isinstance(activation, str):
        check_name(activation, ("aglu", *ACTIVATIONS), "activation")
    elif not isinstance(activation, layers.Layer):
        raise ValueError(f"activation must be a name or a keras layer; given: {activation!r}.")
    return activation


def activate(x, activation, name, data_format):
    """Apply an activation of its own at this place: a Keras name, `"aglu"`, or a layer that is cloned."""
    if isinstance(activation, layers.Layer):
        config = activation.get_config()
        moves = config.get("per_channel") and config.get("axis") == -1
        return clone(activation, name, **({"axis": channel_axis(data_format)} if moves else {}))(x)
    if activation == "aglu":
        return AGLU(name=name)(x)
    return layers.Activation(activation, name=name)(x)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Options:
    """What every block of one network shares."""

    architecture: Any
    stem: str
    activation: Any
    gate: Any
    spatial_gate: Any
    gate_normalization: bool | None
    gate_dropout: float | None
    frozen_batch_norm: bool
    data_format: str


def convolve(x, filters, kernel_size, strides, name, options, groups=1):
    """Convolution without bias, padded symmetrically as PyTorch pads it."""
    padding = kernel_size // 2
    same = strides == 1
    if padding and not same:
        # "same" pads a strided convolution of an even size on the far side only.
        x = layers.ZeroPadding2D(padding, data_format=options.data_format, name=f"{name}_pad")(x)
    return layers.Conv2D(
        filters,
        kernel_size,
        strides=strides,
        padding="same" if same else "valid",
        groups=groups,
        use_bias=False,
        kernel_initializer=options.architecture.initializer,
        data_format=options.data_format,
        name=name,
    )(x)


def normalize(x, name, options):
    """Batch normalisation with PyTorch's constants."""
    axis = channel_axis(options.data_format)
    return UnbiasedBatchNormalization(axis=axis, frozen=options.frozen_batch_norm, name=name)(x)


def attend(x, name, options):
    """The attention module of a block: `None`, `"se"`, `"cb"` (CBAM) or `"sp"` (spatial only)."""
    attention = options.architecture.attention
    if attention is None:
        return x
    gate, spatial_gate = (
        clone(value) if isinstance(value, layers.Layer) else value for value in (options.gate, options.spatial_gate)
    )
    convolution, dense = options.architecture.initializer, options.architecture.dense_initializer
    common = {"data_format": options.data_format, "name": name}
    frozen = {"frozen_batch_norm": options.frozen_batch_norm}
    if attention == "sp":
        return SpatialAttention(gate=spatial_gate, kernel_initializer=convolution, **frozen, **common)(x)
    bottleneck = {
        "reduction_ratio": options.architecture.reduction_ratio,
        "normalize": options.gate_normalization,
        "dropout": options.gate_dropout,
        "kernel_initializer": dense,
    }
    if attention == "se":
        return SqueezeExcite(gate=gate, **bottleneck, **common)(x)
    spatial = {"spatial_gate": spatial_gate, "spatial_kernel_initializer": convolution}
    return CBAM(gate=gate, **spatial, **bottleneck, **frozen, **common)(x)


def check_attention(name, attention, gate, spatial_gate, gate_normalization, gate_dropout):
    """Fill in the gates' defaults; an option that the network has no place for names a network that has it."""
    plain = name.removeprefix("se_").removeprefix("cb_").removeprefix("sp_")
    has_channel, has_spatial = attention in ("se", "cb"), attention in ("cb", "sp")
    places = (
        ("gate", gate, has_channel, f"se_{plain} or cb_{plain}"),
        ("gate_normalization", gate_normalization, has_channel, f"se_{plain} or cb_{plain}"),
        ("gate_dropout", gate_dropout, has_channel, f"se_{plain} or cb_{plain}"),
        ("spatial_gate", spatial_gate, has_spatial, f"cb_{plain} or sp_{plain}"),
    )
    for argument, value, has_place, other in places:
        if value is not None and not has_place:
            raise ValueError(
                f"{argument} must be left out for {name}, which has no place for it; given: {value!r}. Use {other}."
            )
    if gate_normalization is not None:
        check_bool(gate_normalization, "gate_normalization")
    if gate_dropout is not None:
        check_rate(gate_dropout, "gate_dropout")
    for argument, value in (("gate", gate), ("spatial_gate", spatial_gate)):
        if value is not None:
            check_gate(value, argument)
    return gate or "sigmoid", spatial_gate or "sigmoid"


def classify(x, classes, classifier, activation, initializer):
    """The classifier head, in float32 also under a mixed precision policy."""
    policy = keras.config.dtype_policy()
    common: dict[str, Any] = {
        "name": "classifier",
        "dtype": "float32" if policy.name.startswith("mixed") else policy.name,
    }
    if isinstance(classifier, layers.Layer):
        x = clone(classifier, "classifier")(x)
    elif classifier == "linear":
        x = layers.Dense(classes, kernel_initializer=initializer, **common)(x)
    elif classifier in ("cosine", "learned_cosine"):
        x = CosineDense(classes, learn_scale=classifier == "learned_cosine", **common)(x)
    elif classifier == "normalized":
        # The authors' networks create a bias here and never add it.
        x = NormalizedDense(classes, unused_bias=True, **common)(x)
    else:
        x = WrappedCauchyDense(classes, **common)(x)
    if activation is not None:
        x = layers.Activation(activation, name="classifier_activation", dtype="float32")(x)
    return x
