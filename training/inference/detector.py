"""What `keras-apa predict` does with a detector: the objects in image files, and pictures of them."""

from __future__ import annotations

import dataclasses
import itertools
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import keras
import numpy as np

from training.data.detection.masks import encode_mask
from training.files import atomic_path
from training.images import read_pixels
from training.runtime.output import as_text

# Detections with a lower score are mostly wrong.
MIN_SCORE = 0.5


@dataclasses.dataclass(frozen=True)
class DetectionPredictor:
    """A detector, and what of its detections is wanted.

    Attributes:
        detector: A `zoo.FasterRCNN` or `zoo.MaskRCNN`.
        class_names: A name for each label.
        resize: As `predict_images` takes it.
        pictures: A folder for pictures with boxes and masks drawn, or `None`.
    """

    detector: keras.Model
    class_names: tuple[str, ...]
    resize: bool | tuple[int, int] = True
    pictures: Path | None = None


def detect_files(predictor: DetectionPredictor, files: Sequence[str]) -> Iterator[dict[str, Any]]:
    """The objects in each file, in the order of the files; one image is in memory at a time.

    Yields: `{"file", "detections": [{"index", "class", "score", "bbox", "segmentation"}, ...]}`, the best first: `bbox`
        as COCO has it, `[x, y, width, height]` in pixels of the upright image, `segmentation` (of Mask R-CNN) its run
        lengths. With pictures also `"picture"`, the path of this one, or `"error"` if it cannot be drawn. Of a file
        that cannot be read `{"file", "error"}`.
    """
    taken: set[str] = set()
    for file in files:
        try:
            pixels = read_pixels(file)
        except ValueError as error:
            yield {"file": file, "error": str(error).removeprefix(f"{file}: ")}
            continue
        (found,) = predictor.detector.predict_images([pixels], resize=predictor.resize)
        result: dict[str, Any] = {"file": file, "detections": _described(found, predictor.class_names)}
        if predictor.pictures is not None:
            path = _free(predictor.pictures, Path(file).stem, taken)
            try:
                _draw(path, pixels, result["detections"], predictor.class_names)
                result["picture"] = str(path)
            except (OSError, ValueError) as error:  # such as one of too many pixels; what was found is not lost
                result["error"] = f"no picture: {error}"
        yield result


def _described(found: dict[str, np.ndarray], class_names: Sequence[str]) -> list[dict[str, Any]]:
    detections = []
    for place, label in enumerate(found["labels"].tolist()):
        x1, y1, x2, y2 = (float(x) for x in found["boxes"][place])
        detection = {
            "index": label,
            "class": class_names[label],
            "score": float(found["scores"][place]),
            "bbox": [x1, y1, x2 - x1, y2 - y1],
        }
        if "masks" in found:
            detection["segmentation"] = encode_mask(found["masks"][place])
        detections.append(detection)
    return detections


def _free(folder: Path, stem: str, taken: set[str]) -> Path:
    """A name of a picture that no earlier file has: files of several folders may have the same."""
    if len(os.fsencode(stem)) > 200:  # names of files are at most 255 bytes
        stem = as_text(stem).encode()[:200].decode(errors="ignore")
    names = itertools.chain([stem], (f"{stem}-{number}" for number in itertools.count(2)))
    name = next(name for name in names if name.casefold() not in taken)
    taken.add(name.casefold())
    return folder / f"{name}.png"


def _draw(path: Path, pixels: np.ndarray, detections: list[dict[str, Any]], class_names: Sequence[str]) -> None:
    from training.detection.figures import picture
    from training.reporting import any_glyphs

    figure = picture(pixels, [{**each, "category_id": each["index"]} for each in detections], class_names)
    with any_glyphs(), atomic_path(path) as temporary:
        figure.savefig(temporary, format="png")
