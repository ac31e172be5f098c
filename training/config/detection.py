"""Frozen dataclasses that describe one experiment of detection: data, augmentation, model, loss, evaluation.

As in `training.config.classification`: plain data that imports neither Keras nor TensorFlow, is checked when it is
made, and turns into a dictionary for JSON and back without loss.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any, Literal, get_args

from training.checks import check_choice, check_flag, check_number, check_plain_mapping, check_text, check_whole
from training.config.experiment import Experiment, OptimizerOptions
from training.errors import OptionError

DetectionSampler = Literal["random", "repeat_factor"]
Detector = Literal["mask_rcnn", "faster_rcnn"]
Style = Literal["coco", "lvis"]
# Stride of the coarsest map of the backbone: a smaller image has no pixel there.
SMALLEST_SIDE = 32


def _pair(what, value, meaning):
    """JSON has lists only, and a recipe that was read has to equal the one that was written."""
    if not isinstance(value, Sequence) or isinstance(value, str) or len(value) != 2:
        raise OptionError(f"{what} must be two numbers, {meaning}; given: {value!r}.")
    return tuple(value)


@dataclasses.dataclass(frozen=True, kw_only=True)
class DetectionDataOptions:
    """The annotated images and their size. A data set ignores the options that it has no use for."""

    name: str = "digit_scenes_lt"
    """A data set: digit_scenes_lt (embedded), or coco for images of your own, annotated in COCO's or LVIS's JSON."""
    train: str = ""
    """JSON file of the training images."""
    images: str = ""
    """Folder of the training images, from which the file names in the JSON file start."""
    test: str = ""
    """JSON file of the test images. If not given: a part of the training images is held out."""
    test_images: str = ""
    """Folder of the test images. If not given: the folder of the training images."""
    validation_fraction: float = 0.1
    """Share of the training images to hold out for testing if data.test is not given."""
    empty_images: bool = True
    """Train on images without objects, too."""
    image_size: tuple[int, int] = (128, 128)
    """Height and width of a training image in pixels. A smaller image is padded, a larger one is cropped."""
    shorter_side: int = 0
    """Most pixels of an image's shorter side. With it, landscape and portrait images get one size on a square
    image_size; 0: as many as fit."""
    max_objects: int = 100
    """Most objects of an image to train on; the largest are kept."""
    mask_size: int = 112
    """Side of a mask in pixels; each mask is cropped to its box."""
    sampler: DetectionSampler = "random"
    """How images are drawn: random (each once an epoch) or repeat_factor (images of rare classes more often, LVIS)."""
    repeat_threshold: float = 0.001
    """Images of a class are repeated if the class is in less than this share of all images (sampler repeat_factor)."""
    imbalance_factor: float = 200.0
    """Objects of the most frequent class over those of the rarest (digit_scenes_lt)."""
    num_train: int = 600
    """Training images (digit_scenes_lt)."""
    num_test: int = 120
    """Test images (digit_scenes_lt)."""
    seed: int = 0
    """Seed of the scenes (digit_scenes_lt) and of the images that are held out (coco)."""

    def __post_init__(self):
        check_text("data.name", self.name)
        for field in ("train", "images", "test", "test_images"):
            if not isinstance(getattr(self, field), str):
                raise OptionError(f"data.{field} must be text; given: {getattr(self, field)!r}.")
        check_number("data.validation_fraction", self.validation_fraction, above=0.0, below=1.0)
        check_flag("data.empty_images", self.empty_images)
        object.__setattr__(self, "image_size", _pair("data.image_size", self.image_size, "height and width"))
        for side in self.image_size:
            check_whole("each side of data.image_size", side, at_least=SMALLEST_SIDE)
        if self.shorter_side:
            check_whole("data.shorter_side", self.shorter_side, at_least=SMALLEST_SIDE, below=min(self.image_size) + 1)
        for field in ("max_objects", "mask_size", "num_train", "num_test"):
            check_whole(f"data.{field}", getattr(self, field), at_least=1)
        check_choice("data.sampler", self.sampler, get_args(DetectionSampler))
        check_number("data.repeat_threshold", self.repeat_threshold, above=0.0)
        check_number("data.imbalance_factor", self.imbalance_factor, at_least=1.0)
        check_whole("data.seed", self.seed, at_least=0)


@dataclasses.dataclass(frozen=True, kw_only=True)
class DetectionAugmentOptions:
    """Augmentation of a training image, its boxes and its masks."""

    flip: bool = False
    """Mirror left to right with probability 0.5."""
    scale: tuple[float, float] = (1.0, 1.0)
    """Smallest and largest scale; each image gets one in between, all equally likely. At 1 the whole image just fits
    data.image_size; above 1 a random part is cut out, below 1 the rest is padding."""

    def __post_init__(self):
        check_flag("augment.flip", self.flip)
        object.__setattr__(self, "scale", _pair("augment.scale", self.scale, "smallest and largest"))
        for end in self.scale:
            check_number("each of augment.scale", end, above=0.0)
        if self.scale[0] > self.scale[1]:
            raise OptionError(f"augment.scale must be the smallest and the largest size; given: {list(self.scale)}.")


@dataclasses.dataclass(frozen=True, kw_only=True)
class DetectionModelOptions:
    """The detector, and the network of the zoo in it."""

    name: Detector = "mask_rcnn"
    """Detector; mask_rcnn also learns masks."""
    backbone: str = "resnet50"
    """A network; keras-apa list models names them."""
    weights: str = ""
    """Detector to start from: a .keras file, or a .pth, .pt or .safetensors file of torchvision's Faster or Mask R-CNN.
    The layers of the classes are not taken from it; none: random weights."""
    backbone_weights: str = ""
    """Weights to start from for the network alone, as zoo.create_model takes them; none: random weights."""
    backbone_options: Mapping[str, bool | int | float | str] = dataclasses.field(default_factory=dict)
    """Further arguments of zoo.create_model, such as activation and gate."""
    frozen_batch_norm: bool = True
    """Let the batch norms of the network use their moving statistics in training too."""
    batch_norm_epsilon: float | None = None
    """Epsilon of the network's batch norms, 0 for torchvision's published COCO_V1 detectors; none: its own."""
    frozen_stages: int | None = None
    """Freeze the stem and this many stages of the network; none: train all of it."""
    classifier: str = "linear"
    """Last layer of the box head: linear, normalized or cosine."""
    pyramid_filters: int = 256
    """Channels of the feature pyramid."""
    box_units: int = 1024
    """Width of the two dense layers of the box head."""
    mask_filters: int = 256
    """Channels of the mask head."""
    anchor_sizes: tuple[float, ...] = (32.0, 64.0, 128.0, 256.0, 512.0)
    """Anchor size in pixels on each level of the pyramid."""
    options: Mapping[str, bool | int | float | str] = dataclasses.field(default_factory=dict)
    """Fields of zoo.detection.Options, such as max_detections."""

    def __post_init__(self):
        check_choice("model.name", self.name, get_args(Detector))
        check_text("model.backbone", self.backbone)
        for field in ("weights", "backbone_weights"):
            if not isinstance(getattr(self, field), str):
                raise OptionError(f"model.{field} must be text; given: {getattr(self, field)!r}.")
            if getattr(self, field) == "none":  # what a command line can say
                object.__setattr__(self, field, "")
        if self.weights and self.backbone_weights:
            raise OptionError(
                f"model.backbone_weights must be left out with model.weights; given: {self.backbone_weights!r}. "
                "model.weights has the weights of the network too."
            )
        check_plain_mapping("model.backbone_options", self.backbone_options)
        check_plain_mapping("model.options", self.options)
        check_flag("model.frozen_batch_norm", self.frozen_batch_norm)
        if self.batch_norm_epsilon is not None:
            check_number("model.batch_norm_epsilon", self.batch_norm_epsilon, at_least=0.0, below=1.0)
        if self.frozen_stages is not None:
            check_whole("model.frozen_stages", self.frozen_stages, at_least=0)
        check_text("model.classifier", self.classifier)
        for field in ("pyramid_filters", "box_units", "mask_filters"):
            check_whole(f"model.{field}", getattr(self, field), at_least=1)
        if not isinstance(self.anchor_sizes, tuple | list) or not self.anchor_sizes:
            raise OptionError(f"model.anchor_sizes must be a list of sizes; given: {self.anchor_sizes!r}.")
        for size in self.anchor_sizes:
            check_number("each of model.anchor_sizes", size, above=0.0)
        object.__setattr__(self, "anchor_sizes", tuple(float(size) for size in self.anchor_sizes))
        if "anchor_sizes" in self.options:
            raise OptionError(
                "model.options must have other names than the options of model; given: 'anchor_sizes'. Use "
                "--model.anchor-sizes."
            )

    @property
    def has_masks(self) -> bool:
        """Whether masks are trained."""
        return self.name == "mask_rcnn"


@dataclasses.dataclass(frozen=True, kw_only=True)
class DetectionLossOptions:
    """The loss of the classes of regions.

    `image_counts`, `class_counts`, `num_images`, `background=True`, `seed` and `frequency_threshold` (that of the last
    common class) are filled in where a loss takes them.
    """

    name: str = "softmax"
    """Loss: softmax, sigmoid, gumbel, or one of keras_apa.losses; keras-apa list losses names them."""
    options: Mapping[str, bool | int | float | str] = dataclasses.field(default_factory=dict)
    """Arguments of the loss, such as frequency_threshold."""

    def __post_init__(self):
        check_text("loss.name", self.name)
        check_plain_mapping("loss.options", self.options)


@dataclasses.dataclass(frozen=True, kw_only=True)
class DetectionEvaluationOptions:
    """How to measure the detections in the test images."""

    style: Style = "coco"
    """Rules: coco (100 detections an image), or lvis (300, without classes that were not looked for in the image)."""
    every_epochs: int = 1
    """Epochs between two measurements during training; the last epoch is always measured."""
    batch_size: int = 8
    """Images that are evaluated at a time; does not change the result."""

    def __post_init__(self):
        check_choice("evaluation.style", self.style, get_args(Style))
        check_whole("evaluation.every_epochs", self.every_epochs, at_least=1)
        check_whole("evaluation.batch_size", self.batch_size, at_least=1)


@dataclasses.dataclass(frozen=True, kw_only=True)
class DetectionRecipe(Experiment):
    """One experiment of detection; the fields that it shares with classification are those of `Recipe`.

    >>> recipe = DetectionRecipe(name="mine", epochs=2)
    >>> DetectionRecipe.from_dict(recipe.to_dict()) == recipe
    True
    """

    data: DetectionDataOptions = DetectionDataOptions()
    augment: DetectionAugmentOptions = DetectionAugmentOptions()
    model: DetectionModelOptions = DetectionModelOptions()
    loss: DetectionLossOptions = DetectionLossOptions()
    optimizer: OptimizerOptions = dataclasses.field(default=OptimizerOptions(learning_rate=0.02))
    evaluation: DetectionEvaluationOptions = DetectionEvaluationOptions()
    epochs: int = 12
    """Passes over the training images."""
    batch_size: int = 2
    """Training images in a batch."""

    def to_dict(self) -> dict[str, Any]:
        """As `Recipe.to_dict`, with the `task` by which a reader tells the two kinds apart."""
        return {"task": "detection", **super().to_dict()}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> DetectionRecipe:
        """The recipe that `to_dict` wrote."""
        return super().from_dict({key: value for key, value in values.items() if key != "task"})
