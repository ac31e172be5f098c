"""What AutoAugment and RandAugment do to one image, grey level for grey level as Pillow has it."""

from __future__ import annotations

import dataclasses
import math

import numpy as np
import tensorflow as tf


def invert() -> np.ndarray:
    """Table of 256 grey levels for `look_up`: `255 - level`, as `PIL.ImageOps.invert`.

    >>> invert()[:3].tolist()
    [255, 254, 253]
    """
    return np.arange(255, -1, -1).astype(np.uint8)


def posterize(bits: int) -> np.ndarray:
    """Table for `look_up`: the upper `bits` of the eight, as `PIL.ImageOps.posterize`.

    >>> int(posterize(4)[255])
    240
    """
    return (np.arange(256) & ~(2 ** (8 - bits) - 1)).astype(np.uint8)


def solarize(threshold: float) -> np.ndarray:
    """Table for `look_up`: levels from `threshold` on are inverted, as `PIL.ImageOps.solarize`.

    >>> solarize(128.0)[[127, 128]].tolist()
    [127, 127]
    """
    levels = np.arange(256)
    return np.where(levels < threshold, levels, 255 - levels).astype(np.uint8)


def brightness(factor: float) -> np.ndarray:
    """Table for `look_up`: `factor * level`, cut off at 255, as `PIL.ImageEnhance.Brightness`.

    >>> brightness(1.5)[[10, 200]].tolist()
    [15, 255]
    """
    return np.clip(np.float32(factor) * np.arange(256, dtype=np.float32), 0, 255).astype(np.uint8)


def look_up(image: tf.Tensor, table) -> tf.Tensor:
    """Every grey level of a uint8 image replaced by its entry in a table of 256.

    >>> look_up(tf.constant([[[0, 7]]], tf.uint8), invert()).numpy().tolist()
    [[[255, 248]]]
    """
    return tf.gather(table, tf.cast(image, tf.int32))


def blend(degenerate, image: tf.Tensor, factor) -> tf.Tensor:
    """`degenerate + factor * (image - degenerate)`, cut off and truncated, as `PIL.Image.blend`.

    Args:
        degenerate: float32, what factor 0 gives; any shape that broadcasts with the image.
        image: uint8 `(height, width, channels)`.
        factor: A number, 1 for the image itself; above 1 leads away from `degenerate`.

    >>> blend(100.0, tf.constant([[[120, 250]]], tf.uint8), 2.0).numpy().tolist()
    [[[140, 255]]]
    """
    mixed = degenerate + tf.cast(factor, tf.float32) * (tf.cast(image, tf.float32) - degenerate)
    return tf.cast(tf.clip_by_value(mixed, 0.0, 255.0), tf.uint8)


def _luminance(image):
    """int32 `(height, width, 1)`: ITU-R 601 in 16 bits, as Pillow's mode `L`."""
    image = tf.cast(image, tf.int32)
    if image.shape[-1] == 1:
        return image
    return (tf.reduce_sum(image * [19595, 38470, 7471], axis=-1, keepdims=True) + 0x8000) // 0x10000


def color(image: tf.Tensor, factor) -> tf.Tensor:
    """Saturation: `blend` with the grey image, as `PIL.ImageEnhance.Color`.

    >>> color(tf.constant([[[255, 0, 0]]], tf.uint8), 0.0).numpy().tolist()
    [[[76, 76, 76]]]
    """
    return blend(tf.cast(_luminance(image), tf.float32), image, factor)


def contrast(image: tf.Tensor, factor) -> tf.Tensor:
    """`blend` with the mean of the grey image, rounded, as `PIL.ImageEnhance.Contrast`.

    >>> contrast(tf.constant([[[10], [20]]], tf.uint8), 2.0).numpy().tolist()
    [[[5], [25]]]
    """
    grey = _luminance(image)
    total, pixels = tf.reduce_sum(tf.cast(grey, tf.int64)), tf.size(grey, tf.int64)
    return blend(tf.cast((2 * total + pixels) // (2 * pixels), tf.float32), image, factor)


def sharpness(image: tf.Tensor, factor) -> tf.Tensor:
    """`blend` with a smoothed image, as `PIL.ImageEnhance.Sharpness`.

    The kernel is (1 1 1, 1 5 1, 1 1 1) / 13. The outermost pixels stay as they are.

    >>> image = tf.constant([[[0], [0], [0]], [[0], [26], [0]], [[0], [0], [0]]], tf.uint8)
    >>> sharpness(image, 0.0)[:, :, 0].numpy().tolist()
    [[0, 0, 0], [0, 10, 0], [0, 0, 0]]
    """
    height, width, channels = image.shape
    if min(height, width) < 3:
        return image
    weights = np.ones((3, 3, channels, 1), np.float32)
    weights[1, 1] = 5
    pixels = tf.cast(image, tf.float32)[tf.newaxis]
    # Sums of whole numbers, exact in float32; half a level more rounds them, and no sum lies half way.
    sums = tf.nn.depthwise_conv2d(pixels, weights, (1, 1, 1, 1), "SAME")[0]
    inner = np.zeros((height, width, 1), bool)
    inner[1:-1, 1:-1] = True
    return tf.where(inner, blend(tf.floor((sums + 6.5) / 13.0), image, factor), image)


def auto_contrast(image: tf.Tensor) -> tf.Tensor:
    """Each channel stretched to 0 ... 255; one of a single level stays, as `PIL.ImageOps.autocontrast`.

    >>> auto_contrast(tf.constant([[[10], [20], [30]]], tf.uint8)).numpy().tolist()
    [[[0], [127], [255]]]
    """
    lowest = tf.cast(tf.reduce_min(image, axis=(0, 1)), tf.float64)
    highest = tf.cast(tf.reduce_max(image, axis=(0, 1)), tf.float64)
    flat = highest <= lowest
    # In float64 and in this order, or levels that come out whole would be truncated to the one below.
    scale = tf.where(flat, tf.ones_like(lowest), 255.0 / tf.maximum(highest - lowest, 1.0))
    offset = tf.where(flat, tf.zeros_like(lowest), -lowest * scale)
    stretched = tf.cast(image, tf.float64) * scale + offset
    return tf.cast(tf.clip_by_value(stretched, 0.0, 255.0), tf.uint8)


def equalize(image: tf.Tensor) -> tf.Tensor:
    """Each channel's histogram made even, as `PIL.ImageOps.equalize`.

    With c the cumulative counts and step = (count of all but the highest level) // 255, level i becomes
    `(step // 2 + c[i - 1]) // step`; the channel stays where step is 0.

    >>> image = tf.cast(tf.reshape(tf.range(1024) // 8, (32, 32, 1)), tf.uint8)
    >>> int(tf.reduce_max(equalize(image)))
    255
    """
    channels = image.shape[-1]
    levels = tf.cast(image, tf.int32) + 256 * np.arange(channels, dtype=np.int32)
    counts = tf.raw_ops.Bincount(arr=tf.reshape(levels, [-1]), size=256 * channels, weights=tf.constant([], tf.int32))
    counts = tf.reshape(counts, (channels, 256))
    up_to = tf.cumsum(counts, axis=1)
    without_highest = tf.reduce_max(tf.where(up_to < up_to[:, -1:], up_to, 0), axis=1, keepdims=True)
    step = without_highest // 255
    even = tf.minimum((step // 2 + up_to - counts) // tf.maximum(step, 1), 255)
    table = tf.where(step == 0, np.arange(256, dtype=np.int32), even)
    return tf.gather(tf.cast(tf.reshape(table, [-1]), image.dtype), levels)


def rotation(degrees: float, height: int, width: int) -> tuple[float, ...]:
    """Matrix for `move` that turns an image about its centre, counter-clockwise, as `PIL.Image.rotate`.

    >>> rotation(90.0, 2, 2)
    (0.0, -1.0, 2.0, 1.0, 0.0, 0.0)
    """
    angle = -math.radians(degrees)
    # Rounded as Pillow does, so that right angles are exact.
    cosine, sine = round(math.cos(angle), 15), round(math.sin(angle), 15)
    x, y = width / 2, height / 2
    return (cosine, sine, x + cosine * -x + sine * -y, -sine, cosine, y + -sine * -x + cosine * -y)


def shear(x: float = 0.0, y: float = 0.0) -> tuple[float, ...]:
    """Matrix for `move` that shears an image as torchvision's policies do.

    A pixel comes from `x` columns further right for each row down, and from `y` rows further down for each column to
    the right. The top left corner stays.

    >>> shear(x=0.3)
    (1.0, 0.3, 0.0, 0.0, 1.0, 0.0)
    """
    return (1.0, x, 0.0, y, 1.0, 0.0)


def translation(x: int = 0, y: int = 0) -> tuple[float, ...]:
    """Matrix for `move`: the image goes `x` pixels to the right and `y` down.

    >>> translation(x=3)
    (1.0, 0.0, -3.0, 0.0, 1.0, 0.0)
    """
    return (1.0, 0.0, 0.0 - x, 0.0, 1.0, 0.0 - y)


@dataclasses.dataclass(frozen=True, eq=False)
class PixelMap:
    """Where the pixels of moved images come from, for a number of moves of images of one size.

    Attributes:
        origin: int32 `(moves, height * width)`: place in the image with a border of one pixel, counted row by row;
            -1 where it comes from outside. Of a bilinear map the upper left of four.
        right, down: float64 of that shape: weight of the neighbours; None in a map of nearest pixels.
    """

    origin: np.ndarray
    right: np.ndarray | None
    down: np.ndarray | None

    @classmethod
    def of(cls, matrices, height: int, width: int, interpolation: str) -> PixelMap:
        """The map of these matrices, with Pillow's arithmetic: 16 bits behind the point for the nearest pixel."""
        maps = [_pixel_map(matrix, height, width, interpolation) for matrix in matrices]
        origin, right, down = (np.stack(part) for part in zip(*maps, strict=True))
        return cls(origin, right, down) if interpolation == "bilinear" else cls(origin, None, None)


def _pixel_map(matrix, height, width, interpolation):
    a, b, c, d, e, f = matrix
    row, column = np.mgrid[:height, :width].reshape(2, -1)
    if interpolation == "nearest":

        def fixed(value):
            return math.floor(value * 65536.0 + 0.5)

        x = (fixed(c + a * 0.5 + b * 0.5) + fixed(a) * column + fixed(b) * row) >> 16
        y = (fixed(f + d * 0.5 + e * 0.5) + fixed(d) * column + fixed(e) * row) >> 16
        inside = (x >= 0) & (x < width) & (y >= 0) & (y < height)
        right = down = np.zeros(0)
    else:
        x = a * (column + 0.5) + b * (row + 0.5) + c
        y = d * (column + 0.5) + e * (row + 0.5) + f
        inside = (x >= 0) & (x < width) & (y >= 0) & (y < height)
        x, right = np.divmod(x - 0.5, 1.0)
        y, down = np.divmod(y - 0.5, 1.0)
    origin = np.where(inside, (y + 1) * (width + 2) + x + 1, -1).astype(np.int32)
    return origin, right, down


def move(image: tf.Tensor, matrix, fill: int = 0, interpolation: str = "nearest") -> tf.Tensor:
    """Moves a uint8 image `(height, width, channels)` by a matrix, as `PIL.Image.transform` with `AFFINE`.

    Pixels that come from outside of the image are `fill`.

    >>> image = tf.constant([[[1], [2], [3]]], tf.uint8)
    >>> move(image, translation(x=1), fill=9).numpy().tolist()
    [[[9], [1], [2]]]
    """
    height, width, _ = image.shape
    pixels = PixelMap.of([matrix], height, width, interpolation)
    right, down = [part if part is None else part[0] for part in (pixels.right, pixels.down)]
    return _moved(image, pixels.origin[0], right, down, fill)


def _moved(image, origin, right, down, fill):
    height, width, channels = image.shape
    # The border repeats the outermost pixels: what Pillow takes for neighbours that do not exist.
    pixels = tf.reshape(tf.pad(image, ((1, 1), (1, 1), (0, 0)), "SYMMETRIC"), (-1, channels))
    places = tf.maximum(origin, 0)
    if right is None:  # nearest
        moved = tf.gather(pixels, places)
    else:
        pixels = tf.cast(pixels, tf.float64)
        columns = tf.gather(pixels, tf.stack([places, places + width + 2]))
        next_columns = tf.gather(pixels, tf.stack([places + 1, places + width + 3]))
        # In this form, and not as a sum of four weighted pixels, and in float64 as in Pillow: a result that is a
        # whole number would be truncated to the one below.
        rows = columns + (next_columns - columns) * tf.expand_dims(right, -1)
        moved = tf.cast(rows[0] + (rows[1] - rows[0]) * tf.expand_dims(down, -1), tf.uint8)
    moved = tf.where(tf.expand_dims(origin < 0, -1), tf.constant(fill, tf.uint8), moved)
    return tf.reshape(moved, (height, width, channels))
