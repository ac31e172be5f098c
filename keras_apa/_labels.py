"""Targets that mean nothing, such as a label that no class has: an error, also from inside a compiled step.

They are NaN as well, so that no backend ever makes a plausible number of them where nobody can be told.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
from keras import ops
from numpy.typing import NDArray

from keras_apa import _keras_internals as internals
from keras_apa._kernels import is_hidden, refuse
from keras_apa._typing import Tensor

_MOST_NAMED = 5
_trusted = False


@contextlib.contextmanager
def trusted_labels() -> Iterator[None]:
    """Skips the check of labels in steps that are compiled inside; for labels that you have checked before.

    The losses and metrics of `keras_apa` check the labels in every step. They report labels that are not a class:

    * In eager calls, such as PyTorch's steps, with a ValueError.
    * In compiled steps of TensorFlow and PyTorch, with an error of the backend. Keras uses XLA on a GPU with
      TensorFlow: there the step gives NaN, and the error stops the next step.
    * In compiled training steps of JAX, with an error of the backend. After such an error in `fit` or
      `train_on_batch`, the model's weights are gone: load them again, or make a new model.
    * In evaluations and metrics on JAX, with a warning and NaN, because an error would take the model's weights with
      it. The same holds for training if JAX has several devices. Several processes only give NaN.

    Keras on JAX cuts int64 labels to 32 bits before a loss sees them: in `fit`, 2**40 + 1 becomes 1.

    On two cores, the check takes about 0.07 ms per step on JAX, and no measurable time on TensorFlow. JAX also keeps
    programs that may call Python out of its persistent compilation cache. With trusted labels, a wrong label gives
    NaN.

    >>> import keras, numpy as np
    >>> import keras_apa
    >>> model = keras.Sequential([keras.layers.Input((4,)), keras.layers.Dense(3)])
    >>> model.compile("sgd", loss=keras_apa.losses.BalancedSoftmaxCrossentropy([5, 3, 1]))
    >>> with keras_apa.losses.trusted_labels():
    ...     history = model.fit(np.ones((6, 4)), np.array([0, 1, 2, 0, 1, 0]), verbose=0)
    """
    global _trusted
    before, _trusted = _trusted, True
    try:
        yield
    finally:
        _trusted = before


def nan_or_error(
    wrong: Tensor, given: Tensor, predictions: Tensor, message: Callable[[NDArray[Any] | None], str]
) -> Tensor:
    """NaN, to be written where `wrong` is true; an error that says why as soon as somebody can tell.

    Args:
        wrong: Booleans.
        given: The targets, in a shape that `wrong` broadcasts to.
        predictions: What the targets are compared with; a step that differentiates them trains.
        message: Makes the text from the wrong ones of `given`, a NumPy array, or from None where they are not known.

    Raises: ValueError: In an eager call, if any of `wrong` is true.
    """
    if internals.in_symbolic_scope():
        return np.nan
    if is_hidden(wrong):
        return np.nan if _trusted else refuse(wrong, given, predictions, message)
    try:
        found = bool(ops.convert_to_numpy(ops.any(wrong)))
    except RuntimeError:
        # A tensor without values here: under PyTorch's vmap, or one of JAX that other processes have a part of.
        return np.nan
    if found:
        raise ValueError(message(chosen(given, wrong)))
    return np.nan


def chosen(given: Tensor, wrong: Tensor) -> NDArray[Any]:
    """The entries of `given` where `wrong` is true, as a NumPy array."""
    given = ops.convert_to_numpy(given)
    return given[np.broadcast_to(ops.convert_to_numpy(wrong), given.shape)]


def outside_message(
    bad: NDArray[Any] | None, num_classes: int, background: bool = False, ignore_class: int | None = None
) -> str:
    """The error for labels that no class has; `bad` are those that were given, or None where they are not known."""
    message = f"y_true must be labels from 0 to {num_classes - 1}"
    message += f", {num_classes} for background" if background else ""
    message += "" if ignore_class is None else f", or {ignore_class} to leave a sample out"
    message += "; given: another." if bad is None else f"; given: {named(bad)}."
    counts_from_1 = not background and (bad is None or num_classes in bad)
    return message + (" Labels that count from 1 need 1 subtracted." if counts_from_1 else "")


def named(values: NDArray[Any]) -> str:
    """The first few different values as text, `"3, 4"`."""
    return ", ".join(f"{value:g}" for value in np.unique(values)[:_MOST_NAMED])
