"""Every choice in which two-stage detectors differ, as data: one field a choice, one set of values a convention."""

import dataclasses
import math
import numbers
from typing import Any

from keras_apa._checks import check_name
from zoo.detection.boxes import MAX_LOG_SCALE


@dataclasses.dataclass(frozen=True, kw_only=True)
class Options:
    """The choices of a detector; the defaults are torchvision's.

    Args:
        anchor_sizes: The anchor sizes in pixels, one tuple per level of the pyramid, the pooled one included.
        anchor_ratios: The height divided by the width of the anchors.
        anchor_rounding: Whether to round the corners of the anchors.
        rpn_high_threshold, rpn_low_threshold: The IoU from which an anchor is positive, and the IoU below which it is
            negative.
        rpn_low_quality: Whether an object also claims its best anchors, or the IoU from which it may.
        rpn_samples, rpn_positive_fraction: The number of anchors per image in the loss, and the largest share of
            positives.
        rpn_box_loss_beta: The `beta` of smooth L1. 0 is L1.
        rpn_candidates_training, rpn_candidates: The number of boxes per level that enter the suppression, in training
            and at inference.
        proposals_training, proposals: The number of proposals per image, in training and at inference.
        rpn_nms_threshold: The IoU of the suppression within a level.
        rpn_min_size: The shortest side of a proposal in pixels.
        roi_threshold: The IoU from which a proposal is positive. Below it, a proposal is background.
        roi_low_quality: As `rpn_low_quality`, for proposals.
        roi_samples, roi_positive_fraction: The number of regions per image in the losses, and the largest share of
            positives.
        add_ground_truth: Whether the objects' own boxes are proposals in training.
        box_weights: The weights of the deltas in the box head.
        box_loss_beta: As `rpn_box_loss_beta`, for the box head.
        symmetric_delta_clip: Whether to bound the logarithmic deltas from below too.
        class_agnostic_boxes: Whether all classes share one set of deltas.
        roi_aligned: Whether ROIAlign shifts by half a pixel.
        roi_sampling_ratio: The number of samples per bin on each axis. 0 is adaptive.
        roi_max_sampling_ratio: The largest number of samples if it is adaptive.
        roi_level_epsilon: `None`, or mmdet's epsilon inside the logarithm, see `pyramid_level`.
        roi_canonical_size: A box of this size in pixels is taken from the level with stride 16.
        mask_target_aligned: Whether ROIAlign of the mask targets shifts by half a pixel.
        mask_target_threshold: `None` leaves mask targets soft. A number makes them 0 or 1.
        mask_paste_padding: The pixels of zeros around a mask before it is pasted. The box grows with it.
        mask_paste_integer: Whether to round the box of a pasted mask to whole pixels.
        mask_threshold: The value from which a pasted mask is true.
        score_threshold: Boxes with a score above it are detections.
        nms_threshold: The IoU of the suppression within a class.
        max_detections: The largest number of detections per image.
        min_size: The shortest side of a detection in pixels.
        ignored_coverage: A box is not a negative if more than this share of it is inside an ignored region.

    Raises:
        ValueError: If a value is outside its range. The message names the field.

    Source: `Options()` is torchvision 0.28's `MaskRCNN`.

    >>> from zoo.detection.options import Options
    >>> Options(max_detections=300).max_detections
    300
    """

    anchor_sizes: tuple = ((32,), (64,), (128,), (256,), (512,))
    anchor_ratios: tuple = (0.5, 1.0, 2.0)
    anchor_rounding: bool = True
    rpn_high_threshold: float = 0.7
    rpn_low_threshold: float = 0.3
    rpn_low_quality: bool | float = True
    rpn_samples: int = 256
    rpn_positive_fraction: float = 0.5
    rpn_box_loss_beta: float = 1 / 9
    rpn_candidates_training: int = 2000
    rpn_candidates: int = 1000
    proposals_training: int = 2000
    proposals: int = 1000
    rpn_nms_threshold: float = 0.7
    rpn_min_size: float = 1e-3
    roi_threshold: float = 0.5
    roi_low_quality: bool | float = False
    roi_samples: int = 512
    roi_positive_fraction: float = 0.25
    add_ground_truth: bool = True
    box_weights: tuple = (10.0, 10.0, 5.0, 5.0)
    box_loss_beta: float = 1 / 9
    symmetric_delta_clip: bool = False
    class_agnostic_boxes: bool = False
    roi_aligned: bool = False
    roi_sampling_ratio: int = 2
    roi_max_sampling_ratio: int | None = None
    roi_level_epsilon: float | None = None
    roi_canonical_size: float = 224.0
    mask_target_aligned: bool = False
    mask_target_threshold: float | None = None
    mask_paste_padding: int = 1
    mask_paste_integer: bool = True
    mask_threshold: float = 0.5
    score_threshold: float = 0.05
    nms_threshold: float = 0.5
    max_detections: int = 100
    min_size: float = 1e-2
    ignored_coverage: float = 0.5

    def __post_init__(self):
        for field in dataclasses.fields(self):
            value = getattr(self, field.name)
            if isinstance(value, list):
                value = tuple(tuple(x) if isinstance(x, (list, tuple)) else x for x in value)
                object.__setattr__(self, field.name, value)
            self._check(field.name, field.default, value)
        if self.rpn_low_threshold > self.rpn_high_threshold:
            raise ValueError(
                f"rpn_low_threshold must not be above rpn_high_threshold, {self.rpn_high_threshold}; "
                f"given: {self.rpn_low_threshold}."
            )

    @property
    def min_log_scale(self):
        """Least logarithm of a box's growth, or `None`."""
        return -MAX_LOG_SCALE if self.symmetric_delta_clip else None

    @staticmethod
    def _check(name, default, value):
        if value is None and default is None:
            return
        if name.endswith("low_quality"):
            allowed, fine = "True, False or a number from 0 to 1", isinstance(value, bool) or _number(value, 0, 1)
        elif isinstance(default, bool):
            allowed, fine = "True or False", isinstance(value, bool)
        elif isinstance(default, tuple):
            flat = [x for each in value for x in (each if isinstance(each, tuple) else (each,))]
            allowed, fine = "positive numbers", bool(flat) and all(_number(x, 0, math.inf) and x > 0 for x in flat)
        elif isinstance(default, int) or name == "roi_max_sampling_ratio":
            least = 0 if name in ("roi_sampling_ratio", "mask_paste_padding") else 1
            integer = isinstance(value, numbers.Integral) and not isinstance(value, bool)
            allowed, fine = f"a whole number of at least {least}", integer and value >= least
        else:
            most = 1 if name.endswith(("threshold", "fraction", "coverage")) else math.inf
            allowed = "a number from 0 to 1" if most == 1 else "a number of at least 0"
            fine = _number(value, 0, most)
        if not fine:
            raise ValueError(f"{name} must be {allowed}; given: {value!r}.")


def _number(value, low, high):
    real = isinstance(value, numbers.Real) and not isinstance(value, bool)
    return real and math.isfinite(value) and low <= value <= high


CONVENTIONS: dict[str, dict[str, Any]] = {"torchvision": {}}


def make_options(conventions, changes):
    """The options of a named convention with some of them changed.

    Raises: ValueError: For an unknown convention or option, with the nearest valid names.

    >>> from zoo.detection.options import make_options
    >>> make_options("torchvision", {"roi_samples": 128}).roi_samples
    128
    """
    check_name(conventions, CONVENTIONS, "conventions")
    names = [field.name for field in dataclasses.fields(Options)]
    for name in changes:
        check_name(name, names, "an option of a detector")
    return Options(**{**CONVENTIONS[conventions], **changes})
