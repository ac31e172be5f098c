"""What a detector needs of the network that it stands on."""

import itertools
import math

import keras
from keras import layers

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
        raise ValueError(f"backbone must double its stride from stage to stage; given strides: {strides}.")
    return strides, [shape[-1 if last else 1] for shape in shapes]


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
