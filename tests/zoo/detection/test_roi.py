"""ROIAlign and the level of a box, values and gradient."""

import keras
import numpy as np
import pytest
from gradients import value_and_gradient
from keras import ops
from reference import load_json

from zoo.detection.roi import multilevel_roi_align, pyramid_level, roi_align

# Twice what blocks.json states for the reference itself, float32 against float64.
ATOL = 2 * load_json("detection/blocks.json")["blocks"]["roi_align"]["f32_vs_f64_maxabs"]


def nhwc(x):
    return np.moveaxis(x, 1, -1)


def align(rois, size, scale, **options):
    """`roi_align` as a function of the features in NHWC."""
    image, boxes = rois[:, 0].astype("int32"), rois[:, 1:]

    def function(features):
        return roi_align(
            features, ops.convert_to_tensor(boxes), ops.convert_to_tensor(image), size, scale=scale, **options
        )

    return function


@pytest.mark.parametrize("stride", [4, 8, 16, 32])
@pytest.mark.parametrize("size", [7, 14])
def test_values(run, blocks, stride, size):
    for aligned in (False, True):
        function = align(blocks["roi_align/rois"], size, 1 / stride, aligned=aligned)
        result = run(function, nhwc(blocks[f"roi_align/feat_{stride}"]))
        expected = blocks[f"roi_align/out_s{stride}_{size}_aligned{int(aligned)}"]
        np.testing.assert_allclose(result, nhwc(expected), rtol=1e-5, atol=ATOL)


@pytest.mark.parametrize("aligned", [False, True])
def test_adaptive_sampling(blocks, aligned):
    expected = blocks[f"roi_align/out_s4_7_adaptive_aligned{int(aligned)}"]
    rois = blocks["roi_align/rois"][: len(expected)]
    longest = int(np.ceil((rois[:, 3:] - rois[:, 1:3]).max() / 4 / 7))
    function = align(rois, 7, 1 / 4, aligned=aligned, sampling_ratio=0, max_sampling_ratio=longest)
    result = ops.convert_to_numpy(function(ops.convert_to_tensor(nhwc(blocks["roi_align/feat_4"]))))
    np.testing.assert_allclose(result, nhwc(expected), rtol=1e-5, atol=ATOL)


def test_regions_that_are_not_square_and_the_gradient(blocks):
    function = align(blocks["roi_align/rois"], (5, 9), 1 / 8)
    upstream = nhwc(blocks["roi_align/upstream_s8_5x9"])
    features = nhwc(blocks["roi_align/feat_8"])
    _, (gradient,) = value_and_gradient(lambda x: function(x) * ops.convert_to_tensor(upstream), features)
    np.testing.assert_allclose(gradient, nhwc(blocks["roi_align/grad_feat_s8_5x9"]), rtol=1e-5, atol=ATOL)
    result = ops.convert_to_numpy(function(ops.convert_to_tensor(features)))
    np.testing.assert_allclose(result, nhwc(blocks["roi_align/out_s8_5x9"]), rtol=1e-5, atol=ATOL)


@pytest.mark.parametrize("size", [7, 14])
def test_pyramid(run_everywhere, blocks, size):
    maps = [nhwc(blocks[f"levels/feat_{level}"]) for level in range(4)]
    boxes = np.zeros((2, 5, 4), "float32")
    boxes[0], boxes[1, :4] = blocks["levels/ms_boxes_0"], blocks["levels/ms_boxes_1"]
    scales = [1 / 4, 1 / 8, 1 / 16, 1 / 32]
    result = run_everywhere(lambda b, *maps: multilevel_roi_align(maps, b, size, scales), boxes, *maps)
    result = np.concatenate([result[0], result[1, :4]])
    np.testing.assert_allclose(result, nhwc(blocks[f"levels/ms_out_{size}"]), rtol=1e-5, atol=ATOL)


def test_level_of_a_box(run, blocks):
    np.testing.assert_array_equal(run(pyramid_level, blocks["levels/boxes"]), blocks["levels/index"])
    image = np.concatenate([blocks["levels/ms_boxes_0"], blocks["levels/ms_boxes_1"]])
    np.testing.assert_array_equal(run(pyramid_level, image), blocks["levels/ms_index"])
    # mmdet's rule, in float64.
    side = np.sqrt(np.prod((blocks["levels/boxes"][:, 2:] - blocks["levels/boxes"][:, :2]).astype("float64"), axis=1))
    expected = np.clip(np.floor(np.log2(side / 56 + 1e-6)), 0, 3)
    result = run(lambda x: pyramid_level(x, epsilon_inside=1e-6), blocks["levels/boxes"])
    np.testing.assert_array_equal(result, expected)


def test_half_precision_keeps_the_dtype_and_the_places_of_the_samples():
    features = np.random.default_rng(0).normal(size=(1, 64, 64, 2)).astype("float32")
    boxes = ops.convert_to_tensor(np.array([[0, 0, 250.3, 251.7]], "float32"))
    image = ops.zeros((1,), "int32")
    half = ops.cast(ops.convert_to_tensor(features), "bfloat16")
    result = roi_align(half, boxes, image, 7, 1 / 4)
    assert keras.backend.standardize_dtype(result.dtype) == "bfloat16"
    exact = roi_align(
        ops.convert_to_tensor(features), ops.convert_to_tensor(boxes), ops.convert_to_tensor(image), 7, 1 / 4
    )
    difference = ops.convert_to_numpy(ops.cast(result, "float32")) - ops.convert_to_numpy(exact)
    assert np.abs(difference).max() < 0.03


def test_the_gradient_of_many_regions_in_one_place_is_exact_in_half_precision():
    random = np.random.default_rng(0)
    features = random.normal(size=(1, 16, 16, 4)).astype("float32")
    boxes = np.array([20, 20, 44, 44], "float32") + random.uniform(-2, 2, (128, 4)).astype("float32")
    upstream = ops.convert_to_tensor(random.uniform(0.5, 1.5, (128, 7, 7, 4)).astype("float32"))
    function = align(np.concatenate([np.zeros((128, 1), "float32"), boxes], axis=1), 7, 1 / 4)
    _, (exact,) = value_and_gradient(lambda x: function(x) * upstream, features)
    _, (found,) = value_and_gradient(
        lambda x: ops.cast(function(ops.cast(x, "bfloat16")), "float32") * upstream, features
    )
    assert np.linalg.norm(found - exact) < 0.01 * np.linalg.norm(exact)


def test_a_negative_sampling_ratio_is_an_error():
    with pytest.raises(ValueError, match="sampling_ratio must be at least 0"):
        roi_align(ops.ones((1, 4, 4, 1)), ops.ones((1, 4)), ops.zeros((1,), "int32"), 7, 1.0, sampling_ratio=-1)
