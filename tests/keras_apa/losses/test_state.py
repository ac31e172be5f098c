"""State of losses under `fit`, compiled, and what saving and loading keep."""

import keras
import numpy as np
import pytest
from keras import ops

from keras_apa.losses import (
    LDAM,
    BalancedSigmoidCrossentropy,
    BalancedSoftmaxCrossentropy,
    ClassBalancedCrossentropy,
    DropLoss,
    EqualizationLoss,
    FederatedLoss,
    GumbelCrossentropy,
    GumbelOptimizedLoss,
    SeesawLoss,
    attach_loss_state,
)

BACKEND = keras.backend.backend()
# Explicit: TensorFlow's "auto" does not compile on a CPU; one torch compilation takes a minute.
COMPILE = {"jit_compile": BACKEND != "torch"}
TRACED = {"jit_compile": BACKEND == "jax"}
# Where the loss in the compiled step is not what is tested; JAX always compiles.
QUICK = {**TRACED, "run_eagerly": BACKEND == "tensorflow"}
COUNTS = [60, 25, 10, 5]
IMAGES = dict(image_counts=COUNTS, num_images=100, frequency_threshold=0.2)
RANDOM = {
    "drop": lambda: DropLoss(**IMAGES, seed=1),
    "gol": lambda: GumbelOptimizedLoss(**IMAGES, seed=1),
    "eql_softmax": lambda: EqualizationLoss(**IMAGES, activation="softmax", gamma=0.5, seed=1),
    "federated": lambda: FederatedLoss([9, 9, 9, 9], 2, seed=1),
}
STATEFUL = {**RANDOM, "seesaw": lambda: SeesawLoss(num_classes=4)}
EVERY = {
    **STATEFUL,
    "balanced_softmax": lambda: BalancedSoftmaxCrossentropy(COUNTS),
    "balanced_sigmoid": lambda: BalancedSigmoidCrossentropy(COUNTS),
    "gumbel": lambda: GumbelCrossentropy(),
    "eql": lambda: EqualizationLoss(**IMAGES),
    "eql_gumbel": lambda: EqualizationLoss(**IMAGES, activation="gumbel"),
    "seesaw_fixed": lambda: SeesawLoss(class_counts=COUNTS),
    "class_balanced": lambda: ClassBalancedCrossentropy(COUNTS, 0.9),
    "class_balanced_focal": lambda: ClassBalancedCrossentropy(COUNTS, 0.9, "focal"),
    "ldam": lambda: LDAM(COUNTS, scale=5.0),
}
RNG = np.random.default_rng(0)
X = RNG.normal(size=(16, 3)).astype("float32")
Y = np.concatenate([[0, 1, 2, 3], (X @ RNG.normal(size=(3, 4))).argmax(1)[4:]])
# Every kind of batch has background for DropLoss; without it, nothing is drawn.
Y_BACKGROUND = np.where(np.arange(16) % 2 == 0, 4, Y)


def dense(units=4, **options):
    return keras.layers.Dense(units, kernel_initializer=keras.initializers.GlorotUniform(seed=3), **options)


def functional(units=4):
    inputs = keras.Input((3,))
    return keras.Model(inputs, dense(units)(inputs))


def sequential():
    return keras.Sequential([keras.layers.Input((3,)), dense()])


@keras.saving.register_keras_serializable(package="test_state")
class Subclassed(keras.Model):
    def __init__(self, **options):
        super().__init__(**options)
        self.dense = dense()

    def call(self, x):
        return self.dense(x)


def constant_batches(model, loss, steps=4, y=Y):
    """The losses of `steps` steps of `fit` on the same batch, with weights that do not move."""
    seen = []

    class Record(keras.callbacks.Callback):
        def on_train_batch_end(self, batch, logs=None):
            seen.append(float(logs["loss"]) * (batch + 1) - sum(seen))  # logs hold the running mean

    if not model.compiled:
        model.compile(keras.optimizers.SGD(0.0), loss=loss, **QUICK)
    model.fit(
        np.concatenate([X] * steps),
        np.concatenate([y] * steps),
        batch_size=16,
        shuffle=False,
        verbose=0,
        callbacks=[Record()],
    )
    return seen


def with_every_loss(losses):
    """A model with one output for each loss, and targets for it."""
    inputs = keras.Input((3,))
    model = keras.Model(inputs, {name: dense(name=name)(inputs) for name in losses})
    return model, {name: Y_BACKGROUND if isinstance(losses[name], DropLoss) else Y for name in losses}


def test_random_losses_draw_anew_and_seesaw_counts_in_every_step_of_a_compiled_fit():
    losses = {name: make() for name, make in STATEFUL.items()}
    # The classes that are present leave the federated loss nothing to draw.
    model, targets = with_every_loss(losses)
    targets["federated"] = np.zeros(16, int)
    seen = []

    class Record(keras.callbacks.Callback):
        def on_train_batch_end(self, batch, logs=None):
            seen.append({name: float(logs[f"{name}_loss"]) for name in losses})

    attach_loss_state(model, losses)
    model.compile(keras.optimizers.SGD(0.0), loss=losses, **COMPILE)
    steps = 6
    targets = {name: np.concatenate([target] * steps) for name, target in targets.items()}
    model.fit(np.concatenate([X] * steps), targets, batch_size=16, shuffle=False, verbose=0, callbacks=[Record()])
    for name in RANDOM:
        # Same batch, same weights: running means that differ are draws that differ.
        means = [each[name] for each in seen]
        assert max(means) - min(means) > 1e-3 * means[0], (name, means)
    counts = ops.convert_to_numpy(losses["seesaw"].cumulative_counts.value)
    np.testing.assert_array_equal(counts, steps * np.bincount(Y, minlength=4))


@pytest.mark.smoke
def test_an_attached_seesaw_counts_in_training_and_not_in_validation():
    model = keras.Sequential([keras.Input((3,)), dense()])
    loss = attach_loss_state(model, SeesawLoss(num_classes=4))
    model.compile(keras.optimizers.SGD(0.0), loss=loss, **COMPILE)
    model.fit(X, Y, batch_size=16, verbose=0, validation_data=(X, Y))
    expected = np.bincount(Y, minlength=4)
    np.testing.assert_array_equal(ops.convert_to_numpy(loss.cumulative_counts.value), expected)
    model.evaluate(X, Y, verbose=0)
    np.testing.assert_array_equal(ops.convert_to_numpy(loss.cumulative_counts.value), expected)
    model.fit(X, Y, batch_size=16, verbose=0)
    np.testing.assert_array_equal(ops.convert_to_numpy(loss.cumulative_counts.value), 2 * expected)


@pytest.mark.parametrize("make", STATEFUL.values(), ids=STATEFUL.keys())
def test_without_the_model_a_compiled_step_on_jax_is_an_error_and_elsewhere_works(make):
    model, loss = functional(), make()
    before = [ops.convert_to_numpy(variable.value) for variable in loss.state]
    model.compile("sgd", loss=loss, **TRACED)
    if BACKEND == "jax":
        with pytest.raises(ValueError, match="attach_loss_state"):
            model.fit(X, Y, verbose=0)
    else:
        model.fit(X, Y, verbose=0)
        after = [ops.convert_to_numpy(variable.value) for variable in loss.state]
        assert any(np.any(a != b) for a, b in zip(after, before, strict=True))


def test_a_bare_trace_and_a_scope_that_drops_the_state_are_errors():
    loss = SeesawLoss(num_classes=4)
    with keras.StatelessScope(), pytest.raises(ValueError, match="attach_loss_state"):
        loss(Y, np.zeros((16, 4), "float32"))
    with keras.StatelessScope([(v, ops.zeros(4)) for v in loss.state]) as scope:
        loss(Y, np.zeros((16, 4), "float32"))
    assert ops.convert_to_numpy(scope.get_current_value(loss.cumulative_counts)).sum() == 16
    assert ops.convert_to_numpy(loss.cumulative_counts.value).sum() == 0
    if BACKEND == "jax":
        import jax

        with pytest.raises(ValueError, match="attach_loss_state"):
            jax.jit(lambda z: loss(Y, z))(np.zeros((16, 4), "float32"))


@pytest.mark.parametrize("make", [functional, sequential, Subclassed])
@pytest.mark.parametrize("built", [False, True])
def test_every_kind_of_model_takes_the_state_once(make, built):
    model = make()
    if built:
        model(X)
    config = model.get_config()
    layers, weights = len(model.layers), len(model.weights)
    loss = DropLoss(**IMAGES)
    assert attach_loss_state(model, loss) is loss
    attach_loss_state(model, loss)
    assert sum(variable is loss.state[0] for variable in model.non_trainable_variables) == 1
    assert model.get_config() == config
    assert (len(model.layers), len(model.weights)) == (layers, weights)
    if built:
        assert len(set(constant_batches(model, loss, y=Y_BACKGROUND))) > 1


def test_losses_of_several_outputs_are_attached():
    inputs = keras.Input((3,))
    outputs = {name: keras.layers.Dense(4, name=name)(inputs) for name in ("a", "b", "c")}
    model = keras.Model(inputs, outputs)
    losses = {
        "a": SeesawLoss(num_classes=4),
        "b": "mse",
        "c": EqualizationLoss(**IMAGES, activation="softmax"),
    }
    attach_loss_state(model, losses)
    model.compile("sgd", loss=losses, **QUICK)
    targets = {"a": Y, "b": np.zeros((16, 4), "float32"), "c": Y}
    model.fit(X, targets, batch_size=8, epochs=2, verbose=0)
    assert ops.convert_to_numpy(losses["a"].cumulative_counts.value).sum() == 32
    assert ops.convert_to_numpy(losses["c"].seed_generator.state.value)[1] == 4

    two = keras.Model(inputs, [outputs["a"], outputs["c"]])
    pair = [SeesawLoss(num_classes=4), SeesawLoss(num_classes=4)]
    two.compile("sgd", loss=attach_loss_state(two, pair), **QUICK)
    two.fit(X, [Y, Y], verbose=0)
    assert [ops.convert_to_numpy(loss.cumulative_counts.value).sum() for loss in pair] == [16, 16]


@pytest.mark.parametrize(("make", "kind"), [(functional, "drop"), (sequential, "seesaw"), (Subclassed, "drop")])
def test_a_saved_model_continues_where_it_was(make, kind, tmp_path):
    y = Y_BACKGROUND if kind == "drop" else Y
    model, loss = make(), STATEFUL[kind]()
    attach_loss_state(model, loss)
    constant_batches(model, loss, y=y)
    model.save(tmp_path / "model.keras")
    want = constant_batches(model, loss, y=y)

    loaded = keras.saving.load_model(tmp_path / "model.keras")
    assert type(loaded.loss) is type(loss)
    attach_loss_state(loaded)
    np.testing.assert_allclose(constant_batches(loaded, None, y=y), want, rtol=1e-5)
    for before, after in zip(loss.state, loaded.loss.state, strict=True):
        np.testing.assert_array_equal(ops.convert_to_numpy(before.value), ops.convert_to_numpy(after.value))


def test_losses_in_a_dict_are_saved_each_with_its_own_state(tmp_path):
    inputs = keras.Input((3,))
    model = keras.Model(inputs, {name: keras.layers.Dense(4, name=name)(inputs) for name in ("a", "b")})
    losses = {"a": SeesawLoss(num_classes=4), "b": SeesawLoss(num_classes=4)}
    model.compile("sgd", loss=attach_loss_state(model, losses), **QUICK)
    model.fit(X, {"a": Y, "b": np.zeros(16, int)}, verbose=0)
    model.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras")
    for name in ("a", "b"):
        np.testing.assert_array_equal(
            ops.convert_to_numpy(loaded.loss[name].cumulative_counts.value),
            ops.convert_to_numpy(losses[name].cumulative_counts.value),
        )


def test_weights_carry_the_state_between_compiled_models_and_only_them(tmp_path):
    model, loss = functional(), SeesawLoss(num_classes=4)
    attach_loss_state(model, loss)
    constant_batches(model, loss)
    model.save_weights(tmp_path / "with.weights.h5")

    other, other_loss = functional(), SeesawLoss(num_classes=4)
    attach_loss_state(other, other_loss)
    constant_batches(other, other_loss, steps=1)
    other.load_weights(tmp_path / "with.weights.h5")
    assert ops.convert_to_numpy(other_loss.cumulative_counts.value).sum() == 64

    bare = functional()
    bare.load_weights(tmp_path / "with.weights.h5")
    bare.save_weights(tmp_path / "without.weights.h5")
    other.load_weights(tmp_path / "without.weights.h5")
    assert ops.convert_to_numpy(other_loss.cumulative_counts.value).sum() == 64

    wider = functional(units=4)
    attach_loss_state(wider, SeesawLoss(num_classes=5))
    wider.compile("sgd", loss=SeesawLoss(num_classes=5))
    with pytest.raises(ValueError, match="shapes"):
        wider.loss.load_own_variables({"0": np.zeros(4)})


def test_an_uncompiled_copy_of_a_saved_model_loads(tmp_path):
    model, loss = functional(), SeesawLoss(num_classes=4)
    attach_loss_state(model, loss)
    constant_batches(model, loss)
    model.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras", compile=False)
    np.testing.assert_allclose(loaded.predict(X, verbose=0), model.predict(X, verbose=0), atol=1e-6)


def test_attaching_to_what_cannot_hold_it_is_an_error():
    with pytest.raises(ValueError, match=r"keras\.Model"):
        attach_loss_state("model", SeesawLoss(num_classes=4))
    with pytest.raises(ValueError, match="loss must be given"):
        attach_loss_state(functional())


@pytest.mark.any_backend
def test_fit_lowers_every_loss():
    losses = {name: make() for name, make in EVERY.items()}
    model, targets = with_every_loss(losses)
    attach_loss_state(model, losses)
    model.compile(keras.optimizers.Adam(0.1), loss=losses, **COMPILE)

    def values():
        outputs = model.predict(X, verbose=0)
        return {
            name: np.mean([float(loss(targets[name], outputs[name])) for _ in range(8)])
            for name, loss in losses.items()
        }

    first = values()
    model.fit(X, targets, batch_size=8, epochs=25, verbose=0)
    last = values()
    for name in losses:
        assert last[name] < 0.75 * first[name], (name, first[name], last[name])


def test_ignored_labels_are_left_out_of_a_compiled_mean():
    labels = np.where(np.arange(16) < 6, -1, Y)
    model, loss = functional(), BalancedSoftmaxCrossentropy(COUNTS)
    model.compile(keras.optimizers.SGD(0.0), loss=loss, **COMPILE)
    (value,) = constant_batches(model, loss, steps=1, y=labels)
    want = float(loss(Y[6:], model(X[6:])))
    assert value == pytest.approx(want, rel=1e-5)


def test_mixed_precision_models_train_on_float32_losses():
    for policy in ("mixed_bfloat16", "mixed_float16"):
        inputs = keras.Input((3,))
        model = keras.Model(inputs, keras.layers.Dense(4, dtype=policy)(inputs))
        loss = GumbelOptimizedLoss(**IMAGES, seed=0)
        model.compile(keras.optimizers.Adam(0.05), loss=attach_loss_state(model, loss), **COMPILE)
        history = model.fit(X, Y_BACKGROUND, batch_size=8, epochs=5, verbose=0).history["loss"]
        assert np.all(np.isfinite(history)) and history[-1] < history[0]
