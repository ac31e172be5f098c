"""The detector that a training of detection starts from: torchvision's or one of the zoo, but for its last layers."""

from __future__ import annotations

import keras
import numpy as np

import zoo
from training.detection_recipe import DetectionModelOptions, DetectionRecipe
from training.models import load_model
from zoo.checkpoint_files import check_finite, read_state_dict
from zoo.detection.checkpoint import BODY, new_names, to_torchvision
from zoo.detection.options import make_options
from zoo.torch_checkpoint import torch_tensors

__all__ = ["check_start", "load_start", "start_notes"]

# A tensor with as many rows as the model option says.
_ROWS = {
    "backbone.fpn.inner_blocks.0.0.weight": "pyramid_filters",
    "roi_heads.box_head.fc6.weight": "box_units",
    "roi_heads.mask_head.0.0.weight": "mask_filters",
}


def check_start(options: DetectionModelOptions, backbone: keras.Model) -> None:
    """Raises a ValueError where the checkpoint of `model.weights` is not of such a detector.

    Args:
        options: With `weights`; nothing is checked without.
        backbone: The network that the options say.
    """
    if not options.weights:
        return
    arrays = _arrays(options)
    given = f"model.weights: {options.weights!r}"
    for key, option in _ROWS.items():
        if option == "mask_filters" and not options.has_masks:
            continue
        if key not in arrays or arrays[key].ndim < 2:
            kind = "Mask R-CNN" if options.has_masks else "Faster or Mask R-CNN"
            raise ValueError(f"{given} is no {kind} of torchvision's layout: it has no {key}")
        rows = arrays[key].shape[0]
        if rows != getattr(options, option):
            raise ValueError(f"{given} has {rows} channels where model.{option} is {getattr(options, option)}")
    ratios = len(make_options("torchvision", options.options).anchor_ratios)
    anchors = arrays["rpn.head.cls_logits.weight"].shape[:1] if "rpn.head.cls_logits.weight" in arrays else None
    if anchors != (ratios,):
        raise ValueError(f"{given} has not {ratios} anchors a pixel, one a ratio")
    for tensor in torch_tensors(backbone):
        found = arrays.get(BODY + tensor.key)
        if found is None or found.shape != tensor.shape:
            has = f"no {BODY}{tensor.key}" if found is None else f"{BODY}{tensor.key} of shape {found.shape}"
            raise ValueError(f"{given} is not of a {options.backbone}: it has {has}, not {tensor.shape}")
    check_finite(arrays.items())


def load_start(options: DetectionModelOptions, detector: keras.Model) -> None:
    """Loads the checkpoint of `model.weights`, if there is one, but for the layers of the classes."""
    if options.weights:
        zoo.load_torch_checkpoint(detector, _arrays(options), skip_classifier=True)


def start_notes(recipe: DetectionRecipe) -> tuple[str, ...]:
    """What the training starts from, a sentence each.

    >>> start_notes(DetectionRecipe(name="mine").replace(model={"weights": "detector.keras"}))
    ('starts from the detector in detector.keras, but for the layers of the classes',)
    """
    options = recipe.model
    if options.weights:
        return (f"starts from the detector in {options.weights}, but for the layers of the classes",)
    if options.frozen_batch_norm and not options.backbone_weights:
        return (
            "starts from random weights, whose batch norms have seen no images: --model.weights takes a detector, "
            "--model.backbone-weights a network, and --model.no-frozen-batch-norm trains the norms",
        )
    return ()


def _arrays(options: DetectionModelOptions) -> dict[str, np.ndarray]:
    """The tensors of the checkpoint in torchvision's layout; without those of masks where none are trained."""
    try:
        if options.weights.endswith(".keras"):
            detector = load_model(options.weights)
            if not hasattr(detector, "proposal_head"):
                raise ValueError(f"{options.weights!r} is no detector; model.backbone_weights takes networks")
            arrays = to_torchvision(detector, skip_classifier=True)
        else:
            arrays = new_names(read_state_dict(options.weights))
    except ValueError as error:
        raise ValueError(f"model.weights: {error}") from error
    return {key: x for key, x in arrays.items() if options.has_masks or not key.startswith("roi_heads.mask_")}
