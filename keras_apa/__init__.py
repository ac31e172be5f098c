"""Layers, losses and metrics for visual recognition on long-tailed data, on TensorFlow, JAX and PyTorch."""

from keras_apa import layers, losses, metrics, ops
from keras_apa._version import __version__
from keras_apa.class_counts import ClassCounts
from keras_apa.weight_decay import no_weight_decay

__all__ = ["ClassCounts", "__version__", "layers", "losses", "metrics", "no_weight_decay", "ops"]
