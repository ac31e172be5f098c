"""The few things that losses and metrics need and that Keras 3.15 has under no public name.

* The mask of a loss value, with which `keras.losses.Loss` divides a mean by the number of valid samples.
* Whether a call is only a symbolic one (shape inference), and which `StatelessScope` is active: the only way
  to tell a compiled step that carries a loss's state from one that would silently drop it.
* How a loss puts masks and sample weights together, for a mean of the same meaning in float64.
* Adding state to a model that is already built, as a loaded one is.
* For which output of a model a metric is, and which others the model has: Keras drops the name of a metric whose result
  is a dictionary, and that of the output with it.
* Whether `model.export` is converting a model: Keras tells a layer nothing about it.
"""

import sys

from keras.src.backend import get_keras_mask, set_keras_mask
from keras.src.backend.common.stateless_scope import get_stateless_scope
from keras.src.backend.common.symbolic_scope import in_symbolic_scope
from keras.src.losses.loss import apply_mask, reduce_weighted_values
from keras.src.trainers.compile_utils import CompileMetrics
from keras.src.utils.jax_utils import is_in_jax_tracing_scope

__all__ = [
    "apply_mask",
    "get_keras_mask",
    "has_stateless_scope",
    "in_converter",
    "in_symbolic_scope",
    "metrics_of_calling_model",
    "reduce_weighted_values",
    "set_attribute_of_built_model",
    "set_keras_mask",
    "state_is_carried",
]


def state_is_carried(variables):
    """Whether an assignment to `variables` outlives the present call."""
    scope = get_stateless_scope()
    if scope is not None:
        return in_symbolic_scope() or all(scope.get_current_value(v) is not None for v in variables)
    return not is_in_jax_tracing_scope()


# Modules that trace a model on TensorFlow or JAX for a format without log1p. A SavedModel has all operations.
_CONVERTERS = (
    "keras.src.export.onnx",
    "keras.src.export.litert",
    "keras.src.export.openvino",
    "tf2onnx.",
    "tensorflow.lite.",
    "jax2onnx.",
)


def in_converter():
    """Whether the present call comes from a converter to ONNX, LiteRT or OpenVINO."""
    frame = sys._getframe(1)
    while frame is not None:
        if frame.f_globals.get("__name__", "").startswith(_CONVERTERS):
            return True
        frame = frame.f_back
    return False


def set_attribute_of_built_model(model, name, value):
    """`setattr(model, name, value)`, tracked, also where Keras has locked the state of a built model."""
    tracker = model._tracker
    locked = tracker.locked
    tracker.unlock()
    try:
        setattr(model, name, value)
    finally:
        if locked:
            tracker.lock()


def has_stateless_scope():
    """Whether variables have other values than their own in the present call."""
    return get_stateless_scope() is not None


def metrics_of_calling_model():
    """`(name of the output or None, metric)` of each metric of the model that asks the caller for its result.

    Empty where no model does: nothing in a metric's arguments tells, only who called.
    """
    frame = sys._getframe(2)
    if frame is None or frame.f_code is not CompileMetrics.result.__code__:
        return []
    model = frame.f_locals["self"]
    lists = [each for each in (*model._flat_metrics, *model._flat_weighted_metrics) if each]
    return [(each.output_name, metric) for each in lists for metric in each.metrics]


# The networks and detectors of the zoo need these; tests/zoo/test_keras_internals.py says what a new Keras changed.
__all__ += ["all_layers", "calls_in_order", "made_by", "take_compiled_loss", "takes_training"]


def all_layers(model):
    """The layers of a model and those inside of them, which `model.layers` leaves out: an export changes each."""
    return list(model._flatten_layers())


def calls_in_order(model):
    """The calls of a functional model's layers, each after those whose results it takes.

    Keras runs them all and keeps every result until the last; who runs them himself can drop a result after its use.
    A call has `operation`, `input_tensors`, `outputs`, and `arguments`, whose `fill_in` takes tensors by id.
    """
    by_depth = model._nodes_by_depth
    return [node for depth in sorted(by_depth, reverse=True) for node in by_depth[depth] if not node.is_input]


def takes_training(operation):
    """Whether a call can be given `training`: a layer passes it on to those inside of it; `keras.ops` know none."""
    return "training" in getattr(operation, "_call_context_args", ())


def made_by(tensor):
    """`(operation, its input tensors)` of the call that made a symbolic tensor: how a network ends is nowhere else."""
    operation, call, _ = tensor._keras_history
    return operation, operation._inbound_nodes[call].input_tensors


def take_compiled_loss(model):
    """`(loss, metrics)` that a model was compiled with; it has none from then on.

    Keras keeps them when a model is compiled again without, so they would come back.
    """
    loss, metrics = model.loss, model._compile_metrics
    model.loss = model._compile_loss = model._compile_metrics = None
    return loss, metrics
