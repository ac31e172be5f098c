"""PyTorch state dicts of the authors' networks to Keras weights, and back."""

import re

import keras
import numpy as np

from zoo.checkpoint_files import check_finite, read_state_dict
from zoo.classifier import Classifier
from zoo.torch_tensors import CIFAR, COUNTER, IMAGENET, REAL, from_timm, in_classifier, torch_tensors


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
