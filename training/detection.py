"""Detection: compile, fit and measure what a recipe describes."""

from __future__ import annotations

import dataclasses
import inspect
import time
from collections.abc import Mapping, Sequence
from typing import Any

import keras
import numpy as np
from keras import ops

import keras_apa
import keras_apa.losses
import zoo
from keras_apa.losses import RandomLoss
from training.checkpoint import Checkpoints
from training.checks import nearest
from training.data.detection_pipeline import detection_steps_per_epoch, detection_training_dataset
from training.data.detection_source import DetectionSource
from training.detection_recipe import DetectionRecipe
from training.detection_sources import check_detection_data, load_detection_source
from training.evaluation import DetectionEvaluation
from training.fitting import fit
from training.optimization import build_optimizer
from zoo.detection import DetectionPreprocessing
from zoo.detection.roi_losses import NAMES as LOSS_NAMES

DETECTORS = {"mask_rcnn": zoo.MaskRCNN, "faster_rcnn": zoo.FasterRCNN}
