"""Suppression against torchvision's, and against a plain loop on boxes with many ties."""

import numpy as np
import pytest
from keras import ops

from zoo.detection.nms import first_true, non_max_suppression


@pytest.mark.parametrize("threshold", [0.3, 0.5, 0.7])
def test_kept_boxes_and_their_order(run_everywhere, blocks, threshold):
    boxes, scores, groups = (blocks[f"nms/{k}"] for k in ("boxes", "scores", "groups"))
    indices, valid = run_everywhere(lambda b, s: non_max_suppression(b, s, threshold), boxes[None], scores[None])
    np.testing.assert_array_equal(indices[valid], blocks[f"nms/keep_{threshold}"])
    indices, valid = run_everywhere(
        lambda b, s, g: non_max_suppression(b, s, threshold, g), boxes[None], scores[None], groups[None].astype("int32")
    )
    np.testing.assert_array_equal(indices[valid], blocks[f"nms/batched_keep_{threshold}"])


def test_an_overlap_of_exactly_the_threshold_stays(run, blocks):
    boxes, scores = blocks["nms/exact_boxes"], blocks["nms/exact_scores"]
    indices, valid = run(lambda b, s: non_max_suppression(b, s, 0.5), boxes[None], scores[None])
    np.testing.assert_array_equal(indices[valid], blocks["nms/exact_keep_0.5"])


def greedy(boxes, scores, threshold):
    kept = []
    for i in np.argsort(-scores, kind="stable"):
        x1, y1 = np.maximum(boxes[i, :2], boxes[kept, :2]).T
        x2, y2 = np.minimum(boxes[i, 2:], boxes[kept, 2:]).T
        inter = np.maximum(x2 - x1, 0) * np.maximum(y2 - y1, 0)
        area = np.prod(boxes[:, 2:] - boxes[:, :2], axis=1)
        if not (inter / (area[i] + area[kept] - inter) > threshold).any():
            kept.append(i)
    return kept


def test_chains_and_ties_like_a_plain_loop(run):
    """Boxes that each overlap only the next one are the longest chain; whole numbers make many ties."""
    chain = np.array([[4 * i, 0, 4 * i + 10, 10] for i in range(40)], "float32")
    random = np.random.default_rng(0)
    corner = random.integers(0, 20, (40, 2))
    boxes = np.stack([chain, np.concatenate([corner, corner + random.integers(1, 12, (40, 2))], 1).astype("float32")])
    scores = np.stack([np.linspace(1, 0, 40), random.integers(0, 5, 40) / 5]).astype("float32")
    indices, valid = run(lambda b, s: non_max_suppression(b, s, 0.2), boxes, scores)
    for image in range(2):
        assert indices[image][valid[image]].tolist() == greedy(boxes[image], scores[image], 0.2)


def test_padding_and_a_bound_on_the_number():
    boxes = ops.convert_to_tensor(np.array([[[0, 0, 9, 9], [0, 0, 9, 8], [20, 0, 29, 9]]], "float32"))
    scores = ops.convert_to_tensor(np.array([[-np.inf, 0.2, 0.7]], "float32"))
    indices, valid = non_max_suppression(boxes, scores, 0.5, max_outputs=4)
    assert ops.convert_to_numpy(indices)[0].tolist() == [2, 1, 0, 0]
    assert ops.convert_to_numpy(valid)[0].tolist() == [True, True, False, False]
    positions, valid = first_true(ops.convert_to_tensor([[True, False, True]]), 1)
    assert ops.convert_to_numpy(positions).tolist() == [[0]] and ops.convert_to_numpy(valid).all()
