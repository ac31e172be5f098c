"""ResNet, ResNeXt and Wide ResNet, plain and with a gate in every block; a network is a row of a table.

`se_` networks have Squeeze-and-Excitation, `cb_` CBAM, `sp_` the spatial gate of CBAM only. The block, the stage and
the network are each written once; the networks for small images (`zoo/cifar_resnet.py`) are rows too.
"""

import dataclasses
import numbers

import keras
from keras import layers

from keras_apa._checks import check_bool, check_name
from keras_apa.layers.attention import KAIMING_NORMAL
from zoo import blocks
from zoo.classifier import Classifier

ATTENTIONS = {"": None, "se_": "se", "cb_": "cb", "sp_": "sp"}
KAIMING_NORMAL_FAN_OUT = {**KAIMING_NORMAL, "config": {**KAIMING_NORMAL["config"], "mode": "fan_out"}}
# PyTorch's dense layers start in U(-d, d), d = fan_in ** -0.5.
UNIFORM_FAN_IN = {
    "class_name": "VarianceScaling",
    "config": {"scale": 1 / 3, "mode": "fan_in", "distribution": "uniform"},
}


@dataclasses.dataclass(frozen=True)
class Architecture:
    """What tells one network of the family from another; the defaults are those of ResNet-50 for ImageNet."""

    attention: str | None = None
    bottleneck: bool = True
    depths: tuple[int, ...] = (3, 4, 6, 3)
    filters: tuple[int, ...] = (64, 128, 256, 512)
    groups: int = 1
    width_per_group: int = 64
    stem: str = "imagenet"
    shortcut: str = "projection"
    reduction_ratio: int = 16
    classes: int = 1000
    image_size: int = 224
    initializer: dict = dataclasses.field(default_factory=lambda: KAIMING_NORMAL_FAN_OUT)
    dense_initializer: dict = dataclasses.field(default_factory=lambda: UNIFORM_FAN_IN)

    def convolutions(self, filters, strides):
        """Filters, kernel size, strides and groups of each convolution of a block."""
        if not self.bottleneck:
            return [(filters, 3, strides, 1), (filters, 3, 1, 1)]
        width = filters * self.width_per_group // 64 * self.groups
        return [(width, 1, 1, 1), (width, 3, strides, self.groups), (4 * filters, 1, 1, 1)]


_PLAIN = {
    "resnet10": Architecture(bottleneck=False, depths=(1, 1, 1, 1)),
    "resnet18": Architecture(bottleneck=False, depths=(2, 2, 2, 2)),
    "resnet34": Architecture(bottleneck=False),
    "resnet50": Architecture(),
    "resnet101": Architecture(depths=(3, 4, 23, 3)),
    "resnet152": Architecture(depths=(3, 8, 36, 3)),
    "resnext50_32x4d": Architecture(groups=32, width_per_group=4),
    "resnext101_32x8d": Architecture(depths=(3, 4, 23, 3), groups=32, width_per_group=8),
    "resnext101_64x4d": Architecture(depths=(3, 4, 23, 3), groups=64, width_per_group=4),
    "wide_resnet50_2": Architecture(width_per_group=128),
}


def with_attentions(plain):
    """Name -> architecture of the plain networks and of the same ones with each kind of gate."""
    return {
        f"{prefix}{name}": dataclasses.replace(architecture, attention=attention)
        for prefix, attention in ATTENTIONS.items()
        for name, architecture in plain.items()
    }


IMAGENET_RESNETS = with_attentions(_PLAIN)


def _block(x, filters, strides, prefix, options):
    """Convolutions with norms and activations between them, gate, add the shortcut, activation."""
    architecture, data_format = options.architecture, options.data_format
    shortcut = x
    convolutions = architecture.convolutions(filters, strides)
    for i, (width, kernel_size, step, groups) in enumerate(convolutions, start=1):
        x = blocks.convolve(x, width, kernel_size, step, f"{prefix}_conv{i}", options, groups)
        x = blocks.normalize(x, f"{prefix}_norm{i}", options)
        if i < len(convolutions):
            x = blocks.activate(x, options.activation, f"{prefix}_activation{i}", data_format)
    x = blocks.attend(x, f"{prefix}_gate", options)
    width = x.shape[blocks.channel_axis(data_format)]
    if strides != 1 or shortcut.shape[blocks.channel_axis(data_format)] != width:
        if architecture.shortcut == "pad":
            shortcut = blocks.PadShortcut(width, strides, data_format, name=f"{prefix}_shortcut")(shortcut)
        else:
            shortcut = blocks.convolve(shortcut, width, 1, strides, f"{prefix}_shortcut_conv", options)
            shortcut = blocks.normalize(shortcut, f"{prefix}_shortcut_norm", options)
    x = layers.Add(name=f"{prefix}_add")([x, shortcut])
    return blocks.activate(x, options.activation, f"{prefix}_activation{len(convolutions)}", data_format)


def _stem(x, options):
    filters = options.architecture.filters[0]
    imagenet = options.stem == "imagenet"
    x = blocks.convolve(x, filters, 7 if imagenet else 3, 2 if imagenet else 1, "stem_conv", options)
    x = blocks.normalize(x, "stem_norm", options)
    x = blocks.activate(x, options.activation, "stem_activation", options.data_format)
    return blocks.PaddedMaxPooling(data_format=options.data_format, name="stem_pool")(x) if imagenet else x


def build_resnet(
    network,
    architecture,
    classes=None,
    activation="relu",
    gate=None,
    spatial_gate=None,
    classifier="linear",
    gate_normalization=None,
    gate_dropout=None,
    include_top=True,
    pooling=None,
    pyramid=False,
    input_shape=None,
    classifier_activation=None,
    stem=None,
    frozen_batch_norm=False,
    data_format=None,
    name=None,
    input_tensor=None,
):
    """Build the network that `architecture` describes; `network` is what errors call it, and its name if it has none.

    The other arguments are those of `zoo.create_model`.
    """
    given_classes = classes
    options, classes, input_shape = _check(
        network,
        architecture,
        classes=classes,
        activation=activation,
        gate=gate,
        spatial_gate=spatial_gate,
        classifier=classifier,
        gate_normalization=gate_normalization,
        gate_dropout=gate_dropout,
        include_top=include_top,
        pooling=pooling,
        pyramid=pyramid,
        input_shape=input_shape,
        classifier_activation=classifier_activation,
        stem=stem,
        frozen_batch_norm=frozen_batch_norm,
        data_format=data_format,
        input_tensor=input_tensor,
    )
    images = keras.Input(input_shape, name="images") if input_tensor is None else input_tensor
    # As in keras.applications, the model starts where the tensor comes from: what was done to it before is part of it.
    inputs = images if input_tensor is None else keras.utils.get_source_inputs(input_tensor)
    inputs = inputs[0] if isinstance(inputs, list) and len(inputs) == 1 else inputs
    name = network if name is None else name
    x = _stem(images, options)
    stages = {}
    for stage, (filters, depth) in enumerate(zip(architecture.filters, architecture.depths, strict=True), start=1):
        for block in range(1, depth + 1):
            strides = 2 if stage > 1 and block == 1 else 1
            x = _block(x, filters, strides, f"stage{stage}_block{block}", options)
        stages[f"stage{stage}"] = x
    if pyramid:
        return Classifier(inputs, stages, name=name)
    if include_top or pooling == "avg":
        x = layers.GlobalAveragePooling2D(data_format=options.data_format, name="pool")(x)
    elif pooling == "max":
        x = layers.GlobalMaxPooling2D(data_format=options.data_format, name="pool")(x)
    if include_top:
        x = blocks.classify(x, classes, classifier, classifier_activation, architecture.dense_initializer)
        if given_classes is not None and x.shape[-1] != classes:
            raise ValueError(
                f"classes must be {x.shape[-1]}, the outputs of the classifier {classifier.name!r}; given: {classes}."
            )
    return Classifier(inputs, x, name=name)


def _check(
    network,
    architecture,
    *,
    classes,
    activation,
    gate,
    spatial_gate,
    classifier,
    gate_normalization,
    gate_dropout,
    include_top,
    pooling,
    pyramid,
    input_shape,
    classifier_activation,
    stem,
    frozen_batch_norm,
    data_format,
    input_tensor,
):
    """The arguments of `build_resnet`, checked, as `(options, classes, input_shape)` with their defaults filled in."""
    data_format = data_format or keras.config.image_data_format()
    check_name(data_format, ("channels_last", "channels_first"), "data_format")
    gate, spatial_gate = blocks.check_attention(
        network, architecture.attention, gate, spatial_gate, gate_normalization, gate_dropout
    )
    if not isinstance(classifier, layers.Layer):
        check_name(classifier, blocks.CLASSIFIERS, "classifier")
    if classifier_activation is not None and not callable(classifier_activation):
        check_name(classifier_activation, blocks.ACTIVATIONS, "classifier_activation")
    check_bool(include_top, "include_top")
    classes = architecture.classes if classes is None else classes
    if isinstance(classes, bool) or not isinstance(classes, numbers.Integral) or classes < 1:
        raise ValueError(f"classes must be a positive integer; given: {classes!r}.")
    check_bool(pyramid, "pyramid")
    check_name(pooling, (None, "avg", "max"), "pooling")
    if pyramid and pooling is not None:
        raise ValueError(
            f"pooling must be left out with pyramid=True, which gives the stages as they are; given: {pooling!r}."
        )
    if pyramid and classifier_activation is not None:
        raise ValueError(
            "classifier_activation must be left out with pyramid=True, which has no classifier; "
            f"given: {classifier_activation!r}."
        )
    stem = check_name(stem or architecture.stem, ("imagenet", "cifar"), "stem")
    options = blocks.Options(
        architecture=architecture,
        stem=stem,
        activation=blocks.check_activation(activation),
        gate=gate,
        spatial_gate=spatial_gate,
        gate_normalization=gate_normalization,
        gate_dropout=gate_dropout,
        frozen_batch_norm=check_bool(frozen_batch_norm, "frozen_batch_norm"),
        data_format=data_format,
    )
    smallest = 2 ** (len(architecture.filters) - 1) * (4 if stem == "imagenet" else 1)
    if input_tensor is not None:
        input_shape = _shape_of(input_tensor, input_shape)
    input_shape = _check_input_shape(input_shape, network, smallest, architecture.image_size, data_format)
    return options, classes, input_shape


def _shape_of(tensor, input_shape):
    """Shape of the images in `input_tensor`, which must be that of `input_shape` if both are given."""
    if not keras.utils.is_keras_tensor(tensor):
        raise ValueError(
            f"input_tensor must be a keras.Input, or what was computed from one; given: {type(tensor).__name__}."
        )
    if len(tensor.shape) != 4:
        raise ValueError(f"input_tensor must be a batch of images, of rank 4; given: shape {tuple(tensor.shape)}.")
    shape = tuple(tensor.shape[1:])
    if input_shape is not None and tuple(input_shape) != shape:
        raise ValueError(
            f"input_shape must be that of input_tensor, {shape!r}, or left out; given: {tuple(input_shape)!r}."
        )
    return shape


def _check_input_shape(shape, name, smallest, usual, data_format):
    """`input_shape` with its default filled in; too small a height or width is an error."""
    channels_last = data_format == "channels_last"
    if shape is None:
        return (usual, usual, 3) if channels_last else (3, usual, usual)
    if not isinstance(shape, (tuple, list)) or len(shape) != 3:
        raise ValueError(f"input_shape must have three numbers, without the batch; given: {shape!r}.")
    channels, sides = (shape[2], shape[:2]) if channels_last else (shape[0], shape[1:])
    for number in shape:
        if number is not None and (not isinstance(number, numbers.Integral) or number < 1):
            raise ValueError(f"input_shape must hold positive integers; given: {shape!r}.")
    if channels is None:
        raise ValueError(f"input_shape must say the number of channels ({data_format}); given: {shape!r}.")
    for side in sides:
        if side is not None and side < smallest:
            raise ValueError(
                f"input_shape must be at least {smallest} pixels high and wide for {name}, whose last stage has a "
                f"stride of {smallest}; given: {shape!r}. stem='cifar' needs a quarter of what stem='imagenet' needs."
            )
    return tuple(shape)
