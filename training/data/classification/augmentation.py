"""What is done to images before a network is trained on them, as pure functions of a seed, inside `tf.data`.

`augment` and `prepare` work on one image each, `mix` on a batch. Every random number comes from
`tf.random.stateless_*` and the seed that is given, so that an image gets the same augmentation whatever the number of
parallel calls, and wherever a training was interrupted. The numbers of an image are drawn at once and each has its own
place among them: switching one option on leaves what the others draw as it was.

Keras's and keras-cv's layers are not used: they take no seed for a call. The images agree with what torchvision makes
of Pillow images, on which the published models were trained, up to one grey level where an image is resized.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np
import tensorflow as tf

from training.checks import check_whole
from training.data.classification import auto_augment, image_operations
from training.data.classification.preparation import CHANNELS, checked, described, fitted, normalised, rescaled
from zoo import Preprocessing

if TYPE_CHECKING:
    from training.config.classification import AugmentOptions

__all__ = ["augment", "mix"]

_PADDING = 4
_CROP_AREA, _CROP_RATIO = (0.08, 1.0), (3 / 4, 4 / 3)
_ERASE_AREA, _ERASE_RATIO = (0.02, 0.33), (0.3, 3.3)
_TRIES = 10
# Brightness, contrast and saturation in any order.
_ORDERS = np.array([(0, 1, 2), (0, 2, 1), (1, 0, 2), (1, 2, 0), (2, 0, 1), (2, 1, 0)], np.int32)

# How many numbers each step draws. At the end of it there is room for more: changing the order or a length changes
# every augmentation.
_DRAWS = {
    "shift": 2,
    "padded": 2,
    "resized": 2 * _TRIES + 2,
    "flip": 1,
    "jitter": 4,
    "policy": auto_augment.policy_draws,
    "cutout": 2,
    "erase": 1 + 2 * _TRIES + 2,
}


def augment(
    image: tf.Tensor,
    seed: tf.Tensor,
    options: AugmentOptions,
    image_size: int,
    preprocessing: Preprocessing | None = None,
) -> tf.Tensor:
    """One training image, changed at random and normalised.

    In this order: whole-pixel shift (the border mirrored), crop, flip from left to right, colour jitter, policy, cutout
    (grey level 0), `(pixels / 255 - mean) / std`, random erasing (0 after normalising: the mean colour). float images
    are taken as divided by 255 already.

    `crop="resized"` takes a rectangle of 8 to 100 % of the area and a ratio of the sides from 3/4 to 4/3, the first of
    ten that fits, and otherwise the largest in the centre with a ratio between these. `crop="padded"` adds 4 pixels of
    zeros on each side. Where the image has another size than `image_size`, it and `crop="none"` begin with resizing and
    cutting out the centre as `prepare` does.

    Args:
        image: uint8 0 ... 255, or floats, `(height, width, channels)`; height and width may be unknown.
        seed: int32 `(2,)`, another one for each image in each epoch.
        options: `training.config.classification.AugmentOptions`; `mixup_alpha`, `cutmix_alpha` and
            `label_smoothing` are for `mix`.
        image_size: Height and width of the result.
        preprocessing: A `zoo.Preprocessing`: mean, standard deviation, interpolation. None divides uint8 by 255 only.

    Returns: float32 `(image_size, image_size, channels)`.
    Raises: ValueError: For an image or a seed of a wrong shape, a channel count that `preprocessing` does not have, a
        policy or colour jitter on floats, a shift as large as the image, a cutout that leaves nothing of it.
    Sources: random resized crop, arXiv 1409.4842; cutout, 1708.04552; random erasing, 1708.04896; policies:
        `training.data.classification.auto_augment`. Numbers as in torchvision, cutout as by the authors of APA.

    >>> from training.config.classification import AugmentOptions
    >>> from zoo.preprocessing import cifar
    >>> options = AugmentOptions(crop="padded", flip=True, policy="autoaugment_cifar", cutout=16)
    >>> image = tf.zeros((32, 32, 3), tf.uint8)
    >>> augmented = augment(image, tf.constant([0, 1]), options, 32, cifar())
    >>> augmented.shape, augmented.dtype.name
    (TensorShape([32, 32, 3]), 'float32')
    """
    image = checked(image)
    channels = image.shape[-1]
    preprocessing = _checked_preprocessing(preprocessing, image_size, channels)
    _check_options(image, options, image_size)
    draws = _draws(seed)
    if options.shift:
        image = _shifted(image, draws["shift"], options.shift)
    if options.crop == "resized":
        image = _resized_crop(image, draws["resized"], image_size, preprocessing.interpolation)
    else:
        if image.shape[:2] != (image_size, image_size):
            image = fitted(image, preprocessing)
        if options.crop == "padded":
            image = _padded_crop(image, draws["padded"])
    if options.flip:
        # Whether to reverse is data: a tenth of the time of reversing and choosing.
        image = tf.raw_ops.Reverse(tensor=image, dims=tf.stack([False, draws["flip"][0] < 0.5, False]))
    if options.color_jitter:
        image = _jittered(image, draws["jitter"], options.color_jitter)
    if options.policy != "none":
        image = auto_augment.apply_policy(
            image,
            options.policy,
            draws["policy"],
            fill=options.policy_fill,
            interpolation=options.policy_interpolation,
        )
    if options.cutout:
        image = _without(image, _cutout(draws["cutout"], options.cutout, image_size))
    image = normalised(image, preprocessing)
    if options.erase_probability:
        image = _without(image, _erased(draws["erase"], options.erase_probability, image_size))
    return tf.ensure_shape(image, (image_size, image_size, channels))


def mix(
    images: tf.Tensor, one_hot_labels: tf.Tensor, seed: tf.Tensor, options: AugmentOptions
) -> tuple[tf.Tensor, tf.Tensor]:
    """A batch mixed with itself, rolled by one, by mixup or CutMix; then label smoothing.

    `weight` of the own image and label is one draw a batch from Beta(alpha, alpha), and 1 - weight that of the
    neighbour's. Mixup adds the images so weighted. CutMix puts a box of the neighbour, `sqrt(1 - weight)` of height and
    width, its centre anywhere, into the image, and the weight becomes the share of the image that is left. Where both
    have an alpha, one of them is drawn for each batch, with equal chances. Smoothing by e makes the labels
    `(1 - e) labels + e / classes`.

    Args:
        images: Floats `(batch, height, width, channels)`, normalised.
        one_hot_labels: `(batch, classes)`; soft ones are taken too.
        seed: int32 `(2,)`, another one for each batch in each epoch.
        options: `training.config.classification.AugmentOptions`, of which `mixup_alpha`, `cutmix_alpha` and
            `label_smoothing` are used.

    Returns: Images and labels, float32, of the same shapes.
    Raises: ValueError: For images, labels or a seed of another rank, uint8 images, labels that are not one-hot.
    Sources: mixup, arXiv 1710.09412; CutMix, 1905.04899; rolling, clipping and one draw a batch as in torchvision's
        reference training and as by the authors of APA.

    >>> from training.config.classification import AugmentOptions
    >>> images, labels = tf.random.normal((4, 8, 8, 3)), tf.one_hot([0, 1, 2, 3], 4)
    >>> _, mixed = mix(images, labels, tf.constant([0, 1]), AugmentOptions(mixup_alpha=0.2))
    >>> tf.reduce_sum(mixed, axis=1).numpy().round(5).tolist()
    [1.0, 1.0, 1.0, 1.0]
    """
    images, labels = tf.convert_to_tensor(images), tf.convert_to_tensor(one_hot_labels)
    if images.shape.rank != 4 or not images.dtype.is_floating:
        raise ValueError(f"images must be floats (batch, height, width, channels); given: {described(images)}.")
    if labels.shape.rank != 2 or labels.shape[-1] is None:
        raise ValueError(f"one_hot_labels must be (batch, classes); given: {described(labels)}.")
    seed = _checked_seed(seed)
    images, labels = tf.cast(images, tf.float32), tf.cast(labels, tf.float32)
    if options.mixup_alpha or options.cutmix_alpha:
        beta_seed, draw_seed = tf.unstack(tf.random.experimental.stateless_split(seed, 2, alg="philox"))
        draws = tf.random.stateless_uniform((3,), draw_seed, alg="philox")
        shares, weight = _mixing(tf.shape(images)[1:3], beta_seed, draws, options)
        mixed = images * (1.0 - shares) + tf.roll(images, 1, axis=0) * shares
        images = tf.ensure_shape(mixed, images.shape)
        labels = labels * weight + tf.roll(labels, 1, axis=0) * (1.0 - weight)
    if options.label_smoothing:
        labels = labels * (1.0 - options.label_smoothing) + options.label_smoothing / labels.shape[-1]
    return images, labels


# Random numbers.


def _draws(seed):
    """All uniform numbers of an image, by step."""
    numbers = tf.random.stateless_uniform((sum(_DRAWS.values()),), _checked_seed(seed), alg="philox")
    return dict(zip(_DRAWS, tf.split(numbers, list(_DRAWS.values())), strict=True))


def _between(uniform, low, high):
    return low + uniform * (high - low)


def _below(uniform, number):
    """A whole number from 0 to `number - 1`; float32 keeps the product below `number`."""
    return tf.cast(uniform * tf.cast(number, tf.float32), tf.int32)


def _beta(alpha, seed):
    """A draw from Beta(alpha, alpha).

    A gamma variable of a small alpha is often 0 in floating point, two of them make NaN. So by its logarithm: it is
    one of alpha + 1 times `uniform ** (1 / alpha)`.
    """
    gamma_seed, uniform_seed = tf.unstack(tf.random.experimental.stateless_split(seed, 2, alg="philox"))
    gamma = tf.random.stateless_gamma((2,), gamma_seed, alpha + 1.0)
    # 1 - u: above 0, of which the logarithm is finite.
    uniform = 1.0 - tf.random.stateless_uniform((2,), uniform_seed, alg="philox")
    logarithms = tf.math.log(gamma) + tf.math.log(uniform) / alpha
    return tf.sigmoid(logarithms[0] - logarithms[1])


# Mixing.


def _mixing(size, seed, draws, options):
    """What share of each pixel is the neighbour's, `(height, width, 1)`, and the weight of the own label."""

    def mixup():
        weight = _beta(options.mixup_alpha, seed)
        return tf.fill((*tf.unstack(size), 1), 1.0 - weight), weight

    def cutmix():
        reach = 0.5 * tf.sqrt(1.0 - _beta(options.cutmix_alpha, seed))
        centre, half = _below(draws[1:], size), _below(reach, size)
        first, last = tf.maximum(centre - half, 0), tf.minimum(centre + half, size)
        share = tf.cast(tf.reduce_prod(last - first), tf.float32) / tf.cast(tf.reduce_prod(size), tf.float32)
        return tf.cast(_box(first, last, *tf.unstack(size)), tf.float32), 1.0 - share

    if not options.cutmix_alpha:
        return mixup()
    if not options.mixup_alpha:
        return cutmix()
    return tf.cond(draws[0] < 0.5, mixup, cutmix)


def _box(first, last, height, width):
    """True from `first` (row, column) to before `last`: `(height, width, 1)`."""
    rows, columns = tf.range(height), tf.range(width)
    in_rows = (rows >= first[0]) & (rows < last[0])
    in_columns = (columns >= first[1]) & (columns < last[1])
    return (in_rows[:, tf.newaxis] & in_columns)[:, :, tf.newaxis]


# Steps of `augment`.


def _shifted(image, draws, largest):
    size = tf.shape(image)
    padded = tf.pad(image, ((largest, largest), (largest, largest), (0, 0)), "SYMMETRIC")
    return _cut(padded, _below(draws, 2 * largest + 1), size[:2], image.shape)


def _padded_crop(image, draws):
    padded = tf.pad(image, ((_PADDING, _PADDING), (_PADDING, _PADDING), (0, 0)))
    return _cut(padded, _below(draws, 2 * _PADDING + 1), tf.shape(image)[:2], image.shape)


def _cut(image, corner, size, shape):
    """The part of an image that begins at `corner` (row, column)."""
    begin, length = tf.concat([corner, [0]], 0), tf.concat([size, [image.shape[-1]]], 0)
    return tf.ensure_shape(tf.slice(image, begin, length), shape)


def _resized_crop(image, draws, image_size, interpolation):
    size = tf.shape(image)[:2]
    areas, ratios, corner = tf.split(draws, (_TRIES, _TRIES, 2))
    sides = _rectangles(areas, ratios, size, _CROP_AREA, _CROP_RATIO)
    fits = tf.reduce_all((sides > 0) & (sides <= size), axis=1)
    any_fits = tf.reduce_any(fits)
    sides = tf.where(any_fits, sides[tf.argmax(fits)], _largest(size))
    # The whole of what is left over is a corner too, hence + 1; without a fit it is halved, rounding down.
    corner = tf.where(any_fits, _below(corner, size - sides + 1), (size - sides) // 2)
    part = _cut(image, corner, sides, (None, None, image.shape[-1]))
    scale = image_size / sides
    return rescaled(part, (image_size, image_size), tf.cast(scale, tf.float32), tf.zeros(2), interpolation)


def _rectangles(areas, ratios, size, area_range, ratio_range):
    """Height and width `(tries, 2)`: an even share of the area, the logarithm of width over height even."""
    area = _between(areas, *area_range) * tf.cast(tf.reduce_prod(size), tf.float32)
    # The square root of the ratio.
    root = tf.exp(0.5 * _between(ratios, *map(math.log, ratio_range)))
    side = tf.sqrt(area)
    return tf.cast(tf.round(tf.stack([side / root, side * root], axis=1)), tf.int32)


def _largest(size):
    """The largest rectangle with an allowed ratio of the sides."""
    low, high = _CROP_RATIO
    height, width = tf.unstack(tf.cast(size, tf.float32))
    sides = tf.stack([tf.minimum(height, tf.round(width / low)), tf.minimum(width, tf.round(height * high))])
    return tf.cast(sides, tf.int32)


def _jittered(image, draws, strength):
    # As torchvision's ColorJitter: the same strength for all three, in a drawn order.
    factors = _between(draws[:3], max(0.0, 1.0 - strength), 1.0 + strength)
    order = tf.gather(_ORDERS, _below(draws[3], len(_ORDERS)))

    def step(kind, image):
        steps = [
            lambda: image_operations.blend(0.0, image, factors[0]),
            lambda: image_operations.contrast(image, factors[1]),
            lambda: image_operations.color(image, factors[2]),
        ]
        return tf.ensure_shape(tf.switch_case(kind, steps), image.shape)

    for kind in tf.unstack(order):
        image = step(kind, image)
    return image


def _without(image, box):
    return image * tf.cast(~box, image.dtype)


def _cutout(draws, side, image_size):
    centre = _below(draws, image_size)
    # An odd side loses its last row and column, as in the authors' code.
    return _box(tf.maximum(centre - side // 2, 0), centre + side // 2, image_size, image_size)


def _erased(draws, probability, image_size):
    when, areas, ratios, corner = tf.split(draws, (1, _TRIES, _TRIES, 2))
    size = tf.constant([image_size, image_size])
    # Here torchvision's ratio is height over width.
    sides = _rectangles(areas, ratios, size, _ERASE_AREA, _ERASE_RATIO)[:, ::-1]
    fits = tf.reduce_all(sides < image_size, axis=1) & (when[0] < probability)
    # All False without a fit: an empty box.
    sides = tf.where(tf.reduce_any(fits), sides[tf.argmax(fits)], 0)
    corner = _below(corner, image_size - sides + 1)
    return _box(corner, corner + sides, image_size, image_size)


# Sizes and numbers that do not depend on chance.


# Checks.


def _checked_seed(seed):
    seed = tf.convert_to_tensor(seed)
    if seed.dtype not in (tf.int32, tf.int64) or not seed.shape.is_compatible_with((2,)):
        raise ValueError(f"seed must be two integers; given: {described(seed)}.")
    return seed


def _checked_preprocessing(preprocessing, image_size, channels):
    check_whole("image_size", image_size, at_least=1)
    size = (image_size, image_size)
    if preprocessing is None:
        return Preprocessing(image_size=size, channels=channels, mean=(0.0,) * channels, std=(1.0,) * channels)
    if preprocessing.channels != channels:
        raise ValueError(CHANNELS.format(preprocessing.channels, channels))
    return preprocessing.at_size(size)


def _check_options(image, options, image_size):
    for name, given in (("policy", options.policy != "none"), ("color_jitter", options.color_jitter)):
        if given and image.dtype != tf.uint8:
            raise ValueError(f"{name} must have uint8 images (0 to 255); given: {described(image)}.")
    # `_shifted` mirrors at most the whole image.
    smallest = min(side for side in (*image.shape[:2], math.inf) if side is not None)
    if options.shift >= smallest:
        raise ValueError(f"shift must be below the height and width of the image, {smallest}; given: {options.shift}.")
    if options.cutout >= 2 * image_size:
        raise ValueError(
            f"cutout must be below {2 * image_size}, twice the image size, or nothing is left of any image; "
            f"given: {options.cutout}."
        )
