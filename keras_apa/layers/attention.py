"""Attention gates over channels (SqueezeExcite, ChannelAttention) and over positions (SpatialAttention).

Every gate multiplies its input by the values of an activation. `gate=` selects it: sigmoid, the learned APA, Gumbel,
or any layer.
"""

from __future__ import annotations

from typing import Any

import keras
from keras import layers, ops

from keras_apa._checks import check_bool, check_integer, check_name, check_number
from keras_apa._typing import DataFormat, Identifier, Shape, Tensor
from keras_apa.layers.composite import Composite
from keras_apa.layers.gates import check_gate, deserialize_gate, fitted_gate, is_apa, make_gate, serialize_gate
from keras_apa.layers.normalization import UnbiasedBatchNormalization, layer_norm

# Kaiming normal over fan_in, as PyTorch draws it: Keras's "he_normal" is truncated.
KAIMING_NORMAL: dict[str, Any] = {
    "class_name": "VarianceScaling",
    "config": {"scale": 2.0, "mode": "fan_in", "distribution": "untruncated_normal"},
}

_LAYER_NORM_EPSILON = 1e-5


class _Attention(Composite):
    """What the gates share: the data format and how `gate=` is stored."""

    kappa_range: tuple[float, float] | None = None
    gate: keras.layers.Layer  # None before `build` where it is only named

    def __init__(
        self, gate: str | dict[str, Any] | keras.layers.Layer, data_format: DataFormat | None, **kwargs: Any
    ) -> None:
        super().__init__(**kwargs)
        gate = deserialize_gate(gate)
        check_gate(gate, "spatial_gate" if isinstance(self, SpatialAttention) else "gate")
        self._has_apa = is_apa(gate)
        self._gate_config = serialize_gate(gate)
        data_format = data_format or keras.config.image_data_format()
        self.data_format = check_name(data_format, ("channels_last", "channels_first"), "data_format")
        # A gate that is only named is made in `build`, so that its weights are named after this layer.
        self.gate = None if isinstance(gate, str) else fitted_gate(gate, self.kappa_range, self._gate_axis)
        self.adopt()

    @property
    def channel_axis(self) -> int:
        return -1 if self.data_format == "channels_last" else 1

    @property
    def _gate_axis(self) -> int:
        return -1

    @property
    def _spatial_axes(self) -> tuple[int, int]:
        return (1, 2) if self.data_format == "channels_last" else (2, 3)

    def _channels(self, input_shape: Shape) -> int:
        if len(input_shape) != 4:
            raise ValueError(f"inputs must be images of rank 4; given: shape {tuple(input_shape)}.")
        channels = input_shape[self.channel_axis]
        if channels is None:
            raise ValueError(
                f"inputs must have a known number of channels ({self.data_format}); given: shape {tuple(input_shape)}."
            )
        return channels

    def _per_channel_shape(self, channels: int) -> tuple[int, int, int, int]:
        return (-1, 1, 1, channels) if self.data_format == "channels_last" else (-1, channels, 1, 1)

    def _build_gate(self, shape: Shape) -> None:
        if self.gate is None:
            # A config is that of a layer, and then there is a gate.
            self.gate = make_gate(self._gate_config, self.kappa_range, self.dtype_policy)  # type: ignore[arg-type]
        if not self.gate.built:
            self.gate.build(shape)

    def compute_output_shape(self, input_shape: Shape) -> Shape:
        return input_shape

    def get_config(self) -> dict[str, Any]:
        return {
            **super().get_config(),
            "gate": self._gate_config,
            "data_format": self.data_format,
        }


def check_rate(value: Any, argument: str) -> float:
    """Return `value` as a float if it is a rate of dropout; otherwise raise a ValueError."""
    return check_number(value, argument, low=0, high=1, open_high=True)


class _ChannelGate(_Attention):
    """A bottleneck over pooled channels: LayerNorm (optional), dense, ReLU, dense, Dropout, gate."""

    use_bias = False

    def __init__(
        self,
        reduction_ratio: int = 16,
        gate: str | dict[str, Any] | keras.layers.Layer = "sigmoid",
        normalize: bool | None = None,
        dropout: float | None = None,
        kernel_initializer: Identifier = KAIMING_NORMAL,
        data_format: DataFormat | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(gate, data_format, **kwargs)
        self.reduction_ratio = check_integer(reduction_ratio, "reduction_ratio", low=1)
        self.normalize = self._normalize_by_default() if normalize is None else check_bool(normalize, "normalize")
        self.dropout = self._dropout_by_default() if dropout is None else check_rate(dropout, "dropout")
        self.kernel_initializer = keras.initializers.get(kernel_initializer)

    def _normalize_by_default(self) -> bool:
        return self._has_apa

    def _dropout_by_default(self) -> float:
        return 0.1 if self._has_apa else 0.0

    def build(self, input_shape: Shape) -> None:
        channels = self._channels(input_shape)
        hidden = max(1, channels // self.reduction_ratio)
        policy = self.dtype_policy
        self.norm = self.drop = None
        if self.normalize:
            self.norm = layers.LayerNormalization(epsilon=_LAYER_NORM_EPSILON, name="norm", dtype=policy)
            self.norm.build((None, channels))
        options = {"use_bias": self.use_bias, "dtype": policy}
        self.reduce = layers.Dense(
            hidden, activation="relu", kernel_initializer=self._new_initializer(), name="reduce", **options
        )
        self.reduce.build((None, channels))
        self.expand = layers.Dense(channels, kernel_initializer=self._new_initializer(), name="expand", **options)
        self.expand.build((None, hidden))
        if self.dropout:
            self.drop = layers.Dropout(self.dropout, name="drop", dtype=policy)
        self._build_gate((None, channels))
        super().build(input_shape)

    def _new_initializer(self) -> Any:
        # One initializer object draws the same numbers each time: both denses would start as copies of each other.
        initializer = self.kernel_initializer
        # A plain function draws as it likes.
        return initializer.clone() if isinstance(initializer, keras.initializers.Initializer) else initializer

    def _excite(self, pooled: Tensor) -> Tensor:
        if self.norm is not None:
            pooled = layer_norm(self.norm, pooled)
        return self.expand(self.reduce(pooled))

    def _apply_gate(self, inputs: Tensor, excitation: Tensor, training: bool | None) -> Tensor:
        if self.drop is not None:
            excitation = self.drop(excitation, training=training)
        scale = ops.reshape(self.gate(excitation), self._per_channel_shape(inputs.shape[self.channel_axis]))
        return inputs * scale

    def get_config(self) -> dict[str, Any]:
        return {
            **super().get_config(),
            "reduction_ratio": self.reduction_ratio,
            "normalize": self.normalize,
            "dropout": self.dropout,
            "kernel_initializer": keras.initializers.serialize(self.kernel_initializer),
        }


@keras.saving.register_keras_serializable(package="keras_apa")
class SqueezeExcite(_ChannelGate):
    """Squeeze-and-Excitation, `x * gate(W2 relu(W1 norm(mean(x))))`: one factor for each channel.

    With `gate="apa"`, the layer adds a LayerNorm before the bottleneck and Dropout 0.1 after it (APA* in the paper).
    Other gates have neither. Set `normalize` and `dropout` to change this. The dense layers have no bias.

    Args:
        reduction_ratio: The number of channels divided by the number of hidden units in the bottleneck, which has at
            least one unit.
        gate: `"sigmoid"`, `"apa"`, `"gumbel"`, `"sigmoid_temperature"`, `"gumbel_temperature"` or a layer.
        normalize: Whether to apply LayerNorm (epsilon 1e-5) to the pooled channels. `None` applies it only with an
            APA gate.
        dropout: The dropout rate after the second dense layer. `None` is 0.1 with an APA gate and 0 with others.
        kernel_initializer: Initializer for both dense layers. The default is Kaiming normal over fan_in.
        data_format: `"channels_last"` or `"channels_first"`. `None` takes `keras.config.image_data_format()`.
        **kwargs: `name`, `dtype` and `trainable`, as for every `keras.layers.Layer`.

    Input shape: `(batch, height, width, channels)` or `(batch, channels, height, width)`.
    Output shape: the same as the input shape.

    Raises:
        ValueError: If the gate is unknown, the ratio is below 1, the rate is outside [0, 1), or the number of
            channels is unknown.

    Source: Squeeze-and-Excitation Networks (CVPR 2018); APA gate: Adaptive Parametric Activation (ECCV 2024), Sec. 4.

    >>> from keras_apa.layers import SqueezeExcite
    >>> layer = SqueezeExcite(reduction_ratio=4, gate="apa", data_format="channels_last")
    >>> layer(keras.ops.ones((2, 8, 8, 16))).shape == (2, 8, 8, 16)
    True
    """

    def call(self, inputs: Tensor, training: bool | None = None) -> Tensor:
        pooled = ops.mean(inputs, axis=self._spatial_axes)
        return self._apply_gate(inputs, self._excite(pooled), training)


@keras.saving.register_keras_serializable(package="keras_apa")
class ChannelAttention(_ChannelGate):
    """Channel gate of CBAM, `x * gate(mlp(norm(mean(x))) + mlp(norm(max(x))))`.

    By default, LayerNorm and Dropout 0.1 are used with every gate. The dense layers have biases, and both branches
    share them.

    Args:
        reduction_ratio: The number of channels divided by the number of hidden units in the bottleneck, which has at
            least one unit.
        gate: `"sigmoid"`, `"apa"`, `"gumbel"`, `"sigmoid_temperature"`, `"gumbel_temperature"` or a layer. With an
            APA gate, `kappa` starts in U(0, 1) here. If you pass an `APA()` without a kappa initializer, the layer
            uses a copy of it that starts there.
        normalize: Whether to apply LayerNorm (epsilon 1e-5) to the pooled channels. `None` is `True`.
        dropout: The dropout rate after the sum of the branches. `None` is 0.1.
        kernel_initializer: Initializer for both dense layers. The default is Kaiming normal over fan_in.
        data_format: `"channels_last"` or `"channels_first"`. `None` takes `keras.config.image_data_format()`.
        **kwargs: `name`, `dtype` and `trainable`, as for every `keras.layers.Layer`.

    Input shape: `(batch, height, width, channels)` or `(batch, channels, height, width)`.
    Output shape: the same as the input shape.

    Raises:
        ValueError: In the same cases as `SqueezeExcite`.

    Source: CBAM (ECCV 2018), Eq. 2; with APA: Adaptive Parametric Activation (ECCV 2024), Table 4.

    >>> from keras_apa.layers import ChannelAttention
    >>> layer = ChannelAttention(reduction_ratio=4, data_format="channels_last")
    >>> layer(keras.ops.ones((2, 8, 8, 16))).shape == (2, 8, 8, 16)
    True
    """

    use_bias = True
    kappa_range: tuple[float, float] | None = (0.0, 1.0)

    def _normalize_by_default(self) -> bool:
        return True

    def _dropout_by_default(self) -> float:
        return 0.1

    def call(self, inputs: Tensor, training: bool | None = None) -> Tensor:
        average = self._excite(ops.mean(inputs, axis=self._spatial_axes))
        largest = self._excite(ops.max(inputs, axis=self._spatial_axes))
        return self._apply_gate(inputs, average + largest, training)


@keras.saving.register_keras_serializable(package="keras_apa")
class SpatialAttention(_Attention):
    """Spatial gate of CBAM, `x * gate(BN(conv7x7([max over channels, mean over channels])))`.

    Args:
        kernel_size: The side of the convolution kernel, an odd number. The convolution has no bias.
        gate: `"sigmoid"`, `"apa"`, `"gumbel"`, `"sigmoid_temperature"`, `"gumbel_temperature"` or a layer. With an
            APA gate, `kappa` starts in U(0, 1) here. If you pass an `APA()` without a kappa initializer, the layer
            uses a copy of it that starts there.
        kernel_initializer: Initializer for the convolution. The default is Kaiming normal over fan_in.
        frozen_batch_norm: Whether to freeze the batch norm: it uses its moving statistics in training too, and is
            never trained.
        data_format: `"channels_last"` or `"channels_first"`. `None` takes `keras.config.image_data_format()`.
        **kwargs: `name`, `dtype` and `trainable`, as for every `keras.layers.Layer`.

    Input shape: `(batch, height, width, channels)` or `(batch, channels, height, width)`.
    Output shape: the same as the input shape.

    Raises:
        ValueError: If the gate is unknown or the kernel size is not a positive odd integer.

    Source: CBAM (ECCV 2018), Eq. 3; with APA: Adaptive Parametric Activation (ECCV 2024), Table 4.

    >>> from keras_apa.layers import SpatialAttention
    >>> SpatialAttention(gate="apa", data_format="channels_last")(keras.ops.ones((2, 8, 8, 16))).shape == (2, 8, 8, 16)
    True
    """

    kappa_range: tuple[float, float] | None = (0.0, 1.0)

    def __init__(
        self,
        kernel_size: int = 7,
        gate: str | dict[str, Any] | keras.layers.Layer = "sigmoid",
        kernel_initializer: Identifier = KAIMING_NORMAL,
        frozen_batch_norm: bool = False,
        data_format: DataFormat | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(gate, data_format, **kwargs)
        self.frozen_batch_norm = check_bool(frozen_batch_norm, "frozen_batch_norm")
        if not isinstance(kernel_size, int) or kernel_size < 1 or kernel_size % 2 == 0:
            raise ValueError(f"kernel_size must be a positive odd integer; given: {kernel_size!r}.")
        self.kernel_size = kernel_size
        self.kernel_initializer = keras.initializers.get(kernel_initializer)

    @property
    def _gate_axis(self) -> int:
        return self.channel_axis

    def build(self, input_shape: Shape) -> None:
        self._channels(input_shape)
        channels_last = self.data_format == "channels_last"
        pooled = (None, *input_shape[1:3], 2) if channels_last else (None, 2, *input_shape[2:])
        single = tuple(1 if size == 2 and i == self.channel_axis % 4 else size for i, size in enumerate(pooled))
        # Two channels in, one out: float32 costs nothing here, and PyTorch's CPU convolution has no half-precision
        # gradient for a kernel of one output channel in Keras's layout.
        policy = "float32" if self.compute_dtype in ("float16", "bfloat16") else self.dtype_policy
        self.conv = layers.Conv2D(
            1,
            self.kernel_size,
            padding="same",  # with stride 1 and an odd kernel this is PyTorch's symmetric padding
            use_bias=False,
            kernel_initializer=self.kernel_initializer,
            data_format=self.data_format,
            name="conv",
            dtype=policy,
        )
        self.conv.build(pooled)
        self.norm = UnbiasedBatchNormalization(
            axis=self.channel_axis,
            momentum=0.99,
            frozen=self.frozen_batch_norm,
            name="norm",
            dtype=self.dtype_policy,
        )
        self.norm.build(single)
        self._build_gate(single)
        super().build(input_shape)

    def call(self, inputs: Tensor, training: bool | None = None) -> Tensor:
        axis = self.channel_axis
        pooled = ops.concatenate(
            [ops.max(inputs, axis=axis, keepdims=True), ops.mean(inputs, axis=axis, keepdims=True)], axis=axis
        )
        return inputs * self.gate(self.norm(self.conv(pooled), training=training))

    def get_config(self) -> dict[str, Any]:
        return {
            **super().get_config(),
            "kernel_size": self.kernel_size,
            "kernel_initializer": keras.initializers.serialize(self.kernel_initializer),
            "frozen_batch_norm": self.frozen_batch_norm,
        }


@keras.saving.register_keras_serializable(package="keras_apa")
class CBAM(Composite):
    """Convolutional Block Attention Module: `ChannelAttention`, then `SpatialAttention`.

    Args:
        reduction_ratio: The reduction ratio of the channel gate.
        gate: The channel gate, as in `ChannelAttention`.
        spatial_gate: The spatial gate, as in `SpatialAttention`.
        normalize, dropout: The LayerNorm and dropout rate of the channel gate. `None` means LayerNorm and 0.1.
        kernel_size: The side of the spatial convolution kernel.
        kernel_initializer, spatial_kernel_initializer: Initializers for the dense layers and for the convolution. The
            default is Kaiming normal over fan_in.
        frozen_batch_norm: Whether to freeze the batch norm of the spatial gate.
        data_format: `"channels_last"` or `"channels_first"`. `None` takes `keras.config.image_data_format()`.
        **kwargs: `name`, `dtype` and `trainable`, as for every `keras.layers.Layer`.

    Input shape: `(batch, height, width, channels)` or `(batch, channels, height, width)`.
    Output shape: the same as the input shape.

    Raises:
        ValueError: In the same cases as `ChannelAttention` and `SpatialAttention`, or if both gates are the same
            layer.

    Source: CBAM (ECCV 2018), Eq. 1; with APA: Adaptive Parametric Activation (ECCV 2024), Table 4.

    >>> from keras_apa.layers import CBAM
    >>> layer = CBAM(reduction_ratio=4, gate="apa", data_format="channels_last")
    >>> layer(keras.ops.ones((2, 8, 8, 16))).shape == (2, 8, 8, 16)
    True
    """

    def __init__(
        self,
        reduction_ratio: int = 16,
        gate: str | dict[str, Any] | keras.layers.Layer = "sigmoid",
        spatial_gate: str | dict[str, Any] | keras.layers.Layer = "sigmoid",
        normalize: bool | None = None,
        dropout: float | None = None,
        kernel_size: int = 7,
        kernel_initializer: Identifier = KAIMING_NORMAL,
        spatial_kernel_initializer: Identifier = KAIMING_NORMAL,
        frozen_batch_norm: bool = False,
        data_format: DataFormat | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.data_format = data_format or keras.config.image_data_format()
        if gate is spatial_gate and isinstance(gate, keras.layers.Layer):
            raise ValueError("gate and spatial_gate must be two layers; given: the same layer for both.")
        common = {"data_format": self.data_format, "dtype": self.dtype_policy}
        self.channel = ChannelAttention(
            reduction_ratio, gate, normalize, dropout, kernel_initializer, name="channel", **common
        )
        self.spatial = SpatialAttention(
            kernel_size, spatial_gate, spatial_kernel_initializer, frozen_batch_norm, name="spatial", **common
        )
        self.adopt()

    def build(self, input_shape: Shape) -> None:
        self.channel.build(input_shape)
        self.spatial.build(input_shape)
        super().build(input_shape)

    def call(self, inputs: Tensor, training: bool | None = None) -> Tensor:
        return self.spatial(self.channel(inputs, training=training), training=training)

    def compute_output_shape(self, input_shape: Shape) -> Shape:
        return input_shape

    def get_config(self) -> dict[str, Any]:
        channel, spatial = self.channel.get_config(), self.spatial.get_config()
        shared = ("reduction_ratio", "gate", "normalize", "dropout", "kernel_initializer", "data_format")
        return {
            **super().get_config(),
            **{key: channel[key] for key in shared},
            "spatial_gate": spatial["gate"],
            "kernel_size": spatial["kernel_size"],
            "spatial_kernel_initializer": spatial["kernel_initializer"],
            "frozen_batch_norm": spatial["frozen_batch_norm"],
        }
