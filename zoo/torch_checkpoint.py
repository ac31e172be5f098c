"""PyTorch state dicts of the authors' networks to Keras weights, and back.

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
from zoo.checkpoint_files import check_finite, read_state_dict
from zoo.classifier import Classifier

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
        raise ValueError(f"Layer {name!r} has no place in the authors' checkpoints.")
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
            raise ValueError(f"Weight {variable.path!r} has no place in the authors' checkpoints.")
        key, *layout = names[variable.name]
        yield TorchTensor(f"{prefix}.{key}", variable, *layout)


def load_torch_checkpoint(model, source, strict=True, skip_classifier=False):
    """Load a PyTorch checkpoint into a model of the zoo.

    The key names are those of the authors' networks. Those of torchvision's ResNet, ResNeXt and Wide ResNet are the
    same, and so are timm's of these networks. timm's gates (`se.fc1`, `se.fc2`) are renamed if they have no biases;
    those of its `seresnet50` and `seresnext50_32x4d` have some, which the authors' networks cannot hold.

    Args:
        model: A model of `zoo.create_model` with the same architecture and options, or a detector (`zoo.FasterRCNN`,
            `zoo.MaskRCNN`): then the checkpoint is torchvision's, see `zoo.detection.load_torchvision`.
        source: Path of a `.pth`, `.pt` or `.safetensors` file, or a mapping from key to array. Files are read without
            running code; what training tools put around the tensors (`zoo.checkpoint_wrappers`) is taken off.
        strict: Raise if a tensor is missing, unexpected or of another shape. Otherwise load what fits.
        skip_classifier: Leave the model's classifier as it is, for another number of classes.

    Returns:
        A dict with the lists `missing`, `unexpected` and `misshapen`.

    Raises:
        ValueError: With `strict`, naming every tensor that does not fit, or does not hold real numbers; nothing is
            loaded then. Or if a tensor holds NaN, infinite numbers or negative variances, if the file cannot be read,
            or if it holds more than tensors and plain values.
        ImportError: If the file needs PyTorch or safetensors, and it is not installed.

    >>> import zoo
    >>> model = zoo.create_model("resnet8")
    >>> report = zoo.load_torch_checkpoint(model, zoo.to_torch_state_dict(model))
    >>> report["missing"], report["unexpected"]
    ([], [])
    """
    if hasattr(model, "proposal_head"):
        # Imported here: the detectors' checkpoints are made of the tensors of this module.
        from zoo.detection.checkpoint import load_torchvision

        return load_torchvision(model, source, strict, skip_classifier)
    arrays = from_timm(read_state_dict(source))
    tensors = list(torch_tensors(model))
    head = {tensor.key for tensor in tensors if tensor.in_classifier}
    if any(key.startswith(f"{CIFAR.classifier}.") for key in head) and f"{CIFAR.classifier}.weight" not in arrays:
        # Balanced Meta-Softmax keeps the classifier in a module of its own.
        arrays = {re.sub(rf"^{IMAGENET.classifier}\.", f"{CIFAR.classifier}.", k): v for k, v in arrays.items()}
    if skip_classifier:
        tensors = [tensor for tensor in tensors if not tensor.in_classifier]
        arrays = {key: array for key, array in arrays.items() if not in_classifier(key)}
    known = {tensor.key for tensor in tensors}
    report = {
        "missing": [tensor.key for tensor in tensors if tensor.key not in arrays],
        "unexpected": [key for key in arrays if key not in known and not key.endswith(COUNTER)],
        "misshapen": [],
    }
    fitting = []
    different = [*report["missing"], *report["unexpected"]]
    for tensor in tensors:
        if tensor.key not in arrays:
            continue
        array = arrays[tensor.key]
        if array.dtype.kind not in REAL:
            report["misshapen"].append(f"{tensor.key}: dtype {array.dtype} given, a real number is needed")
        elif array.shape == tensor.shape or (array.shape == () and tensor.shape == (1,)):
            fitting.append((tensor, np.reshape(tensor.to_keras(array), tensor.variable.shape)))
            continue
        else:
            report["misshapen"].append(f"{tensor.key}: {array.shape} given, {tensor.shape} in the model")
        different.append(tensor.key)
    counters = {}
    for key, array in arrays.items():
        if not key.endswith(COUNTER):
            continue
        if array.dtype.kind in REAL and array.size == 1 and _is_count(array.reshape(())):
            counters[key] = int(array.reshape(()))
        else:
            report["misshapen"].append(f"{key}: {array.dtype} {array.shape} given, one whole number is needed")
            different.append(key)
    if strict and any(report.values()):
        lines = [f"{kind}: {', '.join(items)}" for kind, items in report.items() if items]
        if all(map(in_classifier, different)):
            # Named with its function: `zoo.create_model` comes here too, and has no such option.
            way = "zoo.load_torch_checkpoint with skip_classifier=True loads the rest"
            lines.append(f"Only the classifier differs: {way}.")
        raise ValueError(f"The checkpoint does not fit {model.name!r}; nothing was loaded.\n" + "\n".join(lines))
    check_finite((tensor.key, array) for tensor, array in fitting)
    for tensor, array in fitting:
        tensor.variable.assign(array)
    if isinstance(model, Classifier):
        model.batches_tracked = counters or None
    return report


def _is_count(number):
    """Whether it is a whole number that PyTorch's counter, an int64, can hold."""
    return bool(np.isfinite(number)) and number == np.floor(number) and 0 <= int(number) < 2**63


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


def to_torch_state_dict(model):
    """The model's weights as the authors' PyTorch state dict, a dict of numpy arrays in the order of the layers.

    Those of a detector as torchvision's, see `zoo.detection.to_torchvision`.

    `num_batches_tracked` of a batch normalisation is what the loaded checkpoint said, else 0: Keras does not count
    batches. A `PriorCorrection` behind the logits holds no weights, and so leaves no trace.

    Raises: ValueError: For a layer or weight that the authors' networks do not have.

    >>> import zoo
    >>> state = zoo.to_torch_state_dict(zoo.create_model("se_resnet8"))
    >>> state["layer1.0.se.excitation.0.weight"].shape
    (4, 16)
    """
    if hasattr(model, "proposal_head"):
        from zoo.detection.checkpoint import to_torchvision

        return to_torchvision(model)
    tracked = getattr(model, "batches_tracked", None) or {}
    state = {}
    for tensor in torch_tensors(model):
        array = keras.ops.convert_to_numpy(tensor.variable)
        state[tensor.key] = np.ascontiguousarray(tensor.to_torch(array.reshape(array.shape or (1,))))
        if tensor.key.endswith(".running_var"):
            counter = tensor.key.removesuffix(".running_var") + COUNTER
            state[counter] = np.asarray(tracked.get(counter, 0), "int64")
    return state
