"""ROIAlign over one feature map or a pyramid, as bilinear samples gathered one after the other.

Each turn gathers one pixel for each bin and adds its share: nothing as large as all samples together exists, nor in the
gradient, which adds to the maps in place in the same turns. Boxes, and with them the weights, get no gradient.
"""

import math

import numpy as np
from keras import ops

from keras_apa._kernels import detection as kernels
from keras_apa._kernels import differentiable
from zoo.detection.boxes import box_area
from zoo.detection.convolution import zeros_after


def pyramid_level(boxes, first_level=2, last_level=5, canonical_size=224.0, canonical_level=4, epsilon_inside=None):
    """Index of the pyramid level of each box, `clamp(floor(4 + log2(sqrt(area) / 224) + 1e-6), 2, 5) - 2`.

    Args:
        boxes: `(..., 4)`, xyxy in pixels.
        first_level, last_level: Levels there are; a level `l` has stride `2 ** l`.
        canonical_size, canonical_level: A box of this size in pixels belongs to this level.
        epsilon_inside: `None` adds 1e-6 after the logarithm, as the reference; a number is added before it instead,
            to `sqrt(area) / (canonical_size * 2 ** (first_level - canonical_level))`, as in mmdet (1e-6).

    Returns: An int32 tensor `(...)`, 0 for `first_level`.
    Source: Feature Pyramid Networks (CVPR 2017), Eq. 1.

    >>> from zoo.detection.roi import pyramid_level
    >>> [int(pyramid_level(keras.ops.convert_to_tensor([0.0, 0.0, side, side]))) for side in (50.0, 112.0, 900.0)]
    [0, 1, 3]
    """
    side = ops.sqrt(box_area(ops.cast(boxes, "float32")))
    level = ops.zeros(ops.shape(side), "int32")
    # Compared with the border itself: a logarithm would round to either side of it, differently on each backend.
    for k in range(first_level + 1, last_level + 1):
        if epsilon_inside is None:
            border = canonical_size * 2.0 ** (k - canonical_level - 1e-6)
        else:
            unit = canonical_size * 2.0 ** (first_level - canonical_level)
            border = unit * (2.0 ** (k - first_level) - epsilon_inside)
        level = level + ops.cast(side >= np.float32(border), "int32")
    return level


def roi_align(
    features, boxes, image_index, output_size, scale, sampling_ratio=2, aligned=False, max_sampling_ratio=None
):
    """Features of regions of one map, averages of bilinear samples.

    Args:
        features: `(batch, height, width, channels)`.
        boxes: `(N, 4)`, xyxy in pixels of the image. No gradient.
        image_index: `(N,)` integers, the image of each box.
        output_size: Bins on each side, or `(height, width)`.
        scale: Size of the map over the size of the image, 1 / stride.
        sampling_ratio: Samples a bin on each axis; 0 for `ceil(side of the region / bins)` of them.
        aligned: Shift by half a pixel, so that the centre of a pixel is where the convolution put it, and take boxes
            as small as they are. `False`, the reference: no shift, and regions of at least one pixel of the map.
        max_sampling_ratio: With `sampling_ratio=0`, the most samples a bin on each axis that are taken; a larger region
            gets as many, evenly spread. `None` is enough for any box inside the image.

    Returns: `(N, *output_size, channels)`, in the dtype of `features`. A sample more than one pixel outside the map
        counts as 0.
    Raises: ValueError: For a negative `sampling_ratio`.
    Source: Mask R-CNN (ICCV 2017), Sec. 3.

    >>> from zoo.detection.roi import roi_align
    >>> boxes = keras.ops.convert_to_tensor([[0.0, 0.0, 16.0, 16.0]])
    >>> features = keras.ops.ones((1, 8, 8, 3))
    >>> roi_align(features, boxes, keras.ops.zeros((1,), "int32"), 7, scale=0.5).shape == (1, 7, 7, 3)
    True
    """
    level = ops.zeros(ops.shape(image_index), "int32")
    return _align(
        [features], boxes, image_index, level, output_size, [scale], sampling_ratio, aligned, max_sampling_ratio
    )


def multilevel_roi_align(
    features,
    boxes,
    output_size,
    scales,
    sampling_ratio=2,
    aligned=False,
    max_sampling_ratio=None,
    level_epsilon=None,
    canonical_size=224.0,
):
    """`roi_align` of each box on the pyramid level of its size.

    Args:
        features: One map a level, `(batch, height, width, channels)`, finest first.
        boxes: `(batch, N, 4)`, xyxy in pixels of the padded batch. No gradient.
        output_size, sampling_ratio, aligned, max_sampling_ratio: As in `roi_align`; with `sampling_ratio=0` the default
            of `max_sampling_ratio` is what the finest map could need, so give it.
        scales: 1 / stride of each level, powers of 2 that halve from level to level.
        level_epsilon: As `epsilon_inside` of `pyramid_level`.
        canonical_size: As in `pyramid_level`.

    Returns: `(batch, N, *output_size, channels)`.
    Source: Feature Pyramid Networks (CVPR 2017), Sec. 4.2.

    >>> from zoo.detection.roi import multilevel_roi_align
    >>> maps = [keras.ops.ones((2, 16, 16, 3)), keras.ops.ones((2, 8, 8, 3))]
    >>> multilevel_roi_align(maps, keras.ops.ones((2, 5, 4)), 7, [1 / 4, 1 / 8]).shape == (2, 5, 7, 7, 3)
    True
    """
    batch, number = ops.shape(boxes)[:2]
    first = round(-math.log2(scales[0]))
    boxes = ops.stop_gradient(ops.cast(boxes, "float32"))
    last = first + len(scales) - 1
    level = pyramid_level(boxes, first, last, canonical_size, epsilon_inside=level_epsilon)
    image = ops.broadcast_to(ops.expand_dims(ops.arange(batch, dtype="int32"), 1), (batch, number))
    flat = [ops.reshape(x, shape) for x, shape in ((boxes, (-1, 4)), (image, (-1,)), (level, (-1,)))]
    boxes, image, level = flat
    result = _align(features, boxes, image, level, output_size, scales, sampling_ratio, aligned, max_sampling_ratio)
    return ops.reshape(result, (batch, number, *result.shape[1:]))


def _align(features, boxes, image, level, output_size, scales, sampling_ratio, aligned, max_sampling_ratio):
    if sampling_ratio < 0:
        raise ValueError(f"sampling_ratio must be at least 0, where 0 means adaptive; given: {sampling_ratio!r}.")
    rows, columns = (output_size, output_size) if isinstance(output_size, int) else output_size
    channels = features[0].shape[-1]
    heights, widths = [x.shape[1] for x in features], [x.shape[2] for x in features]
    flat = ops.concatenate([ops.reshape(x, (-1, channels)) for x in features], axis=0)
    before = np.cumsum([0, *(h * w for h, w in zip(heights[:-1], widths[:-1], strict=True))])

    def of_level(values, dtype):
        return ops.take(ops.convert_to_tensor(np.asarray(values, dtype)), level, axis=0)

    height, width = of_level(heights, "int32"), of_level(widths, "int32")
    start = of_level(before, "int32") * ops.shape(features[0])[0] + ops.cast(image, "int32") * height * width
    scaled = ops.stop_gradient(ops.cast(boxes, "float32")) * ops.expand_dims(of_level(scales, "float32"), -1)
    adaptive = sampling_ratio == 0
    most_y = most_x = max_sampling_ratio if adaptive else sampling_ratio
    if most_y is None:
        most_y, most_x = -(-max(heights) // rows), -(-max(widths) // columns)
    y, weight_y = axis_samples(scaled[:, 1], scaled[:, 3], rows, height, most_y, adaptive, aligned)
    x, weight_x = axis_samples(scaled[:, 0], scaled[:, 2], columns, width, most_x, adaptive, aligned)
    y = ops.reshape(start, (-1, 1, 1)) + y * ops.reshape(width, (-1, 1, 1))
    return _weighted_sum_in_place(flat, *(ops.stop_gradient(tensor) for tensor in (y, weight_y, x, weight_x)))


def _weighted_sum(flat, y, weight_y, x, weight_x):
    """The sum of `weight_y * weight_x * flat[y + x]` over the samples of each bin; only `flat` gets a gradient.

    Args:
        flat: `(pixels, channels)`.
        y, weight_y: `(N, rows, samples)`, where in `flat` the rows of the maps begin; the sums have the dtype of the
            weights.
        x, weight_x: `(N, columns, samples)`.

    Returns: `(N, rows, columns, channels)`.
    """

    def add_sample(i, total):
        index, weight = _sample(i, y, weight_y, x, weight_x)
        return total + weight * ops.cast(ops.take(flat, index, axis=0), total.dtype)

    shape = (ops.shape(y)[0], y.shape[1], x.shape[1], flat.shape[-1])
    total = zeros_after(weight_y, shape)
    return ops.cast(kernels.repeat(add_sample, y.shape[-1] * x.shape[-1], total), flat.dtype)


def _gradients(upstream, flat, y, weight_y, x, weight_x):
    # In half precision too: hundreds of regions may add to one pixel.
    upstream = ops.cast(upstream, weight_y.dtype)

    def add_sample(i, total):
        index, weight = _sample(i, y, weight_y, x, weight_x)
        return kernels.add_at(total, index, weight * upstream)

    of_flat = zeros_after(upstream, ops.shape(flat))
    of_flat = kernels.repeat(add_sample, y.shape[-1] * x.shape[-1], of_flat)
    return ops.cast(of_flat, flat.dtype), None, None, None, None


_weighted_sum_in_place = differentiable(_weighted_sum, _gradients)


def _sample(i, y, weight_y, x, weight_x):
    """Index `(N, rows, columns)` and weight `(N, rows, columns, 1)` of sample `i` of each bin."""
    row, column = i // x.shape[-1], i % x.shape[-1]
    y, weight_y = (ops.expand_dims(ops.take(tensor, row, axis=2), 2) for tensor in (y, weight_y))
    x, weight_x = (ops.expand_dims(ops.take(tensor, column, axis=2), 1) for tensor in (x, weight_x))
    return y + x, ops.expand_dims(weight_y * weight_x, -1)


def axis_samples(low, high, bins, size, most, adaptive, aligned):
    """Positions and weights of the bilinear samples along one axis.

    Args:
        low, high: Ends of the regions in pixels of the map, `(N,)`.
        bins: Bins that a region is divided into.
        size: Pixels of the map, `(N,)` integers.
        most: Samples a bin, or with `adaptive` the most of them.
        adaptive: Take `ceil(side / bins)` samples a bin, up to `most`.
        aligned: As in `roi_align`.

    Returns: `(positions, weights)`, each `(N, bins, 2 * most)`: whole pixels from 0 to `size - 1`, and weights that add
        up to 1 in a bin whose samples are all on the map.

    >>> from zoo.detection.roi import axis_samples
    >>> low, high = keras.ops.convert_to_tensor([0.0]), keras.ops.convert_to_tensor([4.0])
    >>> positions, weights = axis_samples(low, high, 2, keras.ops.convert_to_tensor([8]), 1, False, False)
    >>> [int(i) for i in positions[0, 1]], [float(w) for w in weights[0, 1]]
    ([3, 4], [1.0, 0.0])
    """
    if aligned:
        low, high = low - 0.5, high - 0.5
    side = high - low if aligned else ops.maximum(high - low, 1.0)
    bin_side = side / bins
    number = ops.full(ops.shape(side), float(most))
    if adaptive:
        number = ops.minimum(ops.ceil(bin_side), float(most))
    low, bin_side, number = (ops.reshape(v, (-1, 1, 1)) for v in (low, bin_side, number))
    bin_index = ops.reshape(ops.arange(bins, dtype="float32"), (1, -1, 1))
    sample = ops.reshape(ops.arange(most, dtype="float32"), (1, 1, -1))
    position = low + bin_index * bin_side + (sample + 0.5) * bin_side / ops.maximum(number, 1.0)
    size = ops.reshape(ops.cast(size, "float32"), (-1, 1, 1))
    inside = ops.logical_and(position >= -1.0, position <= size)
    inside = ops.logical_and(inside, sample < number)
    position = ops.minimum(ops.maximum(position, 0.0), size - 1.0)
    floor = ops.floor(position)
    fraction = position - floor
    each = ops.cast(inside, "float32") / ops.maximum(number, 1.0)
    weights = ops.concatenate([(1.0 - fraction) * each, fraction * each], axis=-1)
    positions = ops.concatenate([floor, ops.minimum(floor + 1.0, size - 1.0)], axis=-1)
    return ops.cast(positions, "int32"), weights
