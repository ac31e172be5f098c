"""Image files as a network wants them: found by name, decoded, upright, without transparency, of one size."""

from __future__ import annotations

import os
import struct
import warnings
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image, UnidentifiedImageError

from training.image_files import ENDINGS, FORMATS, find_images

__all__ = [
    "ENDINGS",
    "FORMATS",
    "exif_orientation",
    "find_images",
    "in_front_of_white",
    "read_image",
    "read_pixels",
    "upright",
    "why_unreadable",
]

if TYPE_CHECKING:
    from zoo import Preprocessing

_ORIENTATION = 0x0112
# What EXIF's orientation asks for, so that the picture stands upright.
_UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
_RESAMPLING = {"bilinear": Image.Resampling.BILINEAR, "bicubic": Image.Resampling.BICUBIC}
# Above this ratio of the sides, only what the crop keeps is resized: the whole could be any number of pixels.
_THIN = 16


def read_image(path: str | os.PathLike, preprocessing: Preprocessing) -> np.ndarray:
    """The pixels of an image file, resized and cropped, but not yet normalised.

    Reads JPEG (CMYK too), PNG, WebP, BMP, GIF, TIFF, PPM, JPEG 2000 and AVIF (where Pillow has them) with 1, 8 or 16
    bits, of animations the first picture, of several pages the first one. The image is turned as its EXIF data say,
    transparent parts become white, 16 bits are scaled to 8; 32 bits, whose range is unknown, are an error. Colour
    profiles are ignored, as by torchvision. With one channel, colours become their luminance (ITU-R 601).

    Args:
        path: The file.
        preprocessing: A `zoo.Preprocessing`: size, channels and interpolation.

    Returns: A uint8 array `(height, width, channels)` with height and width of `preprocessing.image_size`.
    Raises: ValueError: If the file is missing, empty, broken, no image, or has more pixels than
        `PIL.Image.MAX_IMAGE_PIXELS`; the message starts with its name.

    >>> import numpy as np, tempfile
    >>> from zoo import Preprocessing
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     Image.new("L", (640, 480), 7).save(f"{folder}/grey.png")
    ...     read_image(f"{folder}/grey.png", Preprocessing(image_size=(32, 32), resize_size=36)).shape
    (32, 32, 3)
    """
    mode = "L" if preprocessing.channels == 1 else "RGB"
    pixels = _decoded(path, mode, lambda image: np.asarray(_fitted(image, preprocessing)))
    return pixels.reshape(*preprocessing.image_size, preprocessing.channels)


def read_pixels(path: str | os.PathLike) -> np.ndarray:
    """The pixels of an image file in its own size, a uint8 array `(height, width, 3)`; otherwise as `read_image`."""
    return _decoded(path, "RGB", np.asarray)


def _decoded(path, mode, use):
    """What `use` makes of the upright image; every error as a ValueError that starts with the name of the file."""
    if os.path.exists(path) and not os.path.isfile(path) and not os.path.isdir(path):
        raise ValueError(f"{path}: no regular file")  # a pipe would be waited for
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of odd metadata
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            with Image.open(path, formats=FORMATS) as opened:
                opened.load()
                image = upright(in_front_of_white(opened, mode), exif_orientation(opened))
        return use(image)
    except Exception as error:  # a broken file can fail anywhere in a decoder, with any type of error
        raise ValueError(f"{path}: {why_unreadable(path, error)}") from error


def in_front_of_white(image: Image.Image, mode: str) -> Image.Image:
    """The image with 8 bits a channel in front of white, in the mode `"L"` or `"RGB"`."""
    deep = image.mode.startswith("I;16") or (image.mode == "I" and image.format == "PPM")
    if image.mode in ("I", "F") and not deep:
        raise ValueError("bits a channel must be 8 or 16; given: 32, whose range is unknown. Save it with 8 or 16.")
    if deep:
        pixels = np.asarray(image).astype("uint32")
        pixels[pixels == image.info.get("transparency", -1)] = 65535
        # Pillow's own conversion clips at 255.
        image = Image.fromarray(((pixels * 255 + 32767) // 65535).astype("uint8"))
    elif image.has_transparency_data:
        image = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
    return image.convert(mode)


def exif_orientation(image: Image.Image) -> int:
    """The EXIF orientation, 1 (upright) where there is none or it cannot be read, or where Pillow turns it (TIFF)."""
    if image.format == "TIFF":
        return 1
    try:
        return image.getexif().get(_ORIENTATION, 1)
    except (SyntaxError, ValueError, LookupError, TypeError, OSError, struct.error):
        return 1


def upright(image: Image.Image, orientation: int) -> Image.Image:
    """The image turned and mirrored as an EXIF orientation asks for."""
    return image.transpose(_UPRIGHT[orientation]) if orientation in _UPRIGHT else image


def _fitted(image: Image.Image, preprocessing: Preprocessing) -> Image.Image:
    """Resized and cropped with the roundings of torchvision's Resize and CenterCrop, or stretched."""
    height, width = preprocessing.image_size
    resampling, short = _RESAMPLING[preprocessing.interpolation], preprocessing.resize_size
    if short is None:
        return image.resize((width, height), resampling)
    shortest = min(image.size)
    resized_width, resized_height = (int(short * side / shortest) for side in image.size)
    left, top = round((resized_width - width) / 2), round((resized_height - height) / 2)
    right, bottom = left + width, top + height
    if max(image.size) <= _THIN * shortest:
        return image.resize((resized_width, resized_height), resampling).crop((left, top, right, bottom))
    x, y = image.width / resized_width, image.height / resized_height
    return image.resize((width, height), resampling, box=(left * x, top * y, right * x, bottom * y))


def why_unreadable(path: str | os.PathLike, error: Exception) -> str:
    """What an error from opening or decoding `path` means, in plain words."""
    if isinstance(error, OSError) and error.strerror:
        return error.strerror[0].lower() + error.strerror[1:]
    if os.path.getsize(path) == 0:
        return "the file is empty"
    if isinstance(error, UnidentifiedImageError):
        return f"not an image, or broken at its start; allowed: {', '.join(FORMATS)}"
    if isinstance(error, Image.DecompressionBombWarning | Image.DecompressionBombError):
        return f"more pixels than the {Image.MAX_IMAGE_PIXELS} that are allowed (PIL.Image.MAX_IMAGE_PIXELS)"
    return f"cannot be read: {str(error).partition(chr(10))[0] or type(error).__name__}"
