"""Detections, proposals, pasted masks and the input transform against the recorded ones."""

import itertools

import numpy as np
import pytest
from keras import ops

from zoo.detection.masks import expand_boxes, paste_masks
from zoo.detection.postprocessing import select_detections
from zoo.detection.proposals import select_proposals
from zoo.detection.transform import DetectionPreprocessing, resize_boxes, resize_image, resize_masks

SIZES = np.array([[128, 160], [100, 138]], "float32")


def softmax(x):
    x = np.exp(x - x.max(-1, keepdims=True))
    return x / x.sum(-1, keepdims=True)


@pytest.mark.parametrize("block", [1024, 16])
def test_detections_and_their_order(run, blocks, block):
    """Also in blocks that are too small to hold the answer: then several are looked at."""
    scores = np.full((2, 60, 8), -np.inf, "float32")
    deltas, proposals = np.zeros((2, 60, 8, 4), "float32"), np.zeros((2, 60, 4), "float32")
    given = softmax(blocks["postprocess/class_logits"])[:, 1:]
    moved = blocks["postprocess/box_regression"].reshape(100, 9, 4)[:, 1:]
    for image, rows in enumerate((slice(0, 60), slice(60, 100))):
        n = rows.stop - rows.start
        scores[image, :n], deltas[image, :n] = given[rows], moved[rows]
        proposals[image, :n] = blocks[f"postprocess/proposals_{image}"]

    def detect(scores, deltas, proposals, sizes):
        return select_detections(scores, deltas, proposals, sizes, max_detections=30, block=block)

    boxes, found, labels = run(detect, scores, deltas, proposals, SIZES)
    for image in range(2):
        np.testing.assert_array_equal(labels[image] + 1, blocks[f"postprocess/labels_{image}"])
        np.testing.assert_allclose(found[image], blocks[f"postprocess/scores_{image}"], rtol=1e-5)
        np.testing.assert_allclose(boxes[image], blocks[f"postprocess/boxes_{image}"], rtol=1e-5, atol=5e-5)


def test_nothing_above_the_threshold_is_padding():
    boxes, scores, labels = select_detections(
        ops.zeros((1, 4, 2)), ops.zeros((1, 4, 1, 4)), ops.ones((1, 4, 4)), ops.convert_to_tensor([[8.0, 8.0]])
    )
    assert (ops.convert_to_numpy(labels) == -1).all()
    assert not ops.convert_to_numpy(scores).any() and not ops.convert_to_numpy(boxes).any()


@pytest.mark.parametrize(("mode", "candidates", "number"), [("eval", 50, 40), ("train", 80, 60)])
@pytest.mark.parametrize("image", [0, 1])
def test_proposals_and_their_order(run, blocks, mode, candidates, number, image):
    ends = np.cumsum([0, 120, 60, 18])
    anchors, logits = blocks["filter_proposals/proposals"][image], blocks["filter_proposals/objectness"][image]
    anchors = [anchors[a:b] for a, b in itertools.pairwise(ends)]
    logits = [logits[None, a:b] for a, b in itertools.pairwise(ends)]

    def select(size, *logits):
        deltas = [ops.zeros((*x.shape, 4)) for x in logits]
        return select_proposals(list(logits), deltas, anchors, size, candidates, number)

    boxes, scores = run(select, SIZES[image : image + 1], *logits)
    np.testing.assert_allclose(boxes[0], blocks[f"filter_proposals/{mode}_boxes_{image}"], rtol=1e-5, atol=5e-5)
    np.testing.assert_allclose(scores[0], blocks[f"filter_proposals/{mode}_scores_{image}"], rtol=1e-5)


def test_pasted_masks(run, blocks):
    boxes = blocks["paste/boxes"]
    expanded = run(lambda b: expand_boxes(b, 30 / 28), boxes)
    np.testing.assert_allclose(expanded, blocks["paste/expanded_boxes"], rtol=1e-6, atol=1e-6)
    np.testing.assert_array_equal(np.trunc(expanded), blocks["paste/expanded_boxes_int"])
    pasted = run(lambda m, b: paste_masks(m, b, 40, 56), blocks["paste/masks"][:, 0], boxes)
    np.testing.assert_allclose(pasted, blocks["paste/out_40x56"][:, 0], rtol=1e-5, atol=1e-6)


def test_pasting_at_pixel_centres_fills_the_exact_box():
    box = ops.convert_to_tensor(np.array([[2.0, 1.0, 6.0, 4.0]], "float32"))
    pasted = ops.convert_to_numpy(paste_masks(ops.ones((1, 28, 28)), box, 8, 8, padding=0, integer_boxes=False))[0]
    expected = np.zeros((8, 8))
    expected[1:4, 2:6] = 1
    np.testing.assert_array_equal(pasted >= 0.5, expected)


def test_input_transform(run, blocks):
    images = [blocks[f"transform/image_u8_{i}"] for i in range(2)]
    transform = DetectionPreprocessing(min_size=64, max_size=96)
    pixels, sizes = transform.batch(images)
    assert sizes.tolist() == [[64, 85], [96, 51]]
    batch = run(transform.normalize, pixels, sizes)
    # The reference normalises before it resizes: the same up to rounding, some 2 / std in size.
    np.testing.assert_allclose(batch, np.moveaxis(blocks["transform/batch"], 1, -1), rtol=1e-5, atol=5e-6)
    for i, image in enumerate(images):
        boxes = resize_boxes(blocks[f"transform/boxes_in_{i}"], image.shape[:2], sizes[i])
        np.testing.assert_allclose(boxes, blocks[f"transform/boxes_out_{i}"], rtol=1e-6)
        masks = resize_masks(blocks[f"transform/masks_in_{i}"], sizes[i])
        np.testing.assert_array_equal(masks, blocks[f"transform/masks_out_{i}"])


def test_input_transform_without_resizing_and_bad_arguments():
    image = np.full((40, 33, 3), 255, "uint8")
    pixels, sizes = DetectionPreprocessing().batch([image], resize=False)
    assert pixels.shape == (1, 64, 64, 3) and sizes.tolist() == [[40, 33]]
    assert resize_image(image, (1, 1)).shape == (1, 1, 3)
    with pytest.raises(ValueError, match="min_size must be a positive integer; given: 0"):
        DetectionPreprocessing(min_size=0)
    with pytest.raises(ValueError, match="std must be above 0"):
        DetectionPreprocessing(std=(1.0, 0.0, 1.0))
    with pytest.raises(ValueError, match="mean must have 3 numbers"):
        DetectionPreprocessing(mean=(1.0,))
    config = DetectionPreprocessing(min_size=64).get_config()
    assert DetectionPreprocessing.from_config(config).get_config() == config
