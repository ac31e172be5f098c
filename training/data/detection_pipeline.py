"""Moved to `training.data.detection.pipeline`."""

from keras_apa._moved import moved

_NAMES = (
    "detection_evaluation_images",
    "detection_notes",
    "detection_steps_per_epoch",
    "detection_training_dataset",
    "place_image",
    "resized_part",
)
__getattr__ = moved(__name__, dict.fromkeys(_NAMES, "training.data.detection.pipeline"))
