"""Tensors in files: PyTorch's `.pth` and `.safetensors`, read without running code and written whole or not at all."""

import argparse
import codecs
import contextlib
import os
import pathlib
import pickle
import re
import secrets
from collections.abc import Mapping

import numpy as np

from zoo.checkpoint_wrappers import unwrap

ENDINGS = (".pth", ".pt", ".safetensors")


def read_state_dict(source):
    """The tensors of a checkpoint as numpy arrays, whatever is wrapped around them.

    Unwraps `{"model": ...}`, `{"state_dict": ...}` and the like, and drops prefixes such as `module.` and `_orig_mod.`;
    `zoo.checkpoint_wrappers` knows which. Of weights and their moving average the weights are taken, with a warning.

    Args:
        source: Path of a `.pth`, `.pt` or `.safetensors` file, or a mapping from key to array or PyTorch tensor.

    Returns: A dict from key to numpy array.

    Raises:
        ValueError: For something else, a file that cannot be read, a pickle that holds more than tensors and plain
            values, or tensors under names that are not known to be a wrapper's.
        ImportError: If the package that reads the file is not installed.

    >>> import numpy as np
    >>> from zoo.checkpoint_files import read_state_dict
    >>> list(read_state_dict({"model": {"module.fc.bias": np.zeros(3)}, "epoch": 7}))
    ['fc.bias']
    """
    called, what = "source", "be a path or a mapping from key to array"
    if isinstance(source, (str, os.PathLike)):
        called, what = repr(os.fspath(source)), "hold a mapping from key to tensor"
        source = _read_file(pathlib.Path(source))
    if not isinstance(source, Mapping):
        raise ValueError(f"{called} must {what}; given: {type(source).__name__}.")
    arrays = {}
    for key, value in unwrap(source, called).items():
        if not isinstance(key, str) or not hasattr(value, "shape"):
            raise ValueError(f"{called} must map names to tensors; given: {key!r}: {type(value).__name__}.")
        try:
            arrays[key] = _to_numpy(value)
        except (TypeError, RuntimeError, NotImplementedError) as error:
            # Sparse, quantized and meta tensors.
            raise ValueError(
                f"{called} must hold plain tensors of numbers; given: {key!r} ({first_line(error)})."
            ) from error
    return arrays


def write_state_dict(state, path):
    """Write a dict of arrays as `.pth`, `.pt` or `.safetensors`; the file appears when it is complete.

    Raises:
        ValueError: For another ending, a value that is no array of numbers, or a place that cannot be written.
        ImportError: If the package that writes the file is not installed.

    >>> import numpy as np, os, tempfile
    >>> from zoo.checkpoint_files import read_state_dict, write_state_dict
    >>> path = os.path.join(tempfile.mkdtemp(), "net.safetensors")
    >>> write_state_dict({"fc.bias": np.ones(3, "float32")}, path)
    >>> read_state_dict(path)["fc.bias"]
    array([1., 1., 1.], dtype=float32)
    """
    path = pathlib.Path(path)
    ending = check_ending(path)
    if not path.absolute().parent.is_dir():
        raise ValueError(f"path must be in a folder that is there; given: {str(path)!r}.")
    # Numbers without an axis are no arrays yet, and safetensors wants the memory in order.
    state = {key: np.array(_to_numpy(value), order="C") for key, value in state.items()}
    for key, array in state.items():
        if array.dtype.kind not in "fiub":
            raise ValueError(f"{key!r} must be an array of numbers; given: dtype {array.dtype}.")
    temporary = path.with_name(f".{secrets.token_hex(4)}-{path.name}")
    try:
        if ending == ".safetensors":
            import_safetensors().save_file(state, temporary, metadata={"format": "pt"})
        else:
            torch = _torch(path)
            torch.save({key: torch.from_numpy(value) for key, value in state.items()}, temporary)
        os.replace(temporary, path)
    except ImportError:
        raise
    except Exception as error:  # of the system, and those that PyTorch and safetensors make of them
        raise ValueError(f"{str(path)!r} cannot be written: {first_line(error)}") from error
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)


def check_ending(path):
    """The ending of `path`, if it is one that holds PyTorch tensors; a ValueError otherwise."""
    ending = pathlib.Path(path).suffix.lower()
    if ending not in ENDINGS:
        raise ValueError(f"a PyTorch checkpoint must end in {', '.join(ENDINGS)}; given: {str(path)!r}.")
    return ending


def check_finite(arrays):
    """A ValueError that names the array with a NaN, an infinite number or a negative variance, if there is one.

    Args:
        arrays: `(key, array)` of each tensor that is about to be loaded as float32.
    """
    for key, array in arrays:
        with np.errstate(over="ignore"):
            wrong = np.count_nonzero(~np.isfinite(array.astype("float32")))
        kind = "NaN or infinite"
        if not wrong and key.endswith("running_var"):
            wrong, kind = np.count_nonzero(array < 0), "negative"
        if wrong:
            raise ValueError(
                f"The checkpoint is damaged, or of a training that diverged: {wrong} of the {array.size} numbers of "
                f"{key} are {kind}; nothing was loaded."
            )


def _read_file(path):
    ending = check_ending(path)
    if not path.is_file():
        raise ValueError(f"source must be a file that is there; given: {str(path)!r}.")
    if ending == ".safetensors":
        return read_safetensors(path)
    torch = _torch(path)
    try:
        with torch.serialization.safe_globals(_plain_values()):
            return torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        # PyTorch's own text recommends to switch the protection off.
        refused = re.search(r"GLOBAL ([\w.]+)", str(error))
        reason = f"it refers to {refused[1]}" if refused else "it is not a checkpoint, or is damaged"
        raise ValueError(
            f"{str(path)!r} was not opened: {reason}. Only tensors, numbers, text and argparse.Namespace are read, "
            "because anything else in a pickle can run code."
        ) from None
    except (RuntimeError, EOFError, OSError, ValueError, KeyError, IndexError) as error:
        if "TorchScript" in str(error):  # here too PyTorch's own text recommends to switch the protection off
            raise ValueError(
                f"{str(path)!r} was not opened: it is a TorchScript archive, which holds code. Save the tensors alone: "
                "torch.save(torch.jit.load(path).state_dict(), ...)."
            ) from None
        # Of a file that is no pickle these say a number, or nothing.
        reason = "its content is no pickle" if isinstance(error, KeyError | IndexError) else first_line(error)
        raise ValueError(f"{str(path)!r} cannot be read as a PyTorch checkpoint, or is damaged: {reason}") from error


def read_safetensors(path):
    """The tensors of a `.safetensors` file, a dict from key to numpy array; errors as `read_state_dict`."""
    import_safetensors()
    from safetensors import SafetensorError, safe_open

    arrays = {}
    try:
        with safe_open(path, framework="numpy") as file:
            for key in file.keys():
                arrays[key] = file.get_tensor(key)
    except (SafetensorError, OSError) as error:
        raise ValueError(f"{str(path)!r} cannot be read as safetensors: {first_line(error)}") from error
    return arrays


def _plain_values():
    """What the training scripts store beside the weights: their options, and accuracies as NumPy numbers."""
    scalar = np.float64(0).__reduce__()[0]
    dtypes = {type(np.dtype(name)) for name in ("float64", "float32", "int64", "int32", "bool")}
    return [argparse.Namespace, np.dtype, *dtypes, scalar, (scalar, "numpy.core.multiarray.scalar"), codecs.encode]


def _to_numpy(value):
    if not hasattr(value, "detach"):
        value = np.asarray(value)
        return value.astype("float32") if value.dtype.name == "bfloat16" else value
    value = value.detach().cpu()
    # NumPy has no bfloat16.
    return (value.float() if value.is_floating_point() and value.itemsize < 4 else value).numpy()


def _torch(path):
    with _named("torch", "torch", path):
        import torch
    return torch


def import_safetensors():
    """The package that reads and writes `.safetensors`, or an ImportError that names the extra."""
    with _named("safetensors", "zoo", "a .safetensors file"):
        import safetensors.numpy
    return safetensors.numpy


@contextlib.contextmanager
def _named(package, extra, what):
    try:
        yield
    except ImportError as error:
        raise ImportError(
            f"{str(what)!r} needs the package {package}: pip install 'keras-apa[{extra}]'.", name=package
        ) from error


def first_line(error):
    """What an error says, without the rest of its text; its type if it says nothing."""
    return (str(error).strip() or type(error).__name__).splitlines()[0]
