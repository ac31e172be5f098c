"""Moved to `training.detection.metrics`."""

from keras_apa._moved import moved

_NAMES = (
    "DetectionEvaluation",
    "DetectionMetrics",
    "coco_results",
    "detect",
    "evaluate_detections",
    "logged_names",
)
__getattr__ = moved(__name__, dict.fromkeys(_NAMES, "training.detection.metrics"))
