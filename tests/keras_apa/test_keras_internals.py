"""What keras_apa leans on in Keras without a public name is still there and still does what it did."""

import importlib
import importlib.util

import keras
import numpy as np
import pytest
from backends import CURRENT
from keras import ops

X, Y = np.ones((4, 3), "float32"), np.array([0, 1, 2, 0])


def changed(what):
    return f"Keras {keras.__version__} has changed {what}: see keras_apa/_keras_internals.py"


def network(**options):
    model = keras.Sequential([keras.Input((3,)), keras.layers.Dense(3)])
    model.compile("sgd", **{"loss": "mse", **options})
    return model


@pytest.mark.parametrize(
    ("module", "name"),
    [
        ("keras.src.backend", "get_keras_mask"),
        ("keras.src.backend", "set_keras_mask"),
        ("keras.src.backend.common.stateless_scope", "get_stateless_scope"),
        ("keras.src.backend.common.symbolic_scope", "in_symbolic_scope"),
        ("keras.src.trainers.compile_utils", "CompileMetrics"),
        ("keras.src.utils.jax_utils", "is_in_jax_tracing_scope"),
    ],
)
def test_a_name_is_where_it_was(module, name):
    found = importlib.util.find_spec(module) and getattr(importlib.import_module(module), name, None)
    assert found, changed(f"the place of {name}, which was {module}")


@pytest.mark.parametrize("module", ["keras.src.export.onnx", "keras.src.export.litert", "keras.src.export.openvino"])
def test_an_exporter_is_where_it_was(module):
    assert importlib.util.find_spec(module), changed(f"the place of {module}, by which a conversion is known")


def test_a_loss_leaves_out_of_its_mean_what_the_mask_of_its_value_leaves_out():
    from keras_apa._keras_internals import set_keras_mask

    class Masked(keras.losses.Loss):
        def call(self, y_true, y_pred):
            value = ops.convert_to_tensor([2.0, 0.0])
            set_keras_mask(value, ops.convert_to_tensor([True, False]))
            return value

    value = float(Masked()(np.zeros((2, 1)), np.zeros((2, 1))))
    assert value == 2, changed("how a loss uses the mask of its value")


def test_scopes_are_seen():
    from keras_apa._keras_internals import has_stateless_scope, in_symbolic_scope, state_is_carried

    seen, variable = [], keras.Variable(0.0)

    class Looks(keras.layers.Layer):
        def call(self, inputs):
            seen.append(in_symbolic_scope())
            return inputs

    Looks()(keras.Input((1,)))
    assert set(seen) == {True} and not in_symbolic_scope(), changed("the symbolic scope of shape inference")
    with keras.StatelessScope(state_mapping=[(variable, variable.value)]):
        assert has_stateless_scope() and state_is_carried([variable]), changed("StatelessScope")
    with keras.StatelessScope():
        assert not state_is_carried([variable]), changed("StatelessScope.get_current_value")
    assert not has_stateless_scope() and state_is_carried([variable]), changed("StatelessScope")


@pytest.mark.skipif(CURRENT != "jax", reason="only JAX traces without a scope of Keras")
def test_a_trace_of_jax_is_seen():
    import jax

    from keras_apa._keras_internals import state_is_carried

    seen = []
    jax.jit(lambda x: (seen.append(state_is_carried([])), x)[1])(1.0)
    assert seen == [False], changed("is_in_jax_tracing_scope")


def test_a_built_model_takes_state_as_that_of_a_seed_generator():
    from keras_apa._keras_internals import TrackedVariable, set_attribute_of_built_model

    for model in (network(), keras.Model(inputs := keras.Input((3,)), keras.layers.Dense(3)(inputs))):
        model._tracker.lock()
        before = len(model.non_trainable_variables), len(model.layers), len(model.weights)
        variable = keras.Variable(1.0, trainable=False, name="state")
        set_attribute_of_built_model(model, "_test_state", TrackedVariable(variable))
        after = len(model.non_trainable_variables), len(model.layers), len(model.weights)
        assert any(each is variable for each in model.non_trainable_variables), changed("how a model tracks seeds")
        assert after == (before[0] + 1, *before[1:]), changed("what a model counts of a seed generator")
        assert model._tracker.locked, changed("the lock of a built model")


def test_compute_loss_is_told_whether_it_trains():
    from keras_apa._keras_internals import tell_when_training

    told, model = [], network()
    tell_when_training(model, told.append)
    model.fit(X, X, verbose=0)
    trained = list(told)
    model.evaluate(X, X, verbose=0)
    # Each second one is said after the loss.
    assert trained[-2], changed("what `fit` passes to compute_loss")
    assert set(told[len(trained) :][::2]) == {False}, changed("what `evaluate` passes to compute_loss")


def test_a_metric_sees_the_metrics_of_its_model():
    from keras_apa._keras_internals import metrics_of_calling_model

    found = []

    class Looks(keras.metrics.Mean):
        def update_state(self, y_true, y_pred, sample_weight=None):
            super().update_state(y_pred)

        def result(self):
            found.append(metrics_of_calling_model())
            return super().result()

    metric = Looks()
    network(metrics=[metric]).evaluate(X, X, verbose=0)
    assert any((None, metric) in each for each in found), changed("CompileMetrics.result")


def test_callbacks_ask_a_metric_for_its_direction():
    from keras_apa.metrics import MeanClassAccuracy

    model = network(loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True), metrics=[MeanClassAccuracy(3)])
    callback = keras.callbacks.EarlyStopping("mean_class_accuracy", mode="auto")
    model.fit(X, Y, verbose=0, callbacks=[callback])
    assert callback._is_improvement(0.6, 0.5), changed("how callbacks ask a metric whether it is to rise")


def test_a_layer_finds_the_losses_of_the_model_around_it():
    from keras_apa._keras_internals import losses_of_calling_model

    found = []

    class Looks(keras.layers.Layer):
        def call(self, inputs):
            found.append(losses_of_calling_model(self))
            return inputs

    loss = keras.losses.MeanSquaredError()
    model = keras.Sequential([keras.Input((3,)), Looks()])
    model.compile("sgd", loss=loss)
    model.evaluate(X, X, verbose=0)
    assert loss in found, changed("the context of a call, which knew the model")


def test_the_layers_of_a_layer_are_found():
    from keras_apa._keras_internals import parts_of
    from keras_apa.layers import CBAM

    layer = CBAM()
    layer.build((None, 4, 4, 8))
    assert [part.name for part in parts_of(layer)] == ["channel", "spatial"], changed("Layer._flatten_layers")


def test_an_optimizer_tells_what_it_decays():
    from keras_apa._keras_internals import is_decayed

    model, optimizer = network(), keras.optimizers.SGD(weight_decay=0.1)
    kernel, bias = model.trainable_variables
    optimizer.exclude_from_weight_decay(var_list=[bias])
    found = is_decayed(optimizer, kernel), is_decayed(optimizer, bias)
    assert found == (True, False), changed("Optimizer._use_weight_decay")
