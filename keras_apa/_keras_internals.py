"""The few things that losses and metrics need and that Keras 3.15 has under no public name.

* The mask of a loss value, with which `keras.losses.Loss` divides a mean by the number of valid samples.
* Whether a call is only a symbolic one (shape inference), and which `StatelessScope` is active: the only way
  to tell a compiled step that carries a loss's state from one that would silently drop it.
* Adding state to a model that is already built, as a loaded one is.
* Whether `model.export` is converting a model: Keras tells a layer nothing about it.
"""

import sys

from keras.src.backend import get_keras_mask, set_keras_mask
from keras.src.backend.common.stateless_scope import get_stateless_scope
from keras.src.backend.common.symbolic_scope import in_symbolic_scope
from keras.src.utils.jax_utils import is_in_jax_tracing_scope

__all__ = [
    "get_keras_mask",
    "in_converter",
    "in_symbolic_scope",
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
