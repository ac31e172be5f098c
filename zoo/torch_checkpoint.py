"""PyTorch state dicts of the authors' networks to Keras weights, and back."""

import re

import keras
import numpy as np

from zoo.checkpoint_files import read_state_dict
from zoo.classifier import Classifier
from zoo.torch_tensors import (
    CIFAR,
    COUNTER,
    IMAGENET,
    REAL,
    assign,
    check_same,
    compare,
    from_timm,
    in_classifier,
    torch_tensors,
)


def load_authors(model, source, strict=True, skip_classifier=False):
    """`zoo.load_torch_checkpoint` for a network of `zoo.create_model`."""
    arrays = from_timm(read_state_dict(source))
    tensors = list(torch_tensors(model))
    head = {tensor.key for tensor in tensors if tensor.in_classifier}
    if any(key.startswith(f"{CIFAR.classifier}.") for key in head) and f"{CIFAR.classifier}.weight" not in arrays:
        # Balanced Meta-Softmax keeps the classifier in a module of its own.
        arrays = {re.sub(rf"^{IMAGENET.classifier}\.", f"{CIFAR.classifier}.", k): v for k, v in arrays.items()}
    if skip_classifier:
        tensors = [tensor for tensor in tensors if not tensor.in_classifier]
        arrays = {key: array for key, array in arrays.items() if not in_classifier(key)}
    report, fitting = compare(tensors, arrays)
    counters, no_counters = _counters(arrays)
    report["misshapen"] += no_counters
    if strict:
        check_same(model, report, _hints(report, tensors))
    assign(fitting)
    if isinstance(model, Classifier):
        model.batches_tracked = counters or None
    return report


def _counters(arrays):
    """What the batch norms of a state dict have counted, by key; and a line for each counter that is none."""
    counters, wrong = {}, []
    for key, array in arrays.items():
        if not key.endswith(COUNTER):
            continue
        if array.dtype.kind in REAL and array.size == 1 and _is_count(array.reshape(())):
            counters[key] = int(array.reshape(()))
        else:
            wrong.append(f"{key}: {array.dtype} {array.shape} given, one whole number is needed")
    return counters, wrong


def _hints(report, tensors):
    if all(in_classifier(line) for lines in report.values() for line in lines):  # each begins with the key
        # Named with its function: `zoo.create_model` comes here too, and has no such option.
        way = "zoo.load_torch_checkpoint with skip_classifier=True loads the rest"
        yield f"Only the classifier differs: {way}."
        return
    stems = {tensor.key.partition(".")[0] for tensor in tensors}
    # Not what is in the network's own layers: without it, the network would be another.
    beside = all(key.partition(".")[0] not in stems for key in report["unexpected"])
    if beside and not report["missing"] and not report["misshapen"]:
        yield (
            "The network is complete. If the others belong to a loss or a metric, zoo.load_torch_checkpoint with "
            "strict=False leaves them out."
        )


def _is_count(number):
    """Whether it is a whole number that PyTorch's counter, an int64, can hold."""
    return bool(np.isfinite(number)) and number == np.floor(number) and 0 <= int(number) < 2**63


def to_authors(model):
    """`zoo.to_torch_state_dict` for a network of `zoo.create_model`."""
    tracked = getattr(model, "batches_tracked", None) or {}
    state = {}
    for tensor in torch_tensors(model):
        array = keras.ops.convert_to_numpy(tensor.variable)
        state[tensor.key] = np.ascontiguousarray(tensor.to_torch(array.reshape(array.shape or (1,))))
        if tensor.key.endswith(".running_var"):
            counter = tensor.key.removesuffix(".running_var") + COUNTER
            state[counter] = np.asarray(tracked.get(counter, 0), "int64")
    return state
