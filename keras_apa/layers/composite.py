"""Layers that are made of layers: what is frozen stays frozen, in files and in copies."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import keras

from keras_apa._keras_internals import parts_of
from keras_apa._typing import Shape


class Composite(keras.layers.Layer):
    """A layer that is made of layers, its parts.

    Keras hands `trainable` to the parts there are when it is set, and a config holds that of the outer layer alone. The
    parts of a layer that is loaded or cloned are made later: in Keras they would all be trainable again. Here a new
    part of a frozen layer is frozen, and a part that was frozen or thawed on its own is in the config, as
    `trainable_parts`: from the path of its attributes to its `trainable`. Most configs have no such entry.

    A subclass calls `adopt` at the end of its constructor if that makes or takes parts, so that what somebody freezes
    next is known from what was frozen before.
    """

    def __init__(
        self, *, trainable: bool = True, trainable_parts: Mapping[str, bool] | None = None, **kwargs: Any
    ) -> None:
        super().__init__(trainable=trainable, **kwargs)
        self._wanted = dict(trainable_parts or {})
        # `trainable` of each part when it was first seen, by path: paths outlive a deep copy, `id` does not.
        self._made: dict[str, bool] = {}

    @property
    def trainable(self) -> bool:
        return keras.layers.Layer.trainable.fget(self)

    @trainable.setter
    def trainable(self, value: bool) -> None:
        self.adopt()
        if self._wanted:  # of parts that do not exist yet: they follow, as the others do
            self._wanted = {}
        keras.layers.Layer.trainable.fset(self, value)

    def build(self, input_shape: Shape) -> None:
        """Called by subclasses when all parts are made."""
        self.adopt(complete=True)
        super().build(input_shape)

    def adopt(self, complete: bool = False) -> None:
        """Freeze new parts of a frozen layer, then set those that the config names.

        Args:
            complete: Whether all parts are made.
        """
        known = set(self._made)
        for path, part in parts_within(self):
            if path not in known:
                self._made[path] = part.trainable
        for key, part in named_parts(self):
            if key not in known and not self.trainable:
                part.trainable = False
        if self._wanted:
            self._wanted = set_trainable_parts(self, self._wanted, by_name=complete)

    def want(self, parts: Mapping[str, bool]) -> None:
        """Set `trainable` of parts by path, those that are not made yet too."""
        self._wanted = {**self._wanted, **parts}
        self.adopt(complete=self.built)

    def trainable_parts(self) -> dict[str, bool]:
        """The parts whose `trainable` is not what it would be in a new layer of this config."""
        self.adopt()
        return {**self._wanted, **differing_parts(self, self._made)}

    def get_config(self) -> dict[str, Any]:
        parts = self.trainable_parts()
        return {**super().get_config(), **({"trainable_parts": parts} if parts else {})}


def named_parts(layer: keras.layers.Layer) -> list[tuple[str, keras.layers.Layer]]:
    """The parts of a layer, each with a name that no other part has: that of its attribute, such as `convs[0]`.

    Two parts may have the same `name`; those of a functional or Sequential model cannot, and theirs are taken.
    """
    parts = parts_of(layer)
    keys: dict[int, str] = {}
    if not isinstance(layer, keras.Model):
        # PyTorch's modules keep layers apart from other attributes.
        attributes = {**vars(layer), **vars(layer).get("_modules", {})}
        for name in sorted(attributes, key=lambda name: (name.startswith("_"), name)):
            value = attributes[name]
            if name in ("_layers", "_modules"):
                continue
            if isinstance(value, keras.layers.Layer):
                keys.setdefault(id(value), name)
            elif isinstance(value, (list, tuple, dict)):
                items = value.items() if isinstance(value, dict) else enumerate(value)
                for index, each in items:
                    if isinstance(each, keras.layers.Layer):
                        keys.setdefault(id(each), f"{name}[{index}]")
    return [(keys.get(id(part), part.name), part) for part in parts]


def parts_within(layer: keras.layers.Layer, path: str = "") -> Iterator[tuple[str, keras.layers.Layer]]:
    """The parts of a layer and theirs, by path; not those of a `Composite`, which knows its own."""
    for key, part in named_parts(layer):
        yield path + key, part
        if not isinstance(part, Composite):
            yield from parts_within(part, f"{path}{key}/")


def differing_parts(
    layer: keras.layers.Layer,
    made: Mapping[str, bool] | None = None,
    skip: Sequence[keras.layers.Layer] = (),
    path: str = "",
) -> dict[str, bool]:
    """From path to `trainable`, for the parts of a layer, and theirs, that differ from the layer that they are in.

    Args:
        layer: A layer or model.
        made: `trainable` of each part when it was made, by path. One that was made frozen is always in the answer: its
            own config may say so, or may not.
        skip: Parts with a config of their own.
        path: Where in `made` the layer is.
    """
    found = {}
    for key, part in named_parts(layer):
        if any(part is other for other in skip):
            continue
        key = path + key
        never = getattr(part, "frozen", False)  # a batch norm whose config says so
        if not never and (part.trainable != layer.trainable or not (made or {}).get(key, True)):
            found[key] = part.trainable
        if isinstance(part, Composite):
            found.update({f"{key}/{inner}": value for inner, value in part.trainable_parts().items()})
        else:
            found.update(differing_parts(part, made, path=f"{key}/"))
    return found


def set_trainable_parts(layer: keras.layers.Layer, parts: Mapping[str, bool], by_name: bool = True) -> dict[str, bool]:
    """Set `trainable` of the parts that `differing_parts` found; returns what has no part yet.

    Older files have the names of the parts. With `by_name` they are looked for as well, behind the attributes: while
    some are still to be made, a part could have the name of a coming attribute.
    """
    left = {}
    # Outer parts first: setting them sets what is inside.
    for path, value in sorted(parts.items(), key=lambda item: item[0].count("/")):
        key, _, rest = path.partition("/")
        named = named_parts(layer)
        found = [part for name, part in named if name == key]
        if by_name and not found:
            found = [part for _, part in named if part.name == key]
        if not found:
            left[path] = value
        for part in found:
            if not rest:
                part.trainable = value
            elif isinstance(part, Composite):
                part.want({rest: value})
            else:
                inner = set_trainable_parts(part, {rest: value}, by_name)
                left.update({f"{key}/{path}": value for path, value in inner.items()})
    return left
