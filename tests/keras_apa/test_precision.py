"""float64 inputs give float64 results of float64 accuracy, on every backend."""

import contextlib
import functools

import catalog
import keras
import numpy as np
import pytest
from gradients import value_and_gradient

from keras_apa import ops
from keras_apa.losses import BalancedSoftmaxCrossentropy

BACKEND = keras.backend.backend()
X = np.linspace(-8, 30, 77)
# Another precision than float64, so that the reference's own rounding does not count.
WIDE = X.astype(np.longdouble)


@pytest.fixture(autouse=True)
def _float64():
    """JAX has float64 only where it is asked for."""
    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy("float64")
    if BACKEND == "jax":
        import jax

        context = jax.enable_x64(True)
    else:
        context = contextlib.nullcontext()
    with context:
        yield
    keras.config.set_dtype_policy(before)


def check(values, exact, tolerance=1e-12):
    values = np.asarray(values)
    assert values.dtype == np.float64
    assert (np.abs(values - exact) <= tolerance * np.abs(exact)).all()


def exact_apa(name, lam):
    """Value and the gradients of kappa and lambda at kappa = 1.1, in extended precision."""
    kappa = np.longdouble(1.1)
    lam = np.longdouble(lam) + (np.longdouble(1e-8) if name == "aglu" else 0)
    w = lam * np.exp(-kappa * WIDE)
    log_eta, share = -np.log1p(w) / lam, w / (1 + w)
    series = sum((-1) ** n * (1 - np.longdouble(1) / n) * w**n for n in range(2, 40))
    slope = np.where(w < 0.1, series, np.log1p(w) - share) / lam**2
    weight = {"log_apa": 1, "apa": np.exp(log_eta), "aglu": WIDE * np.exp(log_eta)}[name]
    return (log_eta if name == "log_apa" else weight), weight * WIDE * share / lam, weight * slope


@pytest.mark.parametrize("name", ["apa", "log_apa", "aglu"])
@pytest.mark.parametrize("lam", [0.01, 5.0])
def test_adaptive_activations_and_their_gradients(name, lam):
    full = np.ones_like(X)
    value, (_, dkappa, dlam) = value_and_gradient(getattr(ops, name), X, 1.1 * full, lam * full)
    for ours, exact in zip((value, dkappa, dlam), exact_apa(name, lam), strict=True):
        check(ours, exact)


@pytest.mark.parametrize("kind", ["numbers", "numpy numbers", "lists", "tensors", "variables"])
def test_parameters_of_any_kind_keep_their_digits(kind):
    make = {
        "numbers": float,
        "numpy numbers": np.float64,
        "lists": lambda number: [number],
        "tensors": lambda number: keras.ops.convert_to_tensor(number, dtype="float64"),
        "variables": lambda number: keras.Variable(np.float64(number), dtype="float64"),
    }[kind]
    for x in (X, keras.ops.convert_to_tensor(X, dtype="float64")):
        value = ops.apa(x, make(1.1), make(0.3))
        check(keras.ops.convert_to_numpy(value), exact_apa("apa", 0.3)[0])


def test_a_number_takes_the_dtype_of_the_tensors_beside_it():
    kappa, lam = (keras.ops.convert_to_tensor(v, dtype="float64") for v in (1.1, 0.3))
    exact = (0.3 * np.exp(-1.1 * 0.7) + 1) ** (-1 / 0.3)
    for parameters in ((kappa, lam), (1.1, lam), (kappa, 0.3)):
        check(keras.ops.convert_to_numpy(ops.apa(0.7, *parameters)), exact)
    check(keras.ops.convert_to_numpy(ops.apa(np.float64(0.7), 1.1, 0.3)), exact)
    narrow = keras.ops.convert_to_tensor(0.3, dtype="float16")
    assert keras.backend.standardize_dtype(ops.apa(0.7, 1.0, narrow).dtype) == "float16"
    assert keras.backend.standardize_dtype(ops.apa(0.7, 1.0, 1).dtype) == keras.config.floatx()


@pytest.mark.parametrize("name", ["gumbel", "log_gumbel", "log1m_gumbel"])
def test_gumbel_functions_and_their_gradients(name):
    x = X[X > -3]
    v = np.exp(-x.astype(np.longdouble))
    log1m = np.where(v < 0.5, np.log(-np.expm1(-v)), np.log1p(-np.exp(-v)))
    value, (slope,) = value_and_gradient(getattr(ops, name), x)
    check(value, {"gumbel": np.exp(-v), "log_gumbel": -v, "log1m_gumbel": log1m}[name])
    check(slope, {"gumbel": v * np.exp(-v), "log_gumbel": v, "log1m_gumbel": -v / np.expm1(v)}[name])


def check_smooth(function, x):
    """Third differences over steps of 2e-5 are 1e-14 times the third derivative.

    float32 anywhere inside leaves 1e-8.
    """
    direction = np.random.default_rng(1).standard_normal(x.shape)
    steps = [function(x + step * 2e-5 * direction) for step in (1.5, 0.5, -0.5, -1.5)]
    steps = [np.asarray(keras.ops.convert_to_numpy(step)) for step in steps]
    assert all(step.dtype == np.float64 for step in steps)
    third = steps[0] - 3 * steps[1] + 3 * steps[2] - steps[3]
    assert np.abs(third).max() <= 1e-9 * np.abs(steps[0]).max()


# The attention gates and batch normalisation contain layers of Keras, which are less exact on PyTorch and JAX.
OWN = ("apa", "apa_per_channel", "aglu", "sigmoid", "gumbel", "prior_correction", "pad_shortcut", "padded_max_pooling")
HEADS = ("cosine_dense", "normalized_dense", "normalized_dense_learned", "wrapped_cauchy_dense", "normalized_conv")


@pytest.mark.parametrize("name", [*OWN, *HEADS])
def test_layers(name):
    make, shape = catalog.LAYERS[name]
    layer = make()
    layer.build((None, *shape))
    x = np.random.default_rng(5).standard_normal((2, *shape))
    if name == "wrapped_cauchy_dense":
        x[:, 0] += 5  # away from its pole, where the third derivative is large
    check_smooth(layer, 0.1 * x if name in OWN else x)


def exact_mean(values, weights, valid, reduction):
    weights = valid if weights is None else weights * valid
    count = weights.sum() if reduction == "mean_with_sample_weight" else valid.sum()
    return (values * weights).sum() / count


@pytest.mark.parametrize("reduction", ["sum_over_batch_size", "mean", "mean_with_sample_weight", "sum"])
@pytest.mark.parametrize("weighed", [False, True])
@pytest.mark.parametrize("labels", [[0, 1, 2, 3, 1, 0, 2], [0, -1, 2, 3, -1, 0, 2], [-1] * 7])
def test_every_reduction_of_a_loss(reduction, weighed, labels):
    labels, generator = np.array(labels), np.random.default_rng(3)
    logits, weights = generator.standard_normal((7, 4)), generator.uniform(size=7) if weighed else None
    make = functools.partial(BalancedSoftmaxCrossentropy, [9, 5, 3, 1], dtype="float64")
    values = np.asarray(keras.ops.convert_to_numpy(make(reduction="none")(labels, logits)))
    loss, valid = make(reduction=reduction), labels >= 0
    found = np.asarray(keras.ops.convert_to_numpy(loss(labels, logits, sample_weight=weights)))
    if not valid.any():
        exact = 0.0
    elif reduction == "sum":
        exact = values @ np.where(valid, 1 if weights is None else weights, 0)
    else:
        exact = exact_mean(values, weights, valid, reduction)
    check(found, exact, 1e-14)
    if reduction != "sum":
        half = type(loss).from_config({**loss.get_config(), "dtype": "float32"})(labels, logits, sample_weight=weights)
        assert keras.backend.standardize_dtype(half.dtype) == "float32"
        np.testing.assert_allclose(keras.ops.convert_to_numpy(half), exact, rtol=1e-5)


@pytest.mark.parametrize("labels", [[0, 1, 2], [0, -1, 2]], ids=["all count", "one is ignored"])
@pytest.mark.parametrize("reduction", ["sum_over_batch_size", "mean", "mean_with_sample_weight"])
def test_a_weighed_mean_has_a_gradient(reduction, labels):
    labels, weights = np.array(labels), np.array([1.0, 2.0, 3.0])
    logits = np.random.default_rng(3).standard_normal((3, 4))
    loss = BalancedSoftmaxCrossentropy([9, 5, 3, 1], dtype="float64", reduction=reduction)
    _, (found,) = value_and_gradient(lambda x: loss(labels, x, sample_weight=weights), logits)
    shifted = logits + np.log([9, 5, 3, 1])
    shares = np.exp(shifted) / np.exp(shifted).sum(-1, keepdims=True)
    counts = weights * (labels >= 0)
    count = counts.sum() if reduction == "mean_with_sample_weight" else (labels >= 0).sum()
    check(found, (shares - np.eye(4)[np.maximum(labels, 0)]) * counts[:, None] / count, 1e-13)


def test_reductions_of_pixels_weigh_as_keras_does():
    generator = np.random.default_rng(4)
    logits = generator.standard_normal((2, 3, 4))
    for reduction in ("mean", "mean_with_sample_weight"):
        for shape in (None, (2, 3), (2, 1)):
            weights = shape and generator.uniform(size=shape)
            make = functools.partial(BalancedSoftmaxCrossentropy, [9, 5, 3, 1], reduction=reduction)
            # Keras takes no weights of another shape than the mask.
            ignore, label = (None, 0) if shape == (2, 1) else (-1, -1)
            labels = np.array([[0, label, 2], [3, 1, 1]])
            made = (make(ignore_class=ignore, dtype=dtype)(labels, logits, weights) for dtype in ("float64", "float32"))
            ours, theirs = (float(keras.ops.convert_to_numpy(value)) for value in made)
            assert ours == pytest.approx(theirs, rel=1e-5)


# What a random draw changes from call to call cannot be compared.
DRAWN = ("equalization_softmax", "federated")


@pytest.mark.parametrize("name", [name for name in catalog.LOSSES if name not in DRAWN])
def test_losses(name):
    loss = catalog.LOSSES[name]()
    loss = type(loss).from_config({**loss.get_config(), "dtype": "float64", "reduction": "none"})
    logits = np.random.default_rng(7).standard_normal((6, 4))
    logits[0, 0] = 25.0  # PyTorch's own softplus is the identity from 20 on
    check_smooth(lambda logits: loss(np.array([0, 1, 2, 3, 1, 0]), logits), logits)
