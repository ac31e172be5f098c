"""Frozen dataclasses that describe one experiment of detection: data, augmentation, model, loss, evaluation.

As in `training.recipe`: plain data that imports neither Keras nor TensorFlow, is checked when it is made, and turns into
a dictionary for JSON and back without loss.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

from training.checks import check_choice, check_flag, check_number, check_text, check_whole

DETECTION_SAMPLERS = ("random", "repeat_factor")
# Stride of the coarsest map of the backbone: a smaller image has no pixel there.
SMALLEST_SIDE = 32


@dataclasses.dataclass(frozen=True, kw_only=True)
class DetectionDataOptions:
    """Which annotated images, and in which size. An option that a source has no use for is left alone."""

    name: str = "digit_scenes_lt"
    """digit_scenes_lt (embedded), or coco for images of your own with annotations in COCO's or LVIS's JSON."""
    train: str = ""
    """JSON file of the training images."""
    images: str = ""
    """Folder that the file names in it start from."""
    test: str = ""
    """JSON file of the test images; without one, a part of the training images is held out."""
    test_images: str = ""
    """Folder of the test images, if it is another one."""
    validation_fraction: float = 0.1
    """Share of the images that is held out for testing where there is no data.test."""
    empty_images: bool = True
    """Train on images without objects too."""
    image_size: tuple[int, int] = (128, 128)
    """Height and width of a training image in pixels: what is smaller is padded, what is larger is cropped."""
    max_objects: int = 100
    """Objects of an image that are trained on: the largest."""
    mask_size: int = 112
    """Side of a mask in pixels, each cropped to its box."""
    sampler: str = "random"
    """random: each image once an epoch; repeat_factor: images of rare classes more often (LVIS)."""
    repeat_threshold: float = 0.001
    """Share of the images that a class must be in, not to be repeated (sampler repeat_factor)."""
    imbalance_factor: float = 200.0
    """Objects of the most frequent class over those of the rarest (digit_scenes_lt)."""
    num_train: int = 600
    """Training images (digit_scenes_lt)."""
    num_test: int = 120
    """Test images (digit_scenes_lt)."""
    seed: int = 0
    """What the scenes are drawn from (digit_scenes_lt), and what is held out (coco)."""

    def __post_init__(self):
        check_text("data.name", self.name)
        for field in ("train", "images", "test", "test_images"):
            if not isinstance(getattr(self, field), str):
                raise ValueError(f"data.{field} must be text, not {getattr(self, field)!r}")
        check_number("data.validation_fraction", self.validation_fraction, above=0.0, below=1.0)
        check_flag("data.empty_images", self.empty_images)
        object.__setattr__(self, "image_size", _pair("data.image_size", self.image_size, "height and width"))
        for side in self.image_size:
            check_whole("each side of data.image_size", side, at_least=SMALLEST_SIDE)
        for field in ("max_objects", "mask_size", "num_train", "num_test"):
            check_whole(f"data.{field}", getattr(self, field), at_least=1)
        check_choice("data.sampler", self.sampler, DETECTION_SAMPLERS)
        check_number("data.repeat_threshold", self.repeat_threshold, above=0.0)
        check_number("data.imbalance_factor", self.imbalance_factor, at_least=1.0)
        check_whole("data.seed", self.seed, at_least=0)


@dataclasses.dataclass(frozen=True, kw_only=True)
class DetectionAugmentOptions:
    """What happens to a training image, its boxes and its masks."""

    flip: bool = False
    """Mirror left to right, every second time."""
    scale: tuple[float, float] = (1.0, 1.0)
    """Smallest and largest size, even in between; at 1 the whole image just fits data.image_size. Above it a random
    part is cut out, below it the rest is padding."""

    def __post_init__(self):
        check_flag("augment.flip", self.flip)
        object.__setattr__(self, "scale", _pair("augment.scale", self.scale, "smallest and largest"))
        for end in self.scale:
            check_number("each of augment.scale", end, above=0.0)
        if self.scale[0] > self.scale[1]:
            raise ValueError(f"augment.scale must be the smallest and the largest size, not {list(self.scale)}")


def _pair(what, value, meaning):
    """JSON has lists only, and a recipe that was read has to equal the one that was written."""
    if not isinstance(value, Sequence) or isinstance(value, str) or len(value) != 2:
        raise ValueError(f"{what} must be two numbers, {meaning}, not {value!r}")
    return tuple(value)
