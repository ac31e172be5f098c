"""TensorFlow: `tf.custom_gradient`. Works eagerly, in `tf.function`, under XLA and for second derivatives."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import tensorflow as tf
from numpy.typing import NDArray
from tensorflow.python.ops import control_flow_util, resource_variable_ops

from keras_apa import _keras_internals as internals
from keras_apa._kernels.elementary import constant, softplus_and_sigmoid  # noqa: F401
from keras_apa._typing import Tensor


def differentiable(value: Callable[..., Tensor], gradient: Callable[..., tuple[Tensor, ...]]) -> Callable[..., Tensor]:
    """Return `value(*tensors)`, whose gradients are `gradient(upstream, *tensors)`, one for each tensor."""

    @tf.custom_gradient
    def function(*inputs: Tensor) -> tuple[Tensor, Callable[[Tensor], tuple[Tensor, ...]]]:
        return value(*inputs), lambda upstream: tuple(gradient(upstream, *inputs))

    return function


def is_converting() -> bool:
    """Whether a converter to a format without log1p is tracing a model."""
    return not tf.executing_eagerly() and internals.in_converter()


def num_replicas() -> int:
    """Replicas that a synchronized batch statistic is summed over."""
    context = tf.distribute.get_replica_context()
    return context.num_replicas_in_sync if context else 1


def is_hidden(tensor: Tensor) -> bool:
    """Whether the values of a tensor cannot be looked at, in a step that is compiled."""
    return tf.is_symbolic_tensor(tensor)


def refuse(wrong: Tensor, given: Tensor, predictions: Tensor, message: Callable[[NDArray[Any] | None], str]) -> Tensor:
    """NaN, which waits for an assertion that none of `wrong` is true."""
    if control_flow_util.GraphOrParentsInXlaContext(tf.compat.v1.get_default_graph()):
        _refuse_next_time(tf.reduce_any(wrong), message(None))
        return np.nan

    def fail() -> Tensor:
        # Not tf.boolean_mask, which tf.vectorized_map cannot run where nothing is wrong.
        first = tf.argmax(tf.cast(tf.reshape(tf.broadcast_to(wrong, tf.shape(given)), (-1,)), "int32"))
        bad = tf.gather(tf.reshape(given, (-1,)), first)
        none = tf.logical_not(tf.reduce_any(wrong))  # not False: tf.vectorized_map runs both branches
        stop = tf.raw_ops.Assert(condition=none, data=[message(None), "Given:", bad], summarize=5)
        with tf.control_dependencies([stop]):
            return tf.constant(np.nan, given.dtype)

    return tf.cond(tf.reduce_any(wrong), fail, lambda: tf.constant(np.nan, given.dtype))


def _refuse_next_time(wrong: Tensor, message: str) -> None:
    """XLA knows no assertions: the function around the compiled one, where Keras has one, asserts before the next step.

    On a GPU, Keras compiles every step with XLA unless told otherwise.
    """
    inner = outer = tf.compat.v1.get_default_graph()
    while getattr(outer.outer_graph, "building_function", False):
        outer = outer.outer_graph
    if outer is inner or tf.distribute.has_strategy():
        return
    with tf.init_scope():
        # Not tf.Variable, which a function may create at its first call only. A GPU holds no variables of every dtype.
        found = resource_variable_ops.ResourceVariable(0.0, trainable=False, name="wrong_labels")
    inner.add_to_collection("keras_apa_wrong_labels", found)  # graphs refer to variables weakly
    found.assign(tf.maximum(found, tf.cast(wrong, tf.float32)))
    with outer.as_default(), tf.control_dependencies(None):  # and out of the context of XLA
        before = found.read_value()
        with tf.control_dependencies([before]):
            forgotten = found.assign(0.0)
        with tf.control_dependencies([forgotten]):
            tf.debugging.Assert(tf.equal(before, 0), [f"{message} (XLA tells at the step after it.)"])
