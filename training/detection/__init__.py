"""Training, evaluation and reports of detectors."""

from keras_apa._moved import moved

# `training.detection` was one module.
_HOMES = {
    "DetectionOutcome": "training.detection.outcome",
    "build_detector": "training.detection.network",
    "build_region_loss": "training.detection.losses",
    "check_detection": "training.detection.train",
    "compiled_detector": "training.detection.train",
    "load_source_of": "training.detection.train",
    "train_detector": "training.detection.train",
}
__getattr__ = moved(__name__, _HOMES)
