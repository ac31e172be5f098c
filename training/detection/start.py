"""The detector that a training of detection starts from: torchvision's or one of the zoo, but for its last layers."""

from __future__ import annotations

import keras
import numpy as np

import zoo
from training.config.detection import DetectionModelOptions, DetectionRecipe
from training.errors import OptionError
from training.models import load_model
from zoo.checkpoint_files import read_state_dict
from zoo.detection.checkpoint import BODY, new_names, to_torchvision
from zoo.torch_tensors import torch_tensors

__all__ = ["check_start", "load_start", "start_notes", "without_start"]

# A tensor with as many rows as the model option says.
_ROWS = {
    "backbone.fpn.inner_blocks.0.0.weight": "pyramid_filters",
    "roi_heads.box_head.fc6.weight": "box_units",
    "roi_heads.mask_head.0.0.weight": "mask_filters",
}
# What of a layer changes its values and not its tensors, and the option that makes it alike.
_FUNCTIONS = {"epsilon": "model.batch_norm_epsilon", "activation": "model.backbone_options"}
# What of the anchors and of the features of a region the layers were trained for; sizes of anchors may be others.
_OPTIONS = ("anchor_ratios", "anchor_rounding", "roi_aligned", "roi_sampling_ratio", "roi_canonical_size")


def check_start(options: DetectionModelOptions, detector: keras.Model) -> None:
    """Raises a ValueError where `model.weights` are not of such a detector; otherwise they are loaded.

    Args:
        options: With `weights`.
        detector: As the options say, of any classes.
    """
    given = repr(options.weights)
    arrays = _arrays(options, detector)
    for key, option in _ROWS.items():
        if option == "mask_filters" and not options.has_masks:
            continue
        if key not in arrays or arrays[key].ndim < 2:
            kind = "Mask R-CNN" if options.has_masks else "Faster or Mask R-CNN"
            has = f"no {key}" if key not in arrays else f"{key} of the shape {arrays[key].shape}"
            hint = " model.name faster_rcnn needs no masks." if option == "mask_filters" else ""
            raise OptionError(
                f"model.weights must be a {kind} of torchvision's layout; given: {given}, which has {has}.{hint}"
            )
        rows = arrays[key].shape[0]
        if rows != getattr(options, option):
            raise OptionError(
                f"model.{option} must be {rows}, the channels of model.weights {given}; given: "
                f"{getattr(options, option)}."
            )
    for tensor in torch_tensors(detector.backbone):
        key = BODY + tensor.key
        if key not in arrays:
            raise OptionError(
                f"model.weights must be of a {options.backbone}, as model.backbone says; given: {given}, which has no "
                f"{key}."
            )
        if arrays[key].shape != tensor.shape:
            raise OptionError(
                f"model.weights must be of a {options.backbone}, as model.backbone says; given: {given}, whose {key} "
                f"is {arrays[key].shape} instead of {tensor.shape}."
            )
    _load(options, detector, arrays)


def load_start(options: DetectionModelOptions, detector: keras.Model) -> None:
    """Loads `model.weights`, if there are any, but for the layers of the classes."""
    if options.weights:
        _load(options, detector, _arrays(options, detector))


def without_start(recipe: DetectionRecipe) -> DetectionRecipe:
    """The recipe of a training that goes on from a checkpoint of its own, which needs no other weights."""
    return recipe.replace(model={"weights": "", "backbone_weights": ""})


def start_notes(recipe: DetectionRecipe) -> tuple[str, ...]:
    """What the training starts from, a sentence each.

    >>> start_notes(DetectionRecipe(name="mine").replace(model={"weights": "detector.keras"}))
    ('start weights: those of the detector in detector.keras, but for the layers of the classes',)
    """
    options = recipe.model
    if options.weights:
        return (f"start weights: those of the detector in {options.weights}, but for the layers of the classes",)
    if options.frozen_batch_norm and not options.backbone_weights:
        return (
            "start weights: random ones, whose batch norms have seen no images: --model.weights takes a detector, "
            "--model.backbone-weights a network, and --model.no-frozen-batch-norm trains the norms",
        )
    return ()


def _load(options, detector, arrays):
    try:
        zoo.load_torch_checkpoint(detector, arrays, skip_classifier=True)
    except ValueError as error:
        raise OptionError(f"model.weights must fit the detector; given: {options.weights!r}. {error}") from error


def _arrays(options: DetectionModelOptions, detector: keras.Model) -> dict[str, np.ndarray]:
    """The tensors of the checkpoint in torchvision's layout; without those of masks where none are trained."""
    try:
        if options.weights.endswith(".keras"):
            loaded = load_model(options.weights)
            if not hasattr(loaded, "proposal_head"):
                raise OptionError(
                    f"model.weights must be a detector; given: {options.weights!r}. model.backbone_weights takes "
                    "networks."
                )
            if difference := _difference(loaded, detector):
                raise OptionError(
                    f"model.weights must be a detector like that of the recipe; given: {options.weights!r}: "
                    f"{difference}."
                )
            arrays = to_torchvision(loaded, skip_classifier=True)
        else:
            arrays = new_names(read_state_dict(options.weights))
    except OptionError:
        raise
    except ValueError as error:
        raise OptionError(
            f"model.weights must be the weights of a detector; given: {options.weights!r}. {error}"
        ) from error
    return {key: x for key, x in arrays.items() if options.has_masks or not key.startswith("roi_heads.mask_")}


def _difference(theirs: keras.Model, ours: keras.Model) -> str:
    """What two detectors do not have in common although their tensors may be alike; empty if there is nothing."""
    for name in ("mean", "std"):
        numbers = [getattr(each.preprocessing, name) for each in (theirs, ours)]
        if numbers[0] != numbers[1]:
            return f"its images have the {name} {numbers[0]}, here {numbers[1]}"
    for name in _OPTIONS:
        value, own = getattr(theirs.options, name), getattr(ours.options, name)
        if value != own:
            return f"its {name} is {value!r}, here {own!r} (model.options)"
    here = {layer.name: layer for layer in ours.backbone.layers}
    for layer in theirs.backbone.layers:
        other = here.get(layer.name)
        if other is None:
            continue  # a network of other tensors, which tell more
        if type(layer) is not type(other):
            kinds = f"{type(layer).__name__}, here {type(other).__name__}"
            return f"its layer {layer.name} is {kinds} (model.backbone_options)"
        for key, option in _FUNCTIONS.items():
            value, own = layer.get_config().get(key), other.get_config().get(key)
            if value != own:
                return f"{key} of its layer {layer.name} is {value!r}, here {own!r} ({option})"
    return ""
