"""Anchors, exactly."""

import numpy as np
import pytest
from reference import load_json

from zoo.detection.anchors import cell_anchors, pyramid_anchors

GRIDS = load_json("detection/blocks.json")["blocks"]["anchors"]["grids"]
SIZES, RATIOS = [(32,), (64,), (128,), (256,), (512,)], (0.5, 1.0, 2.0)


@pytest.mark.parametrize("size", [(128, 160), (96, 224)])
def test_anchors_of_a_pyramid(blocks, size):
    name = f"{size[0]}x{size[1]}"
    levels = pyramid_anchors(size, GRIDS[name]["grids"], SIZES, RATIOS)
    assert [len(level) for level in levels] == GRIDS[name]["anchors_per_level"]
    np.testing.assert_array_equal(np.concatenate(levels), blocks[f"anchors/all_{name}"])


def test_anchors_of_a_cell(blocks):
    for level, sizes in enumerate(SIZES):
        np.testing.assert_array_equal(cell_anchors(sizes, RATIOS), blocks[f"anchors/cell_{level}"])
    exact = cell_anchors((32,), RATIOS, rounded=False)
    np.testing.assert_allclose(exact[0], [-22.627417, -11.3137085, 22.627417, 11.3137085], rtol=1e-6)


def test_two_sizes_a_level(blocks):
    levels = pyramid_anchors((32, 48), [(4, 6), (2, 3)], [(32, 45), (64, 91)], RATIOS)
    np.testing.assert_array_equal(cell_anchors((32, 45), RATIOS), blocks["anchors/two_sizes_cell_0"])
    np.testing.assert_array_equal(cell_anchors((64, 91), RATIOS), blocks["anchors/two_sizes_cell_1"])
    np.testing.assert_array_equal(np.concatenate(levels), blocks["anchors/two_sizes_all_32x48"])


def test_wrong_grids_are_named():
    with pytest.raises(ValueError, match="sizes must have one entry a level, 1; given: 2"):
        pyramid_anchors((32, 32), [(8, 8)], [(32,), (64,)], RATIOS)
    with pytest.raises(ValueError, match="grids must not exceed"):
        pyramid_anchors((4, 4), [(8, 8)], [(32,)], RATIOS)
