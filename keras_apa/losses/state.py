"""State of losses: random draws and running counts, and how `fit` carries them.

Keras has no place for the variables of a `Loss`. TensorFlow and PyTorch update them all the same. On JAX, the
compiled step of `fit` carries only the variables of the model. `attach_loss_state` makes the state of a loss part of
the model.
"""

from __future__ import annotations

from collections.abc import Mapping, MutableMapping, Sequence
from typing import Any, TypeVar, overload

import keras
import numpy as np
from keras import ops

from keras_apa import _keras_internals as internals
from keras_apa._typing import Tensor, TensorLike
from keras_apa.losses._common import LongTailLoss, check_seed

# A loss, or a list, tuple or dict of losses, as `compile` takes them.
_Losses = TypeVar("_Losses")


class StatefulLoss(LongTailLoss):
    """A loss with variables. They are saved and restored with the compiled model that the loss belongs to.

    `in_training` is False while an attached model evaluates.
    """

    in_training = True

    def check_state(self) -> None:
        """Raises if an update of the state would be lost in the present call."""
        if not internals.state_is_carried(self.state):
            raise ValueError(
                f"loss must be attached to the model on JAX, or every step would start from the same state; given: "
                f"{self.name!r} ({type(self).__name__}), which is not. Before training call "
                "keras_apa.losses.attach_loss_state(model, loss), then model.compile(loss=loss)."
            )

    # Keras saves every attribute of a model that has these two methods, and `compile` sets `model.loss`.
    def save_own_variables(self, store: MutableMapping[str, Any]) -> None:
        for index, variable in enumerate(self.state):
            store[str(index)] = ops.convert_to_numpy(variable.value)

    def load_own_variables(self, store: Mapping[str, Any]) -> None:
        if not len(store.keys()):
            # Weights that were saved without this loss leave its state alone.
            return
        shapes = [tuple(np.shape(store[key])) for key in sorted(store.keys(), key=int)]
        expected = [tuple(variable.shape) for variable in self.state]
        if shapes != expected:
            raise ValueError(f"state of the loss {self.name!r} must have the shapes {expected}; given: {shapes}.")
        for index, variable in enumerate(self.state):
            variable.assign(np.array(store[str(index)]))


class RandomLoss(StatefulLoss):
    """A loss that draws random numbers, from a seed generator of its own."""

    def __init__(
        self,
        reduction: str | None,
        name: str,
        dtype: str | keras.DTypePolicy | None,
        ignore_class: int | None = -1,
        seed: int | None = None,
    ) -> None:
        super().__init__(reduction=reduction, name=name, dtype=dtype, ignore_class=ignore_class)
        self.seed = check_seed(seed)
        self.seed_generator = keras.random.SeedGenerator(self.seed)

    @property
    def state(self) -> list[keras.Variable]:
        """The state of the seed generator."""
        return [self.seed_generator.state]

    def draw_like(self, x: TensorLike) -> Tensor:
        """Uniform numbers from 0 to 1 in the shape of `x`."""
        return self.draw(ops.shape(ops.convert_to_tensor(x)))

    def draw(self, shape: Tensor) -> Tensor:
        """Uniform numbers from 0 to 1."""
        self.check_state()
        return keras.random.uniform(shape, dtype=self.dtype, seed=self.seed_generator)

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "seed": self.seed}


@overload
def attach_loss_state(model: keras.Model, loss: None = None) -> Any: ...


@overload
def attach_loss_state(model: keras.Model, loss: _Losses) -> _Losses: ...


def attach_loss_state(model: keras.Model, loss: Any = None) -> Any:
    """Makes the state of a loss part of a model, so that `fit` carries it on every backend.

    The variables are then in `model.non_trainable_variables`. Call this function once, before `fit`. On JAX, a loss
    with state raises an error without it. TensorFlow and PyTorch update the state without it.

    `evaluate` and the validation in `fit` call the loss too. An attached loss that counts does not count there;
    without this call, it does. A loss that draws random numbers continues to draw.

    A model that is compiled with the loss saves the state by itself (`.keras` and `.weights.h5`), and
    `keras.saving.load_model` and `load_weights` restore it into the compiled loss. The attachment is not saved: to
    train a loaded model further on JAX, call `attach_loss_state(loaded)` first.

    Keras stores the optimizer by its backend's class. To continue training on another backend, load with
    `compile=False`, compile again and attach again. The state of the loss then starts anew.

    Args:
        model: A `keras.Model`, built or not.
        loss: A loss, or the list, tuple or dict of losses that `compile` takes. Losses without state, names and None
            are skipped. The default is the losses that the model is compiled with.

    Returns:
        `loss` itself, so that you can write the call inside `compile`.

    Raises:
        ValueError: If `model` is not a `keras.Model`, or if `loss` is not given and the model is not compiled.

    >>> from keras_apa.losses import SeesawLoss
    >>> model = keras.Sequential([keras.layers.Input((4,)), keras.layers.Dense(3)])
    >>> loss = SeesawLoss(num_classes=3)
    >>> model.compile("sgd", loss=attach_loss_state(model, loss))
    >>> len(model.non_trainable_variables)
    1
    """
    if not isinstance(model, keras.Model):
        raise ValueError(f"model must be a keras.Model; given: {type(model).__name__}.")
    if loss is None:
        if not model.compiled:
            raise ValueError("loss must be given for a model that is not compiled; given: None.")
        loss = model.loss
    stateful = [each for each in _flatten(loss) if isinstance(each, StatefulLoss)]
    for each in stateful:
        _attach(model, each.state)
    if stateful:
        _tell_when_training(model, stateful)
    return loss


def _tell_when_training(model: keras.Model, losses: Sequence[StatefulLoss]) -> None:
    def tell(training: bool) -> None:
        for loss in losses:
            loss.in_training = training

    internals.tell_when_training(model, tell)


def _flatten(losses: object) -> list[object]:
    if isinstance(losses, dict):
        losses = list(losses.values())
    if isinstance(losses, (list, tuple)):
        return [each for nested in losses for each in _flatten(nested)]
    return [losses]


def _attach(model: keras.Model, variables: Sequence[keras.Variable]) -> None:
    tracked = {id(variable) for variable in model.variables}
    for variable in variables:
        if id(variable) in tracked:
            continue
        index = 0
        while hasattr(model, f"_loss_state_{index}"):
            index += 1
        internals.set_attribute_of_built_model(model, f"_loss_state_{index}", internals.TrackedVariable(variable))
