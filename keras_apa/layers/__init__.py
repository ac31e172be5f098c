"""Adaptive activations, attention gates, classifier heads and prior correction."""

from keras_apa.layers.activations import AGLU, APA, Gumbel, Sigmoid
from keras_apa.layers.adjustment import PriorCorrection, prior_correction
from keras_apa.layers.attention import CBAM, ChannelAttention, SpatialAttention, SqueezeExcite
from keras_apa.layers.classifiers import CosineDense, NormalizedConv2D, NormalizedDense, WrappedCauchyDense
from keras_apa.layers.normalization import UnbiasedBatchNormalization

__all__ = [
    "AGLU",
    "APA",
    "CBAM",
    "ChannelAttention",
    "CosineDense",
    "Gumbel",
    "NormalizedConv2D",
    "NormalizedDense",
    "PriorCorrection",
    "Sigmoid",
    "SpatialAttention",
    "SqueezeExcite",
    "UnbiasedBatchNormalization",
    "WrappedCauchyDense",
    "prior_correction",
]
