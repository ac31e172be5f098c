"""A warning, once per model, if images have values of another range than the model wants.

It looks only at a sample of values on the host: NumPy arrays, lists, the first batch of a generator, and eager
tensors on a CPU. It does nothing within a compiled step and does not wait for an accelerator. AutoGraph reads these
functions if a preprocessing is part of tf.data, and AutoGraph does not know `:=`.
"""

import contextlib
import functools
import itertools
import types
import warnings

import keras
import numpy as np

from keras_apa._kernels import is_converting, is_hidden

PIXELS = (0.0, 255.0)
# At most so many images, and so many rows and columns of each.
_IMAGES, _SIDE = 8, 256
_METHODS = ("fit", "evaluate", "predict", "train_on_batch", "test_on_batch", "predict_on_batch")
_TRAINING = ("fit", "train_on_batch")
_DONE, _KNOWN = "_warned_of_range", "_values_known"
# Pixels have a range as wide as this, normalised values never.
_WIDE = 50.0
_SCALE = "Scale them to that range."
_PREPARE = "Call model.preprocessing on pixels from 0 to 255 first."


def range_after(preprocessing):
    """The least and the largest value that an image can have after `preprocessing`.

    >>> from zoo.preprocessing import Preprocessing
    >>> range_after(Preprocessing(image_size=(8, 8), mean=(0.5, 0.5, 0.5), std=(0.5, 0.5, 0.25)))
    (-2.0, 2.0)
    """
    pairs = list(zip(preprocessing.mean, preprocessing.std, strict=True))
    return min((0 - mean) / std for mean, std in pairs), max((1 - mean) / std for mean, std in pairs)


def warn_of_range(owner, images, wanted=None, stacklevel=2):
    """Warn if images look as if they had another range than is wanted, unless `owner` has been warned of already.

    It warns about values far beyond the range, about 0 to 1, normalised or centred values if pixels are wanted, and
    about 0 to 1 if normalised values are wanted. It does not warn about images of one value, or about integers within
    the range, however dark.

    Models do not see the values of batches from tf.data, a `PyDataset` or a `DataLoader`. Call this function for such
    batches, with the model as `owner`.

    Args:
        owner: The model or preprocessing that the images are for.
        images: An array or eager tensor `(batch, height, width, channels)` or without the batch, or a list of arrays.
            Anything else is skipped.
        wanted: The smallest and the largest value. `None` takes the model's own `wanted_range()`. If there is none,
            pixels are wanted.
        stacklevel: As in `warnings.warn`.

    >>> import warnings
    >>> import numpy as np, zoo
    >>> with warnings.catch_warnings(record=True) as caught:
    ...     warnings.simplefilter("always")
    ...     images = np.linspace(0, 1, 12, dtype="float32").reshape(1, 2, 2, 3)
    ...     zoo.value_range.warn_of_range(zoo.preprocessing.imagenet(), images)
    >>> str(caught[0].message)
    'images must be pixels from 0 to 255; given: float32 from 0 to 1. They look like pixels divided by 255: multiply
    them by 255.'
    """
    if getattr(owner, _DONE, False) or getattr(owner, _KNOWN, False):
        return
    if wanted is None:
        wanted = owner.wanted_range() if hasattr(owner, "wanted_range") else PIXELS
    seen = wanted and _seen(images)
    wrong = seen and _what_is_wrong(*seen, *wanted)
    if not wrong:
        return
    _remember(owner, _DONE, True)
    dtype, least, most = seen
    _warn(wanted, f"{dtype} from {least:.4g} to {most:.4g}", wrong, stacklevel + 1)


def sees_images(cls):
    """A decorator for models: their methods look at the images that they are given.

    The model has a method `wanted_range()`, which returns the least and the largest value, or `None` if it has no
    opinion.
    """
    for name in _METHODS:
        setattr(cls, name, _looking(getattr(cls, name)))
    cls.__call__ = _looking_when_called(cls.__call__)
    return cls


@contextlib.contextmanager
def values_known(owner):
    """While it is entered, `owner` is given what was made from pixels, and does not look at it."""
    before = getattr(owner, _KNOWN, False)
    _remember(owner, _KNOWN, True)
    try:
        yield
    finally:
        _remember(owner, _KNOWN, before)


def _looking(method):
    @functools.wraps(method)
    def looking(self, x=None, *args, **kwargs):
        if method.__name__ in _TRAINING:
            _remember_training(self, x)
        x = _look(self, x)
        validation = kwargs.get("validation_data")
        if isinstance(validation, list | tuple) and validation:
            _look(self, validation[0])
        return method(self, x, *args, **kwargs)

    return looking


def _looking_when_called(call):
    @functools.wraps(call)
    def looking(self, *args, **kwargs):
        images = _images_of(args[0] if args else kwargs.get("inputs"))
        if isinstance(images, np.ndarray):  # a tensor may be one of a compiled step
            warn_of_range(self, images, stacklevel=3)
        return call(self, *args, **kwargs)

    return looking


def _remember_training(model, x):
    """Notes what a model is trained on that does not say how its images are prepared, for those who predict with it."""
    if not hasattr(model, "trained_range") or model.wanted_range() is not None:
        return
    seen = _seen(_images_of(x))
    if seen and seen[1] < seen[2]:
        # A batch may be dark: what was seen before counts too.
        before = model.trained_range or seen[1:]
        model.trained_range = (min(seen[1], before[0]), max(seen[2], before[1]))


def _look(model, x):
    """Warns of what `x` holds; returns it, a generator with its first batch put back."""
    wanted = model.wanted_range()
    if wanted is None or getattr(model, _DONE, False) or getattr(model, _KNOWN, False):
        return x
    if isinstance(x, types.GeneratorType):
        first = list(itertools.islice(x, 1))
        for batch in first:
            warn_of_range(model, _images_of(_inputs_of(batch)), wanted, stacklevel=4)
        return (batch for part in (first, x) for batch in part)
    if hasattr(x, "element_spec"):  # of tf.data the type alone
        dtype = getattr(getattr(_images_of(_inputs_of(x.element_spec)), "dtype", None), "name", "")
        if dtype.startswith(("int", "uint")) and wanted[1] - wanted[0] < _WIDE:
            _remember(model, _DONE, True)
            _warn(wanted, f"a dataset of {dtype}", _PREPARE, stacklevel=4)
        return x
    warn_of_range(model, _images_of(x), wanted, stacklevel=4)
    return x


def _inputs_of(batch):
    """The inputs of a batch as `fit` takes them."""
    return batch[0] if isinstance(batch, list | tuple) and batch else batch


def _images_of(inputs):
    """The images of a model's inputs: those of a detector's dict, or the only input."""
    if isinstance(inputs, dict):
        return inputs.get("images", next(iter(inputs.values())) if len(inputs) == 1 else None)
    return inputs


def _seen(images):
    """`(dtype, least, largest value)` of a sample of the images; `None` where nothing can be seen."""
    if isinstance(images, list | tuple):
        parts = [_seen(_as_array(image)) for image in _some(images)]
        parts = [part for part in parts if part is not None]
        return (parts[0][0], min(part[1] for part in parts), max(part[2] for part in parts)) if parts else None
    array = images if isinstance(images, np.ndarray) else _on_host(images)
    if array is None or array.ndim not in (3, 4) or not array.size:
        return None
    array = _some(array) if array.ndim == 4 else array[None]
    array = array[(slice(None), *(slice(None, None, -(-side // _SIDE)) for side in array.shape[1:]))]
    dtype = str(array.dtype)
    if array.dtype.kind == "V" and keras.backend.is_float_dtype(dtype):
        array = array.astype("float32")  # bfloat16, which NumPy does not know as a number
    if array.dtype.kind not in "biuf":
        return None
    return dtype, float(array.min()), float(array.max())


def _as_array(image):
    """What has a shape as it is, lists of numbers as an array."""
    try:
        return image if hasattr(image, "shape") else np.asarray(image)
    except ValueError:  # lists of different lengths
        return None


def _some(images):
    """A few of the images, from the first to the last."""
    return images[:: -(-len(images) // _IMAGES) or 1]


def _on_host(images):
    """An eager tensor on a CPU as an array; `None` for anything else."""
    try:
        if is_hidden(images) or is_converting():
            return None
        # The tensors of all three backends have it: torch.device("cpu"), "/job:localhost/.../device:CPU:0", TFRT_CPU_0.
        if keras.ops.is_tensor(images) and "cpu" in str(images.device).lower():
            return keras.ops.convert_to_numpy(images)
    except Exception:  # a tensor of a trace: each backend has errors of its own
        pass
    return None


def _what_is_wrong(dtype, least, most, low, high):
    """What to do about images that look as if they had another range; `None` where they do not."""
    if not least < most:  # of one value, or with NaN
        return None
    wide = high - low >= _WIDE
    if dtype.startswith(("int", "uint")):
        within = least > low - (high - low) and most < high + (high - low)
        return None if within else _SCALE if wide else _PREPARE
    if wide:
        if -0.5 < least and most < 1.5:
            return "They look like pixels divided by 255: multiply them by 255."
        if least <= -0.5 and most <= 20:
            return "They look normalised already: give the pixels as they are."
        # Resizing and noise reach below 0 too, but not so far without going beyond the other end.
        if least < -64 and most < 192:
            return "They look like pixels less their mean: give the pixels as they are."
    elif low < -0.5 and 0 <= least <= 0.1 and 0.9 <= most <= 1:
        return f"They look like pixels divided by 255. {_PREPARE}"
    if least <= low - (high - low) or most >= high + (high - low):
        return _SCALE if wide else _PREPARE
    return None


def _warn(wanted, given, what_to_do, stacklevel):
    low, high = wanted
    if high - low >= _WIDE:
        images = f"pixels from {low:.4g} to {high:.4g}"
    else:
        images = f"prepared for the network, with values from {low:.4g} to {high:.4g}"
    warnings.warn(f"images must be {images}; given: {given}. {what_to_do}", stacklevel=stacklevel)


def _remember(owner, name, value):
    object.__setattr__(owner, name, value)  # a preprocessing is frozen, and Keras tracks what is set otherwise
