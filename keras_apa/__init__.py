"""Layers, losses and metrics for visual recognition on long-tailed data, on TensorFlow, JAX and PyTorch."""

from __future__ import annotations

from types import ModuleType

import keras

from keras_apa import _siblings, layers, losses, metrics, ops
from keras_apa._version import __version__
from keras_apa.class_counts import ClassCounts
from keras_apa.weight_decay import no_weight_decay

# They stand in models as activations, `classifier_activation=keras_apa.ops.gumbel`, and so in files.
for _function in (ops.gumbel, ops.log_gumbel, ops.log1m_gumbel):
    keras.saving.register_keras_serializable(package="keras_apa")(_function)
_siblings.register_stand_ins()

__all__ = ["ClassCounts", "__version__", "layers", "losses", "metrics", "no_weight_decay", "ops"]


def __getattr__(name: str) -> ModuleType:
    """`zoo` and `training`, imported when asked for: a file of the user may have these names."""
    if name in _siblings.NAMES:
        return _siblings.sibling(name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
