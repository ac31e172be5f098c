"""Losses for long-tailed recognition. Each is a `keras.losses.Loss` over a plain function with its equation."""

from keras_apa._labels import trusted_labels
from keras_apa.losses.balanced import (
    BalancedSigmoidCrossentropy,
    BalancedSoftmaxCrossentropy,
    balanced_sigmoid_crossentropy,
    balanced_softmax_crossentropy,
)
from keras_apa.losses.droploss import DropLoss, GumbelOptimizedLoss, drop_loss, gumbel_optimized_loss
from keras_apa.losses.equalization import EqualizationLoss, equalization_loss, softmax_equalization_loss
from keras_apa.losses.federated import FederatedLoss, federated_loss
from keras_apa.losses.gumbel import GumbelCrossentropy, gumbel_crossentropy
from keras_apa.losses.margin import LDAM, ldam
from keras_apa.losses.reweighting import ClassBalancedCrossentropy, class_balanced_crossentropy
from keras_apa.losses.seesaw import SeesawLoss, seesaw_loss
from keras_apa.losses.state import attach_loss_state

__all__ = [
    "LDAM",
    "BalancedSigmoidCrossentropy",
    "BalancedSoftmaxCrossentropy",
    "ClassBalancedCrossentropy",
    "DropLoss",
    "EqualizationLoss",
    "FederatedLoss",
    "GumbelCrossentropy",
    "GumbelOptimizedLoss",
    "SeesawLoss",
    "attach_loss_state",
    "balanced_sigmoid_crossentropy",
    "balanced_softmax_crossentropy",
    "class_balanced_crossentropy",
    "drop_loss",
    "equalization_loss",
    "federated_loss",
    "gumbel_crossentropy",
    "gumbel_optimized_loss",
    "ldam",
    "seesaw_loss",
    "softmax_equalization_loss",
    "trusted_labels",
]
