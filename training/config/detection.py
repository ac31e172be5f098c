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
    """Whether images without objects are trained on."""
    image_size: tuple[int, int] = (128, 128)
    """Height and width of a training image in pixels: what is smaller is padded, what is larger is cropped."""
    shorter_side: int = 0
    """Pixels that the shorter side of an image may have, so that landscape and portrait images are of one size on a
    square image_size; 0: as many as fit."""
    max_objects: int = 100
    """Objects of an image that are trained on: the largest."""
    mask_size: int = 112
    """Side of a mask in pixels, each cropped to its box."""
    sampler: DetectionSampler = "random"
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
            raise OptionError(f"augment.scale must be the smallest and the largest size; given: {list(self.scale)}.")


@dataclasses.dataclass(frozen=True, kw_only=True)
class DetectionModelOptions:
    """Which detector, on which network of the zoo."""

    name: Detector = "mask_rcnn"
    """mask_rcnn also learns masks."""
    backbone: str = "resnet50"
    """A network; keras-apa list models names them."""
    weights: str = ""
    """Detector to start from, but for the layers of the classes: a .keras file, or a .pth, .pt or .safetensors file of
    torchvision's Faster or Mask R-CNN; none: random weights."""
    backbone_weights: str = ""
    """Weights of the network alone to start from, as zoo.create_model takes them; none: random ones."""
    backbone_options: Mapping[str, bool | int | float | str] = dataclasses.field(default_factory=dict)
    """Further arguments of zoo.create_model, such as activation and gate."""
    frozen_batch_norm: bool = True
    """Batch norms of the network use their moving statistics in training too."""
    batch_norm_epsilon: float | None = None
    """Of the network's batch norms, 0 for torchvision's published COCO_V1 detectors; none: as the network has it."""
    frozen_stages: int | None = None
    """Stem and this many stages of the network are not trained; none: all is."""
    classifier: str = "linear"
    """linear, normalized or cosine: last layer of the box head."""
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
    """softmax, sigmoid, gumbel, or a loss of keras_apa.losses; keras-apa list losses names them."""
    options: Mapping[str, bool | int | float | str] = dataclasses.field(default_factory=dict)
    """Arguments of the loss, such as frequency_threshold."""

    def __post_init__(self):
        check_text("loss.name", self.name)
        check_plain_mapping("loss.options", self.options)


@dataclasses.dataclass(frozen=True, kw_only=True)
class DetectionEvaluationOptions:
    """How the detections in the test images are measured."""

    style: Style = "coco"
    """coco (100 detections of an image), or lvis (300, and classes that nobody looked for are left out)."""
    every_epochs: int = 1
    """Epochs between two measurements during training; the last one is always measured."""
    batch_size: int = 8
    """Images at a time; does not change the result."""

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
    """How often the training images are seen."""
    batch_size: int = 2
    """Training images in a batch."""

    def to_dict(self) -> dict[str, Any]:
        """As `Recipe.to_dict`, with the `task` by which a reader tells the two kinds apart."""
        return {"task": "detection", **super().to_dict()}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> DetectionRecipe:
        """The recipe that `to_dict` wrote."""
        return super().from_dict({key: value for key, value in values.items() if key != "task"})
