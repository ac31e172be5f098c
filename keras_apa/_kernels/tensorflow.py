"""TensorFlow: `tf.custom_gradient`. Works eagerly, in `tf.function`, under XLA and for second derivatives."""

import tensorflow as tf

from keras_apa import _keras_internals as internals
from keras_apa._kernels.elementary import softplus_and_sigmoid  # noqa: F401


def differentiable(value, gradient):
    """Return `value(*tensors)`, whose gradients are `gradient(upstream, *tensors)`, one for each tensor."""

    @tf.custom_gradient
    def function(*inputs):
        return value(*inputs), lambda upstream: tuple(gradient(upstream, *inputs))

    return function


def is_converting():
    """Whether a converter to a format without log1p is tracing a model."""
    return not tf.executing_eagerly() and internals.in_converter()


def num_replicas():
    """Replicas that a synchronized batch statistic is summed over."""
    context = tf.distribute.get_replica_context()
    return context.num_replicas_in_sync if context else 1


def is_compiling():
    """Whether values are hidden without an error; False, since reading a traced value fails here."""
    return False
