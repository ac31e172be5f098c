"""Mask R-CNN: Faster R-CNN with a third head."""

import keras
import numpy as np
from keras import ops

from keras_apa._checks import check_name
from zoo.detection.heads import MaskHead
from zoo.detection.losses import mask_loss
from zoo.detection.masks import mask_targets, paste_masks
from zoo.detection.rcnn import FasterRCNN, positive
from zoo.detection.targets import MASK_FORMATS


@keras.saving.register_keras_serializable(package="keras_apa")
class MaskRCNN(FasterRCNN):
    """Mask R-CNN with a feature pyramid: Faster R-CNN, and a mask for each detection.

    It adds a fifth loss, `mask_loss`. Everything else, arguments included, is as in `FasterRCNN`.

    Args:
        backbone, num_classes, ...: As in `FasterRCNN`.
        mask_format: The format of the target masks. `"image"` is `(batch, N, height, width)` uint8 at the size of the
            images. `"box"` is `(batch, N, M, M)`: each mask is cropped to its box and resampled
            (`zoo.detection.crop_masks`, M = 112). It needs a hundredth of the memory.
        mask_filters: The channels of the mask head.

    Targets: those of `FasterRCNN`, and `"masks"`.

    Returns:
        The dict of `FasterRCNN`, and `"masks"` `(batch, D, 28, 28)`, the probabilities inside the box.
        `predict_images` pastes them into the image.

    Raises:
        ValueError: In the same cases as `FasterRCNN`, or if the targets have no masks.

    Source: Mask R-CNN (ICCV 2017); the defaults are those of torchvision's `maskrcnn_resnet50_fpn`.

    >>> import numpy as np, zoo.detection
    >>> small = {"pyramid_filters": 16, "box_units": 32, "mask_filters": 16}
    >>> detector = zoo.detection.MaskRCNN("resnet18", num_classes=3, **small)
    >>> detector.predict(np.zeros((1, 64, 64, 3), "uint8"), verbose=0)["masks"].shape
    (1, 100, 28, 28)
    """

    has_masks = True

    def __init__(self, backbone, num_classes, mask_format="image", mask_filters=256, **kwargs):
        # Plain values, set before the layers that the parent makes with them.
        self._mask_options = (
            check_name(mask_format, MASK_FORMATS, "mask_format"),
            positive(mask_filters, "mask_filters"),
        )
        super().__init__(backbone, num_classes, **kwargs)

    def _make_more_heads(self):
        self.mask_format, self.mask_filters = self._mask_options
        self.mask_head = MaskHead(self.num_classes, self.mask_filters, dtype=self.dtype_policy, name="mask_head")
        self.mask_head.build((None, 14, 14, self.pyramid_filters))

    def detect(self, maps, logits, deltas, image_size, size):
        detections = super().detect(maps, logits, deltas, image_size, size)
        labels = ops.maximum(detections["labels"], 0)
        features = self.region_features(maps, detections["boxes"], 14)
        masks = ops.sigmoid(self.mask_head(features, ops.reshape(labels, (-1,))))
        masks = ops.reshape(masks, (-1, labels.shape[1], *masks.shape[1:]))
        return {**detections, "masks": masks}

    def _loss_names(self):
        return (*super()._loss_names(), "mask_loss")

    def _more_losses(self, maps, regions, targets):
        if targets.masks is None:
            raise ValueError(
                "targets must have the key 'masks' for MaskRCNN; given: none. Use FasterRCNN for boxes alone."
            )
        # The positives come first, and there are never more.
        most = int(self.options.roi_samples * self.options.roi_positive_fraction)
        regions = {key: value[:, :most] for key, value in regions.items()}
        most = regions["boxes"].shape[1]
        flat = {key: ops.reshape(value, (-1, *value.shape[2:])) for key, value in regions.items()}
        image = ops.repeat(ops.arange(ops.shape(regions["boxes"])[0], dtype="int32"), most)
        wanted = mask_targets(
            targets.masks,
            flat["boxes"],
            image,
            flat["objects"],
            flat["object_boxes"],
            28,
            self.mask_format,
            self.options.mask_target_aligned,
            self.options.mask_target_threshold,
        )
        labels = ops.where(flat["is_positive"], flat["labels"], 0)
        logits = self.mask_head(self.region_features(maps, regions["boxes"], 14), labels)
        return {"mask_loss": mask_loss(logits, wanted, flat["is_positive"])}

    def to_image(self, found, resized, size):
        result = super().to_image(found, resized, size)
        masks = found["masks"][found["labels"] >= 0]
        options = self.options
        height, width = size
        result["masks"] = np.zeros((len(masks), height, width), bool)
        # A few at a time: soft masks of 100 detections at 1333 x 800 would be 426 MB.
        for start in range(0, len(masks), 8):
            some = slice(start, start + 8)
            soft = paste_masks(
                ops.convert_to_tensor(masks[some]),
                ops.convert_to_tensor(result["boxes"][some]),
                height,
                width,
                options.mask_paste_padding,
                options.mask_paste_integer,
            )
            result["masks"][some] = ops.convert_to_numpy(soft) >= options.mask_threshold
        return result

    def get_config(self):
        return {**super().get_config(), "mask_format": self.mask_format, "mask_filters": self.mask_filters}
