"""The adaptive activations as layers: they own kappa and lambda, the maths is in `keras_apa.ops`."""

from __future__ import annotations

from typing import Any

import keras
from keras import constraints, initializers, regularizers

from keras_apa import ops
from keras_apa._checks import check_bool, check_integer
from keras_apa._typing import Identifier, LambdaGradient, Shape, Tensor


class _Adaptive(keras.layers.Layer):
    """Owner of `kappa` and `lambda`: one pair for the layer, or one for each channel."""

    default_kappa = (0.0, 1.0)
    default_lambda = (0.0, 1.0)

    def __init__(
        self,
        per_channel: bool = False,
        axis: int = -1,
        kappa_initializer: Identifier = None,
        lambda_initializer: Identifier = None,
        kappa_regularizer: Identifier = None,
        lambda_regularizer: Identifier = None,
        kappa_constraint: Identifier = None,
        lambda_constraint: Identifier = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.supports_masking = True
        self.per_channel = check_bool(per_channel, "per_channel")
        self.axis = check_integer(axis, "axis")
        self.kappa_initializer = initializers.get(kappa_initializer)
        self.lambda_initializer = initializers.get(lambda_initializer)
        self.kappa_regularizer = regularizers.get(kappa_regularizer)
        self.lambda_regularizer = regularizers.get(lambda_regularizer)
        self.kappa_constraint = constraints.get(kappa_constraint)
        self.lambda_constraint = constraints.get(lambda_constraint)
        self.kappa = self.lam = None
        if not self.per_channel:
            # A scalar pair needs no input shape. Made here, it also exists in `Dense(activation=AGLU())`, whose
            # build never calls the activation: made later it would be missing from the optimizer.
            self._add_parameters(())

    def _add_parameters(self, shape: Shape) -> None:
        # float32 whatever the compute dtype: half a unit in the last place of bfloat16 is 0.4 % of kappa.
        self.kappa = self.add_weight(
            name="kappa",
            shape=shape,
            initializer=self.kappa_initializer or initializers.RandomUniform(*self.default_kappa),
            regularizer=self.kappa_regularizer,
            constraint=self.kappa_constraint,
            autocast=False,
        )
        self.lam = self.add_weight(
            name="lambda",
            shape=shape,
            initializer=self.lambda_initializer or initializers.RandomUniform(*self.default_lambda),
            regularizer=self.lambda_regularizer,
            constraint=self.lambda_constraint,
            autocast=False,
        )

    def build(self, input_shape: Shape) -> None:
        if self.per_channel:
            rank = len(input_shape)
            if not -rank <= self.axis < rank or input_shape[self.axis] is None:
                raise ValueError(
                    f"inputs must have a known number of channels on axis={self.axis} with per_channel=True; "
                    f"given: shape {tuple(input_shape)}."
                )
            self._add_parameters((input_shape[self.axis],))
            self.input_spec = keras.layers.InputSpec(ndim=rank, axes={self.axis % rank: input_shape[self.axis]})
        super().build(input_shape)

    def _pair(self, inputs: Tensor) -> tuple[Tensor, Tensor]:
        if not self.per_channel:
            return self.kappa, self.lam
        shape = [1] * len(inputs.shape)
        shape[self.axis] = -1
        return keras.ops.reshape(self.kappa, shape), keras.ops.reshape(self.lam, shape)

    def compute_output_shape(self, input_shape: Shape) -> Shape:
        return input_shape

    def get_config(self) -> dict[str, Any]:
        return {
            **super().get_config(),
            "per_channel": self.per_channel,
            "axis": self.axis,
            "kappa_initializer": initializers.serialize(self.kappa_initializer),
            "lambda_initializer": initializers.serialize(self.lambda_initializer),
            "kappa_regularizer": regularizers.serialize(self.kappa_regularizer),
            "lambda_regularizer": regularizers.serialize(self.lambda_regularizer),
            "kappa_constraint": constraints.serialize(self.kappa_constraint),
            "lambda_constraint": constraints.serialize(self.lambda_constraint),
        }


@keras.saving.register_keras_serializable(package="keras_apa")
class APA(_Adaptive):
    """Adaptive Parametric Activation, `(lambda * exp(-kappa * x) + 1) ** (-1 / lambda)`, a learned gate in (0, 1).

    With `kappa = lambda = 1` it is the sigmoid. For `lambda -> 0` it approaches the Gumbel activation. By default
    `kappa` starts negative, and the gate then falls as its input grows. `lambda` is clamped to at least 1e-4; a
    `lambda` below that can still be trained back up.

    Args:
        per_channel: Whether to learn one `(kappa, lambda)` for each channel instead of one pair for the layer.
        axis: The axis of the channels. It is used with `per_channel`.
        kappa_initializer: Initializer for `kappa`. `None` draws from U(-1, 0). The channel gate of CBAM and the
            spatial gates draw from U(0, 1) instead.
        lambda_initializer: Initializer for `lambda`. `None` draws from U(0, 1).
        kappa_regularizer, lambda_regularizer, kappa_constraint, lambda_constraint: As in other Keras layers.
        **kwargs: `name`, `dtype` and `trainable`, as for every `keras.layers.Layer`.

    Input shape: any. With `per_channel`, the size of `axis` must be known.
    Output shape: the same as the input shape.

    Raises:
        ValueError: If `per_channel` is set and the number of channels is unknown.

    Source: Adaptive Parametric Activation (ECCV 2024), Eq. 5.

    >>> from keras_apa.layers import APA
    >>> gate = APA(kappa_initializer="ones", lambda_initializer="ones")
    >>> round(float(gate(keras.ops.ones((1, 1)))[0, 0]), 4)  # sigmoid(1)
    0.7311
    """

    default_kappa = (-1.0, 0.0)

    def call(self, inputs: Tensor) -> Tensor:
        return ops.apa(inputs, *self._pair(inputs))


@keras.saving.register_keras_serializable(package="keras_apa")
class AGLU(_Adaptive):
    """Adaptive Generalised Linear Unit, `x * (lambda * exp(-kappa * x) + 1) ** (-1 / lambda)`.

    `kappa` sets how sharp the unit is: a large one approaches ReLU. `lambda` sets how much it leaks: a large one
    approaches the identity. With `kappa = lambda = 1` it is SiLU, and `kappa = 1.702, lambda = 1` approximates GELU.

    You can use it as an activation, `keras.layers.Dense(8, activation=AGLU())`, and it trains like any other. With
    `per_channel=True`, build it first (`layer.build((None, 8))`), because Keras does not build an activation with its
    layer.

    Args:
        per_channel: Whether to learn one `(kappa, lambda)` for each channel instead of one pair for the layer.
        axis: The axis of the channels. It is used with `per_channel`.
        lambda_gradient: `"exact"`, or `"paper"` to reproduce the training of the published classification networks.
            With `"paper"`, one step can throw a small lambda far away, and a lambda below 0 stays there. See
            `keras_apa.ops.aglu`.
        kappa_initializer: Initializer for `kappa`. `None` draws from U(0.8, 1.2).
        lambda_initializer: Initializer for `lambda`. `None` draws from U(0, 1).
        kappa_regularizer, lambda_regularizer, kappa_constraint, lambda_constraint: As in other Keras layers.
        **kwargs: `name`, `dtype` and `trainable`, as for every `keras.layers.Layer`.

    Input shape: any. With `per_channel`, the size of `axis` must be known.
    Output shape: the same as the input shape.

    Raises:
        ValueError: If `lambda_gradient` is unknown, or if `per_channel` is set and the number of channels is unknown.

    Source: Adaptive Parametric Activation (ECCV 2024), Eq. 6.

    >>> from keras_apa.layers import AGLU
    >>> AGLU()(keras.ops.ones((2, 8))).shape == (2, 8)
    True
    """

    default_kappa = (0.8, 1.2)

    def __init__(
        self, per_channel: bool = False, axis: int = -1, lambda_gradient: LambdaGradient = "exact", **kwargs: Any
    ) -> None:
        ops.check_lambda_gradient(lambda_gradient)
        super().__init__(per_channel=per_channel, axis=axis, **kwargs)
        self.lambda_gradient = lambda_gradient

    def call(self, inputs: Tensor) -> Tensor:
        return ops.aglu(inputs, *self._pair(inputs), lambda_gradient=self.lambda_gradient)

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "lambda_gradient": self.lambda_gradient}


class _FixedGate(keras.layers.Layer):
    """A gate function of `temperature * x`, the temperature learned or left out."""

    def __init__(self, learn_temperature: bool = False, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.supports_masking = True
        self.learn_temperature = check_bool(learn_temperature, "learn_temperature")
        self.temperature = None
        if self.learn_temperature:
            self.temperature = self.add_weight(name="temperature", shape=(), initializer="ones", autocast=False)

    def _scaled(self, inputs: Tensor) -> Tensor:
        if self.temperature is None:
            return inputs
        scaled = keras.ops.cast(inputs, self.temperature.dtype) * self.temperature
        return keras.ops.cast(scaled, self.compute_dtype)

    def compute_output_shape(self, input_shape: Shape) -> Shape:
        return input_shape

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "learn_temperature": self.learn_temperature}


@keras.saving.register_keras_serializable(package="keras_apa")
class Sigmoid(_FixedGate):
    """Sigmoid gate, `1 / (1 + exp(-t * x))`, with `t = 1` or one learned scalar that starts there.

    Args:
        learn_temperature: Whether to learn the scalar `t`.
        **kwargs: `name`, `dtype` and `trainable`, as for every `keras.layers.Layer`.

    Input shape: any.
    Output shape: the same as the input shape.
    Source: Adaptive Parametric Activation (ECCV 2024), Table 4a.

    >>> from keras_apa.layers import Sigmoid
    >>> round(float(Sigmoid(learn_temperature=True)(keras.ops.ones((1,)))[0]), 4)
    0.7311
    """

    def call(self, inputs: Tensor) -> Tensor:
        return keras.ops.sigmoid(self._scaled(inputs))


@keras.saving.register_keras_serializable(package="keras_apa")
class Gumbel(_FixedGate):
    """Gumbel gate, `exp(-exp(-t * x))`, with `t = 1` or one learned scalar that starts there.

    Args:
        learn_temperature: Whether to learn the scalar `t`.
        **kwargs: `name`, `dtype` and `trainable`, as for every `keras.layers.Layer`.

    Input shape: any.
    Output shape: the same as the input shape.
    Source: Gumbel Optimized Loss (ECCV 2022), Eq. 4; with a temperature: Adaptive Parametric Activation, Table 4a.

    >>> from keras_apa.layers import Gumbel
    >>> round(float(Gumbel()(keras.ops.zeros((1,)))[0]), 4)
    0.3679
    """

    def call(self, inputs: Tensor) -> Tensor:
        return ops.gumbel(self._scaled(inputs))
