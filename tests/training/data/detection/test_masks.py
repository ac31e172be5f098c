"""COCO's segmentations: known masks there and back, what is refused, and masks cropped to their boxes."""

import numpy as np
import pytest

from training.data.detection.masks import check_segmentation, crop_to_boxes, decode_mask, encode_mask
from zoo.detection import crop_masks

# 2 columns of 3 pixels: run lengths go down the columns, from a run of zeros on.
MASK = np.array([[0, 1], [1, 1], [1, 0]], "uint8")


def test_run_lengths_go_down_the_columns():
    np.testing.assert_array_equal(decode_mask({"size": [3, 2], "counts": [1, 4, 1]}, 3, 2), MASK)
    # The same compressed: numbers below 16 are the characters from "0" on.
    assert encode_mask(MASK) == {"size": [3, 2], "counts": "141"}
    np.testing.assert_array_equal(decode_mask({"size": [3, 2], "counts": "141"}, 3, 2), MASK)


def test_masks_come_back_from_their_code():
    masks = np.random.default_rng(0).random((5, 37, 23)) < np.linspace(0, 1, 5)[:, None, None]
    for mask in masks.astype("uint8"):
        encoded = encode_mask(mask)
        assert check_segmentation(encoded, 37, 23) is None
        np.testing.assert_array_equal(decode_mask(encoded, 37, 23), mask)


def test_polygons_of_an_object_are_joined():
    mask = decode_mask([[1, 1, 4, 1, 4, 3, 1, 3], [5, 0, 6, 0, 6, 5, 5, 5], [0, 0, 1, 1]], 6, 8)
    expected = np.zeros((6, 8), "uint8")
    expected[1:3, 1:4] = expected[0:5, 5:6] = 1
    np.testing.assert_array_equal(mask, expected)


@pytest.mark.parametrize(
    "segmentation, message",
    [
        ({"size": [4, 8], "counts": [32]}, r"a mask of 4x8 pixels \(height x width\), the image has 8x4"),
        ({"size": [8, 4], "counts": [31]}, "whole numbers that add up to 32"),
        ({"size": [8, 4], "counts": [33, -1]}, "whole numbers that add up to 32"),
        ({"size": [8, 4], "counts": "zzzz1"}, "cannot be decoded"),
        ({"size": [8, 4], "counts": "1"}, "cannot be decoded"),
        ({"size": ["8", "4"], "counts": [32]}, r"size of .* must be two whole numbers, .*; given: \['8', '4'\]"),
        ({"size": [8.5, 4], "counts": [32]}, "size of .* must be two whole numbers"),
        ({"size": [8, 4]}, "must have size .height, width. and counts"),
        ("a mask", "must be a list of polygons or a dict"),
        ([[1, 2, 3, 4]], "fewer than three points"),
        ([[1, 2, 3, 4, 5]], "its polygon must be finite numbers"),
        ([[1, 2, 3, 4, 5, float("nan")]], "its polygon must be finite numbers"),
        ([[1, 2, 3, 4, 5, "6"]], "its polygon must be finite numbers"),
    ],
)
def test_what_is_no_segmentation_is_named(segmentation, message):
    import re

    assert re.search(message, check_segmentation(segmentation, 8, 4))


def test_cropped_masks_are_those_of_the_zoo():
    generator = np.random.default_rng(1)
    # Blobs, as a mask of noise would be decided by the last bit of the interpolation.
    y, x = np.mgrid[:60, :80]
    centres, radii = generator.uniform(15, 45, (20, 2)), generator.uniform(4, 14, 20)
    masks = np.array([(y - c[0]) ** 2 + (x - c[1]) ** 2 < r**2 for c, r in zip(centres, radii, strict=True)], "uint8")
    corners = centres[:, ::-1] - radii[:, None] * generator.uniform(0.5, 1.5, (20, 2))
    boxes = np.concatenate([corners, corners + radii[:, None] * generator.uniform(1, 3, (20, 2))], axis=1)
    boxes = np.clip(boxes, 0, [80, 60, 80, 60]).astype("float32")
    ours, theirs = crop_to_boxes(masks, boxes, 28), crop_masks(masks, boxes, 28)
    assert theirs.any(axis=(1, 2)).all() and (theirs == 0).any(axis=(1, 2)).all()
    # Positions relative to another corner differ in their last bits, which decides few of 15,680 ties.
    assert (ours != theirs).mean() < 1e-3
    whole = np.round(boxes)
    np.testing.assert_array_equal(crop_to_boxes(masks, whole, 28), crop_masks(masks, whole, 28))


def test_a_mask_without_a_pixel_becomes_its_box():
    between = decode_mask([[1.2, 1.2, 1.3, 1.2, 1.3, 1.3]], 6, 6)
    assert not between.any()
    assert crop_to_boxes(between[None], np.array([[1.2, 1.2, 1.3, 1.3]]), 4).all()
