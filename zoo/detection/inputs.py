"""What a detector is called and trained with: the checks of images and sizes, and where the sizes stand."""

import keras
import numpy as np

from zoo.detection.targets import check_targets


def check_arrays(x, y, least, num_classes, mask_format=None):
    """What is wrong is found before the first step where all of it can be seen.

    On JAX an error within a step would leave the model without its weights.

    Args:
        x, y: Inputs and targets as `fit` takes them; `y` may be `None`. What is no array is passed over.
        least: Stride of the last stage, and so the least height and width.
        num_classes: Number of classes.
        mask_format: That of `MaskRCNN`, `None` where there are no masks.

    Raises: ValueError: For what the detector cannot take.
    """
    first = x.get("images") if isinstance(x, dict) else x
    if isinstance(first, (list, tuple)):
        raise ValueError(
            "images must be one array, (batch, height, width, 3); given: a list. `predict_images` takes images of "
            "any sizes."
        )
    if isinstance(first, np.ndarray):
        check_image_shape(first, least)
        size = x.get("image_size") if isinstance(x, dict) else None
        if isinstance(size, np.ndarray):
            check_image_size(size, first.shape)
    for key, value in y.items() if isinstance(y, dict) else ():
        if isinstance(value, (list, tuple)):  # Keras takes each number in it for an input of its own
            raise ValueError(f"{key} must be one array, padded to as many objects in each image; given: a list.")
    if isinstance(y, dict) and all(isinstance(value, np.ndarray) for value in y.values()):
        images = x["images"] if isinstance(x, dict) else x
        if "image_size" in y:
            check_image_size(y["image_size"], images.shape)
        check_targets(y, num_classes, tuple(images.shape[1:3]), mask_format)


def check_image_shape(images, least):
    """A ValueError if a batch of images is none that a detector takes, whose last stage has the stride `least`."""
    shape = tuple(images.shape)
    if len(shape) != 4 or shape[-1] != 3:
        raise ValueError(f"images must have the shape (batch, height, width, 3); given: {shape}.")
    if None in shape[1:3]:
        raise ValueError(f"images must have a known height and width, the same in every batch; given: {shape}.")
    if min(shape[1:3]) < least:
        raise ValueError(
            f"images must be at least {least} pixels high and wide, the stride of the last stage; given: {shape[1:3]}."
        )


def check_image_size(size, shape):
    """A ValueError if an array of heights and widths is not that of images in a batch of this shape."""
    if size.shape != (shape[0], 2):
        raise ValueError(f"image_size must have the shape ({shape[0]}, 2), one an image; given: {size.shape}.")
    wrong = np.flatnonzero(((size < 1) | (size > np.array(shape[1:3]))).any(axis=1))
    if len(wrong):
        raise ValueError(
            f"image_size must be a height and a width within the batch, {shape[1:3]}; given: "
            f"{size[wrong[0]].tolist()} for image {wrong[0]}."
        )


def with_image_size(data):
    """A batch whose sizes of images are among the inputs, where the network learns what is padding."""
    x, y, sample_weight = keras.utils.unpack_x_y_sample_weight(data)
    if isinstance(y, dict) and "image_size" in y and not (isinstance(x, dict) and "image_size" in x):
        images = x["images"] if isinstance(x, dict) else x
        x = {"images": images, "image_size": y["image_size"]}
    return keras.utils.pack_x_y_sample_weight(x, y, sample_weight)
