"""What keras_apa needs of Keras 3.15 that has no public name, each with its reason.

`tests/keras_apa/test_keras_internals.py` says in a sentence which of them a new Keras has changed.
* The mask of a loss value, with which `keras.losses.Loss` divides a mean by the number of valid samples.
* Whether a call is only a symbolic one (shape inference), and which `StatelessScope` is active: the only way
  to tell a compiled step that carries a loss's state from one that would silently drop it.
* How a loss puts masks and sample weights together, for a mean of the same meaning in float64.
* Adding state to a model that is already built, as a loaded one is.
* For which output of a model a metric is, and which others the model has: Keras drops the name of a metric whose result
  is a dictionary, and that of the output with it.
* Whether `model.export` is converting a model: Keras tells a layer nothing about it.
"""

from __future__ import annotations

import functools
import inspect
import sys
from collections.abc import Callable, Sequence
from types import FrameType
from typing import Any, TypeVar

import keras
from keras.src.backend import get_keras_mask, set_keras_mask
from keras.src.backend.common.stateless_scope import get_stateless_scope
from keras.src.backend.common.symbolic_scope import in_symbolic_scope
from keras.src.losses.loss import apply_mask, reduce_weighted_values
from keras.src.trainers.compile_utils import CompileMetrics
from keras.src.utils.jax_utils import is_in_jax_tracing_scope

from keras_apa._typing import Tensor

__all__ = [
    "TrackedVariable",
    "apply_mask",
    "get_keras_mask",
    "has_stateless_scope",
    "in_converter",
    "in_symbolic_scope",
    "is_decayed",
    "larger_is_better",
    "losses_of_calling_model",
    "metrics_of_calling_model",
    "parts_of",
    "reduce_weighted_values",
    "set_attribute_of_built_model",
    "set_keras_mask",
    "state_is_carried",
    "tell_when_training",
]

# `apply_mask`, `reduce_weighted_values`: what `keras.losses.Loss` does with the values of a loss; so does our float64
# mean.
# `set_keras_mask`: the mask of a loss value, by which `keras.losses.Loss` leaves ignored samples out of a mean.
# `in_symbolic_scope`: whether a call is shape inference, in which nothing may look at a value.


_MetricClass = TypeVar("_MetricClass", bound=type[keras.metrics.Metric])


def state_is_carried(variables: Sequence[keras.Variable]) -> bool:
    """Whether an assignment to `variables` outlives the present call.

    Why: a compiled step of JAX drops the state of a loss without a word; only the active scope tells.
    """
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


def in_converter() -> bool:
    """Whether the present call comes from a converter to ONNX, LiteRT or OpenVINO.

    Why: Keras tells a layer nothing about it, so the calling modules are looked at.
    """
    frame: FrameType | None = sys._getframe(1)
    while frame is not None:
        if frame.f_globals.get("__name__", "").startswith(_CONVERTERS):
            return True
        frame = frame.f_back
    return False


def set_attribute_of_built_model(model: keras.Model, name: str, value: object) -> None:
    """`setattr(model, name, value)`, tracked, also where Keras has locked the state of a built model.

    Why: a loaded model is built, and takes no state any more.
    """
    tracker = model._tracker
    locked = tracker.locked
    tracker.unlock()
    try:
        setattr(model, name, value)
    finally:
        if locked:
            tracker.lock()


def larger_is_better(metric_class: _MetricClass) -> _MetricClass:
    """Class decorator of a metric that is to rise.

    Why: the mode "auto" of Keras's callbacks asks a metric for `_direction`.
    """
    metric_class._direction = "up"
    return metric_class


class TrackedVariable(keras.random.SeedGenerator):
    """A variable in the shape of a seed generator.

    Why: seed generators are the one kind of state that a Keras model of every kind takes as an attribute into its
    `non_trainable_variables` without counting it among its layers or own weights, which would change what
    `get_config`, `summary` and weight files hold.
    """

    def __init__(self, variable: keras.Variable) -> None:
        self.name = variable.name
        self.backend = keras.backend
        self._initial_seed = None
        self.state = variable


def tell_when_training(model: keras.Model, tell: Callable[[bool], None]) -> None:
    """Call `tell(training)` before each loss of a model is computed, and `tell(True)` after it.

    Why: Keras tells `model.compute_loss` whether it trains or evaluates, but not the losses; so it is replaced.
    """
    compute_loss = model.compute_loss
    if "training" not in inspect.signature(compute_loss).parameters:
        return  # a model's own, from before Keras passed it

    @functools.wraps(compute_loss)
    def told(
        x: Tensor = None, y: Tensor = None, y_pred: Tensor = None, sample_weight: Tensor = None, training: bool = True
    ) -> Tensor:
        tell(training)
        try:
            return compute_loss(x=x, y=y, y_pred=y_pred, sample_weight=sample_weight, training=training)
        finally:
            tell(True)

    model.compute_loss = told


def losses_of_calling_model(layer: keras.layers.Layer) -> Any:
    """What the model that is being called was compiled with as `loss`, or None.

    Why: there is no public way from a layer to the model around it.
    """
    context = getattr(layer, "_get_call_context", lambda: None)()
    return getattr(getattr(context, "entry_layer", None), "loss", None)


def parts_of(layer: keras.layers.Layer) -> list[keras.layers.Layer]:
    """The layers that a layer is made of, not theirs.

    Why: `Model.layers` is public, but a layer has no such list.
    """
    return list(layer._flatten_layers(include_self=False, recursive=False))


def is_decayed(optimizer: keras.optimizers.Optimizer, variable: keras.Variable) -> bool:
    """Whether an optimizer's weight decay shrinks a variable.

    Why: `exclude_from_weight_decay` replaces what it was told before, which nothing else tells.
    """
    return optimizer._use_weight_decay(variable)


def has_stateless_scope() -> bool:
    """Whether variables have other values than their own in the present call.

    Why: a metric that warns must not read its variables then.
    """
    return get_stateless_scope() is not None


def metrics_of_calling_model() -> list[tuple[str | None, keras.metrics.Metric]]:
    """`(name of the output or None, metric)` of each metric of the model that asks the caller for its result.

    Empty where no model does: nothing in a metric's arguments tells, only who called.
    Why: Keras drops the names of a metric and of its output where the result is a dictionary.
    """
    frame = sys._getframe(2)
    if frame is None or frame.f_code is not CompileMetrics.result.__code__:
        return []
    model = frame.f_locals["self"]
    lists = [each for each in (*model._flat_metrics, *model._flat_weighted_metrics) if each]
    return [(each.output_name, metric) for each in lists for metric in each.metrics]


# The networks and detectors of the zoo need these; tests/zoo/test_keras_internals.py says what a new Keras changed.
__all__ += ["all_layers", "calls_in_order", "made_by", "take_compiled_loss", "takes_training"]


def all_layers(model: keras.Model) -> list[keras.layers.Layer]:
    """The layers of a model and those inside of them, which `model.layers` leaves out: an export changes each."""
    return list(model._flatten_layers())


def calls_in_order(model: keras.Model) -> list[Any]:
    """The calls of a functional model's layers, each after those whose results it takes.

    Keras runs them all and keeps every result until the last; who runs them himself can drop a result after its use.
    A call has `operation`, `input_tensors`, `outputs`, and `arguments`, whose `fill_in` takes tensors by id.
    """
    by_depth = model._nodes_by_depth
    return [node for depth in sorted(by_depth, reverse=True) for node in by_depth[depth] if not node.is_input]


def takes_training(operation: keras.Operation) -> bool:
    """Whether a call can be given `training`: a layer passes it on to those inside of it; `keras.ops` know none."""
    return "training" in getattr(operation, "_call_context_args", ())


def made_by(tensor: Tensor) -> tuple[keras.Operation, list[keras.KerasTensor]]:
    """`(operation, its input tensors)` of the call that made a symbolic tensor: how a network ends is nowhere else."""
    operation, call, _ = tensor._keras_history
    return operation, operation._inbound_nodes[call].input_tensors


def take_compiled_loss(model: keras.Model) -> tuple[Any, Any]:
    """`(loss, metrics)` that a model was compiled with; it has none from then on.

    Keras keeps them when a model is compiled again without, so they would come back.
    """
    loss, metrics = model.loss, model._compile_metrics
    model.loss = model._compile_loss = model._compile_metrics = None
    return loss, metrics
