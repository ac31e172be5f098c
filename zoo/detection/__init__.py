"""Two-stage detection: Faster and Mask R-CNN in plain `keras.ops`."""

from zoo.detection.checkpoint import load_torchvision, to_torchvision
from zoo.detection.mask_rcnn import MaskRCNN
from zoo.detection.masks import crop_masks, paste_masks
from zoo.detection.options import CONVENTIONS, Options
from zoo.detection.rcnn import FasterRCNN
from zoo.detection.targets import check_targets, pad_targets
from zoo.detection.transform import DetectionPreprocessing, resize_boxes, resize_image, resize_masks

__all__ = [
    "CONVENTIONS",
    "DetectionPreprocessing",
    "FasterRCNN",
    "MaskRCNN",
    "Options",
    "check_targets",
    "crop_masks",
    "load_torchvision",
    "pad_targets",
    "paste_masks",
    "resize_boxes",
    "resize_image",
    "resize_masks",
    "to_torchvision",
]
