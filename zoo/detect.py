"""Detects the network that a PyTorch checkpoint belongs to, from its keys and shapes."""

import re
from typing import Any

import keras

from keras_apa.layers import AGLU, APA
from zoo.checkpoint_files import read_state_dict
from zoo.cifar_resnet import CIFAR_RESNETS
from zoo.resnet import IMAGENET_RESNETS
from zoo.torch_tensors import CIFAR, IMAGENET, from_timm

_MOST_STAGES = 16  # the zoo's networks have 4; a number that a damaged key holds should not be counted up to


def detect_architecture(state_dict):
    """Name and options of the network that a checkpoint was made with.

    The function reads everything that has parameters from the tensors: the kind, depth and width of the network,
    AGLU, APA gates and their LayerNorm, the classifier, the number of classes, and the channels of the images. It
    cannot read the rest. It assumes ReLU for an activation without parameters, the sigmoid for a gate without
    parameters, and for the dropout of a gate the default of `gate="apa"`. If each channel has its own pair of
    parameters, the option is a layer, `AGLU(per_channel=True)`, instead of a name.

    Args:
        state_dict: A path, or a mapping from key to array, as in `zoo.load_torch_checkpoint`.

    Returns:
        `(name, options)`, for `zoo.create_model(name, **options)`. An `input_shape` is in the order of
        `keras.config.image_data_format()`.

    Raises:
        ValueError: If no network of the zoo has these tensors. The message says what was found. timm's gates with
            biases raise it too, as in `zoo.load_torch_checkpoint`.

    >>> import zoo
    >>> model = zoo.create_model("se_resnet8", classes=7, activation="aglu", gate="apa", classifier="cosine")
    >>> zoo.detect_architecture(zoo.to_torch_state_dict(model))[0]
    'se_resnet8'
    """
    shapes = {key: tuple(array.shape) for key, array in from_timm(read_state_dict(state_dict)).items()}
    _check_ranks(shapes)
    name = _name(shapes)
    names = CIFAR if name in CIFAR_RESNETS else IMAGENET
    stem = shapes["conv1.weight"]
    options: dict[str, Any] = {}
    if stem[2] == (3 if names is IMAGENET else 7):
        options["stem"] = "cifar" if names is IMAGENET else "imagenet"
    if stem[1] != 3:
        last = keras.config.image_data_format() == "channels_last"
        options["input_shape"] = (None, None, stem[1]) if last else (stem[1], None, None)
    kappa = shapes.get(f"{names.stem_activation}.kappa_param")
    if kappa is not None:
        options["activation"] = AGLU(per_channel=True) if _per_channel(kappa) else "aglu"
    options |= _gates(shapes, names) | _classifier(shapes)
    return name, options


def _check_ranks(shapes):
    """Refuse tensors from which nothing can be told: of another rank than every network has there, or empty."""
    ranks = {"conv1.weight": 4, "layer1.0.conv2.weight": 4, f"{_head(shapes)}.weight": 2, f"{_head(shapes)}.bias": 1}
    for key, rank in ranks.items():
        shape = shapes.get(key, (1,) * rank)
        if len(shape) != rank or 0 in shape:
            raise ValueError(f"The checkpoint is not of a ResNet: {key} has the shape {shape}; it needs {rank} axes.")


def _name(shapes):
    """The network with that gate, those blocks and that width."""
    if "conv1.weight" not in shapes or "layer1.0.conv2.weight" not in shapes:
        some = ", ".join(list(shapes)[:3]) or "no tensors"
        raise ValueError(f"The checkpoint is not of a ResNet: it has no conv1.weight and layer1.0; found: {some}.")
    depths: list[int] = []
    for key in shapes:
        match = re.match(r"layer(\d+)\.(\d+)\.", key)
        if match:
            stage, block = int(match[1]), int(match[2]) + 1
            if not 1 <= stage <= _MOST_STAGES:
                raise ValueError(f"The checkpoint is not of a ResNet: it has the key {key}.")
            depths += [0] * (stage - len(depths))
            depths[stage - 1] = max(depths[stage - 1], block)
    width, per_group = shapes["layer1.0.conv2.weight"][:2]
    bottleneck = "layer1.0.conv3.weight" in shapes
    found = {
        "attention": _attention(shapes),
        "bottleneck": bottleneck,
        "depths": tuple(depths),
        "filters": (shapes["conv1.weight"][0],),
    }
    if bottleneck:
        found |= {"groups": width // per_group, "width_per_group": per_group}
    for name, architecture in {**CIFAR_RESNETS, **IMAGENET_RESNETS}.items():
        values = {key: getattr(architecture, key) for key in found}
        values["filters"] = values["filters"][:1]
        if values == found:
            return name
    listed = ", ".join(f"{key} {value}" for key, value in found.items())
    raise ValueError(f"No network of the zoo has the shape of this checkpoint: {listed}.")


def _attention(shapes):
    kinds = {"se": r"\.se\.", "cb": r"\.ChannelGate\.", "sp": r"\.SpatialGate\."}
    return next((kind for kind, key in kinds.items() if any(re.search(key, k) for k in shapes)), None)


def _gates(shapes, names):
    options: dict[str, Any] = {}
    channel = {"se": f"se.{names.se_gate}", "cb": "ChannelGate.uniact"}.get(_attention(shapes))
    if channel:
        kappa = next((shape for key, shape in shapes.items() if f"{channel}.kappa_param" in key), None)
        if kappa is not None:
            options["gate"] = APA(per_channel=True) if _per_channel(kappa) else "apa"
        norm = any(re.search(r"(\.se|ChannelGate)\.norm\.weight$", key) for key in shapes)
        if norm != (_attention(shapes) == "cb" or "gate" in options):
            options["gate_normalization"] = norm
    if any("SpatialGate.uniact.kappa_param" in key for key in shapes):
        options["spatial_gate"] = "apa"
    return options


def _per_channel(shape):
    """Whether a tensor holds one parameter a channel; a scalar has one element in PyTorch."""
    return shape not in ((), (1,))


def _classifier(shapes):
    head = _head(shapes)
    if head is None:
        return {"include_top": False}
    classes = {"classes": count_classes(shapes)}
    weight, bias = shapes[f"{head}.weight"], shapes.get(f"{head}.bias")
    if f"{head}.g" in shapes:
        return {**classes, "classifier": "wrapped_cauchy"}
    if bias is None:
        learned = f"{head}.scale" in shapes
        return {**classes, "classifier": "learned_cosine" if learned else "cosine"}
    # A square one looks like a linear layer.
    return {**classes, **({"classifier": "normalized"} if weight[0] != bias[0] else {})}


def count_classes(shapes):
    """Number of classes of a state dict, told from its shapes by key; 0 without a classifier."""
    head = _head(shapes)
    if head is None:
        return 0
    # NormalizedDense is stored the other way round, but its bias is not.
    return next(iter(shapes.get(f"{head}.bias", shapes[f"{head}.weight"])), 0)


def _head(shapes):
    """What the classifier of a state dict is called, or `None`."""
    return next((name for name in (CIFAR.classifier, IMAGENET.classifier) if f"{name}.weight" in shapes), None)
