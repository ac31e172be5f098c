"""The maths of the adaptive activations, as pure functions of tensors with exact, stable gradients.

With `u = log(lambda) - kappa * x` and `eta` the Adaptive Parametric Activation (APA, ECCV 2024, Eq. 5)

    eta          = (lambda * exp(-kappa * x) + 1) ** (-1 / lambda)
    log(eta)     = -softplus(u) / lambda
    d log(eta)/dx      = kappa * sigmoid(u) / lambda
    d log(eta)/dkappa  = x * sigmoid(u) / lambda
    d log(eta)/dlambda = (softplus(u) - sigmoid(u)) / lambda ** 2

The other gradients follow from the product rule. Half-precision inputs are computed in float32 (float64 inputs in
float64), and the result has the dtype of `x`. A Python number as `x` takes the dtype of `kappa` or `lam` if one of
them is a floating-point tensor or array.

Every function works eagerly, compiled, in symbolic (`keras.KerasTensor`) calls and for second derivatives. On JAX,
use reverse over reverse for these, `jax.jacrev(jax.grad(f))`: `jax.hessian` needs forward mode, which functions with
a hand-written reverse rule do not have. `jax.vmap`, `torch.func.vmap` and `tf.vectorized_map` work.
"""

from __future__ import annotations

import numbers
from collections.abc import Callable, Sequence
from typing import Any

import keras
import numpy as np
from keras import ops

from keras_apa._checks import check_name
from keras_apa._kernels import differentiable, expm1, is_converting, log1p, softplus_and_sigmoid
from keras_apa._precision import at_least, at_most, is_float64
from keras_apa._typing import LambdaGradient, Tensor, TensorLike

__all__ = ["aglu", "apa", "gumbel", "log1m_gumbel", "log_apa", "log_gumbel"]

# Lower ends of lambda in the authors' code: APA max(lambda, 1e-4), AGLU relu(lambda) + 1e-8.
_APA_LAMBDA_MIN = 1e-4
_AGLU_LAMBDA_OFFSET = 1e-8

# Below this w = lambda * exp(-kappa * x), log(1+w) - w/(1+w) cancels and its series is used.
_LOG_SERIES_BELOW = float(np.log(0.02))
# sum over n >= 2 of (-1)^n (1 - 1/n) w^(n-2). Of the sum at w = 0.02, the first term left out is 3e-7 for float32 and
# 2e-17 for float64.
_SERIES = tuple((-1) ** n * (1 - 1 / n) for n in range(2, 6))
_SERIES_FLOAT64 = tuple((-1) ** n * (1 - 1 / n) for n in range(2, 12))
# Below these v = exp(-x), log(1 - exp(-v)) and its derivative are series in v.
_GUMBEL_SERIES_BELOW, _GUMBEL_SERIES_BELOW_FLOAT64 = 0.05, 3e-3
_GUMBEL_SLOPE_SERIES_BELOW, _GUMBEL_SLOPE_SERIES_BELOW_FLOAT64 = 1e-2, 1e-3


def apa(x: TensorLike, kappa: TensorLike, lam: TensorLike) -> Tensor:
    """Adaptive Parametric Activation, `(lam * exp(-kappa * x) + 1) ** (-1 / lam)`, between 0 and 1.

    With `kappa = lam = 1` it is the sigmoid. For `lam -> 0` with `kappa = 1` it approaches the Gumbel distribution
    `exp(-exp(-x))`.

    Args:
        x: Tensor of any shape. Half-precision inputs are computed in float32.
        kappa: The slope, a number or a tensor that broadcasts with `x`.
        lam: The asymmetry lambda, a number or a tensor that broadcasts with `x`. It is clamped to at least 1e-4.
            Below the clamp the gradient is the one at the clamp, and only gradients that increase `lam` in a descent
            step pass through.

    Returns:
        A tensor of the broadcast shape, in the dtype of `x`.

    Source: Adaptive Parametric Activation (ECCV 2024), Eq. 5.

    >>> round(float(apa(1.0, kappa=1.0, lam=1.0)), 4)  # sigmoid(1)
    0.7311
    """
    if _is_symbolic(x, kappa, lam):
        return ElementwiseOperation("apa")(x, kappa, lam)
    x, (kappa, lam), dtype = _read(x, kappa, lam)
    return ops.cast(_apa(x, kappa, _clamp_apa(lam)), dtype)


def log_apa(x: TensorLike, kappa: TensorLike, lam: TensorLike) -> Tensor:
    """Logarithm of `apa`, `-softplus(log(lam) - kappa * x) / lam`, finite where `apa` underflows to 0.

    The arguments and the returned tensor are as in `apa`. The derivative with respect to `lam` is bounded for `apa`,
    but not for `log_apa`: near `lam = 0` it is `exp(-2 * kappa * x) / 2`. Clip the gradient if you train `lam`
    through this function.

    Source: Adaptive Parametric Activation (ECCV 2024), logarithm of Eq. 5.

    >>> round(float(log_apa(-50.0, kappa=1.0, lam=0.5)), 3)
    -98.614
    """
    if _is_symbolic(x, kappa, lam):
        return ElementwiseOperation("log_apa")(x, kappa, lam)
    x, (kappa, lam), dtype = _read(x, kappa, lam)
    return ops.cast(_log_apa(x, kappa, _clamp_apa(lam)), dtype)


def aglu(x: TensorLike, kappa: TensorLike, lam: TensorLike, lambda_gradient: LambdaGradient = "exact") -> Tensor:
    """Adaptive Generalised Linear Unit, `x * (lam * exp(-kappa * x) + 1) ** (-1 / lam)`.

    With `kappa = lam = 1` it is SiLU, and `kappa = 1.702, lam = 1` approximates GELU. A large `kappa` approaches
    ReLU, and a large `lam` approaches the identity.

    Args:
        x: Tensor of any shape. Half-precision inputs are computed in float32.
        kappa: The slope, a number or a tensor that broadcasts with `x`.
        lam: The asymmetry lambda, a number or a tensor that broadcasts with `x`. It is used as `relu(lam) + 1e-8`.
        lambda_gradient: Which gradient `lam` gets, `"exact"` or `"paper"`. Below, `w = lam * exp(-kappa * x)` and
            `eta` is the second factor of the formula above.

            `"exact"` is the derivative `x * eta / lam^2 * (log(1 + w) - w / (1 + w))`. It is bounded at `lam = 0`.
            Below 0 the gradient is the one at 0, and only gradients that increase `lam` in a descent step pass
            through.

            `"paper"` reproduces the training of the published AGLU classification networks. It is Eq. 8 of the paper,
            `-x * eta / lam^2 * w / (1 + w)`, for `lam > 0`, and 0 for `lam <= 0`. Eq. 8 lacks the term `log(1 + w)`,
            so its sign is always opposite to that of the derivative. It grows as `1 / lam`: one step can throw a
            `lam` between 0 and 0.001 far away (`docs/activations.md` has a table with a step from 1e-5 to 537). A
            `lam` that steps below 0 stays there. Use `"exact"` unless you reproduce the published training.

    Returns:
        A tensor of the broadcast shape, in the dtype of `x`.

    Raises:
        ValueError: If `lambda_gradient` is neither `"exact"` nor `"paper"`.

    Source: Adaptive Parametric Activation (ECCV 2024), Eq. 6; the gradients are Eqs. 7-9.

    >>> round(float(aglu(1.0, kappa=1.0, lam=1.0)), 4)  # SiLU(1)
    0.7311
    """
    check_lambda_gradient(lambda_gradient)
    if _is_symbolic(x, kappa, lam):
        return ElementwiseOperation("aglu", {"lambda_gradient": lambda_gradient})(x, kappa, lam)
    x, (kappa, lam), dtype = _read(x, kappa, lam)
    if lambda_gradient == "paper":
        return ops.cast(_paper_aglu(x, kappa, _clamp_aglu_paper(lam)), dtype)
    return ops.cast(_exact_aglu(x, kappa, _clamp_aglu(lam)), dtype)


def gumbel(x: TensorLike) -> Tensor:
    """Gumbel activation, `exp(-exp(-x))`, the distribution function of the standard Gumbel distribution.

    Args:
        x: Tensor of any shape. Half-precision inputs are computed in float32.

    Returns:
        A tensor with values between 0 and 1, in the shape and dtype of `x`.

    Source: Long-tailed Instance Segmentation using Gumbel Optimized Loss (ECCV 2022), Eq. 4.

    >>> round(float(gumbel(0.0)), 4)  # 1 / e
    0.3679
    """
    if _is_symbolic(x):
        return ElementwiseOperation("gumbel")(x)
    x, _, dtype = _read(x)
    return ops.cast(_gumbel(x), dtype)


def log_gumbel(x: TensorLike) -> Tensor:
    """Logarithm of the Gumbel activation, `-exp(-x)`.

    The argument and the returned tensor are as in `gumbel`, but the values are at most 0.

    >>> round(float(log_gumbel(-2.0)), 4)
    -7.3891
    """
    if _is_symbolic(x):
        return ElementwiseOperation("log_gumbel")(x)
    x, _, dtype = _read(x)
    return ops.cast(-ops.exp(-x), dtype)


def log1m_gumbel(x: TensorLike) -> Tensor:
    """Logarithm of one minus the Gumbel activation, `log(1 - exp(-exp(-x)))`; about `-x` for a large `x`.

    The argument and the returned tensor are as in `gumbel`, but the values are at most 0.

    >>> round(float(log1m_gumbel(50.0)), 4)  # log(1 - gumbel(50)) is -inf in float32
    -50.0
    """
    if _is_symbolic(x):
        return ElementwiseOperation("log1m_gumbel")(x)
    x, _, dtype = _read(x)
    return ops.cast(_log1m_gumbel(x), dtype)


def check_lambda_gradient(value: object) -> None:
    """Raise a ValueError unless `value` names a derivative that `aglu` has."""
    check_name(value, ("exact", "paper"), "lambda_gradient")


# ---------------------------------------------------------------------------------------------------------------
# Values and gradients. Inside, every tensor is float32 or float64, and `x` has the full broadcast shape.


# d clamp / d lam is 1 at and above the clamp. Below it only what raises lam again passes, so that a parameter that
# has stepped across recovers instead of being dead for ever. The gradient arrives summed over what lam broadcasts to.
# This needs a derivative that is bounded at the clamp: a small step must not throw lam far away.
_clamp_apa = differentiable(
    lambda lam: at_least(lam, _APA_LAMBDA_MIN),
    lambda upstream, lam: (ops.where(lam < _APA_LAMBDA_MIN, at_most(upstream, 0.0), upstream),),
)
_clamp_aglu = differentiable(
    lambda lam: at_least(lam, 0.0) + _AGLU_LAMBDA_OFFSET,
    lambda upstream, lam: (ops.where(lam < 0.0, at_most(upstream, 0.0), upstream),),
)
# Eq. 8 is 1e8 at the clamp, so here lam has no gradient there, as relu has none in the authors' code.
_clamp_aglu_paper = differentiable(
    lambda lam: at_least(lam, 0.0) + _AGLU_LAMBDA_OFFSET,
    lambda upstream, lam: (ops.where(lam > 0.0, upstream, 0.0),),
)


def _lambda_slope(u: Tensor, lam: Tensor, softplus: Tensor, sigmoid: Tensor) -> Tensor:
    """`d log(eta)/dlambda = (softplus(u) - sigmoid(u)) / lambda^2`, without cancellation for small `w = exp(u)`."""
    w = ops.exp(at_most(u, _LOG_SERIES_BELOW))
    coefficients = _SERIES_FLOAT64 if is_float64(u) else _SERIES
    series = coefficients[-1]
    for coefficient in coefficients[-2::-1]:
        series = series * w + coefficient
    ratio = w / lam
    return ops.where(u < _LOG_SERIES_BELOW, ratio * ratio * series, (softplus - sigmoid) / (lam * lam))


def _paper_lambda_slope(u: Tensor, lam: Tensor, softplus: Tensor, sigmoid: Tensor) -> Tensor:
    """Eq. 8, which lacks log(1 + w) = softplus(u)."""
    return -sigmoid / (lam * lam)


def _sum_to(gradient: Tensor, parameter: Tensor) -> Tensor:
    """Sum `gradient` over the axes along which `parameter` was broadcast."""
    extra = len(gradient.shape) - len(parameter.shape)
    if extra:
        gradient = ops.sum(gradient, axis=tuple(range(extra)))
    axes = tuple(i for i, size in enumerate(parameter.shape) if size == 1)
    return ops.sum(gradient, axis=axes, keepdims=True) if axes else gradient


def _log_apa_value(x: Tensor, kappa: Tensor, lam: Tensor) -> Tensor:
    softplus, _ = softplus_and_sigmoid(ops.log(lam) - kappa * x)
    return softplus / -lam


def _apa_value(x: Tensor, kappa: Tensor, lam: Tensor) -> Tensor:
    return ops.exp(_log_apa_value(x, kappa, lam))


def _aglu_value(x: Tensor, kappa: Tensor, lam: Tensor) -> Tensor:
    return x * _apa_value(x, kappa, lam)


def _log_apa_gradient(upstream: Tensor, x: Tensor, kappa: Tensor, lam: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    u = ops.log(lam) - kappa * x
    softplus, sigmoid = softplus_and_sigmoid(u)
    slope = upstream * (sigmoid / lam)
    lambda_slope = _lambda_slope(u, lam, softplus, sigmoid)
    return slope * kappa, _sum_to(slope * x, kappa), _sum_to(upstream * lambda_slope, lam)


def _apa_gradient(upstream: Tensor, x: Tensor, kappa: Tensor, lam: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    u = ops.log(lam) - kappa * x
    softplus, sigmoid = softplus_and_sigmoid(u)
    eta = upstream * ops.exp(softplus / -lam)
    slope = eta * (sigmoid / lam)
    return slope * kappa, _sum_to(slope * x, kappa), _sum_to(eta * _lambda_slope(u, lam, softplus, sigmoid), lam)


def _aglu_gradient(
    upstream: Tensor, x: Tensor, kappa: Tensor, lam: Tensor, lambda_slope: Callable[..., Tensor] = _lambda_slope
) -> tuple[Tensor, Tensor, Tensor]:
    u = ops.log(lam) - kappa * x
    softplus, sigmoid = softplus_and_sigmoid(u)
    eta = upstream * ops.exp(softplus / -lam)
    value = eta * x
    slope = value * (sigmoid / lam)
    lambda_slope = lambda_slope(u, lam, softplus, sigmoid)
    return eta + slope * kappa, _sum_to(slope * x, kappa), _sum_to(value * lambda_slope, lam)


def _paper_aglu_gradient(upstream: Tensor, x: Tensor, kappa: Tensor, lam: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    return _aglu_gradient(upstream, x, kappa, lam, _paper_lambda_slope)


def _gumbel_gradient(upstream: Tensor, x: Tensor) -> tuple[Tensor]:
    # exp(-exp(50)) is 0 in every dtype; the bound keeps 0 * inf out of the second derivative.
    x = at_least(x, -50.0)
    return (upstream * ops.exp(-x - ops.exp(-x)),)


def _log1m_gumbel_value(x: Tensor) -> Tensor:
    if is_converting():
        x = at_least(x, -20.0)  # 0 from there on; tf2onnx multiplies what `where` leaves out by 0, also an infinity
    v = ops.exp(-x)
    small = _GUMBEL_SERIES_BELOW_FLOAT64 if is_float64(x) else _GUMBEL_SERIES_BELOW
    middle = ops.log(-expm1(-at_most(at_least(v, small), 0.7)))
    high = -x - v / 2 + v * v / 24
    if is_float64(x):
        high = high - v * v * v * v / 2880
    low = log1p(-ops.exp(-at_least(v, 0.7)))
    return ops.where(v < small, high, ops.where(v > 0.7, low, middle))


def _log1m_gumbel_gradient(upstream: Tensor, x: Tensor) -> tuple[Tensor]:
    # -v / (exp(v) - 1), which is below 1e-32 from v = 80 on and -1 + v/2 - v^2/12 for a small v.
    v = ops.exp(-at_least(x, -float(np.log(80.0))))
    small = _GUMBEL_SLOPE_SERIES_BELOW_FLOAT64 if is_float64(x) else _GUMBEL_SLOPE_SERIES_BELOW
    exact = v / ops.expm1(at_least(v, small))
    series = 1.0 - v / 2 + v * v / 12
    if is_float64(x):
        series = series - v * v * v * v / 720
    return (-upstream * ops.where(v < small, series, exact),)


_apa = differentiable(_apa_value, _apa_gradient)
_log_apa = differentiable(_log_apa_value, _log_apa_gradient)
_exact_aglu = differentiable(_aglu_value, _aglu_gradient)
_paper_aglu = differentiable(_aglu_value, _paper_aglu_gradient)
_gumbel = differentiable(lambda x: ops.exp(-ops.exp(-x)), _gumbel_gradient)
_log1m_gumbel = differentiable(_log1m_gumbel_value, _log1m_gumbel_gradient)


# ---------------------------------------------------------------------------------------------------------------
# The way in: dtypes, broadcasting, symbolic tensors.


def _is_symbolic(*inputs: TensorLike) -> bool:
    return any(isinstance(value, keras.KerasTensor) for value in inputs)


def _read(x: TensorLike, *parameters: TensorLike) -> tuple[Tensor, Sequence[Tensor], str]:
    """`x` in the full shape and the parameters, all float32 or float64, and the dtype of the result."""
    x, result_dtype = _read_x(x, parameters)
    dtype = "float64" if result_dtype == "float64" else "float32"
    # A list from here on, which was the tuple of what is given.
    parameters = [_read_parameter(value, dtype) for value in parameters]  # type: ignore[assignment]
    return _broadcast_to_parameters(ops.cast(x, dtype), parameters), parameters, result_dtype


def _read_x(x: TensorLike, parameters: Sequence[TensorLike]) -> tuple[Tensor, str]:
    """`x` as a floating-point tensor, and its dtype, which the result has."""
    dtype = None
    if isinstance(x, np.generic):
        # A float64 of NumPy is a Python number as well, of which PyTorch would make a float32.
        x = np.asarray(x)
    elif isinstance(x, numbers.Real):
        # A Python number has no dtype of its own: kappa and lambda say what is computed in.
        dtypes = (keras.backend.standardize_dtype(v.dtype) for v in parameters if hasattr(v, "dtype"))
        dtype = next(filter(keras.backend.is_float_dtype, dtypes), keras.config.floatx())
    x = ops.convert_to_tensor(x, dtype=dtype)
    dtype = keras.backend.standardize_dtype(x.dtype)
    if not keras.backend.is_float_dtype(dtype):
        dtype = keras.config.floatx()
        x = ops.cast(x, dtype)
    return x, dtype


def _read_parameter(value: TensorLike, dtype: str) -> Tensor:
    if isinstance(value, keras.Variable) or ops.is_tensor(value):
        return ops.cast(ops.convert_to_tensor(value), dtype)
    # Straight to the dtype: a number that becomes float32 first is not the same float64.
    return ops.convert_to_tensor(value, dtype=dtype)


def _broadcast_to_parameters(x: Tensor, parameters: Sequence[Tensor]) -> Tensor:
    """Give `x` the full broadcast shape, so that only parameters' gradients have to be reduced."""
    for parameter in parameters:
        shape = tuple(parameter.shape)
        own = (1,) * (len(shape) - len(x.shape)) + tuple(x.shape)
        own = own[len(own) - len(shape) :]
        if len(shape) > len(x.shape) or any(a != 1 and a != b for a, b in zip(shape, own, strict=True)):
            x = x + ops.zeros_like(parameter)
    return x


# Files name the function.
_BY_NAME = {function.__name__: function for function in (aglu, apa, gumbel, log1m_gumbel, log_apa, log_gumbel)}


@keras.saving.register_keras_serializable(package="keras_apa")
class ElementwiseOperation(keras.Operation):
    """A call of one of this module's functions inside a functional model; made by calling them on a `KerasTensor`."""

    def __init__(self, function: str, options: dict[str, Any] | None = None, name: str | None = None) -> None:
        super().__init__(name=name)
        self.function = function
        self.options = dict(options or {})

    def call(self, *inputs: TensorLike) -> Tensor:
        return _BY_NAME[self.function](*inputs, **self.options)

    def compute_output_spec(self, x: TensorLike, *parameters: TensorLike) -> keras.KerasTensor:
        if isinstance(x, keras.KerasTensor):
            spec, dtype = x, keras.backend.standardize_dtype(x.dtype)
            if not keras.backend.is_float_dtype(dtype):
                dtype = keras.config.floatx()
        else:
            spec, dtype = _read_x(x, parameters)
        shape = keras.KerasTensor(spec.shape)
        for parameter in parameters:
            size = parameter.shape if hasattr(parameter, "shape") else np.shape(parameter)
            shape = ops.add(shape, keras.KerasTensor(size))
        return keras.KerasTensor(shape.shape, dtype=dtype)

    def get_config(self) -> dict[str, Any]:
        return {"function": self.function, "options": self.options, "name": self.name}
