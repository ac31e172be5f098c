"""Matcher and balanced sampler, exactly; ties, images without objects and forced matches included."""

import keras
import numpy as np
import pytest
from keras import ops

from zoo.detection import matching
from zoo.detection.boxes import iou


def stride_order(mask):
    """The reference's draw with `randperm(n)` replaced by `(arange(n) * 7919) % n`."""
    mask = np.asarray(ops.convert_to_numpy(mask))
    keys = np.full(mask.shape, 1e9, "float32")
    for row, row_keys in zip(mask, keys, strict=True):
        places = np.flatnonzero(row)
        for draw, rank in enumerate((np.arange(len(places)) * 7919) % max(len(places), 1)):
            row_keys[places[rank]] = draw
    return ops.convert_to_tensor(keys)


ORDERS = {"arange": matching.index_order, "stride": stride_order}


@pytest.mark.parametrize("image", [0, 1, 2])
@pytest.mark.smoke
def test_matches(run_everywhere, blocks, image):
    """Padding of two boxes behind the objects changes nothing."""
    objects = np.concatenate([blocks[f"matcher/gt_boxes_{image}"], [[0, 0, 160, 128], [0, 0, 0, 0]]]).astype("float32")
    valid = np.arange(len(objects)) < len(objects) - 2

    def rpn(objects, anchors, valid):
        return matching.match(iou(objects, anchors), 0.7, 0.3, low_quality=True, valid=valid)

    def roi(objects, proposals, valid):
        return matching.match(iou(objects, proposals), 0.5, 0.5, valid=valid)

    matches = run_everywhere(rpn, objects, blocks["anchors/all_128x160"], valid)
    labels = np.where(matches >= 0, 1, np.where(matches == matching.BETWEEN, -1, 0))
    np.testing.assert_array_equal(labels, blocks[f"matcher/rpn_labels_{image}"])
    if image != 1:
        np.testing.assert_array_equal(matches, blocks[f"matcher/rpn_matches_{image}"])
        np.testing.assert_array_equal(objects[matches[matches >= 0]], blocks[f"matcher/rpn_matched_boxes_pos_{image}"])
    matches = run_everywhere(roi, objects, blocks[f"matcher/proposals_{image}"], valid)
    np.testing.assert_array_equal(np.maximum(matches, 0), blocks[f"matcher/roi_matched_idx_{image}"])
    classes = np.append(blocks[f"matcher/gt_labels_{image}"], [0, 0, 0])
    np.testing.assert_array_equal(np.where(matches >= 0, classes[matches], 0), blocks[f"matcher/roi_labels_{image}"])
    if image != 1:
        np.testing.assert_array_equal(matches, blocks[f"matcher/roi_matches_{image}"])


def test_matches_of_a_table(run, blocks):
    quality = blocks["matcher/quality"]
    rpn = run(lambda q: matching.match(q, 0.7, 0.3, low_quality=True), quality)
    np.testing.assert_array_equal(rpn, blocks["matcher/quality_rpn"])
    roi = run(lambda q: matching.match(q, 0.5, 0.5), quality)
    np.testing.assert_array_equal(roi, blocks["matcher/quality_roi"])
    zero = run(lambda q: matching.match(q, 0.7, 0.3, low_quality=True), blocks["matcher/quality_zero"])
    np.testing.assert_array_equal(zero, blocks["matcher/quality_zero_rpn"])


def test_no_objects_at_all():
    matches = matching.match(ops.zeros((2, 0, 5)), 0.7, 0.3, low_quality=True)
    np.testing.assert_array_equal(ops.convert_to_numpy(matches), np.full((2, 5), -1))


@pytest.mark.parametrize("low_quality", [True, False, 0.3])
def test_anchors_in_parts_find_the_same_objects(run, low_quality):
    """Also where the parts do not divide the anchors, an object has no overlap at all, and another is padding."""
    random = np.random.default_rng(0)

    def boxes(*shape):
        corner = random.uniform(0, 60, (*shape, 2))
        return np.concatenate([corner, corner + random.uniform(4, 30, (*shape, 2))], -1).astype("float32")

    objects, anchors = boxes(2, 6), boxes(101)
    objects[0, 1] += 500
    objects[1, 2] = anchors[7]
    anchors[90] = anchors[7]
    valid = np.ones((2, 6), bool)
    valid[1, 4] = False

    def both(objects, anchors, valid):
        thresholds = 0.5, 0.3, low_quality
        parts = matching.match_anchors(objects, anchors, *thresholds, valid, part=40)
        return parts, matching.match(iou(objects, anchors[None]), *thresholds, valid)

    parts, whole = run(both, objects, anchors, valid)
    np.testing.assert_array_equal(parts, whole)
    assert parts.shape == (2, 101) and (parts >= 0).any() and (parts == -1).any()


def test_a_smallest_overlap_for_a_claim():
    quality = ops.convert_to_tensor([[0.2, 0.1], [0.0, 0.4]])
    assert [int(i) for i in matching.match(quality, 0.7, 0.5, low_quality=0.3)] == [-1, 1]


@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("image", [0, 1, 2])
@pytest.mark.parametrize(("kind", "size", "fraction"), [("rpn", 256, 0.5), ("roi", 512, 0.25), ("small", 16, 0.25)])
def test_samples(blocks, order, image, kind, size, fraction):
    labels = blocks[f"matcher/{'rpn' if kind == 'rpn' else 'roi'}_labels_{image}"][None]
    drawn = matching.balanced_sample(
        ops.convert_to_tensor(labels >= 1), ops.convert_to_tensor(labels == 0), size, fraction, ORDERS[order]
    )
    indices, is_positive, valid = (ops.convert_to_numpy(x)[0] for x in drawn)
    for name, mask in (("pos", is_positive), ("neg", ~is_positive & valid)):
        expected = blocks[f"matcher/sampler_{kind}_{order}_{name}_{image}"]
        np.testing.assert_array_equal(np.sort(indices[mask]), np.sort(expected))


def test_random_samples_change_and_keep_the_counts(run):
    labels = np.zeros((2, 400), "int32")
    labels[:, ::4] = 1
    labels[1, 8:] = -1
    order = matching.random_order(keras.random.SeedGenerator(3))
    draws = []
    for _ in range(2):
        indices, is_positive, valid = matching.balanced_sample(
            ops.convert_to_tensor(labels == 1), ops.convert_to_tensor(labels == 0), 64, 0.25, order
        )
        indices, is_positive, valid = (ops.convert_to_numpy(x) for x in (indices, is_positive, valid))
        assert is_positive.sum(1).tolist() == [16, 2] and valid.sum(1).tolist() == [64, 8]
        np.testing.assert_array_equal(np.take_along_axis(labels, indices, 1)[valid], is_positive[valid])
        assert len(set(indices[0])) == 64
        draws.append(sorted(indices[0]))
    assert draws[0] != draws[1]
