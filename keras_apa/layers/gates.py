"""What `gate=` takes: the name of an activation, or a layer."""

from __future__ import annotations

from typing import Any

import keras

from keras_apa._checks import check_name
from keras_apa.layers.activations import APA, Gumbel, Sigmoid

GATES = ("sigmoid", "apa", "gumbel", "sigmoid_temperature", "gumbel_temperature")


def make_gate(
    gate: str, kappa_range: tuple[float, float] | None = None, dtype: str | keras.DTypePolicy | None = None
) -> keras.layers.Layer:
    """A layer for one of the names in `GATES`; `kappa_range` is where the kappa of an APA gate starts."""
    if gate == "apa":
        uniform = keras.initializers.RandomUniform(*kappa_range) if kappa_range else None
        return APA(kappa_initializer=uniform, name="gate", dtype=dtype)
    kind = Sigmoid if gate.startswith("sigmoid") else Gumbel
    return kind(learn_temperature=gate.endswith("temperature"), name="gate", dtype=dtype)


def fitted_gate(gate: keras.layers.Layer, kappa_range: tuple[float, float] | None, axis: int) -> keras.layers.Layer:
    """A layer that was given as a gate, or a copy that differs in what its owner did not choose.

    An APA whose initialiser was left alone starts kappa where this gate does; one pair a channel means the axis that
    the channels have here.
    """
    changes = {}
    if isinstance(gate, APA) and gate.kappa_initializer is None and kappa_range is not None:
        uniform = keras.initializers.RandomUniform(*kappa_range)
        changes["kappa_initializer"] = keras.initializers.serialize(uniform)
    if getattr(gate, "per_channel", False) and gate.axis == -1:
        changes["axis"] = axis
    config = gate.get_config()
    if any(config[key] != value for key, value in changes.items()):
        return type(gate).from_config({**config, **changes})
    return gate


def check_gate(gate: object, argument: str = "gate") -> None:
    """Raise a ValueError unless `gate` is a layer or one of `GATES`."""
    if isinstance(gate, str):
        check_name(gate, GATES, argument)
    elif not isinstance(gate, keras.layers.Layer):
        raise ValueError(f"{argument} must be a keras layer or one of {', '.join(GATES)}; given: {gate!r}.")


def is_apa(gate: object) -> bool:
    """Whether `gate` is the APA gate, by name or as a layer."""
    return gate == "apa" or isinstance(gate, APA)


def serialize_gate(gate: str | keras.layers.Layer) -> str | dict[str, Any]:
    """`gate` for a layer's config."""
    return gate if isinstance(gate, str) else keras.saving.serialize_keras_object(gate)


def deserialize_gate(gate: str | dict[str, Any] | keras.layers.Layer) -> str | keras.layers.Layer:
    """The inverse of `serialize_gate`."""
    return keras.saving.deserialize_keras_object(gate) if isinstance(gate, dict) else gate
