"""From proposals to losses and detections: features of regions, which regions are trained, the box head's results."""

from keras import ops

from zoo.detection import matching
from zoo.detection.boxes import iou
from zoo.detection.losses import box_loss
from zoo.detection.postprocessing import select_detections
from zoo.detection.proposals import box_targets, in_ignored_region
from zoo.detection.roi import multilevel_roi_align


def region_features(maps, boxes, size, strides, options):
    """ROIAlign of boxes `(batch, N, 4)` on the levels of the pyramid, `(batch * N, size, size, channels)`.

    Args:
        maps: Those of the pyramid, finest first; the last, pooled one is for proposals only.
        boxes: xyxy in pixels of the batch.
        size: Bins on each side.
        strides: That of each level but the last.
        options: A `zoo.detection.options.Options`.
    """
    features = multilevel_roi_align(
        maps[:-1],
        boxes,
        size,
        [1 / stride for stride in strides],
        options.roi_sampling_ratio,
        options.roi_aligned,
        options.roi_max_sampling_ratio,
        options.roi_level_epsilon,
        options.roi_canonical_size,
    )
    return ops.reshape(features, (-1, *features.shape[2:]))


def sample_regions(boxes, valid, targets, order, num_classes, options):
    """Regions for the box head, the positives first: a dict of tensors `(batch, roi_samples, ...)`.

    Args:
        boxes, valid: `(batch, N, 4)` proposals, and which of them are no padding.
        targets: A `zoo.detection.targets.Targets`.
        order: How regions are drawn, see `zoo.detection.matching.balanced_sample`.
        num_classes: Number of classes, the label of the background.
        options: A `zoo.detection.options.Options`.

    Returns: `boxes`, `is_positive`, `valid`, `labels` (background is `num_classes`), `objects` (index) and
        `object_boxes`.
    """
    if options.add_ground_truth:
        boxes = ops.concatenate([boxes, targets.boxes], axis=1)
        valid = ops.concatenate([valid, targets.valid], axis=1)
    quality = iou(targets.boxes, boxes)
    threshold = options.roi_threshold
    matches = matching.match(quality, threshold, threshold, options.roi_low_quality, targets.valid)
    positive = ops.logical_and(matches >= 0, valid)
    negative = ops.logical_and(ops.equal(matches, matching.BELOW), valid)
    if targets.ignored is not None:
        negative = ops.logical_and(negative, ops.logical_not(in_ignored_region(boxes, targets, options)))
    index, is_positive, drawn = matching.balanced_sample(
        positive, negative, options.roi_samples, options.roi_positive_fraction, order
    )
    objects = ops.maximum(ops.take_along_axis(matches, index, axis=1), 0)
    labels = ops.take_along_axis(targets.labels, objects, axis=1)
    return {
        "boxes": ops.take_along_axis(boxes, ops.expand_dims(index, -1), axis=1),
        "is_positive": is_positive,
        "valid": drawn,
        "labels": ops.where(is_positive, labels, num_classes),
        "objects": objects,
        "object_boxes": ops.take_along_axis(targets.boxes, ops.expand_dims(objects, -1), axis=1),
    }


def box_losses(logits, deltas, regions, region_loss, options):
    """The losses of the box head by name.

    Args:
        logits, deltas: What it gives for the regions.
        regions: What `sample_regions` returned.
        region_loss: A `zoo.detection.roi_losses.RegionLoss`.
        options: A `zoo.detection.options.Options`.
    """
    flat = {key: ops.reshape(value, (-1, *value.shape[2:])) for key, value in regions.items()}
    wanted = box_targets(flat["object_boxes"], flat["boxes"], flat["is_positive"], options.box_weights)
    return {
        "classifier_loss": region_loss.mean(flat["labels"], logits, flat["valid"]),
        "box_loss": box_loss(deltas, wanted, flat["labels"], flat["is_positive"], flat["valid"], options.box_loss_beta),
    }


def box_detections(logits, deltas, boxes, scores, image_size, region_loss, options):
    """The detections of a batch, a dict of `boxes`, `scores` and `labels`.

    Args:
        logits, deltas: What the box head gives for the proposals.
        boxes, scores: `(batch, N, 4)` and `(batch, N)` proposals; the score of padding is minus infinity.
        image_size: `(batch, 2)`, heights and widths.
        region_loss: A `zoo.detection.roi_losses.RegionLoss`.
        options: A `zoo.detection.options.Options`.
    """
    number = boxes.shape[1]
    probabilities = ops.reshape(region_loss.scores(logits), (-1, number, region_loss.num_classes))
    present = ops.expand_dims(scores > float("-inf"), -1)
    boxes, scores, labels = select_detections(
        ops.where(present, probabilities, float("-inf")),
        ops.reshape(deltas, (-1, number, *deltas.shape[1:])),
        boxes,
        image_size,
        options.score_threshold,
        options.nms_threshold,
        options.max_detections,
        options.box_weights,
        options.min_size,
        options.min_log_scale,
    )
    return {"boxes": boxes, "scores": scores, "labels": labels}
