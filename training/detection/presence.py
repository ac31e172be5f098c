"""Where in the image objects are: P(obj, u), of the annotations and of detections, and how far the two are apart."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

GRID = 32


def presence_map(
    images: Sequence[Mapping[str, Any]],
    objects: Sequence[Mapping[str, Any]],
    grid: int = GRID,
) -> np.ndarray:
    """The share of object presence at each location u, `(grid, grid)`; all shares add up to 1.

    The image is divided into `grid` times `grid` cells, each box adds to a cell the part of it that it covers, times
    its score if it has one: what a detector believes to be there counts as much as it believes in it. All zeros where
    there is no object.

    Args:
        images: Dicts with `id`, `height` and `width`.
        objects: Dicts with `image_id` and `bbox` `[x, y, width, height]`: annotations, or results with their `score`.
        grid: Cells on a side.

    Source: P(obj, u) of Long-tailed Instance Segmentation using Gumbel Optimized Loss (ECCV 2022), Eqs. 1-2.

    >>> image = {"id": 1, "height": 4, "width": 4}
    >>> presence_map([image], [{"image_id": 1, "bbox": [0, 0, 2, 4]}], grid=2).tolist()
    [[0.5, 0.0], [0.5, 0.0]]
    """
    sizes = {image["id"]: (image["width"], image["height"]) for image in images}
    total = np.zeros((grid, grid))
    edges = np.arange(grid + 1) / grid
    for each in objects:
        width, height = sizes[each["image_id"]]
        x, y, w, h = each["bbox"]
        columns = _covered(edges, x / width, (x + w) / width)
        rows = _covered(edges, y / height, (y + h) / height)
        total += each.get("score", 1.0) * np.outer(rows, columns)
    return total / total.sum() if total.sum() > 0 else total


def _covered(edges, low, high):
    """The part of each cell between its edges that lies between `low` and `high`."""
    overlap = np.minimum(edges[1:], high) - np.maximum(edges[:-1], low)
    return np.maximum(overlap, 0.0) * (len(edges) - 1)


def divergence(truth: np.ndarray, predicted: np.ndarray) -> float:
    """Kullback-Leibler divergence of two maps, `sum_u P(u) log(P(u) / Q(u))` in nats; NaN where one is all zeros.

    A millionth of `predicted` is spread evenly, so that a cell where nothing was detected does not make it infinite.

    >>> round(divergence(np.array([0.5, 0.5]), np.array([0.5, 0.5])), 6)
    0.0
    """
    if not truth.sum() > 0 or not predicted.sum() > 0:
        return float("nan")
    spread = (1 - 1e-6) * predicted + 1e-6 / predicted.size
    there = truth > 0
    return float(np.sum(truth[there] * np.log(truth[there] / spread[there])))
