"""Anchors of a feature pyramid, from the shapes of the feature maps alone."""

import numpy as np


def cell_anchors(sizes, aspect_ratios, rounded=True):
    """Anchors around the origin: a box of area `size ** 2` for every ratio (outer) and size (inner).

    Args:
        sizes: Square roots of the areas, in pixels.
        aspect_ratios: Height over width.
        rounded: Round the corners half to even, as the reference does; mmdet keeps fractions.

    Returns: A float32 array `(len(aspect_ratios) * len(sizes), 4)`, xyxy.
    Source: Faster R-CNN (NeurIPS 2015), Sec. 3.1.1.

    >>> from zoo.detection.anchors import cell_anchors
    >>> cell_anchors([32], [0.5]).tolist()
    [[-23.0, -11.0, 23.0, 11.0]]
    """
    sizes, ratios = np.asarray(sizes, "float32"), np.asarray(aspect_ratios, "float32")
    h_ratios = np.sqrt(ratios)
    w, h = ((1 / h_ratios)[:, None] * sizes).reshape(-1), (h_ratios[:, None] * sizes).reshape(-1)
    anchors = np.stack([-w, -h, w, h], axis=1) / 2
    return (np.round(anchors) if rounded else anchors).astype("float32")


def pyramid_anchors(image_size, grids, sizes, aspect_ratios, rounded=True):
    """Anchors of every level, ordered by y, x and cell anchor, centred on `(x * stride, y * stride)`.

    Args:
        image_size: Height and width of the padded batch, in pixels.
        grids: Height and width of the feature map of each level; the stride is image size // grid size.
        sizes: For each level, its anchor sizes in pixels.
        aspect_ratios: Height over width, the same for all levels.
        rounded: As in `cell_anchors`.

    Returns: A list of float32 arrays `(height * width * anchors per cell, 4)`, xyxy in pixels.
    Raises: ValueError: If there are not as many sizes as grids, or a grid is larger than the image.

    >>> from zoo.detection.anchors import pyramid_anchors
    >>> [len(level) for level in pyramid_anchors((64, 96), [(16, 24), (8, 12)], [(32,), (64,)], (0.5, 1.0, 2.0))]
    [1152, 288]
    """
    if len(grids) != len(sizes):
        raise ValueError(f"sizes must have one entry a level, {len(grids)}; given: {len(sizes)}.")
    levels = []
    for (height, width), level_sizes in zip(grids, sizes, strict=True):
        stride_y, stride_x = image_size[0] // height, image_size[1] // width
        if min(stride_y, stride_x) < 1:
            raise ValueError(f"grids must not exceed the image size {tuple(image_size)}; given: {(height, width)}.")
        y = np.arange(height, dtype="float32") * stride_y
        x = np.arange(width, dtype="float32") * stride_x
        y, x = np.meshgrid(y, x, indexing="ij")
        shifts = np.stack([x, y, x, y], axis=-1).reshape(-1, 1, 4)
        levels.append((shifts + cell_anchors(level_sizes, aspect_ratios, rounded)).reshape(-1, 4))
    return levels
