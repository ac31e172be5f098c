"""Box coder, overlap and clipping against the numbers recorded from torchvision."""

import numpy as np
import pytest

from zoo.detection import boxes as box_ops

# blocks.json: the reference in float32 against float64 differs by 7.6e-6 in a decoded box.
NOISE = {"rtol": 3e-5, "atol": 3e-5}
WEIGHTS = {"10_10_5_5": (10.0, 10.0, 5.0, 5.0), "1_1_1_1": (1.0, 1.0, 1.0, 1.0)}


@pytest.mark.parametrize("name", WEIGHTS)
def test_box_coder(run, blocks, name):
    reference, proposals, codes = (blocks[f"box_coder/{k}"] for k in ("reference_boxes", "proposals", "codes"))
    encoded = run(lambda a, b: box_ops.encode_boxes(a, b, WEIGHTS[name]), reference, proposals)
    np.testing.assert_allclose(encoded, blocks[f"box_coder/encode_{name}"], **NOISE)
    decode = lambda a, b: box_ops.decode_boxes(a, b, WEIGHTS[name])  # noqa: E731
    decoded = run(decode, codes.reshape(40, 3, 4), proposals[:, None])
    expected = blocks[f"box_coder/decode_{name}"]
    scale = np.abs(expected).max(axis=-1, keepdims=True) + 1
    np.testing.assert_allclose(decoded / scale, expected / scale, **NOISE)
    single = blocks[f"box_coder/decode_single_{name}"]
    scale = np.abs(single).max(axis=-1, keepdims=True) + 1
    np.testing.assert_allclose(run(decode, codes[:, :4], proposals) / scale, single / scale, **NOISE)


def test_small_deltas_have_a_lower_bound_where_it_is_asked_for():
    deltas, anchors = [[0.0, 0.0, -9.0, -9.0]], [[0.0, 0.0, 10.0, 10.0]]
    bounded = np.asarray(box_ops.decode_boxes(deltas, anchors, min_log_scale=-box_ops.MAX_LOG_SCALE))
    np.testing.assert_allclose(bounded[0, 2] - bounded[0, 0], 0.16, rtol=1e-4)
    free = np.asarray(box_ops.decode_boxes(deltas, anchors))
    assert free[0, 2] - free[0, 0] < 0.01


@pytest.mark.smoke
def test_overlap(run, blocks):
    a, b = blocks["box_ops/a"], blocks["box_ops/b"]
    np.testing.assert_allclose(run(box_ops.iou, a, b), blocks["box_ops/iou"], rtol=1e-6, atol=1e-7)
    for image in (0, 2):
        objects, proposals = blocks[f"matcher/gt_boxes_{image}"], blocks[f"matcher/proposals_{image}"]
        overlap = run(box_ops.iou, objects, proposals)
        np.testing.assert_allclose(overlap, blocks[f"matcher/roi_iou_{image}"], rtol=1e-6, atol=1e-6)


@pytest.mark.smoke
def test_clipping(run, blocks):
    clipped = run(lambda x: box_ops.clip_boxes(x, (128, 160)), blocks["box_ops/clip_in"])
    np.testing.assert_array_equal(clipped, blocks["box_ops/clip_out_128x160"])


@pytest.mark.parametrize("side", ["0.001", "0.01", "2"])
def test_small_boxes(run, blocks, side):
    large = run(lambda x: box_ops.large_enough(x, float(side)), blocks["box_ops/small_in"])
    np.testing.assert_array_equal(np.flatnonzero(large), blocks[f"box_ops/small_keep_{side}"])


def test_share_that_is_covered():
    a = np.array([[0, 0, 4, 4], [1, 1, 1, 1]], "float32")
    b = np.array([[0, 0, 2, 4], [0, 0, 4, 4]], "float32")
    from keras import ops

    share = ops.convert_to_numpy(box_ops.covered(ops.convert_to_tensor(a), ops.convert_to_tensor(b)))
    np.testing.assert_array_equal(share, [[0.5, 1.0], [0.0, 0.0]])
