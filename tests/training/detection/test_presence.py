import numpy as np
import pytest

from training.detection.presence import divergence, presence_map

IMAGES = [{"id": 1, "height": 40, "width": 80}, {"id": 2, "height": 20, "width": 20}]


def test_map_is_the_share_of_covered_pixels():
    """Against counting pixels, in images of two sizes, boxes on whole cells or not."""
    rng = np.random.default_rng(0)
    objects, counted = [], np.zeros((10, 10))
    for image in IMAGES:
        height, width = image["height"], image["width"]
        for _ in range(5):
            x1, y1 = rng.integers(0, width // 2), rng.integers(0, height // 2)
            x2, y2 = rng.integers(x1 + 1, width + 1), rng.integers(y1 + 1, height + 1)
            score = rng.random()
            objects.append({"image_id": image["id"], "bbox": [x1, y1, x2 - x1, y2 - y1], "score": score})
            mask = np.zeros((height, width))
            mask[y1:y2, x1:x2] = score
            counted += mask.reshape(10, height // 10, 10, width // 10).mean((1, 3))
    result = presence_map(IMAGES, objects, grid=10)
    np.testing.assert_allclose(result, counted / counted.sum(), atol=1e-12)
    assert result.sum() == pytest.approx(1)


def test_annotations_count_once_each():
    box = {"image_id": 2, "bbox": [0, 0, 10, 20]}
    np.testing.assert_allclose(presence_map(IMAGES, [box, box], grid=2), [[0.5, 0], [0.5, 0]])


def test_divergence_is_that_of_the_formula_and_finite():
    truth, predicted = np.array([[0.25, 0.75]]), np.array([[0.5, 0.5]])
    expected = 0.25 * np.log(0.25 / 0.5) + 0.75 * np.log(0.75 / 0.5)
    assert divergence(truth, predicted) == pytest.approx(expected, abs=1e-5)
    assert 5 < divergence(truth, np.array([[1.0, 0.0]])) < 15
    assert np.isnan(divergence(truth, np.zeros((1, 2))))
