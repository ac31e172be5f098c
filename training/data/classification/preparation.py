"""Images as a network takes them: resized, cropped, normalised; the same in training, evaluation and tests."""

from __future__ import annotations

import tensorflow as tf

from zoo import Preprocessing

_KERNELS = {"bilinear": "triangle", "bicubic": "keyscubic"}


def prepare(image: tf.Tensor, preprocessing: Preprocessing | None = None) -> tf.Tensor:
    """One test image: the shorter side brought to `resize_size`, the centre cut out, normalised.

    With the roundings of torchvision's Resize and CenterCrop; without a `resize_size` the image is stretched. uint8
    images are rounded to whole grey levels before they are normalised, floats are taken as divided by 255 already.

    Args:
        image: uint8 or floats `(height, width, channels)`; height and width may be unknown.
        preprocessing: A `zoo.Preprocessing`. None leaves the size and divides uint8 by 255 only.

    Returns: float32 `(height, width, channels)` of `preprocessing.image_size`.
    Raises: ValueError: For an image of another rank, or without as many channels as `preprocessing` has.

    >>> from zoo.preprocessing import imagenet
    >>> prepare(tf.zeros((300, 400, 3), tf.uint8), imagenet(224, 256)).shape
    TensorShape([224, 224, 3])
    """
    image = checked(image)
    if preprocessing is None:
        return _divided(image)
    _check_channels(image, preprocessing)
    return normalised(fitted(image, preprocessing), preprocessing)


def fitted(image, preprocessing):
    """Resized and cropped with the roundings of torchvision's Resize and CenterCrop, or stretched."""
    wanted = preprocessing.image_size
    if preprocessing.resize_size is None:
        if image.shape[:2] == wanted:
            return image
        size = tf.shape(image)[:2]
        return rescaled(image, wanted, _ratio(wanted, size), tf.zeros(2), preprocessing.interpolation)
    size = tf.shape(image)[:2]
    # Whole numbers: in float32 the quotient could round up to the next pixel.
    resized = preprocessing.resize_size * tf.cast(size, tf.int64) // tf.cast(tf.reduce_min(size), tf.int64)
    corner = tf.round(tf.cast(resized - wanted, tf.float32) / 2)
    return rescaled(image, wanted, _ratio(resized, size), -corner, preprocessing.interpolation)


def _ratio(wanted, size):
    return tf.cast(wanted, tf.float32) / tf.cast(size, tf.float32)


def rescaled(image, size, scale, translation, interpolation):
    """Resized with antialiasing, and only the part that is wanted; whole grey levels where there were some."""
    scaled = tf.raw_ops.ScaleAndTranslate(
        images=image[tf.newaxis],
        size=size,
        scale=scale,
        translation=translation,
        kernel_type=_KERNELS[interpolation],
        antialias=True,
    )[0]
    if image.dtype == tf.uint8:
        if interpolation == "bicubic":
            scaled = tf.clip_by_value(scaled, 0.0, 255.0)  # it overshoots at edges
        # Half a level is rounded up, as by Pillow.
        scaled = tf.cast(scaled + 0.5, tf.uint8)
    return tf.ensure_shape(scaled, (*size, image.shape[-1]))


def _divided(image):
    return tf.cast(image, tf.float32) / 255.0 if image.dtype == tf.uint8 else image


def normalised(image, preprocessing):
    """`(image - mean) / std`, uint8 images divided by 255 first."""
    # In the steps, and so with the roundings, of `zoo.Preprocessing`.
    return (_divided(image) - preprocessing.mean) / preprocessing.std


def checked(image):
    """`image` as a tensor, uint8 or float32; raises a ValueError if it is no image."""
    image = tf.convert_to_tensor(image)
    if image.shape.rank != 3 or image.shape[-1] not in (1, 3):
        raise ValueError(f"image must be (height, width, 1 or 3 channels); given: {described(image)}.")
    if image.dtype != tf.uint8 and not image.dtype.is_floating:
        raise ValueError(f"image must be uint8 or floats; given: {described(image)}.")
    return image if image.dtype == tf.uint8 else tf.cast(image, tf.float32)


def _check_channels(image, preprocessing):
    if preprocessing.channels != image.shape[-1]:
        raise ValueError(CHANNELS.format(preprocessing.channels, image.shape[-1]))


CHANNELS = "image must have the {} channels of preprocessing; given: {}."


def described(tensor):
    """Dtype and shape, for messages."""
    return f"{tensor.dtype.name} {tensor.shape}"
