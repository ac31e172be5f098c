"""Training, evaluation and reports of classifiers."""

from keras_apa._moved import moved

# `training.classification` was one module. `train` and `evaluate` are modules here now: see `training.train`.
_HOMES = {
    "Evaluation": "training.classification.evaluate",
    "build_loss": "training.classification.losses",
    "check": "training.classification.train",
    "compiled_model": "training.classification.train",
}
__getattr__ = moved(__name__, _HOMES)
