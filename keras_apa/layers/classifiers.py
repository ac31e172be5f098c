"""Classifier heads whose logits do not grow with the norm of a class's weights, which follows its frequency."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, MutableMapping
from typing import Any

import keras
from keras import initializers, ops, regularizers

from keras_apa._checks import check_bool, check_integer, check_number
from keras_apa._precision import at_least, matmul
from keras_apa._typing import Identifier, Shape, Tensor

# PyTorch's start values of a linear layer, U(-1/sqrt(fan_in), 1/sqrt(fan_in)).
_UNIFORM_FAN_IN = {
    "class_name": "VarianceScaling",
    "config": {"scale": 1 / 3, "mode": "fan_in", "distribution": "uniform"},
}
_NORMAL_001 = {"class_name": "RandomNormal", "config": {"mean": 0.0, "stddev": 0.01}}

_DETECTION_EPSILON = 1e-6


def _wide_dtype(layer: keras.layers.Layer) -> str:
    return "float64" if layer.compute_dtype == "float64" else "float32"


def _norm(x: Tensor, axis: int) -> Tensor:
    """Euclidean norm along `axis`, whose gradient at zero is zero instead of NaN."""
    return ops.sqrt(at_least(ops.sum(ops.square(x), axis=axis, keepdims=True), 1e-24))


def _normalized(x: Tensor, axis: int) -> Tensor:
    return x / (_norm(x, axis) + _DETECTION_EPSILON)


def _warn_of_zeros(layer: keras.layers.Layer) -> None:
    """The gradient of a direction has a factor 1 / |w|."""
    if isinstance(layer.kernel_initializer, initializers.Zeros):
        warnings.warn(
            f"kernel_initializer must not be zeros for {type(layer).__name__}, unless its weights are loaded; given: "
            "zeros. A kernel of zeros has no direction: the first step throws it far away, and later steps hardly turn "
            "it.",
            stacklevel=3,
        )


class _Head(keras.layers.Layer):
    """A kernel of shape (features, units), and logits computed in at least float32: squares overflow float16 at 256."""

    def __init__(
        self, units: int, kernel_initializer: Identifier, kernel_regularizer: Identifier = None, **kwargs: Any
    ) -> None:
        super().__init__(**kwargs)
        self.units = check_integer(units, "units", low=1)
        self.kernel_initializer = initializers.get(kernel_initializer)
        self.kernel_regularizer = regularizers.get(kernel_regularizer)

    def build(self, input_shape: Shape) -> None:
        features = input_shape[-1]
        if features is None:
            raise ValueError(f"inputs must have a known number of features; given: shape {tuple(input_shape)}.")
        self.kernel = self.add_weight(
            name="kernel",
            shape=(features, self.units),
            initializer=self.kernel_initializer,
            regularizer=self.kernel_regularizer,
            autocast=False,
        )
        _warn_of_zeros(self)
        super().build(input_shape)

    def call(self, inputs: Tensor) -> Tensor:
        dtype = _wide_dtype(self)
        return ops.cast(self._logits(ops.cast(inputs, dtype), ops.cast(self.kernel, dtype)), self.compute_dtype)

    def compute_output_shape(self, input_shape: Shape) -> Shape:
        return (*input_shape[:-1], self.units)

    def get_config(self) -> dict[str, Any]:
        return {
            **super().get_config(),
            "units": self.units,
            "kernel_initializer": initializers.serialize(self.kernel_initializer),
            "kernel_regularizer": regularizers.serialize(self.kernel_regularizer),
        }


@keras.saving.register_keras_serializable(package="keras_apa")
class CosineDense(_Head):
    """Cosine classifier, `scale * x / (1 + |x|) . w / |w|`, without bias.

    Args:
        units: The number of classes.
        scale: The factor of the formula. The papers' recipes use 16.
        learn_scale: Whether to learn the factor. It is then `s ** 2`, with one weight `s` that starts at 5.
        kernel_initializer: Initializer for the kernel. The default is U(-1/sqrt(features), 1/sqrt(features)).
        kernel_regularizer: As in other Keras layers.
        **kwargs: `name`, `dtype` and `trainable`, as for every `keras.layers.Layer`.

    Input shape: `(..., features)`.
    Output shape: `(..., units)`.

    Raises:
        ValueError: If `units` is not a positive integer.

    Source: Decoupling and large-scale long-tailed recognition (OLTR, CVPR 2019), used by the APA recipes.

    >>> from keras_apa.layers import CosineDense
    >>> logits = CosineDense(10)(keras.ops.zeros((2, 64)))  # a zero feature has zero logits
    >>> float(keras.ops.max(keras.ops.abs(logits)))
    0.0
    """

    def __init__(
        self,
        units: int,
        scale: float = 16.0,
        learn_scale: bool = False,
        kernel_initializer: Identifier = _UNIFORM_FAN_IN,
        kernel_regularizer: Identifier = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(units, kernel_initializer, kernel_regularizer, **kwargs)
        self.scale = check_number(scale, "scale")
        self.learn_scale = check_bool(learn_scale, "learn_scale")

    def build(self, input_shape: Shape) -> None:
        super().build(input_shape)
        self.root_scale = None
        if self.learn_scale:
            self.root_scale = self.add_weight(
                name="scale", shape=(), initializer=initializers.Constant(5.0), autocast=False
            )

    def _logits(self, inputs: Tensor, kernel: Tensor) -> Tensor:
        scale = self.scale if self.root_scale is None else ops.square(ops.cast(self.root_scale, inputs.dtype))
        features = inputs / (1.0 + _norm(inputs, -1))
        return scale * matmul(features, kernel / _norm(kernel, 0))

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "scale": self.scale, "learn_scale": self.learn_scale}


def _temperature(layer: keras.layers.Layer, dtype: str) -> Tensor:
    """The factor of a normalised layer: fixed, or the square of a weight that starts at 4.5."""
    if layer.learn_temperature:
        return ops.square(ops.cast(layer.root_temperature, dtype))
    return layer.temperature


@keras.saving.register_keras_serializable(package="keras_apa")
class NormalizedDense(_Head):
    """Normalised classifier, `temperature * x / |x| . w / |w| + bias`, norms with 1e-6 added.

    Args:
        units: The number of classes.
        temperature: The factor of the formula. The detection recipes use 20.
        use_bias: Whether to add a bias.
        learn_temperature: Whether to learn the factor. It is then `t ** 2`, with one weight `t` that starts at 4.5.
        unused_bias: Whether to create the bias without adding it. The authors' classification networks do this; set
            it to match their parameter counts and checkpoints.
        kernel_initializer: Initializer for the kernel. The default is N(0, 0.01).
        kernel_regularizer: As in other Keras layers.
        **kwargs: `name`, `dtype` and `trainable`, as for every `keras.layers.Layer`.

    Input shape: `(..., features)`.
    Output shape: `(..., units)`.

    Raises:
        ValueError: If `units` is not a positive integer.

    Source: Gumbel Optimized Loss (ECCV 2022), Sec. 5; Seesaw Loss (CVPR 2021), Sec. 3.4.

    >>> from keras_apa.layers import NormalizedDense
    >>> NormalizedDense(10, temperature=20.0)(keras.ops.ones((2, 64))).shape == (2, 10)
    True
    """

    def __init__(
        self,
        units: int,
        temperature: float = 1.0,
        use_bias: bool = True,
        learn_temperature: bool = False,
        unused_bias: bool = False,
        kernel_initializer: Identifier = _NORMAL_001,
        kernel_regularizer: Identifier = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(units, kernel_initializer, kernel_regularizer, **kwargs)
        self.temperature = check_number(temperature, "temperature")
        if unused_bias and not use_bias:
            raise ValueError("unused_bias must be False without use_bias, whose bias it leaves out; given: True.")
        self.use_bias = check_bool(use_bias, "use_bias")
        self.learn_temperature = check_bool(learn_temperature, "learn_temperature")
        self.unused_bias = check_bool(unused_bias, "unused_bias")

    def build(self, input_shape: Shape) -> None:
        super().build(input_shape)
        if self.use_bias:
            self.bias = self.add_weight(name="bias", shape=(self.units,), initializer="zeros", autocast=False)
        if self.learn_temperature:
            self.root_temperature = self.add_weight(
                name="temperature", shape=(), initializer=initializers.Constant(4.5), autocast=False
            )

    def _logits(self, inputs: Tensor, kernel: Tensor) -> Tensor:
        cosine = matmul(_normalized(inputs, -1), _normalized(kernel, 0))
        logits = _temperature(self, inputs.dtype) * cosine
        if self.use_bias:
            # 0 * bias keeps the unused bias in the graph: without a gradient every backend warns at every step.
            bias = ops.cast(self.bias, inputs.dtype)
            logits = logits + (0.0 * bias if self.unused_bias else bias)
        return logits

    def get_config(self) -> dict[str, Any]:
        return {
            **super().get_config(),
            "temperature": self.temperature,
            "use_bias": self.use_bias,
            "learn_temperature": self.learn_temperature,
            "unused_bias": self.unused_bias,
        }


@keras.saving.register_keras_serializable(package="keras_apa")
class WrappedCauchyDense(_Head):
    """Wrapped Cauchy classifier, `300 / 6.28 * (1 - g^2) / (1 + g^2 - 2 g u)`.

    `u = x / |x| . w / |w| + bias` and `g = sigmoid(gamma)`. Each class learns one `gamma`, which starts at 1.

    The logits have a pole at `u = (1 + g^2) / (2 g)`, which is 1.05 at the start. A step that carries `bias` across
    the pole turns large logits negative and can end the training, so keep the steps small. The published recipes use
    AdamW with a learning rate of 1e-4 and clip the gradient's norm at 35.

    Args:
        units: The number of classes.
        kernel_initializer: Initializer for the kernel. The default is N(0, 0.01).
        kernel_regularizer: As in other Keras layers.
        **kwargs: `name`, `dtype` and `trainable`, as for every `keras.layers.Layer`.

    Input shape: `(..., features)`.
    Output shape: `(..., units)`.

    Raises:
        ValueError: If `units` is not a positive integer.

    Source: the V3Det recipes of Adaptive Parametric Activation (ECCV 2024), Table 6b, which use 3.14 for pi.

    >>> from keras_apa.layers import WrappedCauchyDense
    >>> WrappedCauchyDense(10)(keras.ops.ones((2, 64))).shape == (2, 10)
    True
    """

    def __init__(
        self,
        units: int,
        kernel_initializer: Identifier = _NORMAL_001,
        kernel_regularizer: Identifier = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(units, kernel_initializer, kernel_regularizer, **kwargs)

    def build(self, input_shape: Shape) -> None:
        super().build(input_shape)
        self.bias = self.add_weight(name="bias", shape=(self.units,), initializer="zeros", autocast=False)
        self.concentration = self.add_weight(
            name="concentration", shape=(self.units,), initializer="ones", autocast=False
        )

    def _logits(self, inputs: Tensor, kernel: Tensor) -> Tensor:
        dtype = inputs.dtype
        cosine = matmul(_normalized(inputs, -1), _normalized(kernel, 0)) + ops.cast(self.bias, dtype)
        g = ops.sigmoid(ops.cast(self.concentration, dtype))
        return 300.0 / (2 * 3.14) * (1.0 - ops.square(g)) / (1.0 + ops.square(g) - 2.0 * g * cosine)


@keras.saving.register_keras_serializable(package="keras_apa")
class NormalizedConv2D(keras.layers.Conv2D):
    """Convolution of normalised features, `conv(temperature * x / |x|, w / |w|) + bias`, norms over input channels.

    The norm of `x` is taken at each position, and the norm of `w` at each position of the kernel. Both norms have
    1e-6 added.

    Args:
        filters, kernel_size, strides, padding, data_format, use_bias, ...: As in `keras.layers.Conv2D`.
        temperature: The factor of the formula. The detection recipes use 20.
        learn_temperature: Whether to learn the factor. It is then `t ** 2`, with one weight `t` that starts at 4.5.

    Input shape: `(batch, height, width, channels)` or `(batch, channels, height, width)`.
    Output shape: as for `keras.layers.Conv2D`.

    Raises:
        ValueError: If `groups` is not 1.

    Source: Gumbel Optimized Loss (ECCV 2022), Sec. 5 (normalised mask predictor).

    >>> from keras_apa.layers import NormalizedConv2D
    >>> layer = NormalizedConv2D(10, 1, data_format="channels_last")
    >>> layer(keras.ops.ones((2, 14, 14, 16))).shape == (2, 14, 14, 10)
    True
    """

    def __init__(
        self,
        filters: int,
        kernel_size: int | tuple[int, int] = 1,
        *args: Any,
        temperature: float = 20.0,
        learn_temperature: bool = False,
        kernel_initializer: Identifier = _NORMAL_001,
        **kwargs: Any,
    ) -> None:
        super().__init__(filters, kernel_size, *args, kernel_initializer=kernel_initializer, **kwargs)
        if self.groups != 1:
            raise ValueError(f"groups must be 1 in NormalizedConv2D; given: {self.groups}.")
        self.temperature = check_number(temperature, "temperature")
        self.learn_temperature = check_bool(learn_temperature, "learn_temperature")

    def build(self, input_shape: Shape) -> None:
        super().build(input_shape)
        _warn_of_zeros(self)
        if self.learn_temperature:
            self.root_temperature = self.add_weight(
                name="temperature", shape=(), initializer=initializers.Constant(4.5), autocast=False
            )

    def call(self, inputs: Tensor) -> Tensor:
        axis = -1 if self.data_format == "channels_last" else 1
        dtype = _wide_dtype(self)
        features = _normalized(ops.cast(inputs, dtype), axis)
        features = features * _temperature(self, dtype)
        outputs = ops.conv(
            ops.cast(features, self.compute_dtype),
            ops.cast(_normalized(ops.cast(self.kernel, dtype), 2), self.compute_dtype),
            strides=list(self.strides),
            padding=self.padding,
            dilation_rate=self.dilation_rate,
            data_format=self.data_format,
        )
        if self.use_bias:
            shape = (1, 1, 1, self.filters) if axis == -1 else (1, self.filters, 1, 1)
            outputs = outputs + ops.reshape(self.bias, shape)
        return self.activation(outputs) if self.activation is not None else outputs

    # The convolution of Keras stores a kernel and a bias by number, and no more.
    def save_own_variables(self, store: MutableMapping[str, Any]) -> None:
        super().save_own_variables(store)
        if self.learn_temperature:
            store[str(1 + self.use_bias)] = ops.convert_to_numpy(self.root_temperature)

    def load_own_variables(self, store: Mapping[str, Any]) -> None:
        super().load_own_variables(store)
        if self.learn_temperature:
            self.root_temperature.assign(store[str(1 + self.use_bias)])

    def get_config(self) -> dict[str, Any]:
        return {
            **super().get_config(),
            "temperature": self.temperature,
            "learn_temperature": self.learn_temperature,
        }
