"""AutoAugment and RandAugment on one image inside `tf.data`: the policies as data, the operations as Pillow has them.

The published models were trained on images that Pillow had changed, so Pillow is what the operations agree with: grey
level for grey level, but for a few pixels in a million of bilinear turns, which are one level off. What depends on
numbers of the policy only, tables of grey levels and maps of pixels, is worked out by numpy when the graph is built; an
image costs a few look-ups, and of the operations only the one that was drawn runs.

keras-cv and Keras have layers for some of the operations. They are not used: most draw their own numbers with a
generator whose order is not repeatable under parallel calls, and of those that draw none `AutoContrast` rounds where
Pillow truncates and keras-cv's `Equalization` wraps around above 255.

Sources: AutoAugment (arXiv 1805.09501, Tables 7 and 9), RandAugment (arXiv 1909.13719); ranges and signs of the
magnitudes as in torchvision's `AutoAugment` and `RandAugment`.
"""

from __future__ import annotations

import dataclasses
import functools
import math

import numpy as np
import tensorflow as tf

__all__ = [
    "INTERPOLATIONS",
    "POLICIES",
    "apply_policy",
    "auto_contrast",
    "brightness",
    "color",
    "contrast",
    "equalize",
    "invert",
    "magnitudes",
    "move",
    "policy_draws",
    "posterize",
    "rotation",
    "sharpness",
    "shear",
    "solarize",
    "translation",
]

INTERPOLATIONS = ("nearest", "bilinear")

# Two operations with probability and level (of ten) each; None where an operation has no level.
CIFAR10 = (
    (("Invert", 0.1, None), ("Contrast", 0.2, 6)),
    (("Rotate", 0.7, 2), ("TranslateX", 0.3, 9)),
    (("Sharpness", 0.8, 1), ("Sharpness", 0.9, 3)),
    (("ShearY", 0.5, 8), ("TranslateY", 0.7, 9)),
    (("AutoContrast", 0.5, None), ("Equalize", 0.9, None)),
    (("ShearY", 0.2, 7), ("Posterize", 0.3, 7)),
    (("Color", 0.4, 3), ("Brightness", 0.6, 7)),
    (("Sharpness", 0.3, 9), ("Brightness", 0.7, 9)),
    (("Equalize", 0.6, None), ("Equalize", 0.5, None)),
    (("Contrast", 0.6, 7), ("Sharpness", 0.6, 5)),
    (("Color", 0.7, 7), ("TranslateX", 0.5, 8)),
    (("Equalize", 0.3, None), ("AutoContrast", 0.4, None)),
    (("TranslateY", 0.4, 3), ("Sharpness", 0.2, 6)),
    (("Brightness", 0.9, 6), ("Color", 0.2, 8)),
    (("Solarize", 0.5, 2), ("Invert", 0.0, None)),
    (("Equalize", 0.2, None), ("AutoContrast", 0.6, None)),
    (("Equalize", 0.2, None), ("Equalize", 0.6, None)),
    (("Color", 0.9, 9), ("Equalize", 0.6, None)),
    (("AutoContrast", 0.8, None), ("Solarize", 0.2, 8)),
    (("Brightness", 0.1, 3), ("Color", 0.7, 0)),
    (("Solarize", 0.4, 5), ("AutoContrast", 0.9, None)),
    (("TranslateY", 0.9, 9), ("TranslateY", 0.7, 9)),
    (("AutoContrast", 0.9, None), ("Solarize", 0.8, 3)),
    (("Equalize", 0.8, None), ("Invert", 0.1, None)),
    (("TranslateY", 0.7, 9), ("AutoContrast", 0.9, None)),
)

# Five sub-policies stand in it twice, in the paper too.
IMAGENET = (
    (("Posterize", 0.4, 8), ("Rotate", 0.6, 9)),
    (("Solarize", 0.6, 5), ("AutoContrast", 0.6, None)),
    (("Equalize", 0.8, None), ("Equalize", 0.6, None)),
    (("Posterize", 0.6, 7), ("Posterize", 0.6, 6)),
    (("Equalize", 0.4, None), ("Solarize", 0.2, 4)),
    (("Equalize", 0.4, None), ("Rotate", 0.8, 8)),
    (("Solarize", 0.6, 3), ("Equalize", 0.6, None)),
    (("Posterize", 0.8, 5), ("Equalize", 1.0, None)),
    (("Rotate", 0.2, 3), ("Solarize", 0.6, 8)),
    (("Equalize", 0.6, None), ("Posterize", 0.4, 6)),
    (("Rotate", 0.8, 8), ("Color", 0.4, 0)),
    (("Rotate", 0.4, 9), ("Equalize", 0.6, None)),
    (("Equalize", 0.0, None), ("Equalize", 0.8, None)),
    (("Invert", 0.6, None), ("Equalize", 1.0, None)),
    (("Color", 0.6, 4), ("Contrast", 1.0, 8)),
    (("Rotate", 0.8, 8), ("Color", 1.0, 2)),
    (("Color", 0.8, 8), ("Solarize", 0.8, 7)),
    (("Sharpness", 0.4, 7), ("Invert", 0.6, None)),
    (("ShearX", 0.6, 5), ("Equalize", 1.0, None)),
    (("Color", 0.4, 0), ("Equalize", 0.6, None)),
    (("Equalize", 0.4, None), ("Solarize", 0.2, 4)),
    (("Solarize", 0.6, 5), ("AutoContrast", 0.6, None)),
    (("Invert", 0.6, None), ("Equalize", 1.0, None)),
    (("Color", 0.6, 4), ("Contrast", 1.0, 8)),
    (("Equalize", 0.8, None), ("Equalize", 0.6, None)),
)

# RandAugment draws one of these twice, each at level 9 of 31.
RANDAUGMENT = (
    "Identity",
    "ShearX",
    "ShearY",
    "TranslateX",
    "TranslateY",
    "Rotate",
    "Brightness",
    "Color",
    "Contrast",
    "Sharpness",
    "Posterize",
    "Solarize",
    "AutoContrast",
    "Equalize",
)
_RANDAUGMENT_LEVEL, _RANDAUGMENT_LEVELS = 9, 31

POLICIES = {"autoaugment_cifar": CIFAR10, "autoaugment_imagenet": IMAGENET, "randaugment": RANDAUGMENT}

# Those whose level is drawn with either sign.
_SIGNED = {
    *("ShearX", "ShearY", "TranslateX", "TranslateY", "Rotate"),
    *("Brightness", "Color", "Contrast", "Sharpness"),
}
_MOVES = {"ShearX", "ShearY", "TranslateX", "TranslateY", "Rotate"}
_TABLES = {"Posterize", "Solarize", "Invert", "Brightness"}


def magnitudes(operation: str, levels: int, height: int, width: int) -> np.ndarray:
    """What each level of an operation means: from nothing to its strongest, in equal steps.

    Degrees for `"Rotate"`, the tangent for shears, pixels for translations (150 of 331 at most), the distance of the
    factor from 1 for `"Brightness"`, `"Color"`, `"Contrast"` and `"Sharpness"`, the grey level from which on
    `"Solarize"` inverts, the bits that `"Posterize"` keeps.

    Args:
        operation: A name out of the policies.
        levels: How many there are: 10 in AutoAugment, 31 in RandAugment.
        height, width: Of the image, for the translations.

    Raises: ValueError: For a name that is none.

    >>> magnitudes("Rotate", 4, 32, 32).tolist()
    [0.0, 10.0, 20.0, 30.0]
    >>> magnitudes("Posterize", 10, 32, 32).tolist()
    [8, 8, 7, 7, 6, 6, 5, 5, 4, 4]
    """
    if operation == "Posterize":
        return 8 - np.round(np.arange(levels) / ((levels - 1) / 4)).astype(int)
    if operation == "Solarize":
        return np.linspace(255.0, 0.0, levels)
    largest = {
        "ShearX": 0.3,
        "ShearY": 0.3,
        "TranslateX": 150.0 / 331.0 * width,
        "TranslateY": 150.0 / 331.0 * height,
        "Rotate": 30.0,
        **dict.fromkeys(("Brightness", "Color", "Contrast", "Sharpness"), 0.9),
        **dict.fromkeys(("Identity", "AutoContrast", "Equalize", "Invert"), 0.0),
    }
    if operation not in largest:
        known = sorted({*largest, "Posterize", "Solarize"})
        raise ValueError(f"operation must be one of {', '.join(known)}; given: {operation!r}.")
    return np.linspace(0.0, largest[operation], levels)


# Tables of grey levels: what becomes of each of the 256, whatever the image.


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


# Operations that look at the whole image. All take and return uint8 `(height, width, channels)`, 1 or 3 channels.


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
    """`blend` with the image smoothed by (1 1 1, 1 5 1, 1 1 1) / 13; the outermost pixels stay, as
    `PIL.ImageEnhance.Sharpness`.

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


# Moves. A matrix (a, b, c, d, e, f) says where a pixel comes from: x' = a x + b y + c, y' = d x + e y + f, in
# coordinates in which the first pixel's centre is (0.5, 0.5).


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
    """Matrix for `move`: a pixel comes from `x` columns further right for each row down, `y` rows further down for
    each column to the right; the corner at the top left stays. As torchvision's policies shear.

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
    """A uint8 image `(height, width, channels)` moved by a matrix, `fill` where nothing comes from; as
    `PIL.Image.transform` with `AFFINE`.

    >>> image = tf.constant([[[1], [2], [3]]], tf.uint8)
    >>> move(image, translation(x=1), fill=9).numpy().tolist()
    [[[9], [1], [2]]]
    """
    height, width, _ = image.shape
    pixels = PixelMap.of([matrix], height, width, interpolation)
    weights = [part if part is None else part[0] for part in (pixels.right, pixels.down)]
    return _moved(image, pixels.origin[0], *weights, fill)


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


# What runs for a drawn operation. Grey-level tables and moves need no branch each: they differ in their numbers only.
_BRANCHES = ("nothing", "move", "table", "Color", "Contrast", "Sharpness", "AutoContrast", "Equalize")


@dataclasses.dataclass(frozen=True, eq=False)
class _Program:
    """A policy for images of one size; `2 * operation + sign` is the row of an operation.

    Attributes:
        probabilities: float32 `(choices, operations)`.
        branch, slot: int32 `(rows,)`: place in `_BRANCHES`, and in the tables or the moves.
        factor: float32 `(rows,)`.
        tables: uint8 `(tables, 256)`.
        moves: A `PixelMap`.
    """

    probabilities: np.ndarray
    branch: np.ndarray
    slot: np.ndarray
    factor: np.ndarray
    tables: np.ndarray
    moves: PixelMap


@functools.lru_cache(maxsize=4)
def _program(policy, height, width, interpolation):
    entries = POLICIES[policy]
    if policy == "randaugment":
        levels = _RANDAUGMENT_LEVELS
        operations = [(name, 1.0, _RANDAUGMENT_LEVEL) for name in entries]
    else:
        levels, operations = 10, [operation for pair in entries for operation in pair]
    rows, tables, moves = [], {}, {}
    for name, _, level in operations:
        for sign in (-1.0, 1.0):
            size = float(magnitudes(name, levels, height, width)[level or 0])
            size *= sign if name in _SIGNED else 1.0
            if name in _MOVES:
                rows.append(("move", moves.setdefault(_matrix(name, size, height, width), len(moves)), 1.0))
            elif name in _TABLES:
                rows.append(("table", tables.setdefault((name, size), len(tables)), 1.0))
            else:
                rows.append(("nothing" if name == "Identity" else name, 0, 1.0 + size))
    branch, slot, factor = zip(*rows, strict=True)
    return _Program(
        np.array([probability for _, probability, _ in operations], np.float32).reshape(len(entries), -1),
        np.array([_BRANCHES.index(name) for name in branch], np.int32),
        np.array(slot, np.int32),
        np.array(factor, np.float32),
        np.stack([_table(*key) for key in tables]),
        PixelMap.of(moves, height, width, interpolation),
    )


def _matrix(name, size, height, width):
    if name == "Rotate":
        return rotation(size, height, width)
    axis = name[-1].lower()
    return shear(**{axis: size}) if name.startswith("Shear") else translation(**{axis: int(size)})


def _table(name, size):
    if name == "Invert":
        return invert()
    if name == "Posterize":
        return posterize(int(size))
    return solarize(size) if name == "Solarize" else brightness(1.0 + size)


# Numbers that a policy draws for an image.
policy_draws = 5


def apply_policy(
    image: tf.Tensor, policy: str, draws: tf.Tensor, *, fill: int = 0, interpolation: str = "nearest"
) -> tf.Tensor:
    """One image changed by a policy, for given random numbers.

    AutoAugment takes one of 25 sub-policies, and does each of its two operations with the operation's probability;
    RandAugment does two of 14 operations, which may be the same. Levels that have a sign get either with probability
    1/2.

    Args:
        image: uint8 `(height, width, channels)` with a static shape, 1 or 3 channels.
        policy: `"autoaugment_cifar"`, `"autoaugment_imagenet"` or `"randaugment"`.
        draws: float32 `(5,)`, uniform in [0, 1).
        fill: Grey level that enters where a move leaves nothing.
        interpolation: Of turns and shears, `"nearest"` or `"bilinear"`.

    Returns: uint8 of the same shape.
    Raises: ValueError: For an unknown policy or interpolation, a fill that is no grey level, an image of another type
        or shape, and `draws` of another shape.

    >>> image = tf.zeros((4, 4, 3), tf.uint8)
    >>> inverted = apply_policy(image, "autoaugment_cifar", tf.constant([0.0, 0.0, 0.9, 0.0, 0.0]))
    >>> int(tf.reduce_min(inverted))
    255
    """
    _check(image, policy, draws, fill, interpolation)
    height, width, _ = image.shape
    program = _program(policy, height, width, interpolation)
    choices = len(program.probabilities)
    if policy == "randaugment":
        operations, signs = tf.cast(draws[:2] * choices, tf.int32), draws[2:4]
    else:
        choice = tf.cast(draws[0] * choices, tf.int32)
        operations, signs = 2 * choice + [0, 1], draws[3:5]
    rows = 2 * operations + tf.cast(signs >= 0.5, tf.int32)
    branches = tf.gather(program.branch, rows)
    if policy != "randaugment":
        branches = tf.where(draws[1:3] < tf.gather(program.probabilities, choice), branches, 0)
    slots, factors = tf.gather(program.slot, rows), tf.gather(program.factor, rows)
    # Outside of the branches, or the graph would hold a copy for each of the two operations.
    constants = [tf.constant(part) for part in (program.tables, program.moves.origin)]
    weights = [None if part is None else tf.constant(part) for part in (program.moves.right, program.moves.down)]
    for step in range(2):
        image = _one_of_the_branches(image, branches[step], slots[step], factors[step], *constants, weights, fill)
    return image


def _one_of_the_branches(image, branch, slot, factor, tables, origin, weights, fill):
    branches = {
        "nothing": lambda: image,
        "move": lambda: _moved(image, origin[slot], *(part if part is None else part[slot] for part in weights), fill),
        "table": lambda: look_up(image, tables[slot]),
        "Color": lambda: color(image, factor),
        "Contrast": lambda: contrast(image, factor),
        "Sharpness": lambda: sharpness(image, factor),
        "AutoContrast": lambda: auto_contrast(image),
        "Equalize": lambda: equalize(image),
    }
    return tf.ensure_shape(tf.switch_case(branch, [branches[name] for name in _BRANCHES]), image.shape)


def _check(image, policy, draws, fill, interpolation):
    if policy not in POLICIES:
        raise ValueError(f"policy must be one of {', '.join(POLICIES)}; given: {policy!r}.")
    if interpolation not in INTERPOLATIONS:
        raise ValueError(f"interpolation must be one of {', '.join(INTERPOLATIONS)}; given: {interpolation!r}.")
    if isinstance(fill, bool) or fill not in range(256):
        raise ValueError(f"fill must be a grey level from 0 to 255; given: {fill!r}.")
    if image.dtype != tf.uint8:
        raise ValueError(f"image must be uint8 for a policy; given: {image.dtype.name}.")
    if not image.shape.is_fully_defined() or image.shape.rank != 3 or image.shape[-1] not in (1, 3):
        raise ValueError(f"image must have a static shape (height, width, 1 or 3) for a policy; given: {image.shape}.")
    if not draws.shape.is_compatible_with((policy_draws,)):
        raise ValueError(f"draws must have shape ({policy_draws},); given: {draws.shape}.")
