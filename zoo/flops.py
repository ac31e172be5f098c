"""How much a network computes."""

import keras
import numpy as np

from keras_apa.layers import (
    CBAM,
    ChannelAttention,
    CosineDense,
    NormalizedConv2D,
    NormalizedDense,
    SpatialAttention,
    SqueezeExcite,
    WrappedCauchyDense,
)

_DENSES = (keras.layers.Dense, CosineDense, NormalizedDense, WrappedCauchyDense)


def count_flops(model, input_shape=None):
    """Multiply-adds of one image through the convolutions and dense layers of a model of the zoo.

    Papers and torchvision call this number FLOPs: ResNet-50 has 4.09e9 at 224x224. Norms, activations, pooling and
    additions are not counted.

    Args:
        model: A functional model of the zoo.
        input_shape: The shape of the image. You need it if the model's height or width is `None`.

    Returns:
        An integer.

    Raises:
        ValueError: If neither the model nor `input_shape` gives the size of the image.

    >>> import zoo
    >>> zoo.count_flops(zoo.create_model("resnet20", classes=10))
    40551040
    """
    shape = tuple(input_shape or model.input_shape[1:])
    if None in shape:
        raise ValueError(f"input_shape must say the size of the image, which the model leaves open; given: {shape}.")
    shapes = {model.input.name: (1, *shape)}
    total = 0
    # The layers of a functional model stand in the order in which they are called.
    for layer in model.layers:
        if isinstance(layer, keras.layers.InputLayer):
            continue
        inputs = layer.input if isinstance(layer.input, list) else [layer.input]
        given = [shapes[tensor.name] for tensor in inputs]
        made = tuple(layer.compute_output_shape(given if isinstance(layer.input, list) else given[0]))
        shapes[layer.output.name] = made
        total += _layer_flops(layer, given[0], made)
    return total


def _layer_flops(layer, given, made):
    if isinstance(layer, CBAM):
        return _layer_flops(layer.channel, given, made) + _layer_flops(layer.spatial, given, made)
    if isinstance(layer, SqueezeExcite):
        return _size(layer.reduce) + _size(layer.expand)
    if isinstance(layer, ChannelAttention):  # the average and the maximum take the same way
        return 2 * (_size(layer.reduce) + _size(layer.expand))
    if isinstance(layer, SpatialAttention):
        return _size(layer.conv) * _positions(given, layer.data_format)
    if isinstance(layer, (keras.layers.Conv2D, NormalizedConv2D)):
        return _size(layer) * _positions(made, layer.data_format)
    return _size(layer) if isinstance(layer, _DENSES) else 0


def _size(layer):
    return int(np.prod(layer.kernel.shape))


def _positions(shape, data_format):
    return int(np.prod(shape[1:3] if data_format == "channels_last" else shape[2:]))
