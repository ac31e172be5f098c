"""Which tensor of the authors' PyTorch networks is which Keras variable, and in which layout.

Every tensor of the state dict is named from the layers of the model, so one table serves both directions.
"""

import dataclasses
import re
from collections.abc import Callable, Iterator

import keras
import numpy as np

from keras_apa.layers import (
    CBAM,
    CosineDense,
    NormalizedDense,
    SpatialAttention,
    SqueezeExcite,
    WrappedCauchyDense,
)
from zoo.blocks import PadShortcut
from zoo.checkpoint_files import check_finite

COUNTER = ".num_batches_tracked"
REAL = "fiub"  # kinds of NumPy's dtypes that can become a float


def _same(array):
    return array


def _transposed(array):
    return array.T


def _conv_to_torch(array):
    return array.transpose(3, 2, 0, 1)


def _conv_to_keras(array):
    return array.transpose(2, 3, 1, 0)


@dataclasses.dataclass(frozen=True)
class TorchTensor:
    """A tensor of the state dict: its key, the Keras variable that holds it, and the change of layout."""

    key: str
    variable: keras.Variable
    to_torch: Callable = _same
    to_keras: Callable = _same

    @property
    def shape(self):
        """Shape in PyTorch's layout; scalars are stored with one element there."""
        return self.to_torch(np.empty(tuple(self.variable.shape) or (1,), np.bool_)).shape

    @property
    def in_classifier(self):
        """Whether the tensor belongs to the classifier."""
        return in_classifier(self.key)


def in_classifier(key):
    """Whether a key of a state dict belongs to the classifier."""
    return key.partition(".")[0] in (CIFAR.classifier, IMAGENET.classifier)


def torch_tensors(model) -> Iterator[TorchTensor]:
    """The tensors of the authors' state dict of the network, in the order of the model's layers.

    Raises: ValueError: For a layer whose place in the state dict is unknown.
    """
    names = CIFAR if any(isinstance(layer, PadShortcut) for layer in model.layers) else IMAGENET
    for layer in model.layers:
        if layer.weights:
            yield from _layer_tensors(layer, _torch_prefix(layer.name, names), names)


@dataclasses.dataclass(frozen=True)
class Names:
    """What the authors' two scripts call the same thing."""

    stem_activation: str
    classifier: str
    se_gate: str
    cbam: str


CIFAR = Names(stem_activation="unirect", classifier="linear", se_gate="unact", cbam="cb")

IMAGENET = Names(stem_activation="relu", classifier="fc", se_gate="uniact", cbam="cbam")


def _torch_prefix(name, names):
    """`stage1_block2_norm1` -> `layer1.1.bn1`; the roles are those of the zoo's builders."""
    fixed = {
        "stem_conv": "conv1",
        "stem_norm": "bn1",
        "stem_activation": names.stem_activation,
        "classifier": names.classifier,
    }
    if name in fixed:
        return fixed[name]
    match = re.fullmatch(r"stage(\d+)_block(\d+)_(conv|norm|activation|gate|shortcut_conv|shortcut_norm)(\d?)", name)
    if match is None:
        raise ValueError(
            f"the model must have the layers of the authors' checkpoints and no others; given: layer {name!r}."
        )
    stage, block, role, number = match.groups()
    role = {
        "conv": "conv",
        "norm": "bn",
        "activation": "unirect",
        "gate": "",
        "shortcut_conv": "downsample.0",
        "shortcut_norm": "downsample.1",
    }[role]
    return f"layer{stage}.{int(block) - 1}.{role}{number}"


def _layer_tensors(layer, prefix, names=None):
    if isinstance(layer, SqueezeExcite):
        yield from _channel_gate(layer, f"{prefix}se", "excitation.0", "excitation.2", names.se_gate)
    elif isinstance(layer, CBAM):
        yield from _channel_gate(layer.channel, f"{prefix}{names.cbam}.ChannelGate", "mlp.1", "mlp.3", "uniact")
        yield from _spatial_gate(layer.spatial, f"{prefix}{names.cbam}.SpatialGate")
    elif isinstance(layer, SpatialAttention):
        yield from _spatial_gate(layer, f"{prefix}{names.cbam}.SpatialGate")
    elif isinstance(layer, NormalizedDense):  # stored (features, classes) by the authors as well
        yield from _variables(layer, prefix, kernel=("weight",), bias=("bias",), temperature=("tempearture",))
    else:
        dense = isinstance(layer, (keras.layers.Dense, CosineDense, WrappedCauchyDense))
        kernel = ("weight", _transposed, _transposed) if dense else ("weight", _conv_to_torch, _conv_to_keras)
        yield from _variables(
            layer,
            prefix,
            kernel=kernel,
            bias=("bias",),
            scale=("scale",),
            concentration=("g",),
            gamma=("weight",),
            beta=("bias",),
            moving_mean=("running_mean",),
            moving_variance=("running_var",),
            kappa=("kappa_param",),
            **{"lambda": ("lambda_param",)},
        )


def _channel_gate(layer, prefix, reduce, expand, gate):
    if layer.norm is not None:
        yield from _layer_tensors(layer.norm, f"{prefix}.norm")
    yield from _layer_tensors(layer.reduce, f"{prefix}.{reduce}")
    yield from _layer_tensors(layer.expand, f"{prefix}.{expand}")
    yield from _layer_tensors(layer.gate, f"{prefix}.{gate}")


def _spatial_gate(layer, prefix):
    yield from _layer_tensors(layer.conv, f"{prefix}.spatial.conv")
    yield from _layer_tensors(layer.norm, f"{prefix}.spatial.bn")
    yield from _layer_tensors(layer.gate, f"{prefix}.uniact")


def _variables(layer, prefix, **names):
    for variable in layer.weights:
        if variable.name not in names:
            raise ValueError(
                f"the model must have the weights of the authors' checkpoints and no others; given: {variable.path!r}."
            )
        key, *layout = names[variable.name]
        yield TorchTensor(f"{prefix}.{key}", variable, *layout)


def from_timm(arrays):
    """The state dict with the gates of timm's layout, 1x1 convolutions, under the authors' keys, as dense layers.

    Raises: ValueError: If they have what the authors' gates have not, saying what.
    """
    gate = re.compile(r"(.*\.se\.)(fc1|fc2)\.(\w+)")
    places = {"fc1": "excitation.0", "fc2": "excitation.2"}
    renamed = {}
    for key, array in arrays.items():
        match = gate.fullmatch(key)
        if match is None:
            renamed[key] = array
            continue
        prefix, layer, kind = match.groups()
        if kind != "weight" or array.shape[2:] != (1, 1):
            reason = "a bias in the gates' layers" if kind == "bias" else "gates that are no 1x1 convolutions"
            raise ValueError(
                f"The checkpoint has timm's layout ({key}, shape {array.shape}), with {reason}, which the "
                "authors' networks do not have: it cannot be loaded exactly, so it is not loaded. Networks without "
                "gates (resnet50, resnext50_32x4d, ...) have the same layout in timm and load."
            )
        renamed[f"{prefix}{places[layer]}.weight"] = array.reshape(array.shape[:2])
    return renamed


def compare(tensors, arrays):
    """Which arrays of a state dict fit the tensors of a model.

    Args:
        tensors: A list of `TorchTensor`.
        arrays: The arrays by key. What batch norms have counted (`COUNTER`) is nothing unexpected.

    Returns:
        `(report, fitting)`: a dict with the lists `missing`, `unexpected` and `misshapen`, whose entries begin with the
        key, and a list of each tensor that fits with its array.
    """
    known = {tensor.key for tensor in tensors}
    report = {
        "missing": [tensor.key for tensor in tensors if tensor.key not in arrays],
        "unexpected": [key for key in arrays if key not in known and not key.endswith(COUNTER)],
        "misshapen": [],
    }
    fitting = []
    for tensor in tensors:
        if tensor.key not in arrays:
            continue
        array = arrays[tensor.key]
        if array.dtype.kind not in REAL:
            report["misshapen"].append(f"{tensor.key}: dtype {array.dtype} given, a real number is needed")
        elif array.shape == tensor.shape or (array.shape == () and tensor.shape == (1,)):
            fitting.append((tensor, array))
        else:
            report["misshapen"].append(f"{tensor.key}: {array.shape} given, {tensor.shape} in the model")
    return report, fitting


def check_same(model, report, hints=()):
    """A ValueError with the report of `compare` and what could help, unless the report is empty."""
    if not any(report.values()):
        return
    lines = [f"{kind}: {', '.join(items)}" for kind, items in report.items() if items]
    raise ValueError(f"The checkpoint does not fit {model.name!r}; nothing was loaded.\n" + "\n".join([*lines, *hints]))


def assign(fitting):
    """Load the arrays of `compare`: all of them, or none and a ValueError where one holds NaN or the like."""
    check_finite((tensor.key, array) for tensor, array in fitting)
    for tensor, array in fitting:
        tensor.variable.assign(np.reshape(tensor.to_keras(array), tensor.variable.shape))
