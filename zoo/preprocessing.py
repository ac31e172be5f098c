"""Image preprocessing for the networks, as data that travels with the model."""

import dataclasses
import math
import numbers

import keras
import numpy as np
from keras import ops

from keras_apa._checks import check_name
from zoo.value_range import warn_of_range

INTERPOLATIONS = ("bilinear", "bicubic")
DATA_FORMATS = ("channels_last", "channels_first")


@keras.saving.register_keras_serializable(package="keras_apa")
@dataclasses.dataclass(frozen=True, kw_only=True)
class Preprocessing:
    """Resize, crop and normalise: `(pixels / 255 - mean) / std` of the centre of an image.

    Calling it normalises images that already have the right size, with pixels from 0 to 255. Images of any size are
    resized and cropped first, but only by `keras-apa predict` and by the `serve_jpeg` signature of an exported model.

    Args:
        image_size: The height and width of the network's images, in pixels.
        resize_size: The length, in pixels, to which the shorter side is resized before `image_size` is cut from the
            centre. `None` stretches the whole image to `image_size`.
        channels: 3 (RGB) or 1 (grey).
        mean, std: One number per channel, for pixels divided by 255.
        interpolation: `"bilinear"` or `"bicubic"`, with antialiasing.

    Call arguments:
        images: An array, tensor or list of images, `(batch, height, width, channels)`, or a single image. The values
            are from 0 to 255; if they look as if they had another range, a warning says so, once (see
            `zoo.value_range.warn_of_range`). With `data_format="channels_first"`, the images are
            `(batch, channels, height, width)`, or channels last, which is converted. If both axes have the right
            size, the images are read as channels first.
        data_format: The data format of the result. `None` takes `keras.config.image_data_format()`.

    Returns:
        A float32 tensor `(batch, height, width, channels)`, or `(batch, channels, height, width)` for
        `"channels_first"`. A single image has no batch axis.

    Raises:
        ValueError: If a size is not positive, if the crop is larger than the resized image, if the number of channels
            or of axes is wrong, if the images of a list have different sizes, or if `data_format` is unknown.

    >>> import numpy as np
    >>> from zoo.preprocessing import Preprocessing
    >>> preprocessing = Preprocessing(image_size=(2, 2), mean=(0.5, 0.5, 0.5), std=(0.5, 0.5, 0.5))
    >>> float(preprocessing(np.full((1, 2, 2, 3), 255, "uint8"))[0, 0, 0, 0])
    1.0
    """

    image_size: tuple[int, int]
    resize_size: int | None = None
    channels: int = 3
    mean: tuple[float, ...] = (0.0, 0.0, 0.0)
    std: tuple[float, ...] = (1.0, 1.0, 1.0)
    interpolation: str = "bilinear"

    def __post_init__(self):
        for name in ("image_size", "mean", "std"):
            value = getattr(self, name)
            if isinstance(value, str) or not np.iterable(value):
                raise ValueError(f"{name} must be a tuple of numbers; given: {value!r}.")
            object.__setattr__(self, name, tuple(value))
        if len(self.image_size) != 2 or not all(_is_positive_integer(size) for size in self.image_size):
            raise ValueError(f"image_size must be two positive integers; given: {self.image_size!r}.")
        if self.resize_size is not None and not _is_positive_integer(self.resize_size):
            raise ValueError(f"resize_size must be a positive integer or None; given: {self.resize_size!r}.")
        if self.resize_size is not None and self.resize_size < max(self.image_size):
            raise ValueError(
                f"resize_size must be at least the larger side of image_size {self.image_size}; "
                f"given: {self.resize_size}."
            )
        if self.channels not in (1, 3):
            raise ValueError(f"channels must be 1 or 3; given: {self.channels!r}.")
        for name in ("mean", "std"):
            if len(getattr(self, name)) != self.channels:
                raise ValueError(f"{name} must have {self.channels} numbers; given: {getattr(self, name)!r}.")
            if not all(_is_finite(value) for value in getattr(self, name)):
                raise ValueError(f"{name} must hold finite numbers; given: {getattr(self, name)!r}.")
        if min(self.std) <= 0:
            raise ValueError(f"std must be above 0; given: {self.std!r}.")
        check_name(self.interpolation, INTERPOLATIONS, "interpolation")
        # NumPy's numbers are taken, and kept as Python's, which JSON can hold.
        object.__setattr__(self, "image_size", tuple(map(int, self.image_size)))
        for name in ("mean", "std"):
            object.__setattr__(self, name, tuple(map(float, getattr(self, name))))
        object.__setattr__(self, "channels", int(self.channels))
        if self.resize_size is not None:
            object.__setattr__(self, "resize_size", int(self.resize_size))

    def __call__(self, images, data_format=None):
        """Scale and normalise images, with pixels from 0 to 255, for the network."""
        if data_format is None:
            data_format = keras.config.image_data_format()
        first = check_name(data_format, DATA_FORMATS, "data_format") == "channels_first"
        warn_of_range(self, images, stacklevel=3)
        images = _as_batch(images)
        is_first = first and images.shape[-3] == self.channels
        if not is_first and images.shape[-1] != self.channels:
            axes = "the third axis from the end, or on the last" if first else "the last axis"
            raise ValueError(f"images must have {self.channels} channels on {axes}; given: {tuple(images.shape)}.")
        vector = (self.channels, 1, 1) if is_first else (self.channels,)
        # A vector of its own for each step: the same roundings as in PyTorch.
        mean, std = (ops.reshape(ops.convert_to_tensor(v, "float32"), vector) for v in (self.mean, self.std))
        images = (ops.cast(images, "float32") / 255.0 - mean) / std
        return ops.moveaxis(images, -1, -3) if first and not is_first else images

    def at_size(self, image_size):
        """The same preprocessing at another image size: `resize_size` grows with `image_size`.

        >>> from zoo.preprocessing import imagenet
        >>> imagenet(224, 256).at_size((448, 448)).resize_size
        512
        """
        resize = self.resize_size and round(self.resize_size * max(image_size) / max(self.image_size))
        return dataclasses.replace(self, image_size=tuple(image_size), resize_size=resize)

    def get_config(self):
        """The arguments, as lists and numbers that JSON can hold."""
        config = dataclasses.asdict(self)
        return {name: list(value) if isinstance(value, tuple) else value for name, value in config.items()}

    @classmethod
    def from_config(cls, config):
        """The inverse of `get_config`."""
        return cls(**config)


def _as_batch(images):
    """`images` as something with a shape of three or four axes."""
    if not hasattr(images, "shape"):
        try:
            images = np.asarray(images, "float32")
        except (ValueError, TypeError) as error:
            raise ValueError(
                f"images must be numbers, and all of one size; given: {type(images).__name__} ({error})."
            ) from error
    if len(images.shape) not in (3, 4):
        raise ValueError(f"images must have 3 axes, or 4 with the batch; given: {tuple(images.shape)}.")
    return images


def _is_finite(value):
    return isinstance(value, numbers.Real) and not isinstance(value, bool) and math.isfinite(value)


def _is_positive_integer(value):
    return isinstance(value, numbers.Integral) and not isinstance(value, bool) and int(value) > 0


def imagenet(image_size=224, resize_size=256):
    """A `Preprocessing` with ImageNet's mean and standard deviation, and a square of `image_size` from the centre."""
    return Preprocessing(
        image_size=(image_size, image_size),
        resize_size=resize_size,
        mean=(0.485, 0.456, 0.406),
        std=(0.229, 0.224, 0.225),
    )


def cifar():
    """A `Preprocessing` with the mean and standard deviation of CIFAR, for images of 32x32."""
    return Preprocessing(image_size=(32, 32), mean=(0.4914, 0.4822, 0.4465), std=(0.2023, 0.1994, 0.2010))
