"""What a detector needs of the network that it stands on."""

import collections
import itertools
import math

import keras
from keras import layers, ops

from keras_apa import _keras_internals as internals
from keras_apa.layers import UnbiasedBatchNormalization
from zoo.detection.convolution import convolve, pointwise, relu, zeros_after
from zoo.registry import create_model


def as_backbone(backbone):
    """The network itself, checked: a dict of stages from images of any size.

    Raises: ValueError: For anything else.

    >>> from zoo.detection.backbone import as_backbone
    >>> sorted(as_backbone("resnet18").output)
    ['stage1', 'stage2', 'stage3', 'stage4']
    """
    if isinstance(backbone, str):
        shape = (None, None, 3) if keras.config.image_data_format() == "channels_last" else (3, None, None)
        backbone = create_model(backbone, pyramid=True, frozen_batch_norm=True, input_shape=shape)
    if not isinstance(backbone, keras.Model) or not isinstance(backbone.output, dict):
        raise ValueError(
            "backbone must be a model of the zoo with pyramid=True, such as zoo.create_model('resnet50', pyramid=True, "
            f"input_shape=(None, None, 3), frozen_batch_norm=True), or a name; given: {backbone!r}."
        )
    sides = [size for size in backbone.input_shape[1:] if size != 3]
    if sides != [None, None] or 3 not in (backbone.input_shape[1], backbone.input_shape[-1]):
        raise ValueError(
            "backbone must take images of any height and width with 3 channels, input_shape=(None, None, 3); given: "
            f"{backbone.input_shape[1:]}."
        )
    return backbone


def stages_of(backbone):
    """Strides and channels of the stages, finest first.

    Raises: ValueError: If the stride does not double from stage to stage.

    >>> from zoo.detection.backbone import as_backbone, stages_of
    >>> stages_of(as_backbone("resnet18"))
    ([4, 8, 16, 32], [64, 128, 256, 512])
    """
    last = backbone.input_shape[-1] == 3
    side = 1024
    shapes = backbone.compute_output_shape((1, side, side, 3) if last else (1, 3, side, side))
    shapes = [shapes[name] for name in sorted(shapes)]
    strides = [side // shape[1 if last else 2] for shape in shapes]
    if any(b != 2 * a for a, b in itertools.pairwise(strides)) or not math.log2(strides[0]).is_integer():
        raise ValueError(f"backbone must double its stride from stage to stage; given: strides {strides}.")
    return strides, [shape[-1 if last else 1] for shape in shapes]


def set_batch_norm_epsilon(backbone, epsilon):
    """Give every batch norm of the network this epsilon.

    >>> from zoo.detection.backbone import as_backbone, set_batch_norm_epsilon
    >>> network = as_backbone("resnet18")
    >>> set_batch_norm_epsilon(network, 0.0)
    >>> network.get_layer("stem_norm").epsilon
    0.0
    """
    for layer in backbone.layers:
        if isinstance(layer, layers.BatchNormalization):
            layer.epsilon = epsilon


def freeze(backbone, frozen_stages):
    """Never train the stem and the first stages, their norms included; returns `frozen_stages`.

    Raises: ValueError: For a number of stages that there are not.

    >>> from zoo.detection.backbone import as_backbone, freeze
    >>> network = as_backbone("resnet18")
    >>> freeze(network, 1)
    1
    >>> any("stage1_" in variable.path for variable in network.trainable_variables)
    False
    """
    if frozen_stages is None:
        return None
    stages = len(backbone.output)
    if isinstance(frozen_stages, bool) or not isinstance(frozen_stages, int) or not 0 <= frozen_stages <= stages:
        raise ValueError(f"frozen_stages must be None or 0..{stages}; given: {frozen_stages!r}.")
    prefixes = ("stem_", *(f"stage{stage}_" for stage in range(1, frozen_stages + 1)))
    for layer in backbone.layers:
        if layer.name.startswith(prefixes) and not isinstance(layer, layers.InputLayer):
            layer.trainable = False
    return frozen_stages


def run_stages(backbone, images, training=False):
    """The stages by name, as calling the network gives them, but with less memory and in less time.

    A Keras model keeps every tensor until its last layer is done, here gigabytes; a tensor is dropped after its last
    use instead. A frozen normalisation is multiplied into the kernel of the convolution before it, so that its input,
    as large as its output, needs neither be written nor kept for the gradient. Layers that are not trained are in
    inference mode: no dropout in frozen stages.

    >>> from zoo.detection.backbone import as_backbone, run_stages
    >>> maps = run_stages(as_backbone("resnet18"), keras.ops.ones((1, 64, 64, 3)))
    >>> tuple(maps["stage4"].shape)
    (1, 2, 2, 512)
    """
    nodes = internals.calls_in_order(backbone)
    users = collections.defaultdict(list)
    for node in nodes:
        for tensor in node.input_tensors:
            users[id(tensor)].append(node)
    left = {key: len(found) for key, found in users.items()}
    values = {id(backbone.inputs[0]): images}
    kept = {id(tensor) for tensor in backbone.outputs}
    for node in nodes:
        if any(id(tensor) in values for tensor in node.outputs):
            continue  # a normalisation that its convolution has taken over
        used, outputs = [node], node.outputs
        norm = _frozen_norm_behind(node, users, kept)
        if norm is not None:
            used, outputs = [node, norm], norm.outputs
            results = _convolve_and_normalize(node.operation, norm.operation, values[id(node.input_tensors[0])])
            left[id(node.outputs[0])] = 0
        else:
            args, kwargs = node.arguments.fill_in(values)
            if internals.takes_training(node.operation):
                kwargs["training"] = bool(training) and getattr(node.operation, "trainable", True)
            results = relu(*args) if _is_relu(node.operation) else node.operation(*args, **kwargs)
        for tensor, value in zip(outputs, keras.tree.flatten(results), strict=True):
            values[id(tensor)] = value
        for tensor in used[0].input_tensors:
            left[id(tensor)] -= 1
            if not left[id(tensor)] and id(tensor) not in kept:
                del values[id(tensor)]
        del results
    return {name: values[id(tensor)] for name, tensor in backbone.output.items()}


def _is_relu(operation):
    return type(operation) is layers.Activation and operation.activation is keras.activations.relu


def _frozen_norm_behind(node, users, kept):
    """The node of a frozen normalisation, if that alone follows this node's plain convolution."""
    layer, tensor = node.operation, node.outputs[0]
    if type(layer) is not layers.Conv2D or id(tensor) in kept or len(users[id(tensor)]) != 1:
        return None
    follower = users[id(tensor)][0]
    norm = follower.operation
    if not (isinstance(norm, UnbiasedBatchNormalization) and norm.frozen and norm.scale and norm.center):
        return None
    if layer.use_bias or layer.activation is not keras.activations.linear:
        return None
    # In half precision the products would be rounded before the sums.
    return follower if layer.compute_dtype == norm.compute_dtype == "float32" else None


def _convolve_and_normalize(convolution, norm, x):
    scale = norm.gamma * ops.rsqrt(norm.moving_variance + norm.epsilon)
    shift = norm.beta - norm.moving_mean * scale
    first = convolution.data_format == "channels_first"
    if first:
        shift = ops.reshape(shift, (-1, 1, 1))
    kernel = convolution.kernel * (scale + zeros_after(x))  # not those of all layers at the beginning
    if convolution.kernel_size == (1, 1) and convolution.groups == 1 and not first:
        # XLA's gradient of a 1x1 convolution with a stride takes ten times as long as that of the pixels it looks at.
        rows, columns = convolution.strides
        return pointwise(x[:, ::rows, ::columns, :] if max(rows, columns) > 1 else x, kernel) + shift
    if first:
        return convolution.convolution_op(x, kernel) + shift
    return convolve(x, kernel, convolution.strides, convolution.padding) + shift
