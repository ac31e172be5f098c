"""`keras-apa export`: a model for TensorFlow Serving, ONNX Runtime or LiteRT."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from pathlib import Path

import keras
import numpy as np

from training.cli.choices import ExportActivation, ExportFormat, Quantization
from training.errors import OptionError, usage
from training.image_files import search_images
from training.images import read_image
from training.inference.classifier import read_class_names
from training.models import load_model
from training.runtime.output import escaped_output, visible
from zoo.export import export
from zoo.serving.target import FORMATS

REPRESENTATIVE_IMAGES = 200


@escaped_output()
def run_export(
    model: str | os.PathLike,
    folder: str | os.PathLike,
    *,
    format: ExportFormat = "tf_saved_model",
    top_k: int = 5,
    quantization: Quantization | None = None,
    images: Sequence[str | os.PathLike] = (),
    class_names: Path | None = None,
    activation: ExportActivation | None = None,
    image_size: tuple[int, int] | None = None,
) -> int:
    """Exports a `.keras` file or a preset with the options of the command; prints the path written, returns 0.

    Raises: training.errors.UsageError: There is no such model, or an option is not allowed or does not fit the model.
    """
    with usage():
        if (quantization == "int8") != bool(images):
            raise OptionError(
                f"--images must be given with --quantization int8, and with no other; given: {len(images)} and "
                f"{quantization!r}. int8 takes the ranges of its numbers from them."
            )
        loaded = load_model(model)
        names = read_class_names(class_names) if class_names is not None else None
        pixels = _read_representative(loaded, images) if images else None
        path = export(
            loaded,
            folder,
            format=format,
            class_names=names,
            top_k=top_k,
            activation=activation,
            quantization=quantization,
            representative_images=pixels,
            image_size=image_size,
        )
    print(visible(f"Wrote {path / (FORMATS[format] or '')}"))
    return 0


def _read_representative(model: keras.Model, names: Sequence[str | os.PathLike]) -> np.ndarray:
    """Images that int8 takes the ranges of its numbers from, evenly chosen where there are many."""
    preprocessing = getattr(model, "preprocessing", None)
    if preprocessing is None:
        raise OptionError(
            f"--images must be left out for {model.name!r}, a model that does not say how images are prepared; given: "
            f"{len(names)}."
        )
    found = search_images(names)
    for name, reason in found.missing.items():
        raise OptionError(f"--images must be images; given: {name}: {reason}.")
    for note in found.notes():
        print(visible(f"keras-apa: --images: {note}"), file=sys.stderr)
    files = found.files
    step = -(-len(files) // REPRESENTATIVE_IMAGES)
    return np.stack([read_image(file, preprocessing) for file in files[::step]])
