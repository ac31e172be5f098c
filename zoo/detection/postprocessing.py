"""From class scores and deltas to detections: threshold, class-wise suppression, the best of each image."""

from keras import ops

from zoo.detection.boxes import clip_boxes, decode_boxes, iou, large_enough
from zoo.detection.nms import first_true, suppress

NOTHING = float("-inf")


def select_detections(
    scores,
    deltas,
    proposals,
    image_size,
    score_threshold=0.05,
    nms_threshold=0.5,
    max_detections=100,
    box_weights=(10.0, 10.0, 5.0, 5.0),
    min_size=1e-2,
    min_log_scale=None,
    block=1024,
):
    """The detections of every image, exactly those of greedy class-wise suppression of all candidates.

    A candidate is a pair of region and class. They are taken in blocks of decreasing score: whether one is kept depends
    only on those before it, so once `max_detections` are kept the rest cannot matter. Mostly that is the first block,
    however many classes there are.

    Args:
        scores: `(batch, R, classes)`, without background; minus infinity for regions that are padding.
        deltas: `(batch, R, classes, 4)`, or 1 in place of classes.
        proposals: `(batch, R, 4)`, xyxy in pixels.
        image_size: `(batch, 2)`, height and width that boxes are clipped to.
        score_threshold: Candidates must be strictly above.
        nms_threshold: IoU above which the lower of two boxes of a class is dropped.
        max_detections: Detections an image.
        box_weights: Weights of the deltas.
        min_size: Boxes with a shorter side are dropped.
        min_log_scale: As in `decode_boxes`.
        block: Candidates looked at in one round.

    Returns: `(boxes, scores, labels)`: `(batch, D, 4)`, `(batch, D)`, `(batch, D)` int32, best first; padding has
        label -1, score 0 and box 0.

    >>> from zoo.detection.postprocessing import select_detections
    >>> scores = keras.ops.convert_to_tensor([[[0.9, 0.0], [0.8, 0.6]]])
    >>> box = keras.ops.convert_to_tensor([[[0.0, 0.0, 8.0, 8.0], [0.0, 0.0, 8.0, 7.0]]])
    >>> size = keras.ops.convert_to_tensor([[16.0, 16.0]])
    >>> _, _, labels = select_detections(scores, keras.ops.zeros((1, 2, 2, 4)), box, size, max_detections=3)
    >>> [int(label) for label in labels[0]]
    [0, 1, -1]
    """
    batch, regions, classes = ops.shape(scores)[0], scores.shape[1], scores.shape[2]
    shared = deltas.shape[2] == 1
    scores, deltas = ops.stop_gradient(scores), ops.reshape(ops.stop_gradient(deltas), (batch, -1, 4))
    remaining = ops.where(scores > score_threshold, scores, NOTHING)
    remaining = ops.reshape(remaining, (batch, regions * classes))
    block = min(block, regions * classes)
    rows = ops.reshape(ops.repeat(ops.arange(batch, dtype="int32"), block), (-1, 1))

    def look(remaining, boxes, best, labels, _):
        found, index = _ordered_top(remaining, block)
        region, label = index // classes, index % classes
        candidates = decode_boxes(
            ops.take_along_axis(deltas, ops.expand_dims(region if shared else index, -1), axis=1),
            ops.take_along_axis(proposals, ops.expand_dims(region, -1), axis=1),
            box_weights,
            min_log_scale=min_log_scale,
        )
        candidates = clip_boxes(candidates, image_size)
        rival = ops.logical_and(
            iou(boxes, candidates) > nms_threshold, ops.equal(ops.expand_dims(labels, 2), ops.expand_dims(label, 1))
        )
        valid = ops.logical_and(found > NOTHING, large_enough(candidates, min_size))
        valid = ops.logical_and(valid, ops.logical_not(ops.any(rival, axis=1)))
        kept = suppress(candidates, valid, nms_threshold, label)
        kept = ops.concatenate([best > NOTHING, kept], axis=1)
        place, full = first_true(kept, max_detections)
        boxes = ops.take_along_axis(ops.concatenate([boxes, candidates], axis=1), ops.expand_dims(place, -1), axis=1)
        best = ops.where(full, ops.take_along_axis(ops.concatenate([best, found], axis=1), place, axis=1), NOTHING)
        labels = ops.where(full, ops.take_along_axis(ops.concatenate([labels, label], axis=1), place, axis=1), -1)
        seen = ops.concatenate([rows, ops.reshape(index, (-1, 1))], axis=1)
        remaining = ops.scatter_update(remaining, seen, ops.full((batch * block,), NOTHING))
        more = ops.logical_and(ops.max(remaining, axis=1) > NOTHING, ops.logical_not(ops.all(full, axis=1)))
        return remaining, boxes, best, labels, ops.any(more)

    start = (
        remaining,
        ops.zeros((batch, max_detections, 4)),
        ops.full((batch, max_detections), NOTHING),
        ops.full((batch, max_detections), -1, "int32"),
        ops.convert_to_tensor(True),
    )
    _, boxes, best, labels, _ = ops.while_loop(lambda *state: state[-1], look, start)
    full = best > NOTHING
    return ops.where(ops.expand_dims(full, -1), boxes, 0.0), ops.where(full, best, 0.0), labels


def _ordered_top(values, number):
    """`top_k` whose equal values come in the order of their index; PyTorch's come in any."""
    _, index = ops.top_k(values, number)
    index = ops.sort(ops.cast(index, "int32"), axis=-1)
    values = ops.take_along_axis(values, index, axis=-1)
    order = ops.argsort(-values, axis=-1)
    return ops.take_along_axis(values, order, axis=-1), ops.take_along_axis(index, order, axis=-1)
