"""Checkpoints from which a training goes on as if it had never stopped.

One file holds everything that the next step depends on: weights, statistics of batch normalisation, the state of the
random numbers of Dropout and of losses, all variables of the optimizer, and where in the training this is. The data
are no part of it: the order and the augmentation are functions of (seed, epoch, position).

Not `keras.callbacks.BackupAndRestore`, which resumes at the beginning of an epoch, without the state of the random
numbers and without a check of the file.

    checkpoints = Checkpoints(run / "checkpoints")
    state = checkpoints.load_latest(model)                # None at the first start
    first = (state["epoch"], state["step_in_epoch"]) if state else (0, 0)
    save = CheckpointCallback(checkpoints, steps_per_epoch=steps, every_steps=1000, resumed=state)
    with saving_on_interrupt(save):
        model.fit(
            batches_from(*first),                         # the rest of the training, one endless dataset
            steps_per_epoch=steps,
            initial_epoch=first[0],
            epochs=epochs,
            callbacks=[ContinueEpoch(steps, state), ..., save],
        )
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import re
import sys
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import keras
import numpy as np
from keras import ops

from training.checks import check_whole

# The file ends with this zip comment and the digest of all bytes before the digest.
_MARK = b"sha256:"
_DIGITS = 64
_NAME = re.compile(r"step-(\d{10})\.npz")
_FORMAT = 1


class DamagedCheckpointError(Exception):
    """The bytes of a checkpoint are not those that were written."""


class NotFiniteError(FloatingPointError):
    """The loss, or a variable that was to be saved, is NaN or infinite."""


class Checkpoints:
    """The last checkpoints of one training, in one folder.

    A checkpoint is one npz file named after its step. It is written under another name, brought to the disk and then
    renamed, so that it is whole or not there, whatever happens meanwhile. Its last bytes are the sha256 of the others.

    Args:
        folder: Where they are; made by the first `save`.
        keep: How many good ones stay.

    Raises:
        ValueError: `keep` is less than 1.

    >>> import tempfile
    >>> model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(1)])
    >>> model.compile("adam", "mse")
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     checkpoints = Checkpoints(folder)
    ...     nothing = checkpoints.load_latest(model)
    ...     name = checkpoints.save(model, step=30, extra={"epoch": 3}).name
    ...     state = checkpoints.load_latest(model)
    >>> nothing, name, state["epoch"], state["step"]
    (None, 'step-0000000030.npz', 3, 30)
    """

    def __init__(self, folder: str | os.PathLike, keep: int = 2):
        check_whole("keep", keep, at_least=1)
        self.folder = Path(folder)
        self.keep = keep
        self._damaged: set[Path] = set()

    def paths(self) -> list[Path]:
        """The checkpoints in the folder, oldest first; whether they are good is seen by loading."""
        if not self.folder.is_dir():
            return []
        return sorted(path for path in self.folder.iterdir() if _NAME.fullmatch(path.name))

    def newest(self) -> Path | None:
        """The last checkpoint that was written, None before the first."""
        paths = self.paths()
        return paths[-1] if paths else None

    def newest_good(self) -> Path | None:
        """The checkpoint that `load_latest` would take, None where there is none; damaged ones are named on stderr."""
        for path in reversed(self.paths()):
            try:
                _check_digest(path)
            except DamagedCheckpointError as error:
                self._report_damaged(path, error)
                continue
            return path
        return None

    def save(self, model: keras.Model, *, step: int, extra: Mapping[str, Any] | None = None) -> Path:
        """Writes the state of `model` and its optimizer, and removes all but the last `keep`.

        Also removed are checkpoints of later steps: the training that wrote them was given up for this one.

        Args:
            model: A compiled and built model, also in the middle of `fit`.
            step: Batches since the training began.
            extra: What else there is to remember: plain numbers, text, lists, dictionaries and numpy arrays.

        Returns:
            The file.

        Raises:
            NotFiniteError: a variable is NaN or infinite; nothing is written.
            OSError: the file cannot be written (a full disk, for example); earlier checkpoints are untouched.
            ValueError: `extra` cannot be stored, or the model is not built or has no optimizer.
        """
        check_whole("step", step, at_least=0)
        _make_ready(model)
        if hasattr(model, "jax_state_sync"):
            # In the middle of an epoch on JAX, the variables are those of its beginning until they are told.
            model.jax_state_sync()
        arrays: dict[str, np.ndarray] = {}
        names: dict[str, list[str]] = {"model": [], "optimizer": []}
        for part, variables in _parts(model).items():
            for index, variable in enumerate(variables):
                array = _numbers(ops.convert_to_numpy(variable.value))
                if array.dtype.kind == "f" and not np.all(np.isfinite(array)):
                    raise NotFiniteError(
                        f"the variable {variable.path!r} is not finite at step {step} and is not saved; "
                        f"{self._last_good()}"
                    )
                arrays[f"{part}/{index}"] = array
                names[part].append(variable.path)
        arrays.update(global_random_state())
        try:
            described = json.dumps(
                {
                    "format": _FORMAT,
                    "step": step,
                    "backend": keras.backend.backend(),
                    "names": names,
                    "extra": _without_arrays(dict(extra or {}), arrays),
                }
            )
        except TypeError as error:
            raise ValueError(f"extra must hold plain values and numpy arrays only; given: others ({error}).") from error
        arrays["description"] = np.frombuffer(described.encode(), "uint8")
        path = self.folder / f"step-{step:010d}.npz"
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            _write(path, arrays)
        except OSError as error:
            raise OSError(
                error.errno,
                f"the checkpoint could not be saved ({error.strerror or error}); {self._last_good()}; "
                "make room, then start the same command again",
                str(path),
            ) from error
        self._remove_others(step)
        return path

    def load_latest(self, model: keras.Model) -> dict[str, Any] | None:
        """Puts the newest good checkpoint into `model` and its optimizer.

        A damaged one is named on stderr, and the one before it is used.

        Args:
            model: The compiled model, made as when the checkpoint was written. Its optimizer is built if it is not.

        Returns:
            `extra` of `save`, with `"step"`, and with `"random"` for `ContinueEpoch`; None where there is no good
            checkpoint.

        Raises:
            ValueError: the checkpoint is of another network, optimizer or loss; the first variable that differs is
                named, and the model is unchanged.
            OSError: a file is there and cannot be read.
        """
        paths = self.paths()
        for path in reversed(paths):
            try:
                description, arrays = _read(path)
            except DamagedCheckpointError as error:
                self._report_damaged(path, error)
                continue
            _assign(model, path, description["names"], arrays)
            random = {name: array for name, array in arrays.items() if name.startswith("random/")}
            set_global_random_state(random)
            return {**_with_arrays(description["extra"], arrays), "step": description["step"], "random": random}
        if paths:
            print(f"no checkpoint in {str(self.folder)!r} is good; training starts anew", file=sys.stderr)
        return None

    def _report_damaged(self, path: Path, error: DamagedCheckpointError) -> None:
        if path not in self._damaged:
            print(f"the checkpoint {str(path)!r} is damaged ({error}) and is not used", file=sys.stderr)
        self._damaged.add(path)

    def _last_good(self) -> str:
        newest = self.newest()
        return f"the last good checkpoint is {str(newest)!r}" if newest else "there is no earlier checkpoint"

    def _remove_others(self, step: int) -> None:
        paths = self.paths()
        upto = [path for path in paths if (found := _NAME.fullmatch(path.name)) and int(found[1]) <= step]
        unfinished = [path for path in self.folder.iterdir() if path.name.endswith(".npz.partial")]
        for path in {*paths, *unfinished} - set(upto[-self.keep :]):
            # The new one is safe; a file that cannot be removed is no reason to stop.
            with contextlib.suppress(OSError):
                path.unlink()


def _parts(model):
    return {"model": model.variables, "optimizer": model.optimizer.variables}


def _make_ready(model):
    """The optimizer has all its variables only when it is built, which the first step would do."""
    if not isinstance(getattr(model, "optimizer", None), keras.optimizers.Optimizer):
        raise ValueError(f"the model {model.name!r} must be compiled; given: one without an optimizer.")
    if not model.built:
        raise ValueError(f"the model {model.name!r} must be built; given: one without weights.")
    if not model.optimizer.built:
        model.optimizer.build(model.trainable_variables)


def _numbers(array):
    # The npz format has no bfloat16 or float8; float32 holds their values exactly.
    return array.astype("float32") if array.dtype.kind == "V" else array


def _without_arrays(value, arrays):
    """`value` for JSON: each numpy array goes to `arrays`, and its name there takes its place."""
    if isinstance(value, Mapping):
        if bad := [key for key in value if not isinstance(key, str)]:
            raise TypeError(f"keys must be text; given: {bad[0]!r}.")
        return {key: _without_arrays(each, arrays) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [_without_arrays(each, arrays) for each in value]
    if isinstance(value, np.ndarray):
        if value.dtype.hasobject:
            raise TypeError("arrays must be of numbers or text; given: one of objects.")
        name = f"extra/{len(arrays)}"
        arrays[name] = _numbers(value)
        return {"array": name}
    return value.item() if isinstance(value, np.generic) else value


def _with_arrays(value, arrays):
    if isinstance(value, dict):
        if set(value) == {"array"} and value["array"] in arrays:
            return arrays[value["array"]]
        return {key: _with_arrays(each, arrays) for key, each in value.items()}
    return [_with_arrays(each, arrays) for each in value] if isinstance(value, list) else value


def global_random_state():
    """PyTorch's own generators. Keras draws from them on that backend for Dropout that was given no seed."""
    if keras.backend.backend() != "torch":
        return {}
    import torch

    states = {"random/cpu": torch.get_rng_state().numpy()}
    if torch.cuda.is_available():
        for index, state in enumerate(torch.cuda.get_rng_state_all()):
            states[f"random/cuda/{index}"] = state.numpy()
    return states


def set_global_random_state(arrays):
    """Restores the random state of PyTorch from a checkpoint; the other backends have none."""
    if keras.backend.backend() != "torch" or "random/cpu" not in arrays:
        return
    import torch

    torch.set_rng_state(torch.from_numpy(arrays["random/cpu"]))
    if torch.cuda.is_available():
        for index in range(torch.cuda.device_count()):
            if f"random/cuda/{index}" in arrays:
                torch.cuda.set_rng_state(torch.from_numpy(arrays[f"random/cuda/{index}"]), index)


def _write(path, arrays):
    temporary = path.with_name(f".{path.name}.partial")
    try:
        with temporary.open("w+b") as file:
            np.savez(file, **arrays)
            with zipfile.ZipFile(file, "a") as archive:
                archive.comment = _MARK + b"0" * _DIGITS
            file.seek(-_DIGITS, os.SEEK_END)
            file.write(_digest(file, file.tell()).encode())
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)
    if os.name == "posix":
        # The new name is on the disk when its folder is.
        folder = os.open(path.parent, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)


def _digest(file, length):
    """The sha256 of the first `length` bytes; the file stands behind them afterwards."""
    file.seek(0)
    digest = hashlib.sha256()
    while length and (block := file.read(min(length, 1 << 20))):
        digest.update(block)
        length -= len(block)
    return digest.hexdigest()


def _check_digest(path):
    """Raises DamagedCheckpointError for a file whose bytes are not those that were written."""
    with path.open("rb") as file:
        length = file.seek(0, os.SEEK_END) - _DIGITS
        if length <= len(_MARK):
            raise DamagedCheckpointError("it is cut short")
        digest = _digest(file, length)
        if digest.encode() != file.read():
            raise DamagedCheckpointError("its sha256 is another")


def _read(path):
    """The description and the arrays of a file whose digest is right."""
    _check_digest(path)
    with path.open("rb") as file:
        with np.load(file, allow_pickle=False) as stored:
            arrays = {name: stored[name] for name in stored.files}
    description = json.loads(arrays["description"].tobytes())
    if description["format"] != _FORMAT:
        raise ValueError(
            f"the checkpoint {str(path)!r} must have the format {_FORMAT}; given: {description['format']}. Another "
            "version of keras-apa wrote it: use that one, or start anew."
        )
    return description, arrays


def _assign(model, path, names, arrays):
    _make_ready(model)
    values = {}
    for part, variables in _parts(model).items():
        stored = names[part]
        for index, variable in enumerate(variables[: len(stored)]):
            value = arrays[f"{part}/{index}"]
            expected = (_plain(variable.path), tuple(variable.shape))
            if (_plain(stored[index]), value.shape) != expected:
                raise ValueError(
                    f"the checkpoint {str(path)!r} must be of this {part}; given: one of another {part}: it has "
                    f"{stored[index]!r} of shape {value.shape} where this one has {variable.path!r} of shape "
                    f"{expected[1]}. Resume with the settings that it was written with, or start anew."
                )
            values[index, part] = variable, value
        if len(stored) != len(variables):
            more, extra = ("the checkpoint", stored) if len(stored) > len(variables) else ("this one", variables)
            first = extra[min(len(stored), len(variables))]
            raise ValueError(
                f"the checkpoint {str(path)!r} must be of this {part}; given: one of another {part}: it has "
                f"{len(stored)} variables, this one has {len(variables)}; the first that only {more} has is "
                f"{getattr(first, 'path', first)!r}. Resume with the settings that it was written with, or start anew."
            )
    # Nothing is changed before everything is known to fit.
    for variable, value in values.values():
        variable.assign(value)


def _plain(path):
    """A variable's path without what differs between two processes that make the same model.

    That is the numbers by which Keras tells layers of one process apart, and the scope of the loss scale, in which
    TensorFlow makes the optimizer's variables where the first step makes them.
    """
    return re.sub(r"_\d+(?=_|/|$)", "", path).removeprefix("loss_scale_optimizer/")
