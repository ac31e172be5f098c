"""From the outputs of the proposal head to boxes, and the two losses of that head."""

from keras import ops

from zoo.detection.boxes import clip_boxes, covered, decode_boxes, encode_boxes, large_enough
from zoo.detection.losses import binary_crossentropy, smooth_l1
from zoo.detection.matching import BELOW, balanced_sample, match_anchors
from zoo.detection.nms import suppress

UNIT_BOX = (0.0, 0.0, 1.0, 1.0)


def select_proposals(
    logits,
    deltas,
    anchors,
    image_size,
    candidates_per_level=2000,
    proposals=2000,
    nms_threshold=0.7,
    min_size=1e-3,
    min_log_scale=None,
):
    """The best boxes of all levels, after suppression within each level. No gradient.

    Args:
        logits, deltas: One entry a level, `(batch, n)` and `(batch, n, 4)`.
        anchors: One entry a level, `(n, 4)`, xyxy in pixels.
        image_size: `(batch, 2)`, height and width in pixels that boxes are clipped to.
        candidates_per_level: The most boxes of a level, those of highest logit, that enter suppression.
        proposals: The most boxes of an image that come out.
        nms_threshold: IoU above which the box of lower score is dropped.
        min_size: Boxes with a shorter side, in pixels, are dropped.
        min_log_scale: As in `decode_boxes`.

    Returns: `(boxes, scores)`, `(batch, R, 4)` in decreasing order of the score `(batch, R)`, a sigmoid. Padding is
        minus infinity in the scores.
    Source: Feature Pyramid Networks (CVPR 2017), Sec. 4.1.

    >>> from zoo.detection.proposals import select_proposals
    >>> anchors = keras.ops.convert_to_tensor([[0.0, 0.0, 8.0, 8.0], [0.0, 0.0, 8.0, 7.0]])
    >>> logits, deltas = keras.ops.convert_to_tensor([[0.0, 1.0]]), keras.ops.zeros((1, 2, 4))
    >>> boxes, scores = select_proposals([logits], [deltas], [anchors], keras.ops.convert_to_tensor([[16, 16]]))
    >>> [bool(score > 0) for score in scores[0]]
    [True, False]
    """
    all_boxes, all_scores = [], []
    for level_logits, level_deltas, level_anchors in zip(logits, deltas, anchors, strict=True):
        level_logits, level_deltas = ops.stop_gradient(level_logits), ops.stop_gradient(level_deltas)
        top, index = ops.top_k(level_logits, min(candidates_per_level, level_logits.shape[1]))
        level_deltas = ops.take_along_axis(level_deltas, ops.expand_dims(index, -1), axis=1)
        boxes = decode_boxes(
            level_deltas,
            ops.take(ops.convert_to_tensor(level_anchors), index, axis=0),
            min_log_scale=min_log_scale,
        )
        boxes = clip_boxes(boxes, image_size)
        # Of a network that holds NaN: as a box it would end in an index beyond the pixels, before the loss, which is
        # NaN by the logits, can be seen.
        boxes = ops.where(ops.isnan(boxes), 0.0, boxes)
        kept = suppress(boxes, large_enough(boxes, min_size), nms_threshold)
        all_boxes.append(boxes)
        all_scores.append(ops.where(kept, ops.sigmoid(top), float("-inf")))
    boxes, scores = ops.concatenate(all_boxes, axis=1), ops.concatenate(all_scores, axis=1)
    scores, index = ops.top_k(scores, min(proposals, scores.shape[1]))
    return ops.take_along_axis(boxes, ops.expand_dims(index, -1), axis=1), scores


def proposal_losses(logits, deltas, anchors, targets, order, options):
    """Objectness and box loss of the proposal head.

    Each positive anchor is matched to an object. Objectness is binary cross entropy, the boxes smooth L1 of the
    positive anchors, both summed and divided by the number of sampled anchors in the batch.

    Args:
        logits, deltas: One entry a level, `(batch, n)` and `(batch, n, 4)`.
        anchors: One entry a level, `(n, 4)`, xyxy in pixels.
        targets: A `zoo.detection.targets.Targets`.
        order: How anchors are drawn, see `balanced_sample`.
        options: A `zoo.detection.options.Options`.

    Returns: Two scalars.
    Source: Faster R-CNN (NeurIPS 2015), Eq. 1, normalised as in torchvision.

    >>> from zoo.detection.matching import index_order
    >>> from zoo.detection.options import Options
    >>> from zoo.detection.proposals import proposal_losses
    >>> from zoo.detection.targets import read_targets
    >>> boxes = keras.ops.convert_to_tensor([[[0.0, 0.0, 8.0, 8.0]]])
    >>> targets = read_targets({"boxes": boxes, "labels": [[0]]}, 3, (16, 16))
    >>> head = [keras.ops.zeros((1, 1))], [keras.ops.zeros((1, 1, 4))], [boxes[0]]
    >>> [round(float(loss), 4) for loss in proposal_losses(*head, targets, index_order, Options())]
    [0.6931, 0.0]
    """
    logits, deltas = ops.concatenate(logits, axis=1), ops.concatenate(deltas, axis=1)
    anchors = ops.concatenate([ops.convert_to_tensor(level) for level in anchors], axis=0)
    matches = match_anchors(
        targets.boxes,
        anchors,
        options.rpn_high_threshold,
        options.rpn_low_threshold,
        options.rpn_low_quality,
        targets.valid,
    )
    negative = ops.equal(matches, BELOW)
    if targets.ignored is not None:
        negative = ops.logical_and(
            negative, ops.logical_not(in_ignored_region(ops.expand_dims(anchors, 0), targets, options))
        )
    index, is_positive, valid = balanced_sample(
        matches >= 0, negative, options.rpn_samples, options.rpn_positive_fraction, order
    )
    drawn = ops.expand_dims(index, -1)
    objects = ops.maximum(ops.take_along_axis(matches, index, axis=1), 0)
    objects = ops.take_along_axis(targets.boxes, ops.expand_dims(objects, -1), axis=1)
    wanted = box_targets(objects, ops.take(anchors, index, axis=0), is_positive)
    return sampled_proposal_losses(
        ops.take_along_axis(logits, index, axis=1),
        ops.take_along_axis(deltas, drawn, axis=1),
        wanted,
        is_positive,
        valid,
        options.rpn_box_loss_beta,
    )


def sampled_proposal_losses(logits, deltas, targets, is_positive, valid, beta):
    """The two losses from the sampled anchors: logits `(batch, S)`, deltas and their targets `(batch, S, 4)`.

    >>> from zoo.detection.proposals import sampled_proposal_losses
    >>> one = keras.ops.ones((1, 1))
    >>> box = keras.ops.ones((1, 1, 4))
    >>> losses = sampled_proposal_losses(0 * one, box, 0 * box, one > 0, one > 0, beta=1.0)
    >>> [round(float(loss), 4) for loss in losses]
    [0.6931, 2.0]
    """
    number = ops.maximum(ops.sum(ops.cast(valid, "float32")), 1.0)
    objectness = ops.where(valid, binary_crossentropy(ops.cast(is_positive, "float32"), logits), 0.0)
    boxes = ops.where(is_positive, ops.sum(smooth_l1(targets, deltas, beta), axis=-1), 0.0)
    return ops.sum(objectness) / number, ops.sum(boxes) / number


def box_targets(objects, references, is_positive, weights=(1.0, 1.0, 1.0, 1.0)):
    """Deltas from references to objects where positive, else zeros; never NaN, whatever the padding is.

    >>> from zoo.detection.proposals import box_targets
    >>> empty = keras.ops.zeros((1, 4))
    >>> float(keras.ops.sum(box_targets(empty, empty, keras.ops.zeros((1,), "bool"))))
    0.0
    """
    unit = ops.convert_to_tensor(UNIT_BOX, "float32")
    mask = ops.expand_dims(is_positive, -1)
    return ops.stop_gradient(
        encode_boxes(ops.where(mask, objects, unit), ops.where(mask, ops.cast(references, "float32"), unit), weights)
    )


def in_ignored_region(boxes, targets, options):
    """Whether a box lies in a region marked as ignored by more than `options.ignored_coverage`, `(batch, N)`."""
    share = ops.where(ops.expand_dims(targets.ignored, -2), covered(boxes, targets.boxes), 0.0)
    return ops.max(share, axis=-1) > options.ignored_coverage
