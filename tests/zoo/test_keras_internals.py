"""What the zoo takes from inside of Keras is still there; a failure says what a new Keras changed."""

import keras
import numpy as np
import pytest
from keras import layers

from keras_apa import _keras_internals as internals

pytestmark = pytest.mark.any_backend


def network():
    """Two branches, of which one is a model of its own."""
    inner = keras.Sequential([keras.Input((3,)), layers.Dense(3, name="inside")], name="inner")
    inputs = keras.Input((3,))
    x = layers.Dropout(0.5, name="dropout")(inputs)
    x = layers.Add(name="add")([inner(x), inputs])
    return keras.Model(inputs, layers.Activation("softmax", name="last")(x))


def test_layers_inside_of_layers_are_found():
    names = {layer.name for layer in internals.all_layers(network())}
    assert {"inner", "inside", "dropout", "add", "last"} <= names, (
        f"model._flatten_layers of Keras {keras.__version__} no longer gives layers inside of layers: {names}."
    )


def test_calls_stand_in_their_order_and_can_be_run():
    model = network()
    calls = internals.calls_in_order(model)
    names = [call.operation.name for call in calls]
    assert names == ["dropout", "inner", "add", "last"], (
        f"model._nodes_by_depth of Keras {keras.__version__} no longer gives the calls in their order: {names}."
    )
    images = np.ones((2, 3), "float32")
    values = {id(model.inputs[0]): keras.ops.convert_to_tensor(images)}
    for call in calls:
        args, kwargs = call.arguments.fill_in(values)
        values[id(call.outputs[0])] = call.operation(*args, **kwargs)
    found = keras.ops.convert_to_numpy(values[id(model.outputs[0])])
    np.testing.assert_allclose(
        found,
        keras.ops.convert_to_numpy(model(images)),
        rtol=1e-6,
        err_msg=f"node.arguments.fill_in of Keras {keras.__version__} no longer takes tensors by id.",
    )


def test_layers_are_told_of_training_and_operations_are_not():
    inputs = keras.Input((3,))
    model = keras.Model(inputs, keras.ops.relu(layers.Dropout(0.5)(inputs)))
    found = [internals.takes_training(call.operation) for call in internals.calls_in_order(model)]
    assert found == [True, False], (
        f"layer._call_context_args of Keras {keras.__version__} no longer names the argument training: {found}."
    )


def test_a_tensor_says_what_made_it():
    model = network()
    operation, inputs = internals.made_by(model.outputs[0])
    assert operation is model.get_layer("last") and inputs[0] is model.get_layer("add").output, (
        f"tensor._keras_history of Keras {keras.__version__} no longer leads to the layer and what it was given."
    )


def test_a_compiled_loss_is_taken_off_for_good():
    model = network()
    model.compile("sgd", loss="mse", metrics=["mae"])
    loss, metrics = internals.take_compiled_loss(model)
    assert loss == "mse" and metrics is not None, (
        f"model.loss or model._compile_metrics of Keras {keras.__version__} no longer holds what compile was given."
    )
    model.compile("sgd")
    assert internals.take_compiled_loss(model) == (None, None), (
        f"compile of Keras {keras.__version__} brings back a loss or metrics that were taken off."
    )
