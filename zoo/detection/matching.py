"""Which candidate belongs to which object, and which candidates a loss sees: matcher and balanced sampler."""

import keras
from keras import ops

from zoo.detection.boxes import iou

BELOW = -1
BETWEEN = -2


def match(quality, high, low, low_quality=False, valid=None):
    """The object of each candidate.

    A candidate takes the object that it overlaps most (the first of several); below `low` it is background, from
    `low` to below `high` it is neither. With `low_quality` each object also claims the candidates that overlap it
    most, ties included, however small the overlap (even 0); a claimed candidate takes the object that *it* overlaps
    most, as in the reference.

    Args:
        quality: IoU, `(..., objects, candidates)`.
        high, low: Thresholds, `high >= low`.
        low_quality: `True`, `False`, or the smallest IoU at which an object may claim (mmdet: 0.3).
        valid: `(..., objects)` bool, which objects are no padding; `None` for all.

    Returns: An int32 tensor `(..., candidates)`: index of the object, `BELOW` (-1) or `BETWEEN` (-2).
    Source: Faster R-CNN (NeurIPS 2015), Sec. 3.1.2.

    >>> from zoo.detection.matching import match
    >>> quality = keras.ops.convert_to_tensor([[0.8, 0.4, 0.1, 0.0], [0.0, 0.0, 0.2, 0.0]])
    >>> [int(i) for i in match(quality, 0.7, 0.3)], [int(i) for i in match(quality, 0.7, 0.3, low_quality=True)]
    ([0, -2, -1, -1], [0, -2, 1, -1])
    """
    if quality.shape[-2] == 0:
        return ops.full(quality.shape[:-2] + quality.shape[-1:], BELOW, "int32")
    best, owner, highest, top = _extremes(quality, valid, low_quality is not False)
    claimed = ops.logical_and(top, highest >= _least_claim(low_quality)) if low_quality is not False else None
    return _decide(best, owner, claimed, high, low)


def match_anchors(objects, anchors, high, low, low_quality=False, valid=None, part=16384):
    """`match` of the IoU of objects and anchors, one part of the anchors after the other.

    The IoU of 100 objects with the 268,000 anchors of an image of 800 x 1333 is 107 MB, several times that while it
    is computed.

    Args:
        objects: `(batch, objects, 4)`, xyxy in pixels.
        anchors: `(candidates, 4)`, the same for all images.
        high, low, low_quality, valid: As in `match`.
        part: About how many anchors are looked at together.

    Returns: As `match`, `(batch, candidates)`.

    >>> from zoo.detection.matching import match_anchors
    >>> objects = keras.ops.convert_to_tensor([[[0.0, 0.0, 8.0, 8.0]]])
    >>> anchors = keras.ops.convert_to_tensor([[0.0, 0.0, 8.0, 7.0], [9.0, 9.0, 12.0, 12.0], [0.0, 0.0, 8.0, 4.0]])
    >>> [int(i) for i in match_anchors(objects, anchors, 0.7, 0.3, part=2)[0]]
    [0, -1, -2]
    """
    number = anchors.shape[0]
    parts = max(-(-number // part), 1)
    size = -(-number // parts)
    # A box of zeros overlaps nothing, so that it changes no maximum.
    padded = ops.reshape(ops.pad(anchors, ((0, parts * size - number), (0, 0))), (parts, size, 4))

    def of_part(boxes):
        return _extremes(iou(objects, ops.expand_dims(boxes, 0)), valid, low_quality is not False)

    best, owner, highest, top = ops.map(of_part, padded)
    claimed = None
    if low_quality is not False:
        overall = ops.max(highest, axis=0, keepdims=True)
        claims = ops.logical_and(ops.equal(highest, overall), overall >= _least_claim(low_quality))
        claimed = ops.logical_and(top, claims)
    matches = ops.transpose(_decide(best, owner, claimed, high, low), (1, 0, 2))
    return ops.reshape(matches, (-1, parts * size))[:, :number]


def _extremes(quality, valid, with_claims):
    """Best IoU and its object for each candidate; the highest of each object, and which candidates have it."""
    if valid is not None:
        quality = ops.where(ops.expand_dims(valid, -1), quality, -1.0)
    best, owner = ops.max(quality, axis=-2), ops.cast(ops.argmax(quality, axis=-2), "int32")
    highest = ops.max(quality, axis=-1, keepdims=True)
    return best, owner, highest, ops.equal(quality, highest) if with_claims else highest


def _least_claim(low_quality):
    return 0.0 if low_quality is True else float(low_quality)


def _decide(best, owner, claimed, high, low):
    matches = ops.where(best < low, BELOW, ops.where(best < high, BETWEEN, owner))
    if claimed is not None:
        matches = ops.where(ops.any(claimed, axis=-2), owner, matches)
    return ops.cast(matches, "int32")


def random_order(seed=None):
    """An order for `balanced_sample`: candidates are drawn at random.

    >>> from zoo.detection.matching import random_order
    >>> random_order(keras.random.SeedGenerator(0))(keras.ops.ones((2, 5), "bool")).shape == (2, 5)
    True
    """
    return lambda mask: keras.random.uniform(ops.shape(mask), seed=seed)


def index_order(mask):
    """An order for `balanced_sample`: the first candidates are drawn, which makes a sample repeatable.

    >>> from zoo.detection.matching import index_order
    >>> [float(key) for key in index_order(keras.ops.convert_to_tensor([[False, True, True]]))[0]]
    [-1.0, 0.0, 1.0]
    """
    return ops.cast(ops.cumsum(ops.cast(mask, "int32"), axis=-1) - 1, "float32")


def balanced_sample(positive, negative, size, positive_fraction, order):
    """Up to `size` candidates, at most `positive_fraction` of them positive, the rest negative.

    Args:
        positive, negative: `(batch, candidates)` bool; a candidate that is neither is never drawn.
        size: Number of candidates to draw.
        positive_fraction: Largest share of positives; `int(size * positive_fraction)` of them.
        order: Function from a `(batch, candidates)` bool mask to float keys of that shape; among the candidates in the
            mask, those with the smallest keys are drawn. `random_order(seed)`, or `index_order`.

    Returns: `(indices, is_positive, valid)`, each `(batch, size)`: the positives first, in their order, then the
        negatives, then padding, which is not `valid` and has index 0.
    Source: Faster R-CNN (NeurIPS 2015), Sec. 3.1.3.

    >>> from zoo.detection.matching import balanced_sample, index_order
    >>> positive = keras.ops.convert_to_tensor([[False, True, False, True, True]])
    >>> indices, is_positive, valid = balanced_sample(positive, ~positive, 4, 0.5, index_order)
    >>> [int(i) for i in indices[0]]
    [1, 3, 0, 2]
    """
    candidates = positive.shape[-1]
    most = min(int(size * positive_fraction), candidates)
    drawn_positive = _first(positive, order, most)
    drawn_negative = _first(negative, order, min(size, candidates))
    positives = ops.minimum(_count(positive), most)
    negatives = ops.minimum(_count(negative), size - positives)
    slots = ops.expand_dims(ops.arange(size, dtype="int32"), 0)
    is_positive = slots < positives
    valid = slots < positives + negatives
    place = ops.where(is_positive, slots, most + slots - positives)
    drawn = ops.concatenate([drawn_positive, drawn_negative], axis=-1)
    place = ops.where(valid, place, 0)
    indices = ops.where(valid, ops.take_along_axis(drawn, place, axis=-1), 0)
    return indices, is_positive, valid


def _count(mask):
    return ops.sum(ops.cast(mask, "int32"), axis=-1, keepdims=True)


def _first(mask, order, number):
    keys = ops.where(mask, -ops.cast(order(mask), "float32"), float("-inf"))
    return ops.cast(ops.top_k(keys, number)[1], "int32")
