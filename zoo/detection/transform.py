"""What is done to an image of any size before a detector sees it, and to boxes and masks with it."""

import dataclasses
import numbers

import keras
import numpy as np
from keras import ops

from zoo.value_range import warn_of_range


@keras.saving.register_keras_serializable(package="keras_apa")
@dataclasses.dataclass(frozen=True, kw_only=True)
class DetectionPreprocessing:
    """Resize so that both bounds hold, pad to a multiple, and normalise: `(pixels / 255 - mean) / std`.

    The scale is `min(min_size / shorter side, max_size / longer side)`, and each side becomes `floor(side * scale)`.
    The resize is bilinear, with half-pixel centres and without antialiasing. The padding is at the right and the
    bottom, and it is 0 after normalisation.

    Args:
        min_size: The length of the shorter side in pixels.
        max_size: The largest length of the longer side in pixels.
        divisor: The padded sides are multiples of this number.
        mean, std: One number per channel, for RGB pixels divided by 255.

    Raises:
        ValueError: If a size is not positive, or if `std` is not above 0.

    Source: `GeneralizedRCNNTransform` of torchvision.

    >>> from zoo.detection.transform import DetectionPreprocessing
    >>> DetectionPreprocessing().resized((480, 640))
    (800, 1066)
    """

    min_size: int = 800
    max_size: int = 1333
    divisor: int = 32
    mean: tuple = (0.485, 0.456, 0.406)
    std: tuple = (0.229, 0.224, 0.225)

    def __post_init__(self):
        for name in ("mean", "std"):
            object.__setattr__(self, name, tuple(float(x) for x in getattr(self, name)))
            if len(getattr(self, name)) != 3:
                raise ValueError(
                    f"{name} must have 3 numbers, for red, green and blue; given: {getattr(self, name)!r}."
                )
        for name in ("min_size", "max_size", "divisor"):
            value = getattr(self, name)
            if not isinstance(value, numbers.Integral) or isinstance(value, bool) or value < 1:
                raise ValueError(f"{name} must be a positive integer; given: {value!r}.")
        if min(self.std) <= 0:
            raise ValueError(f"std must be above 0; given: {self.std!r}.")

    def resized(self, size):
        """Height and width after resizing an image of `size`, in pixels."""
        scale = min(self.min_size / min(size), self.max_size / max(size))
        return tuple(max(int(np.floor(side * scale)), 1) for side in size)

    def padded(self, sizes):
        """Height and width of a batch that holds images of these sizes."""
        longest = np.max(np.asarray(sizes), axis=0)
        return tuple(int(-(-side // self.divisor) * self.divisor) for side in longest)

    def normalize(self, images, image_size=None):
        """Normalise pixels 0 to 255, `(batch, height, width, 3)`, to float32; beyond `image_size` they are 0."""
        images = ops.cast(images, "float32") / 255.0
        images = (images - ops.convert_to_tensor(self.mean, "float32")) / ops.convert_to_tensor(self.std, "float32")
        if image_size is not None:
            size = ops.cast(ops.convert_to_tensor(image_size), "float32")
            y = ops.expand_dims(ops.arange(images.shape[1], dtype="float32"), 0) < size[:, 0:1]
            x = ops.expand_dims(ops.arange(images.shape[2], dtype="float32"), 0) < size[:, 1:2]
            inside = ops.logical_and(ops.expand_dims(y, 2), ops.expand_dims(x, 1))
            images = ops.where(ops.expand_dims(inside, -1), images, 0.0)
        return images

    def batch(self, images, resize=True):
        """Images of any size as one batch of pixels.

        Args:
            images: Arrays `(height, width, 3)`, RGB, with pixels from 0 to 255.
            resize: Whether to resize. `False` keeps the pixels as they are and only pads.

        Returns:
            `(pixels, sizes)`: float32 `(batch, height, width, 3)` and int32 `(batch, 2)`.
        """
        images = list(images)
        warn_of_range(self, images, stacklevel=3)
        images = [resize_image(image, self.resized(image.shape[:2])) if resize else image for image in images]
        sizes = np.array([image.shape[:2] for image in images], "int32")
        pixels = np.zeros((len(images), *self.padded(sizes), 3), "float32")
        for image, target in zip(images, pixels, strict=True):
            target[: image.shape[0], : image.shape[1]] = image
        return pixels, sizes

    def get_config(self):
        """Arguments of `DetectionPreprocessing`."""
        config = dataclasses.asdict(self)
        return {name: list(value) if isinstance(value, tuple) else value for name, value in config.items()}

    @classmethod
    def from_config(cls, config):
        """The inverse of `get_config`."""
        return cls(**config)


def resize_image(image, size):
    """Bilinear resize with half-pixel centres and no antialiasing, `(height, width, channels)` to float32.

    >>> import numpy as np
    >>> from zoo.detection.transform import resize_image
    >>> resize_image(np.array([[[0.0], [4.0]]]), (1, 4))[0, :, 0].tolist()
    [0.0, 1.0, 3.0, 4.0]
    """
    image = np.asarray(image).astype("float32")
    for axis, wanted in ((0, size[0]), (1, size[1])):
        given = image.shape[axis]
        if given == wanted:
            continue
        position = (np.arange(wanted, dtype="float32") + np.float32(0.5)) * np.float32(given / wanted) - np.float32(0.5)
        position = np.maximum(position, 0)
        low = np.minimum(position.astype("int64"), given - 1)
        high = np.minimum(low + 1, given - 1)
        fraction = (position - low).reshape((-1, 1, 1) if axis == 0 else (1, -1, 1)).astype("float32")
        image = np.take(image, low, axis) * (1 - fraction) + np.take(image, high, axis) * fraction
    return image


def resize_masks(masks, size):
    """Masks `(N, height, width)` resized by taking the nearest pixel, `floor(i * in / out)`.

    >>> import numpy as np
    >>> from zoo.detection.transform import resize_masks
    >>> resize_masks(np.array([[[0, 1]]]), (1, 4)).tolist()
    [[[0, 0, 1, 1]]]
    """
    masks = np.asarray(masks)
    rows, columns = (
        np.floor(np.arange(wanted, dtype="float32") * np.float32(given / wanted)).astype("int64")
        for wanted, given in zip(size, masks.shape[1:], strict=True)
    )
    return masks[:, rows][:, :, columns]


def resize_boxes(boxes, given, wanted):
    """Boxes in pixels of an image of size `given`, converted to pixels of the same image at size `wanted`.

    >>> import numpy as np
    >>> from zoo.detection.transform import resize_boxes
    >>> resize_boxes(np.array([[0.0, 0.0, 4.0, 4.0]]), (4, 4), (8, 4)).tolist()
    [[0.0, 0.0, 4.0, 8.0]]
    """
    y, x = (np.float32(w) / np.float32(g) for w, g in zip(wanted, given, strict=True))
    return np.asarray(boxes, "float32") * np.array([x, y, x, y], "float32")
