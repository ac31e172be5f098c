"""What is exported: a function from pixels to logits and probabilities, the same on every backend."""

import contextlib
import dataclasses
import logging

import keras
import numpy as np
from keras import layers, ops

import keras_apa
from keras_apa import _keras_internals as internals
from keras_apa import _kernels
from keras_apa._checks import check_name
from zoo.preprocessing import Preprocessing
from zoo.value_range import values_known

ACTIVATIONS = {
    "softmax": lambda logits: ops.softmax(logits, axis=-1),
    "sigmoid": ops.sigmoid,
    "gumbel": keras_apa.ops.gumbel,
}
POOLINGS = (layers.GlobalAveragePooling2D, layers.GlobalMaxPooling2D, layers.Flatten)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Settings:
    """What `zoo.export` was asked for, checked; it goes to a fresh process as JSON."""

    format: str
    name: str
    preprocessing: Preprocessing
    class_names: tuple[str, ...] | None
    top_k: int
    activation: str | None
    quantization: str | None

    def get_config(self):
        """The fields as JSON can hold them."""
        return {**dataclasses.asdict(self), "preprocessing": self.preprocessing.get_config()}

    @classmethod
    def from_config(cls, config):
        """The inverse of `get_config`."""
        names = config["class_names"]
        return cls(
            **{
                **config,
                "preprocessing": Preprocessing.from_config(config["preprocessing"]),
                "class_names": names and tuple(names),
            }
        )

    def description(self):
        """What the reader of an exported model needs to know and cannot find in the graph."""
        return {"class_names": self.class_names, "preprocessing": self.preprocessing.get_config()}


def num_classes(model):
    """Columns of the logits, or `None` for a model that ends in features."""
    shape = model.output_shape
    if not isinstance(shape, tuple) or len(shape) != 2 or isinstance(_last_operation(model), POOLINGS):
        return None
    return shape[-1]


def choose_activation(model, given=None):
    """The function that makes probabilities of logits: the model's last layer, else `given`, else softmax."""
    if given is not None:
        check_name(given, ACTIVATIONS, "activation")
    own = final_activation(model)
    if own and given not in (None, own):
        raise ValueError(f"activation must be None or {own!r}, in which the model ends; given: {given!r}.")
    return own or given or ("sigmoid" if num_classes(model) == 1 else "softmax")


def final_activation(model):
    """`"softmax"`, `"sigmoid"` or `"gumbel"` if the model ends with it, however put there; `None` for logits.

    >>> model = keras.Sequential([keras.Input((3,)), keras.layers.Dense(2, activation="softmax")])
    >>> final_activation(model)
    'softmax'
    """
    return _activation(_last_operation(model))


def data_format(model, channels):
    """`"channels_last"` or `"channels_first"`, whichever axis of the input has `channels`."""
    shape = model.input_shape
    for axis, name in ((-1, "channels_last"), (1, "channels_first")):
        if shape[axis] == channels:
            return name
    raise ValueError(
        f"preprocessing must make the channels of the model's input, whose shape is {shape}; given: "
        f"{channels} channels."
    )


def image_shape(model, channels):
    """`(height, width, channels)` of the model's input; `None` where any size is taken."""
    sizes = model.input_shape[1:3] if data_format(model, channels) == "channels_last" else model.input_shape[2:]
    return (*sizes, channels)


class Graph:
    """The function that is exported: preprocessing, network in inference mode, probabilities.

    Used as a context manager it takes the last activation off the model while the function is traced, so that
    `logits` are what stands before it.

    Args:
        model: A functional or Sequential model.
        settings: `Settings`.

    Call arguments:
        images: Float tensor `(batch, height, width, channels)`, pixels from 0 to 255.

    Returns: A dict of tensors: `logits` and `probabilities`, `(batch, classes)`; without a classifier `features`, or
        one entry for each output.
    """

    def __init__(self, model, settings):
        self.model = model
        self.preprocessing = settings.preprocessing
        self.image_shape = image_shape(model, settings.preprocessing.channels)
        self.data_format = data_format(model, settings.preprocessing.channels)
        self.classes = num_classes(model)
        self.activation = None if self.classes is None else choose_activation(model, settings.activation)
        self._stack = contextlib.ExitStack()

    def __enter__(self):
        if self.classes is not None:
            self._stack.enter_context(_without_activation(_last_operation(self.model)))
        return self

    def __exit__(self, *error):
        self._stack.close()

    def __call__(self, images):
        """The outputs for a batch of images, which it preprocesses first."""
        with values_known(self.preprocessing):  # those of a trace
            images = self.preprocessing(images, "channels_last")
        if self.data_format == "channels_first":
            images = ops.transpose(images, (0, 3, 1, 2))
        outputs = self.model(images, training=False)
        if self.classes is not None:
            assert self.activation is not None  # it is chosen where there are classes
            return {"logits": outputs, "probabilities": ACTIVATIONS[self.activation](outputs)}
        if isinstance(outputs, dict):
            return outputs
        if isinstance(outputs, list | tuple):
            return {f"features_{i}": output for i, output in enumerate(outputs)}
        return {"features": outputs}

    @property
    def output_names(self):
        """Keys of the result, in its order."""
        if self.classes is not None:
            return ["logits", "probabilities"]
        outputs = self.model.output
        if isinstance(outputs, dict):
            return list(outputs)
        return [f"features_{i}" for i in range(len(outputs))] if isinstance(outputs, list | tuple) else ["features"]

    def example(self):
        """A batch with one black image."""
        sizes = (size or wanted for size, wanted in zip(self.image_shape, self.preprocessing.image_size, strict=False))
        return np.zeros((1, *sizes, self.preprocessing.channels), "float32")


def in_float32(model):
    """The model, or a copy in float32 of one with another precision: not every runtime has half-precision kernels."""
    if all(layer.compute_dtype == "float32" for layer in internals.all_layers(model)):
        return model
    copy = type(model).from_config(_float32_policies(model.get_config()))
    copy.set_weights([np.asarray(weights, "float32") for weights in model.get_weights()])
    return copy


def _float32_policies(config):
    if isinstance(config, dict):
        if config.get("class_name") == "DTypePolicy":
            return "float32"
        return {key: _float32_policies(value) for key, value in config.items()}
    return [_float32_policies(value) for value in config] if isinstance(config, list | tuple) else config


def _last_operation(model):
    """The operation that makes the first output, behind which there may be casts (`Activation("linear")`)."""
    tensor = model.outputs[0]
    while True:
        operation, inputs = internals.made_by(tensor)
        if isinstance(operation, keras.Model):
            tensor = operation.outputs[0]
        elif isinstance(operation, layers.Activation) and operation.activation is keras.activations.linear:
            tensor = inputs[0]
        else:
            return operation


def _activation(operation):
    """Name of the activation that an operation ends in, if it is one that makes probabilities."""
    activation = getattr(operation, "activation", None)
    # A layer or an operation is named by its class, an activation by its function.
    for name in (type(operation).__name__, getattr(activation, "__name__", type(activation).__name__)):
        if name.lower() in ACTIVATIONS:
            return name.lower()
    return None


@contextlib.contextmanager
def _without_activation(operation):
    if _activation(operation) is None:
        yield
    elif getattr(operation, "activation", None) is not None:
        activation, operation.activation = operation.activation, keras.activations.linear
        try:
            yield
        finally:
            operation.activation = activation
    else:
        # A Softmax layer, or `ops.softmax` as the last step.
        operation.call = lambda inputs, *args, **kwargs: inputs
        try:
            yield
        finally:
            del operation.call


@contextlib.contextmanager
def plain_log1p():
    """While it lasts, `keras.ops.log1p` is made of operations that every format has, also where a layer calls it.

    Layers of `keras_apa` see a converter and need no help, but for LiteRT the graph is traced before it.
    """
    original, ops.log1p = ops.log1p, _kernels.plain_log1p
    try:
        yield
    finally:
        ops.log1p = original


@contextlib.contextmanager
def quiet(name):
    """Only errors from the logger `name`."""
    logger = logging.getLogger(name)
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        logger.setLevel(level)
