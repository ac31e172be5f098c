"""The detector of a recipe: backbone, options, precision."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
from keras import ops

import zoo
from training.config.detection import DetectionModelOptions, DetectionRecipe
from training.data.detection.source import DetectionSource
from training.detection.losses import build_region_loss
from training.detection.start import load_start
from training.errors import OptionError
from training.models import precision
from zoo.detection import DetectionPreprocessing
from zoo.detection.backbone import set_batch_norm_epsilon

DETECTORS = {"mask_rcnn": zoo.MaskRCNN, "faster_rcnn": zoo.FasterRCNN}


def check_masks(recipe: DetectionRecipe, source: DetectionSource) -> None:
    """Raises a ValueError where masks are to be trained and there are none."""
    if recipe.model.has_masks and not source.train.has_masks:
        raise OptionError(
            f"model.name must be 'faster_rcnn', which needs no masks, for {source.name}, which has objects without "
            f"masks; given: {recipe.model.name!r}."
        )


def build_detector(recipe: DetectionRecipe, source: DetectionSource) -> keras.Model:
    """The zoo's detector with as many classes as the data has, and their names.

    Raises: ValueError: An unknown network, option or loss, data without masks for Mask R-CNN, or weights to start from
        that do not fit.
    """
    options = recipe.model
    check_masks(recipe, source)
    with precision(recipe.precision):
        detector = DETECTORS[options.name](
            build_backbone(options),
            source.num_classes,
            roi_loss=build_region_loss(recipe, source.image_counts, source.num_images, source.frequency_threshold),
            classifier=options.classifier,
            frozen_stages=options.frozen_stages,
            preprocessing=DetectionPreprocessing(
                min_size=recipe.data.shorter_side or min(recipe.data.image_size), max_size=max(recipe.data.image_size)
            ),
            class_names=source.class_names,
            seed=recipe.seed,
            **layer_options(options),
            **detection_options(recipe),
        )
    load_start(options, detector)
    return detector


def layer_options(options: DetectionModelOptions) -> dict[str, Any]:
    """Arguments of the detector that decide the layers behind the network."""
    masks = {"mask_format": "box", "mask_filters": options.mask_filters} if options.has_masks else {}
    return {
        "pyramid_filters": options.pyramid_filters,
        "box_units": options.box_units,
        "anchor_sizes": tuple((size,) for size in options.anchor_sizes),
        **masks,
    }


def detection_options(recipe: DetectionRecipe) -> dict[str, Any]:
    """Fields of `zoo.detection.Options` that the recipe sets: LVIS measures 300 detections, whatever their score."""
    of_style = {"max_detections": 300, "score_threshold": 1e-4} if recipe.evaluation.style == "lvis" else {}
    return {**of_style, **recipe.model.options}


def build_backbone(options: DetectionModelOptions) -> keras.Model:
    """The network of the zoo, from random or given weights."""
    arguments = {"stem": "imagenet", **options.backbone_options}
    network = zoo.create_model(
        options.backbone,
        weights=options.backbone_weights or None,
        pyramid=True,
        input_shape=(None, None, 3),
        data_format="channels_last",
        frozen_batch_norm=options.frozen_batch_norm,
        **arguments,
    )
    if options.batch_norm_epsilon is not None:
        set_batch_norm_epsilon(network, options.batch_norm_epsilon)
    return network


def classifier_weight_norms(model: keras.Model) -> list[float]:
    """The length of the weights of each class in the last layer of the box head (GOL, Fig. 1)."""
    kernel = ops.convert_to_numpy(model.box_head.classifier.kernel).astype("float64")
    return [float(norm) for norm in np.linalg.norm(kernel, axis=0)[: model.num_classes]]


def uncompiled(model: keras.Model) -> keras.Model:
    """The detector without its optimizer, which a file of one backend would bring to another that cannot use it."""
    fresh = type(model).from_config(model.get_config())
    fresh.set_weights(model.get_weights())
    return fresh
