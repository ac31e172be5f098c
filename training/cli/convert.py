"""`keras-apa convert`: a PyTorch checkpoint to a Keras model, and back."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any, get_args

import keras

import zoo
from keras_apa.layers import PriorCorrection
from training.checks import check_choice
from training.cli.choices import PreprocessingName
from training.errors import OptionError, usage
from training.files import atomic_path, make_writable
from training.runtime.output import escaped_output, visible
from zoo.checkpoint_files import ENDINGS, check_ending, read_state_dict, write_state_dict
from zoo.preprocessing import cifar, imagenet
from zoo.resnet import IMAGENET_RESNETS


@escaped_output()
def run_convert(
    source: Path,
    target: Path,
    *,
    image_size: tuple[int, int] | None = None,
    activation: str | None = None,
    gate: str | None = None,
    spatial_gate: str | None = None,
    preprocessing: PreprocessingName | None = None,
    overwrite: bool = False,
) -> int:
    """Converts `source` to `target`, by their endings; returns the exit code."""
    with usage():
        to_keras = _check_endings(source, target)
        if not source.is_file():
            raise OptionError(f"IN must be a file; given: {str(source)!r}, which is not there.")
        if target.exists() and not overwrite:
            raise OptionError(
                f"OUT must be new; given: {str(target)!r}, which exists. Give --overwrite to replace it, or another "
                "OUT."
            )
        make_writable(target.parent, "OUT")
        if preprocessing is not None:
            check_choice("--preprocessing", preprocessing, get_args(PreprocessingName))
        if not to_keras and (image_size or activation or gate or spatial_gate or preprocessing):
            raise ValueError(
                "--image-size, --activation, --preprocessing and the gates must be left out unless OUT ends in "
                f".keras; given: {str(target)!r}."
            )
        if to_keras:
            given = {"activation": activation, "gate": gate, "spatial_gate": spatial_gate}
            model = to_keras_model(source, image_size, {k: v for k, v in given.items() if v is not None})
            model.preprocessing = find_preprocessing(model, preprocessing)
        else:
            model = keras.models.load_model(source, compile=False)
            state = zoo.to_torch_state_dict(model)
    if to_keras:
        with atomic_path(target) as temporary:
            model.save(temporary)
    else:
        if any(isinstance(layer, PriorCorrection) for layer in model.layers):
            print("keras-apa: the prior correction after the logits is left out: it has no weights", file=sys.stderr)
        with usage():
            write_state_dict(state, target)
    if to_keras and preprocessing is None and model.preprocessing is not None:
        kind = "ImageNet" if model.name in IMAGENET_RESNETS else "CIFAR"
        print(f"Images are prepared with the mean and deviation of {kind}, as is usual for {model.name}. A checkpoint")
        print("does not store them; to change them, give --preprocessing imagenet, cifar or none.")
    print(visible(f"{model.name}, {model.count_params():,} weights. Wrote {target}"))
    return 0


def find_preprocessing(model: keras.Model, name: PreprocessingName | None) -> zoo.Preprocessing | None:
    """How images are prepared for a network: as usual for its kind, or as `name` says; None for grey images."""
    channels_last = keras.config.image_data_format() == "channels_last"
    *sides, channels = model.input_shape[1:] if channels_last else (*model.input_shape[2:], model.input_shape[1])
    if name == "none" or channels != 3:
        return None
    name = name or ("imagenet" if model.name in IMAGENET_RESNETS else "cifar")
    usual = imagenet() if name == "imagenet" else cifar()
    return usual if None in sides else usual.at_size(sides)


def to_keras_model(source: Path, image_size: tuple[int, int] | None, options: dict[str, Any]) -> keras.Model:
    """The network that a checkpoint was made with, with its weights."""
    arrays = read_state_dict(source)
    name, found = zoo.detect_architecture(arrays)
    if image_size is not None:
        last = keras.config.image_data_format() == "channels_last"
        channels = found.get("input_shape", (3, 3, 3))[-1 if last else 0]
        found["input_shape"] = (*image_size, channels) if last else (channels, *image_size)
    model = zoo.create_model(name, **{**found, **options})
    zoo.load_torch_checkpoint(model, arrays)
    return model


def _check_endings(source: Path, target: Path) -> bool:
    """Whether the way is from PyTorch to Keras; a ValueError where neither is .keras, or both are."""
    endings = ", ".join(ENDINGS)
    keras_files = [path.suffix.lower() == ".keras" for path in (source, target)]
    if keras_files == [True, True] or not any(keras_files):
        raise ValueError(
            f"one of IN and OUT must end in .keras, the other in {endings}; given: {str(source)!r}, {str(target)!r}."
        )
    check_ending(target if keras_files[0] else source)
    return keras_files[1]
