"""APA and AGLU as layers: parameters, start values, options, and life as `activation=`."""

import keras
import numpy as np
import pytest

from keras_apa import layers, no_weight_decay, ops
from keras_apa.layers import AGLU, APA, Gumbel, Sigmoid


def array(x):
    return keras.ops.convert_to_numpy(x)


def starts(kind, name, n=40, **options):
    return np.array([array(getattr(kind(**options), name)) for _ in range(n)])


@pytest.mark.parametrize(
    ("kind", "name", "low", "high"),
    [(APA, "kappa", -1, 0), (APA, "lam", 0, 1), (AGLU, "kappa", 0.8, 1.2), (AGLU, "lam", 0, 1)],
)
def test_start_values_are_uniform_in_the_paper_range(kind, name, low, high):
    values = starts(kind, name)
    assert values.min() >= low and values.max() <= high
    assert np.ptp(values) > 0.6 * (high - low) and len(set(values)) == len(values)


@pytest.mark.parametrize("kind", [APA, AGLU])
def test_weights_are_named_kappa_and_lambda(kind):
    layer = kind()
    assert [w.name for w in layer.weights] == ["kappa", "lambda"]
    assert [tuple(w.shape) for w in layer.weights] == [(), ()]


@pytest.mark.parametrize("axis", [-1, 1])
@pytest.mark.parametrize("kind", [APA, AGLU])
@pytest.mark.smoke
def test_per_channel_has_one_pair_for_each_channel(kind, axis):
    x = np.random.default_rng(0).standard_normal((2, 3, 4, 3)).astype("float32")
    layer = kind(per_channel=True, axis=axis)
    y = array(layer(x))
    assert tuple(layer.kappa.shape) == (3,)
    function = ops.apa if kind is APA else ops.aglu
    for channel in range(3):
        pick = (slice(None), channel) if axis == 1 else (..., channel)
        kappa, lam = array(layer.kappa)[channel], array(layer.lam)[channel]
        np.testing.assert_allclose(y[pick], array(function(x[pick], kappa, lam)), rtol=1e-5, atol=1e-6)


def test_initializers_regularizers_and_constraints_are_used():
    layer = AGLU(
        kappa_initializer="ones",
        lambda_initializer=keras.initializers.Constant(0.25),
        kappa_regularizer=keras.regularizers.L2(0.5),
        lambda_constraint="non_neg",
    )
    assert float(array(layer.kappa)) == 1 and float(array(layer.lam)) == 0.25
    layer(np.ones((1, 1), "float32"))
    assert float(array(sum(layer.losses))) == 0.5
    assert isinstance(layer.lam.constraint, keras.constraints.NonNeg)
    copy = AGLU.from_config(layer.get_config())
    assert isinstance(copy.lam.constraint, keras.constraints.NonNeg)


@pytest.mark.parametrize("activation", [AGLU(), APA(), keras.layers.Activation(AGLU())])
@pytest.mark.smoke
def test_as_activation_of_a_dense_layer_it_trains_and_saves(activation, tmp_path):
    """Keras builds the dense layer without calling its activation; the weights have to exist all the same."""
    model = keras.Sequential([keras.Input((3,)), keras.layers.Dense(4, activation=activation), keras.layers.Dense(1)])
    pairs = [w for w in model.trainable_variables if w.name in ("kappa", "lambda")]
    assert len(pairs) == 2
    before = [array(w) for w in pairs]
    model.compile(keras.optimizers.SGD(0.1), "mse")
    x = np.random.default_rng(0).standard_normal((16, 3)).astype("float32")
    model.fit(x, x.sum(1), epochs=2, verbose=0)
    assert all(not np.array_equal(array(w), b) for w, b in zip(pairs, before, strict=True))
    model.save(tmp_path / "m.keras")
    loaded = keras.models.load_model(tmp_path / "m.keras", safe_mode=True)
    np.testing.assert_array_equal(model.predict(x, verbose=0), loaded.predict(x, verbose=0))


def test_a_layer_as_activation_in_a_builder_that_takes_callables():
    layer = keras.layers.Conv2D(4, 3, activation=AGLU(lambda_gradient="paper"))
    assert keras.layers.Conv2D.from_config(layer.get_config()).activation.lambda_gradient == "paper"


@pytest.mark.parametrize("policy", ["mixed_bfloat16", "mixed_float16"])
@pytest.mark.parametrize("kind", [APA, AGLU])
def test_mixed_precision_keeps_parameters_in_float32(kind, policy):
    layer = kind(dtype=policy, kappa_initializer=keras.initializers.Constant(1.0001))
    x = np.linspace(-3, 3, 13).astype("float32")
    y = layer(x)
    assert keras.backend.standardize_dtype(y.dtype) == policy.removeprefix("mixed_")
    assert layer.kappa.dtype == "float32"
    function = ops.apa if kind is APA else ops.aglu
    half = keras.ops.cast(x, y.dtype)
    exact = array(keras.ops.cast(function(keras.ops.cast(half, "float32"), layer.kappa, layer.lam), "float32"))
    rounding = {"mixed_bfloat16": 2**-8, "mixed_float16": 2**-11}[policy]
    np.testing.assert_allclose(array(keras.ops.cast(y, "float32")), exact, rtol=rounding)


def test_lambda_below_the_clamp_recovers_in_training():
    """A step may throw lambda below zero; a gradient that wants it larger brings it back."""
    x = np.linspace(-2.0, -0.5, 32, dtype="float32")[:, None]
    model = keras.Sequential([keras.Input((1,)), AGLU(lambda_initializer=keras.initializers.Constant(-0.2))])
    model.compile(keras.optimizers.Adam(0.05), "mse")
    target = array(ops.aglu(x, 1.0, 2.0))
    history = model.fit(x, target, batch_size=8, epochs=30, verbose=0).history
    assert float(array(model.layers[0].lam)) > 0.3
    assert history["loss"][-1] < 0.3 * history["loss"][0]


@pytest.mark.parametrize("per_channel", [False, True])
def test_lambda_below_zero_stays_there_in_the_published_training(per_channel):
    """Eq. 8 has a factor 1e8 at the clamp: one step would throw lambda to 1e5 and make AGLU the identity."""
    layer = AGLU(per_channel, lambda_gradient="paper", lambda_initializer=keras.initializers.Constant(-1e-3))
    model = keras.Sequential([keras.Input((8,)), layer])
    model.compile(keras.optimizers.SGD(10.0, momentum=0.9), "mse")
    x = np.random.default_rng(0).normal(0, 3, (64, 8)).astype("float32")
    for target in (np.abs(x), -np.abs(x), 100 * x):
        model.fit(x, target, batch_size=16, verbose=0)
        np.testing.assert_array_equal(array(layer.lam), np.full(layer.lam.shape, np.float32(-1e-3)))


def test_unknown_options_are_clear_errors():
    with pytest.raises(ValueError, match="lambda_gradient must be"):
        AGLU(lambda_gradient="autograd")
    with pytest.raises(ValueError, match="axis must be a whole number; given: "):
        APA(axis="channels")
    with pytest.raises(ValueError, match="known number of channels"):
        APA(per_channel=True).build((None, 3, None))


@pytest.mark.parametrize(("kind", "function"), [(Sigmoid, keras.ops.sigmoid), (Gumbel, ops.gumbel)])
def test_gates_with_temperature_start_at_one_and_scale_their_input(kind, function):
    x = np.linspace(-3, 3, 7).astype("float32")
    layer = kind(learn_temperature=True)
    np.testing.assert_allclose(array(layer(x)), array(function(x)), rtol=1e-6)
    layer.temperature.assign(2.0)
    np.testing.assert_allclose(array(layer(x)), array(function(2 * x)), rtol=1e-6)
    assert kind().weights == []


@pytest.mark.parametrize("scaled", [False, True])
def test_no_weight_decay_exempts_what_it_says(scaled):
    def network():
        return keras.Sequential(
            [keras.Input((4,)), keras.layers.Dense(4), keras.layers.BatchNormalization(), AGLU(), keras.layers.Dense(2)]
        )

    for options, exempt in (
        ({}, {"kappa", "lambda"}),
        ({"norms": True}, {"kappa", "lambda", "gamma", "beta"}),
        ({"norms": True, "biases": True}, {"kappa", "lambda", "gamma", "beta", "bias"}),
    ):
        model = network()
        for variable in model.trainable_variables:
            variable.assign(np.full(variable.shape, 0.5, "float32"))
        optimizer = keras.optimizers.SGD(1.0, weight_decay=0.1)
        wrapped = keras.optimizers.LossScaleOptimizer(optimizer) if scaled else optimizer
        no_weight_decay(wrapped, model, **options)
        zeros = [keras.ops.zeros(v.shape) for v in model.trainable_variables]
        optimizer.apply(zeros, model.trainable_variables)
        decayed = {v.name for v in model.trainable_variables if array(v).flat[0] != 0.5}
        assert decayed == {"kernel", "kappa", "lambda", "gamma", "beta", "bias"} - exempt


def test_a_loaded_model_can_be_told_again(tmp_path):
    model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(4), AGLU()])
    model.compile(keras.optimizers.SGD(1.0, weight_decay=0.1), "mse")
    no_weight_decay(model.optimizer, model)
    x = np.zeros((4, 4), "float32")
    model.fit(x, np.zeros((4, 4), "float32"), verbose=0)
    model.save(tmp_path / "m.keras")
    for again in (True, False):
        loaded = keras.models.load_model(tmp_path / "m.keras")
        if again:
            no_weight_decay(loaded.optimizer, loaded)
        before = float(array(loaded.layers[1].kappa))
        loaded.fit(x, np.zeros((4, 4), "float32"), verbose=0)
        assert (float(array(loaded.layers[1].kappa)) == before) is again


def test_no_weight_decay_needs_a_built_model():
    with pytest.raises(ValueError, match="model must have weights; given: none yet"):
        no_weight_decay(keras.optimizers.SGD(), keras.Sequential([keras.layers.Dense(2)]))


def test_no_weight_decay_keeps_what_was_exempt_before():
    model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(4), AGLU()])
    optimizer = keras.optimizers.AdamW(0.1)
    optimizer.exclude_from_weight_decay(var_names=["bias"])
    no_weight_decay(optimizer, model)
    decayed = [v.name for v in model.trainable_variables if optimizer._use_weight_decay(v)]
    assert decayed == ["kernel"]
    with pytest.raises(ValueError, match="optimizer must be a keras.optimizers.Optimizer"):
        no_weight_decay("sgd", model)


def test_one_pair_a_channel_refuses_other_channels():
    layer = AGLU(per_channel=True)
    layer(keras.ops.ones((2, 8)))
    for shape in ((2, 1), (2, 5), (2, 3, 8)):
        with pytest.raises(ValueError, match="incompatible with the layer"):
            layer(keras.ops.ones(shape))


@pytest.mark.parametrize(
    "make",
    [
        lambda: APA(per_channel="no"),
        lambda: layers.SqueezeExcite(normalize="no"),
        lambda: layers.CosineDense(3, learn_scale=1),
        lambda: layers.UnbiasedBatchNormalization(frozen="no"),
    ],
)
def test_flags_are_true_or_false(make):
    with pytest.raises(ValueError, match="must be True or False"):
        make()
