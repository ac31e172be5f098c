"""AutoAugment and RandAugment on one image inside `tf.data`: the policies as data, the operations as Pillow has them.

The published models were trained on images that Pillow had changed, so Pillow is what the operations agree with: grey
level for grey level, but for a few pixels in a million of bilinear turns, which are one level off. What depends on
numbers of the policy only, tables of grey levels and maps of pixels, is worked out by numpy when the graph is built; an
image costs a few look-ups, and of the operations only the one that was drawn runs.

Not the layers of keras-cv and Keras, which have some of the operations: most draw their own numbers with a generator
whose order is not repeatable under parallel calls, and of those that draw none `AutoContrast` rounds where Pillow
truncates and keras-cv's `Equalization` wraps around above 255.

Sources: AutoAugment (arXiv 1805.09501, Tables 7 and 9), RandAugment (arXiv 1909.13719); ranges and signs of the
magnitudes as in torchvision's `AutoAugment` and `RandAugment`.
"""

from __future__ import annotations

import dataclasses
import functools
from typing import Any

import numpy as np
import tensorflow as tf

from training.data.classification.image_operations import (
    PixelMap,
    _moved,
    auto_contrast,
    brightness,
    color,
    contrast,
    equalize,
    invert,
    look_up,
    posterize,
    rotation,
    sharpness,
    shear,
    solarize,
    translation,
)

__all__ = ["INTERPOLATIONS", "POLICIES", "apply_policy", "magnitudes", "policy_draws"]

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


# Operations that look at the whole image. All take and return uint8 `(height, width, channels)`, 1 or 3 channels.


# Moves. A matrix (a, b, c, d, e, f) says where a pixel comes from: x' = a x + b y + c, y' = d x + e y + f, in
# coordinates in which the first pixel's centre is (0.5, 0.5).


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
    entries: Any = POLICIES[policy]  # names, or pairs of operations
    operations: list[tuple[str, float, int | None]]
    if policy == "randaugment":
        levels = _RANDAUGMENT_LEVELS
        operations = [(name, 1.0, _RANDAUGMENT_LEVEL) for name in entries]
    else:
        levels, operations = 10, [operation for pair in entries for operation in pair]
    rows: list[tuple[str, int, float]] = []
    tables: dict[tuple[str, float], int] = {}
    moves: dict[Any, int] = {}
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
    tables, origin = [tf.constant(part) for part in (program.tables, program.moves.origin)]
    weights = [None if part is None else tf.constant(part) for part in (program.moves.right, program.moves.down)]
    for step in range(2):
        row = branches[step], slots[step], factors[step]
        image = _one_of_the_branches(image, *row, tables, origin, weights, fill)
    return image


def _one_of_the_branches(image, branch, slot, factor, tables, origin, weights, fill):
    right, down = weights
    branches = {
        "nothing": lambda: image,
        "move": lambda: _moved(
            image,
            origin[slot],
            None if right is None else right[slot],
            None if down is None else down[slot],
            fill,
        ),
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
