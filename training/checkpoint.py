"""Checkpoints from which a training goes on as if it had never stopped.

One file holds everything that the next step depends on: weights, statistics of batch normalisation, the state of the
random numbers of Dropout and of losses, all variables of the optimizer, and where in the training this is. The data
are no part of it: the order and the augmentation are functions of (seed, epoch, position).

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
import signal
import sys
import zipfile
from collections.abc import Callable, Iterator, Mapping
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
        arrays, names = {}, {"model": [], "optimizer": []}
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
        arrays.update(_global_random_state())
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
            raise ValueError(f"extra must hold plain values and numpy arrays only ({error})") from error
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
            _set_global_random_state(random)
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
        upto = [path for path in paths if int(_NAME.fullmatch(path.name)[1]) <= step]
        unfinished = [path for path in self.folder.iterdir() if path.name.endswith(".npz.partial")]
        for path in {*paths, *unfinished} - set(upto[-self.keep :]):
            # The new one is safe; a file that cannot be removed is no reason to stop.
            with contextlib.suppress(OSError):
                path.unlink()


class CheckpointCallback(keras.callbacks.Callback):
    """Saves after each epoch, and every `every_steps` batches.

    Put it last, behind what changes the state that `extra` returns. Besides that, a checkpoint has `epoch` and
    `step_in_epoch`, where training goes on, `history`, and in the middle of an epoch `metrics`, the sums behind the
    numbers of the epoch so far.

    `history` maps the name of each number that `fit` logs to its values, one an epoch, those before a resumption too.

    Args:
        checkpoints: Where to save.
        steps_per_epoch: Batches an epoch, as `fit` has them.
        every_steps: Batches between two checkpoints inside an epoch; None for the ends of epochs only.
        resumed: What `Checkpoints.load_latest` returned.
        extra: Called without arguments at each saving; returns what else there is to remember.

    Raises:
        ValueError: A number below 1; `extra` returns a key that is taken.
        OSError, NotFiniteError: From `Checkpoints.save`, in `fit`.

    >>> import tempfile
    >>> model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(1)])
    >>> model.compile("sgd", "mse")
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     checkpoints = Checkpoints(folder, keep=3)
    ...     save = CheckpointCallback(checkpoints, steps_per_epoch=5, every_steps=3)
    ...     _ = model.fit(np.ones((10, 2)), np.ones((10, 1)), batch_size=2, epochs=2, verbose=0, callbacks=[save])
    ...     names = [path.name for path in checkpoints.paths()]
    ...     state = checkpoints.load_latest(model)
    >>> names
    ['step-0000000005.npz', 'step-0000000008.npz', 'step-0000000010.npz']
    >>> state["epoch"], state["step_in_epoch"], len(state["history"]["loss"])
    (2, 0, 2)
    """

    def __init__(
        self,
        checkpoints: Checkpoints,
        *,
        steps_per_epoch: int,
        every_steps: int | None = None,
        resumed: Mapping[str, Any] | None = None,
        extra: Callable[[], Mapping[str, Any]] | None = None,
    ):
        super().__init__()
        check_whole("steps_per_epoch", steps_per_epoch, at_least=1)
        if every_steps is not None:
            check_whole("every_steps", every_steps, at_least=1)
        self.checkpoints = checkpoints
        self.steps_per_epoch = steps_per_epoch
        self.every_steps = every_steps
        self.extra = extra
        resumed = resumed or {}
        self.history = {name: list(values) for name, values in resumed.get("history", {}).items()}
        self.stop_requested = False
        # Batches of the present epoch that were trained before `fit` began.
        self._skipped = int(resumed.get("step_in_epoch", 0))
        self._saved_at = int(resumed.get("step", 0))

    def request_stop(self) -> None:
        """Asks for a checkpoint and KeyboardInterrupt after the present batch, as a signal handler may."""
        self.stop_requested = True

    def on_epoch_begin(self, epoch, logs=None):
        self._epoch = epoch

    def on_train_batch_end(self, batch, logs=None):
        position = self._skipped + batch + 1
        if position >= self.steps_per_epoch:
            return  # the end of the epoch saves, with its validation
        step = self._epoch * self.steps_per_epoch + position
        due = self.every_steps is not None and step - self._saved_at >= self.every_steps
        if due or self.stop_requested:
            self._save(self._epoch, position, logs)
        self._stop_if_requested()

    def on_epoch_end(self, epoch, logs=None):
        self._skipped = 0
        for name, value in (logs or {}).items():
            self.history.setdefault(name, []).append(float(value))
        self._save(epoch + 1, 0, logs)
        self._stop_if_requested()

    def _save(self, epoch, position, logs):
        step = epoch * self.steps_per_epoch + position
        loss = (logs or {}).get("loss", 0.0)
        if not np.isfinite(loss):
            # The weights may still be finite, but the step that made this loss was no good one.
            raise NotFiniteError(f"the loss is {loss} at step {step}; {self.checkpoints._last_good()}")
        state = {"epoch": epoch, "step_in_epoch": position, "history": self.history}
        if position:
            if hasattr(self.model, "jax_state_sync"):
                self.model.jax_state_sync()
            state["metrics"] = [ops.convert_to_numpy(each.value) for each in self.model.metrics_variables]
        extra = dict(self.extra()) if self.extra is not None else {}
        if taken := sorted({*state, "step", "metrics"} & set(extra)):
            raise ValueError(f"extra must use other names than {', '.join(taken)}, which the checkpoint has itself")
        self.checkpoints.save(self.model, step=step, extra={**state, **extra})
        self._saved_at = step

    def _stop_if_requested(self):
        if self.stop_requested:
            raise KeyboardInterrupt


class ContinueEpoch(keras.callbacks.Callback):
    """Begins the first epoch where an interrupted training was, and ends it after the batches that were left of it.

    `fit` has epochs of one length. A training that goes on after 30 of 100 batches reads a dataset that starts at
    batch 30, and its first epoch is 70 batches long: its validation, its end and its number are those of the training
    that was not interrupted, and so are its mean loss and metrics, of which the checkpoint has the sums. Give `fit` the
    rest of the training as one dataset, with `steps_per_epoch`.

    On PyTorch, where a Dropout without a seed draws from the global random numbers, it also sets these: before the
    first batch of each epoch to what they were at the end of the one before. In between, PyTorch's data loader draws
    from them too, in a training that goes on more often than in one that never stopped.

    Put it first, so that another callback that stops the training at the end of that epoch is heard.

    Args:
        steps_per_epoch: Batches an epoch, as `fit` has them.
        resumed: What `Checkpoints.load_latest` returned; None for a training that begins.

    Raises:
        ValueError: The checkpoint lies beyond the epoch: it was written with another number of batches.

    >>> model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(1)])
    >>> model.compile(keras.optimizers.SGD(0.1), "mse")
    >>> first = ContinueEpoch(5, {"epoch": 1, "step_in_epoch": 3})
    >>> x, y = np.ones((14, 2)), np.ones((14, 1))  # 2 batches of the second epoch, 5 of the third
    >>> epochs = {"initial_epoch": 1, "epochs": 3, "steps_per_epoch": 5}
    >>> _ = model.fit(x, y, batch_size=2, shuffle=False, verbose=0, callbacks=[first], **epochs)
    >>> int(model.optimizer.iterations)
    7
    """

    def __init__(self, steps_per_epoch: int, resumed: Mapping[str, Any] | None = None):
        super().__init__()
        check_whole("steps_per_epoch", steps_per_epoch, at_least=1)
        position = int((resumed or {}).get("step_in_epoch", 0))
        if not 0 <= position < steps_per_epoch:
            raise ValueError(
                f"the checkpoint was written after {position} batches of an epoch, which now has {steps_per_epoch}; "
                "go on with the batch size and the data that it was written with"
            )
        self._metrics = list((resumed or {}).get("metrics", ()))
        self._random = dict((resumed or {}).get("random", {}))
        self._left = steps_per_epoch - position if position else None

    def on_train_batch_begin(self, batch, logs=None):
        _set_global_random_state(self._random)
        self._random = {}

    def on_epoch_begin(self, epoch, logs=None):
        self._add_metrics()

    def on_train_batch_end(self, batch, logs=None):
        # On TensorFlow the first batch makes the variables of the metrics.
        self._add_metrics()
        if self._left is not None and batch + 1 >= self._left:
            # The only way out of an epoch; it is taken back before `fit` looks whether to begin another.
            self.model.stop_training = True

    def _add_metrics(self):
        """Adds the sums of the interrupted epoch, once, to those of this one: none yet, or those of a batch."""
        if not self._metrics:
            return
        if hasattr(self.model, "jax_state_sync"):
            self.model.jax_state_sync()
        variables = self.model.metrics_variables
        if [np.shape(each) for each in self._metrics] == [tuple(each.shape) for each in variables]:
            for variable, value in zip(variables, self._metrics, strict=True):
                variable.assign_add(value)
            self._metrics = []

    def on_epoch_end(self, epoch, logs=None):
        self._random = _global_random_state()
        if self._left is not None:
            self.model.stop_training = False
            self._left = None
            self._metrics = []


@contextlib.contextmanager
def saving_on_interrupt(callback: CheckpointCallback) -> Iterator[None]:
    """Ctrl-C lets the present batch end and saves, then raises KeyboardInterrupt; a second one raises at once.

    An interrupt in the middle of a step would leave variables of two steps, from which no training can go on. Outside
    the main thread, and where the program has a handler of its own or ignores the signal, nothing is changed.

    >>> save = CheckpointCallback(Checkpoints("checkpoints"), steps_per_epoch=10)
    >>> with saving_on_interrupt(save):
    ...     save.stop_requested
    False
    """

    def note(number, frame):
        if callback.stop_requested:
            raise KeyboardInterrupt
        callback.request_stop()
        print("\nsaving after this batch; Ctrl-C again stops at once", file=sys.stderr, flush=True)

    try:
        usual = signal.getsignal(signal.SIGINT) is signal.default_int_handler
        before = signal.signal(signal.SIGINT, note) if usual else None
    except ValueError:
        before = None
    try:
        yield
    finally:
        if before is not None:
            signal.signal(signal.SIGINT, before)


def _parts(model):
    return {"model": model.variables, "optimizer": model.optimizer.variables}


def _make_ready(model):
    """The optimizer has all its variables only when it is built, which the first step would do."""
    if not isinstance(getattr(model, "optimizer", None), keras.optimizers.Optimizer):
        raise ValueError(f"the model {model.name!r} has no optimizer; compile it first")
    if not model.built:
        raise ValueError(f"the model {model.name!r} has no weights yet; build it first")
    if not model.optimizer.built:
        model.optimizer.build(model.trainable_variables)


def _numbers(array):
    # The npz format has no bfloat16 or float8; float32 holds their values exactly.
    return array.astype("float32") if array.dtype.kind == "V" else array


def _without_arrays(value, arrays):
    """`value` for JSON: each numpy array goes to `arrays`, and its name there takes its place."""
    if isinstance(value, Mapping):
        if bad := [key for key in value if not isinstance(key, str)]:
            raise TypeError(f"the key {bad[0]!r} is no text")
        return {key: _without_arrays(each, arrays) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [_without_arrays(each, arrays) for each in value]
    if isinstance(value, np.ndarray):
        if value.dtype.hasobject:
            raise TypeError("an array of objects cannot be stored")
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


def _global_random_state():
    """PyTorch's own generators. Keras draws from them on that backend for Dropout that was given no seed."""
    if keras.backend.backend() != "torch":
        return {}
    import torch

    states = {"random/cpu": torch.get_rng_state().numpy()}
    if torch.cuda.is_available():
        for index, state in enumerate(torch.cuda.get_rng_state_all()):
            states[f"random/cuda/{index}"] = state.numpy()
    return states


def _set_global_random_state(arrays):
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
        raise ValueError(f"the checkpoint {str(path)!r} has the format {description['format']}, not {_FORMAT}")
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
                    f"the checkpoint {str(path)!r} is of another {part}: it has {stored[index]!r} of shape "
                    f"{value.shape} where this one has {variable.path!r} of shape {expected[1]}"
                )
            values[index, part] = variable, value
        if len(stored) != len(variables):
            more, extra = ("the checkpoint", stored) if len(stored) > len(variables) else ("this one", variables)
            first = extra[min(len(stored), len(variables))]
            raise ValueError(
                f"the checkpoint {str(path)!r} is of another {part}: it has {len(stored)} variables, this one has "
                f"{len(variables)}; the first that only {more} has is {getattr(first, 'path', first)!r}"
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
