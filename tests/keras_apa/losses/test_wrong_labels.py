"""Labels that no class has, under `fit` and the like of a user who has no callback: an error that names them."""

import warnings

import keras
import numpy as np
import pytest
from catalog import LOSSES
from keras import ops

from keras_apa import losses
from keras_apa.losses import BalancedSoftmaxCrossentropy, GumbelCrossentropy, SeesawLoss, attach_loss_state
from keras_apa.losses import trusted_labels as trusted
from keras_apa.metrics import MeanClassAccuracy

BACKEND = keras.backend.backend()
X = np.random.default_rng(0).normal(size=(12, 4)).astype("float32")
Y = np.arange(12) % 3
LOGITS = np.random.default_rng(1).normal(0, 2, (6, 4)).astype("float32")
LABELS = np.array([0, 3, 1, 0, 2, 1])
OUTSIDE = "y_true must be labels from 0 to 2"


def compiled_model(loss, **options):
    model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(3)])
    model.compile("sgd", loss=attach_loss_state(model, loss), **options)
    return model


def finite(model):
    return all(np.isfinite(weight).all() for weight in model.get_weights())


@pytest.mark.skipif(BACKEND == "torch", reason="runs its steps eagerly, see test_losses_contract.py")
@pytest.mark.parametrize("make", {type(make()).__name__: make for make in LOSSES.values()}.values())
def test_every_loss_stops_a_compiled_training_step(make):
    loss = make()
    loss.check_state = lambda: None  # what is carried from step to step is of no interest here
    labels = LABELS.copy()
    labels[1] = 7
    if BACKEND == "jax":
        import jax

        def training(labels, logits):
            with keras.StatelessScope():
                return loss(labels, logits)

        step = jax.jit(jax.grad(training, argnums=1))
    else:
        import tensorflow as tf

        step = tf.function(loss)
    arrays = ops.convert_to_tensor(LABELS), ops.convert_to_tensor(LOGITS)
    assert np.all(np.isfinite(ops.convert_to_numpy(step(*arrays))))
    with pytest.raises(Exception, match="y_true must be labels from 0 to 3"):
        ops.convert_to_numpy(step(ops.convert_to_tensor(labels), arrays[1]))


def test_a_training_with_labels_from_1_ends_with_their_range_and_what_to_do():
    model = compiled_model(BalancedSoftmaxCrossentropy([4, 4, 4]))
    with pytest.raises(Exception, match=OUTSIDE) as error:
        model.fit(X, Y + 1, verbose=0, batch_size=6)
    assert "need 1 subtracted" in str(error.value)
    if BACKEND != "jax":  # `fit` of Keras has the weights nowhere when a JAX program fails
        assert finite(model)
        with pytest.raises(Exception, match=OUTSIDE):
            model.train_on_batch(X, Y + 1)


def test_a_loss_with_state_in_half_precision_with_weights_names_a_label_that_is_no_whole_number():
    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy("mixed_bfloat16")
    try:
        model = compiled_model(SeesawLoss(num_classes=3))
        labels = Y.astype("float32")
        labels[7] = 1.5
        with pytest.raises(Exception, match=OUTSIDE) as error:
            model.train_on_batch(X, labels, sample_weight=np.ones(12))
    finally:
        keras.config.set_dtype_policy(before)
    assert "1.5" in str(error.value)


def test_validation_data_with_wrong_labels_is_named_and_costs_no_weights():
    model = compiled_model(BalancedSoftmaxCrossentropy([4, 4, 4]), metrics=[MeanClassAccuracy(3)])
    if BACKEND == "jax":
        with pytest.warns(UserWarning, match=f"{OUTSIDE}.*given: 3"):
            logs = model.fit(X, Y, validation_data=(X, Y + 1), verbose=0).history
        assert np.isnan(logs["val_loss"]) and np.isnan(logs["val_mean_class_accuracy"])
        assert np.isfinite(logs["mean_class_accuracy"])
        with pytest.warns(UserWarning, match=OUTSIDE):
            model.evaluate(X, Y + 1, verbose=0)
    else:
        with pytest.raises(Exception, match=OUTSIDE):
            model.fit(X, Y, validation_data=(X, Y + 1), verbose=0)
        with pytest.raises(Exception, match=OUTSIDE):
            model.evaluate(X, Y + 1, verbose=0)
    assert finite(model)
    assert np.isfinite(model.evaluate(X, Y, verbose=0, return_dict=True)["loss"])


def test_ignored_and_background_labels_go_through_and_dense_targets_are_looked_at():
    loss = GumbelCrossentropy(background=True)
    model = compiled_model(loss)
    with warnings.catch_warnings():
        warnings.filterwarnings("error", message="y_true")
        assert np.isfinite(model.train_on_batch(X, np.where(Y == 1, -1, Y + (Y == 2))))
    targets = np.eye(3, dtype="float32")[Y]
    assert np.isfinite(model.train_on_batch(X, targets))
    with pytest.raises(Exception, match="y_true must have values from 0 to 1"):
        model.train_on_batch(X, 2 * targets)
    model = compiled_model(loss)
    with pytest.raises(ValueError, match="y_true must be integer labels"):
        model.train_on_batch(X, np.ones((12, 4)))


@pytest.mark.skipif(BACKEND == "torch", reason="an eager step looks at its labels all the same")
def test_trusted_labels_are_not_looked_at():
    model = compiled_model(BalancedSoftmaxCrossentropy([4, 4, 4]))
    with trusted():
        assert np.isnan(model.train_on_batch(X, Y + 1))


@pytest.mark.skipif(BACKEND != "tensorflow", reason="only there a step of XLA can say nothing itself")
def test_a_step_of_xla_is_stopped_one_step_later_and_only_once():
    model = compiled_model(BalancedSoftmaxCrossentropy([4, 4, 4]), jit_compile=True)
    with pytest.raises(Exception, match=OUTSIDE):
        model.evaluate(X, Y + 1, batch_size=6, verbose=0)
    assert np.isfinite(model.evaluate(X, Y, batch_size=6, verbose=0))


@pytest.mark.skipif(BACKEND != "jax", reason="vmap of JAX runs both branches of a condition")
def test_right_labels_under_vmap_are_not_refused():
    import jax

    loss = BalancedSoftmaxCrossentropy([4, 4, 4, 4], reduction=None)
    labels, logits = LABELS.reshape(2, 3), LOGITS.reshape(2, 3, 4)
    gradient = jax.jit(jax.vmap(jax.grad(lambda z, y: loss(y, z).sum())))(logits, labels)
    assert np.all(np.isfinite(gradient))


def _one_sample(logits, label):
    return losses.balanced_softmax_crossentropy(label[None], logits[None], [5, 3, 1])[0]


@pytest.mark.skipif(keras.backend.backend() != "jax", reason="transformations of JAX")
@pytest.mark.parametrize("transformation", ["jit", "checkpoint", "scan"])
def test_a_loss_is_differentiated_after_it_was_traced(transformation):
    import jax

    logits, labels = np.zeros((6, 3), "float32"), np.arange(6) % 3

    def total(x, y):
        return losses.balanced_softmax_crossentropy(y, x, [5, 3, 1]).sum()

    def function(x, y):
        if transformation == "scan":
            step = lambda carry, each: (carry + _one_sample(*each), None)  # noqa: E731
            return jax.lax.scan(step, 0.0, (x, y))[0]
        return getattr(jax, transformation)(total)(x, y)

    gradient = jax.grad(function)
    np.testing.assert_allclose(gradient(logits, labels), jax.grad(total)(logits, labels), rtol=1e-5, atol=1e-7)
    with pytest.raises(Exception, match="Labels that count from 1"):
        jax.block_until_ready(gradient(logits, labels + 1))


@pytest.mark.skipif(keras.backend.backend() != "tensorflow", reason="a transformation of TensorFlow")
def test_a_loss_runs_in_vectorized_map():
    import tensorflow as tf

    logits, labels = tf.zeros((6, 3)), tf.constant(np.arange(6) % 3)
    each = tf.vectorized_map(lambda x: _one_sample(*x), (logits, labels))
    np.testing.assert_allclose(each, losses.balanced_softmax_crossentropy(labels, logits, [5, 3, 1]), rtol=1e-6)
    with pytest.raises(tf.errors.InvalidArgumentError, match="Labels that count from 1"):
        tf.vectorized_map(lambda x: _one_sample(*x), (logits, labels + 1))
