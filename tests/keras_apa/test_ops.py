"""The activations against float64 references, at extremes, through compilation and second derivatives."""

import functools
import math

import keras
import numpy as np
import pytest
from backends import EXAMPLES
from gradients import value_and_gradient
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hypothesis_arrays
from reference import load

from keras_apa import ops

BACKEND = keras.backend.backend()
ARRAYS = load("activations.npz")
Z, LAMBDAS, KAPPAS = ARRAYS["z"], ARRAYS["lambda"], ARRAYS["kappa"]

# parity/README.md table B1, by lambda: largest errors of the authors' float32 forward over the same grid.
APA_ABSOLUTE = [2.4e-07, 1.3e-07, 9.7e-08, 6.0e-08, 4.9e-08, 5.0e-08, 7.7e-08]
APA_RELATIVE = [2.5e-05, 1.4e-05, 1.0e-05, 6.7e-06, 3.8e-06, 4.6e-06, 1.5e-06]
AGLU_ABSOLUTE = [3.0e-06, 3.0e-06, 3.0e-06, 3.0e-06, 3.0e-06, 2.9e-06, 2.9e-06]
GRADIENT_TOLERANCE = 3e-5
PAPER_AGLU = functools.partial(ops.aglu, lambda_gradient="paper")


def elementwise(function, kappa, lam):
    """Value and gradients at every z, by giving each z its own pair of parameters."""
    full = np.ones_like(Z)
    return value_and_gradient(function, Z, full * kappa, full * lam)


GRID = pytest.mark.parametrize("i", range(len(LAMBDAS)), ids=[f"lambda={v:g}" for v in LAMBDAS])


@GRID
def test_apa_equals_float64_reference(i):
    for j, kappa in enumerate(KAPPAS):
        value, gradients = elementwise(ops.apa, kappa, LAMBDAS[i])
        exact = ARRAYS["exact_apa"][i, j]
        assert np.abs(value - exact).max() <= 20 * APA_ABSOLUTE[i]
        seen = exact > 1e-30
        assert (np.abs(value - exact)[seen] / exact[seen]).max() <= 20 * APA_RELATIVE[i]
        for gradient, name in zip(gradients, ("dz", "dkappa", "dlambda"), strict=True):
            exact = ARRAYS[f"exact_apa_{name}"][i, j]
            assert np.abs(gradient - exact).max() <= GRADIENT_TOLERANCE * np.abs(exact).max(), (name, kappa)


@GRID
@pytest.mark.smoke
def test_aglu_equals_float64_reference(i):
    for j, kappa in enumerate(KAPPAS):
        value, gradients = elementwise(ops.aglu, kappa, LAMBDAS[i])
        assert np.abs(value - ARRAYS["exact_aglu"][i, j]).max() <= 20 * AGLU_ABSOLUTE[i]
        for gradient, name in zip(gradients, ("dz", "dkappa", "dlambda"), strict=True):
            exact = ARRAYS[f"exact_aglu_{name}"][i, j]
            assert np.abs(gradient - exact).max() <= GRADIENT_TOLERANCE * np.abs(exact).max(), (name, kappa)


@GRID
def test_paper_gradient_equals_authors_backward(i):
    paper = functools.partial(ops.aglu, lambda_gradient="paper")
    for j, kappa in enumerate(KAPPAS):
        _, gradients = elementwise(paper, kappa, LAMBDAS[i])
        for gradient, name in zip(gradients, ("dz", "dkappa", "dlambda"), strict=True):
            authors = ARRAYS[f"aglu_{name}_custom"][i, j]
            assert np.abs(gradient - authors).max() <= GRADIENT_TOLERANCE * np.abs(authors).max(), (name, kappa)


def test_log_apa_equals_logarithm_of_reference():
    for i, lam in enumerate(LAMBDAS):
        for j, kappa in enumerate(KAPPAS):
            value, gradients = elementwise(ops.log_apa, kappa, lam)
            eta = ARRAYS["exact_apa"][i, j]
            seen = eta > 1e-30
            relative = 20 * APA_RELATIVE[i]
            assert np.abs(value - np.log(np.where(seen, eta, 1)))[seen].max() <= relative
            for gradient, name in zip(gradients, ("dz", "dkappa", "dlambda"), strict=True):
                exact = ARRAYS[f"exact_apa_{name}"][i, j][seen] / eta[seen]
                assert np.abs(gradient[seen] - exact).max() <= GRADIENT_TOLERANCE * np.abs(exact).max(), name


@pytest.mark.parametrize("name", ["apa", "aglu"])
def test_gradients_are_summed_to_parameter_shape(name):
    function = getattr(ops, name)
    prefix = f"chan_{name}"
    x, kappa, lam = (ARRAYS[f"{prefix}_{k}"] for k in ("x", "kappa", "lambda"))
    upstream = np.sin(np.arange(x.size, dtype="float32")).reshape(x.shape)

    def weighted(x, kappa, lam):
        return function(x, kappa, lam) * keras.ops.convert_to_tensor(upstream)

    value, (dx, dkappa, dlam) = value_and_gradient(weighted, x, kappa, lam)
    np.testing.assert_allclose(value, ARRAYS[f"{prefix}_y"] * upstream, rtol=1e-5, atol=1e-6)
    for ours, key in ((dx, "dx"), (dkappa, "dkappa")):
        reference = ARRAYS[f"{prefix}_{key}"]
        assert ours.shape == reference.shape
        assert np.abs(ours - reference).max() <= GRADIENT_TOLERANCE * np.abs(reference).max()
    # The recorded AGLU array is the authors' custom backward; the exact one is checked against the scalar formula.
    if name == "apa":
        reference = ARRAYS[f"{prefix}_dlambda"]
    else:
        reference = np.sum(exact_aglu_dlambda(x, kappa, lam) * upstream, axis=(0, 2, 3), keepdims=True)
        function = functools.partial(ops.aglu, lambda_gradient="paper")
        _, (_, _, custom) = value_and_gradient(weighted, x, kappa, lam)
        authors = ARRAYS[f"{prefix}_dlambda"]
        assert np.abs(custom - authors).max() <= GRADIENT_TOLERANCE * np.abs(authors).max()
    assert dlam.shape == lam.shape
    assert np.abs(dlam - reference).max() <= GRADIENT_TOLERANCE * np.abs(reference).max()


def exact_aglu_dlambda(x, kappa, lam):
    """d AGLU / d lambda in float64, the formula of the ops docstring."""
    x, kappa, lam = (np.asarray(v, "float64") for v in (x, kappa, lam))
    w = lam * np.exp(-kappa * x)
    return x * (1 + w) ** (-1 / lam) / lam**2 * (np.log1p(w) - w / (1 + w))


def test_exact_and_paper_lambda_gradient_have_opposite_signs():
    # The numbers of the documentation: z = 1, kappa = 1, lambda = 0.5.
    _, (_, _, exact) = value_and_gradient(ops.aglu, np.float32([1]), np.float32([1]), np.float32([0.5]))
    paper = functools.partial(ops.aglu, lambda_gradient="paper")
    _, (_, _, wrong) = value_and_gradient(paper, np.float32([1]), np.float32([1]), np.float32([0.5]))
    assert exact[0] == pytest.approx(0.0384821, rel=1e-5)
    assert wrong[0] == pytest.approx(-0.44335, rel=1e-5)


@pytest.mark.parametrize("shape", [(), (1,), (5,), (3, 1), (2, 1, 1), (2, 3, 5), (4, 2, 3, 5)])
def test_parameters_of_any_broadcastable_shape(shape):
    rng = np.random.default_rng(3)
    x = rng.standard_normal((2, 3, 5)).astype("float32")
    kappa = rng.uniform(0.5, 1.5, shape).astype("float32")
    lam = rng.uniform(0.2, 1.5, shape).astype("float32")
    value, (dx, dkappa, dlam) = value_and_gradient(ops.aglu, x, kappa, lam)
    full = np.broadcast_shapes(x.shape, shape)
    same, (ex, ekappa, elam) = value_and_gradient(
        ops.aglu, *(np.ascontiguousarray(np.broadcast_to(v, full)) for v in (x, kappa, lam))
    )
    np.testing.assert_allclose(value, same, rtol=1e-6, atol=1e-7)
    for ours, exact, target in ((dx, ex, x), (dkappa, ekappa, kappa), (dlam, elam, lam)):
        assert ours.shape == target.shape
        axes = tuple(range(len(full) - target.ndim))
        exact = exact.sum(axes)
        exact = exact.sum(tuple(i for i, n in enumerate(target.shape) if n == 1), keepdims=True)
        np.testing.assert_allclose(ours, exact.reshape(target.shape), rtol=2e-5, atol=1e-6)


SPECIAL_X = np.linspace(-6, 6, 97).astype("float32")


def sigmoid(x):
    return 1 / (1 + np.exp(-np.float64(x)))


@pytest.mark.parametrize(
    ("function", "kappa", "lam", "expected", "tolerance"),
    [
        (ops.apa, 1.0, 1.0, sigmoid(SPECIAL_X), 1e-6),
        (ops.apa, 1.0, 1e-4, np.exp(-np.exp(-np.float64(SPECIAL_X))), 3e-5),  # lambda -> 0: Gumbel
        (ops.aglu, 1.0, 1.0, SPECIAL_X * sigmoid(SPECIAL_X), 1e-6),  # SiLU
        (
            ops.aglu,
            1.702,
            1.0,
            SPECIAL_X * 0.5 * (1 + np.vectorize(math.erf)(np.float64(SPECIAL_X) / 2**0.5)),
            0.0204,  # the known error of x * sigmoid(1.702 x) as an approximation of GELU
        ),
        (ops.aglu, 100.0, 1.0, np.maximum(SPECIAL_X, 0), 3e-3),  # kappa -> infinity: ReLU
        (ops.aglu, 1.0, 1e3, SPECIAL_X, 8e-2),  # lambda -> infinity: identity; 6 * (1 - 1000^-1e-3 e^-6e-3)
    ],
    ids=["sigmoid", "gumbel limit", "silu", "gelu", "relu limit", "identity limit"],
)
@pytest.mark.smoke
def test_special_cases(function, kappa, lam, expected, tolerance):
    value = keras.ops.convert_to_numpy(function(SPECIAL_X, kappa, lam))
    assert np.abs(value - expected).max() <= tolerance


@pytest.mark.parametrize("name", ["apa", "aglu"])
def test_value_and_dz_at_and_below_the_clamp_equal_the_authors(name):
    function = getattr(ops, name)
    for index, lam in enumerate(ARRAYS["edge_lambda"]):
        value, (dz, _, _) = value_and_gradient(function, ARRAYS["edge_z"], np.float32(1), np.float32(lam))
        np.testing.assert_allclose(value, ARRAYS[f"edge_{name}_fwd"][index], rtol=1e-4, atol=1e-6)
        np.testing.assert_allclose(dz, ARRAYS[f"edge_{name}_dz"][index], rtol=1e-4, atol=2e-6)


@pytest.mark.parametrize(("function", "clamp"), [(ops.apa, 1e-4), (ops.aglu, 0.0)])
def test_gradient_below_clamp_points_back_up(function, clamp):
    z = np.linspace(0.5, 3, 7).astype("float32")
    for sign in (1, -1):

        def signed(x, kappa, lam, sign=sign):
            return sign * function(x, kappa, lam)

        _, (_, _, at_clamp) = value_and_gradient(signed, z, np.float32(1), np.float32(clamp))
        _, (_, _, below) = value_and_gradient(signed, z, np.float32(1), np.float32(clamp - 0.5))
        assert at_clamp != 0
        assert below == pytest.approx(min(float(at_clamp), 0.0), rel=1e-5)


@pytest.mark.smoke
def test_paper_lambda_gradient_is_the_authors_around_the_clamp():
    """None at and below 0, where Eq. 8 has a factor 1e8; Eq. 8 above, however small lambda is."""
    for lam, authors in zip(ARRAYS["edge_lambda"], ARRAYS["edge_aglu_sum_dlambda"], strict=True):
        _, (_, _, ours) = value_and_gradient(PAPER_AGLU, ARRAYS["edge_z"], np.float32(1), np.float32(lam))
        if lam <= 0:
            assert ours == authors == 0, lam
        else:
            assert ours == pytest.approx(authors, rel=GRADIENT_TOLERANCE), lam


def test_paper_lambda_gradient_is_zero_below_the_clamp_whatever_arrives():
    # Each pair has its own row, so no sum hides a sign; the last two rows overflow to infinity and NaN above the clamp.
    x = np.float32([[-30.0, 3.0], [1.0, -1.0], [1e4, -1e4], [np.inf, 1.0], [np.nan, 1.0]])
    lam = np.float32([[-1e3], [-1e-3], [-1e-30], [0.0], [-0.5]])
    for sign in (1e30, -1e30):
        _, gradients = value_and_gradient(
            lambda x, k, lam, sign=sign: PAPER_AGLU(x, k, lam) * sign, x, np.float32(1), lam
        )
        np.testing.assert_array_equal(gradients[2], np.zeros_like(lam))


EXTREME_X = np.float32([-1e4, -1e3, -100, -10, -1, -1e-3, 0, 1e-3, 1, 10, 100, 1e3, 1e4])
EXTREME_LAMBDA = [-1e3, -1, -1e-6, 0, 1e-8, 1e-4, 1e-2, 1, 30, 1e3]
EXTREME_KAPPA = [-100, -1, -1e-3, 0, 1e-3, 1, 100]


@pytest.mark.parametrize("dtype", ["float32", "float16", "bfloat16"])
@pytest.mark.parametrize("name", ["apa", "log_apa", "aglu", "aglu_paper"])
def test_extremes_are_finite(name, dtype):
    """Never NaN, and finite wherever the float64 value fits the dtype, which `x` and the parameters have."""
    function = PAPER_AGLU if name == "aglu_paper" else getattr(ops, name)
    largest = {"float32": 3.4e38, "float16": 65504.0, "bfloat16": 3.3e38}[dtype]
    lams, kappas = (rounded(v, dtype).reshape(-1) for v in np.meshgrid(EXTREME_LAMBDA, EXTREME_KAPPA))
    # One parameter pair a row; x along the row, so the gradients are summed over the whole range of x.
    x, kappas, lams = EXTREME_X[None, :].repeat(len(lams), 0), kappas[:, None], lams[:, None]

    def cast(*inputs):
        # The gradients pass through this cast of the inputs, and so are rounded to the dtype.
        inputs = [keras.ops.cast(each, dtype) for each in inputs]
        return keras.ops.cast(function(*inputs), "float32")

    value, gradients = value_and_gradient(cast, x, kappas, lams)
    exact = exact_extremes(name, np.float64(rounded(x, dtype)), np.float64(kappas), np.float64(lams))
    for ours, reference in zip((value, *gradients), exact, strict=True):
        assert not np.isnan(ours).any()
        # `x` and `-x` cancel for kappa = 0: what is left then of terms of 1e12 is float32 rounding.
        terms = np.abs(reference).sum(-1, keepdims=True) if ours.shape[-1] == 1 else 0 * reference
        reference = reference.sum(-1, keepdims=True) if ours.shape[-1] == 1 else reference
        fits = np.abs(reference) + len(EXTREME_X) * 2.0**-24 * terms < largest
        assert np.isfinite(ours[fits]).all()
        assert fits.mean() > 0.3  # sums over x leave float16 for about half of these points, nearly none float32


def rounded(values, dtype):
    return keras.ops.convert_to_numpy(keras.ops.cast(keras.ops.cast(np.float32(values), dtype), "float32"))


def exact_extremes(name, x, kappa, lam):
    """Value, dx, and the terms along a row of dkappa and dlambda in float64, every factor in logarithms."""
    lam = np.maximum(lam, 0) + 1e-8 if "aglu" in name else np.maximum(lam, 1e-4)
    u = np.log(lam) - kappa * x
    log_eta = -np.logaddexp(u, 0) / lam
    sigma = np.exp(-np.logaddexp(-u, 0))
    w = np.exp(np.minimum(u, -6))
    series = (w / lam) ** 2 * (1 / 2 - 2 * w / 3 + 3 * w * w / 4)
    slope = np.where(u < -6, series, (np.logaddexp(u, 0) - sigma) / lam**2)
    if name == "aglu_paper":
        slope = -sigma / lam**2
    aglu = x * np.exp(log_eta)
    weight = {"apa": np.exp(log_eta), "aglu": aglu, "aglu_paper": aglu, "log_apa": np.ones_like(u)}[name]
    value = log_eta if name == "log_apa" else weight
    dx = weight * kappa * sigma / lam + (np.exp(log_eta) if "aglu" in name else 0)
    return value, dx, weight * x * sigma / lam, weight * slope


@settings(max_examples=EXAMPLES, deadline=None)
@given(
    x=st.floats(-1e4, 1e4, width=32),
    kappa=st.floats(-100, 100, width=32),
    lam=st.floats(-1e3, 1e3, width=32),
)
def test_random_extremes_are_never_nan(x, kappa, lam):
    for function in (ops.apa, ops.aglu, ops.log_apa):
        value, gradients = value_and_gradient(function, np.float32([x]), np.float32(kappa), np.float32(lam))
        assert np.isfinite(value).all()
        assert all(not np.isnan(g).any() for g in gradients)


@settings(max_examples=EXAMPLES, deadline=None)
@given(
    shape=hypothesis_arrays.array_shapes(min_dims=0, max_dims=4, max_side=4),
    dtype=st.sampled_from(["float16", "bfloat16", "float32"]),
    seed=st.integers(0, 1000),
)
def test_kappa_and_lambda_of_one_are_silu_and_sigmoid(shape, dtype, seed):
    x = np.random.default_rng(seed).normal(0, 4, shape).astype("float32")
    x = keras.ops.cast(keras.ops.convert_to_tensor(x), dtype)
    wide = keras.ops.cast(x, "float32")
    for function, named in ((ops.aglu, keras.ops.silu), (ops.apa, keras.ops.sigmoid)):
        value = function(x, 1.0, 1.0)
        assert tuple(value.shape) == shape and keras.backend.standardize_dtype(value.dtype) == dtype
        exact = keras.ops.convert_to_numpy(named(wide))
        rounding = {"float16": 2**-11, "bfloat16": 2**-8, "float32": 4e-6}[dtype]
        ours = keras.ops.convert_to_numpy(keras.ops.cast(value, "float32"))
        np.testing.assert_allclose(ours, exact, rtol=rounding + 4e-6, atol=1e-7)


@pytest.mark.parametrize("name", ["gumbel", "log_gumbel", "log1m_gumbel"])
def test_gumbel_functions_equal_float64(name):
    x = np.linspace(-6, 80, 345).astype("float32")
    value, (gradient,) = value_and_gradient(getattr(ops, name), x)
    v = np.exp(-np.float64(x))
    log1m = np.where(v < 0.5, -np.float64(x) + np.log(-np.expm1(-v) / v), np.log1p(-np.exp(-np.maximum(v, 0.5))))
    exact = {"gumbel": np.exp(-v), "log_gumbel": -v, "log1m_gumbel": log1m}[name]
    slope = {"gumbel": np.exp(-x - v), "log_gumbel": v, "log1m_gumbel": -v / np.expm1(v)}[name]
    # float32 rounding of exp(-x) is about |x| * 6e-8 relative, and exp(-exp(-x)) multiplies it by exp(-x) (403 at -6).
    np.testing.assert_allclose(value, exact, rtol=5e-6, atol=1e-30)
    tolerance = 2e-4 if name == "gumbel" else 1e-5
    np.testing.assert_allclose(gradient, slope, rtol=tolerance, atol=1e-30)


@pytest.mark.parametrize("dtype", ["float32", "float16", "bfloat16"])
def test_gumbel_extremes(dtype):
    x = EXTREME_X
    for name in ("gumbel", "log1m_gumbel", "log_gumbel"):

        def cast(x, name=name):
            return keras.ops.cast(getattr(ops, name)(keras.ops.cast(x, dtype)), "float32")

        value, (gradient,) = value_and_gradient(cast, x)
        seen = x > -10 if name == "log_gumbel" else np.full(x.shape, True)  # -exp(100) is not representable
        assert np.isfinite(value[seen]).all()
        assert np.isfinite(gradient[seen]).all()


def compile_function(function):
    if BACKEND == "jax":
        import jax

        return jax.jit(function)
    if BACKEND == "tensorflow":
        import tensorflow as tf

        return tf.function(function, jit_compile=True)
    import torch

    return torch.compile(function)


@pytest.mark.parametrize("name", [pytest.param("aglu", marks=pytest.mark.slow) if BACKEND == "torch" else "aglu"])
def test_compiled_value_and_gradient_equal_eager(name):
    rng = np.random.default_rng(0)
    x = rng.standard_normal((4, 6)).astype("float32")
    kappa, lam = np.float32(1.1), rng.uniform(0.2, 1, 6).astype("float32")
    function = getattr(ops, name)
    eager = value_and_gradient(function, x, kappa, lam)
    compiled = value_and_gradient(compile_function(function), x, kappa, lam)
    np.testing.assert_allclose(compiled[0], eager[0], rtol=1e-5, atol=1e-6)
    for ours, expected in zip(compiled[1], eager[1], strict=True):
        np.testing.assert_allclose(ours, expected, rtol=1e-4, atol=1e-5)


def test_symbolic_call_builds_a_model_that_saves(tmp_path):
    inputs = keras.Input((5,))
    outputs = ops.aglu(inputs, 1.2, np.float32([0.1, 0.2, 0.3, 0.4, 0.5]), lambda_gradient="paper")
    outputs = ops.gumbel(ops.apa(outputs, 1.0, 0.5))
    assert outputs.shape == (None, 5)
    model = keras.Model(inputs, outputs)
    model.save(tmp_path / "model.keras")
    x = np.random.default_rng(0).standard_normal((3, 5)).astype("float32")
    loaded = keras.models.load_model(tmp_path / "model.keras", safe_mode=True)
    np.testing.assert_array_equal(model.predict(x, verbose=0), loaded.predict(x, verbose=0))


def test_symbolic_call_broadcasts_and_keeps_the_dtype():
    x = keras.KerasTensor((None, 1, 5), dtype="float16")
    assert ops.apa(x, np.ones((4, 5), "float32"), 1.0).shape == (None, 4, 5)
    assert ops.apa(x, 1.0, 1.0).dtype == "float16"


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_half_precision_is_computed_in_float32(dtype):
    x = keras.ops.cast(keras.ops.linspace(-8.0, 8.0, 65), dtype)
    value = ops.aglu(x, 1.0, 0.3)
    assert keras.backend.standardize_dtype(value.dtype) == dtype
    exact = ops.aglu(keras.ops.cast(x, "float32"), 1.0, 0.3)
    rounded = keras.ops.cast(keras.ops.cast(exact, dtype), "float32")
    np.testing.assert_array_equal(
        keras.ops.convert_to_numpy(keras.ops.cast(value, "float32")), keras.ops.convert_to_numpy(rounded)
    )


def test_integer_input_becomes_floatx():
    value = ops.aglu(np.arange(3), 1.0, 1.0)
    assert keras.backend.standardize_dtype(value.dtype) == "float32"


def second_derivatives(function, x):
    """d2/dx2 of the sum of `function`, by differentiating twice."""
    if BACKEND == "jax":
        import jax

        return np.asarray(jax.grad(lambda x: jax.grad(lambda x: function(x).sum())(x).sum())(x))
    if BACKEND == "tensorflow":
        import tensorflow as tf

        x = tf.convert_to_tensor(x)
        with tf.GradientTape() as outer:
            outer.watch(x)
            with tf.GradientTape() as inner:
                inner.watch(x)
                y = tf.reduce_sum(function(x))
            first = inner.gradient(y, x)
        return outer.gradient(first, x).numpy()
    import torch

    x = torch.tensor(x, requires_grad=True)
    (first,) = torch.autograd.grad(function(x).sum(), x, create_graph=True)
    return torch.autograd.grad(first.sum(), x)[0].numpy()


@pytest.mark.parametrize("name", ["aglu", "apa", "log_apa", "gumbel", "log1m_gumbel"])
def test_second_derivative(name):
    x = np.float32([-3, -1, -0.2, 0, 0.4, 1, 2.5])  # u = 0 exactly at x = 0 for lambda = 1
    args = () if "gumbel" in name else (1.0, 1.0)
    function = getattr(ops, name)
    ours = second_derivatives(lambda x: function(x, *args), x)
    step = np.float32(1e-2)
    _, (above,) = value_and_gradient(lambda x: function(x, *args), x + step)
    _, (below,) = value_and_gradient(lambda x: function(x, *args), x - step)
    expected = (above - below) / ((x + step) - (x - step))
    # central difference: h^2/6 times the fourth derivative, plus float32 noise 1e-7 / h
    np.testing.assert_allclose(ours, expected, atol=2e-3)


def test_vmap_over_parameters():
    x = np.random.default_rng(0).standard_normal((3, 5)).astype("float32")
    kappa, lam = np.float32([0.5, 1, 2]), np.float32([0.1, 1, 3])
    expected, (_, dkappa, _) = value_and_gradient(ops.aglu, x, kappa[:, None], lam[:, None])
    if BACKEND == "jax":
        import jax

        value = jax.vmap(ops.aglu)(x, kappa, lam)
        slopes = jax.vmap(jax.grad(lambda k, x, lam: ops.aglu(x, k, lam).sum()))(kappa, x, lam)
    elif BACKEND == "tensorflow":
        import tensorflow as tf

        def value_and_slope(inputs):
            x, kappa, lam = inputs
            with tf.GradientTape() as tape:
                tape.watch(kappa)
                value = ops.aglu(x, kappa, lam)
            return value, tape.gradient(value, kappa)

        value, slopes = tf.vectorized_map(value_and_slope, tuple(map(tf.constant, (x, kappa, lam))))
    else:
        import torch

        x, kappa, lam = (torch.tensor(v) for v in (x, kappa, lam))
        value = torch.func.vmap(ops.aglu)(x, kappa, lam)
        slopes = torch.func.vmap(torch.func.grad(lambda k, x, lam: ops.aglu(x, k, lam).sum()))(kappa, x, lam)
    np.testing.assert_allclose(np.asarray(value), expected, rtol=1e-6)
    np.testing.assert_allclose(np.asarray(slopes), dkappa[:, 0], rtol=1e-5)


def test_unknown_lambda_gradient_is_an_error():
    with pytest.raises(ValueError, match="lambda_gradient must be"):
        ops.aglu(1.0, 1.0, 1.0, lambda_gradient="eq8")
