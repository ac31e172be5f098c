"""Layers that are made of layers: what is frozen stays frozen, in files and in copies."""

import keras

from keras_apa._keras_internals import parts_of


class Composite(keras.layers.Layer):
    """A layer that is made of layers, its parts.

    Keras hands `trainable` to the parts there are when it is set, and a config holds that of the outer layer alone. The
    parts of a layer that is loaded or cloned are made later: in Keras they would all be trainable again. Here a new
    part of a frozen layer is frozen, and a part that was frozen or thawed on its own is in the config, as
    `trainable_parts`: from the path of its names to its `trainable`. Most configs have no such entry.
    """

    def __init__(self, *, trainable=True, trainable_parts=None, **kwargs):
        super().__init__(trainable=trainable, **kwargs)
        self._wanted = dict(trainable_parts or {})
        self._made = {}

    @property
    def trainable(self):
        return keras.layers.Layer.trainable.fget(self)

    @trainable.setter
    def trainable(self, value):
        self._adopt()
        if self._wanted:  # of parts that do not exist yet: they follow, as the others do
            self._wanted = {}
        keras.layers.Layer.trainable.fset(self, value)

    def build(self, input_shape):
        """Called by subclasses when all parts are made."""
        self._adopt()
        super().build(input_shape)

    def _adopt(self):
        """Freeze new parts of a frozen layer, then set those that the config names."""
        for part in parts_of(self):
            if id(part) not in self._made:
                self._made[id(part)] = part.trainable
                if not self.trainable:
                    part.trainable = False
        if self._wanted:
            self._wanted = set_trainable_parts(self, self._wanted)

    def want(self, parts):
        """Set `trainable` of parts by path, those that are not made yet too."""
        self._wanted = {**self._wanted, **parts}
        self._adopt()

    def trainable_parts(self):
        """The parts whose `trainable` is not what it would be in a new layer of this config."""
        self._adopt()
        return {**self._wanted, **differing_parts(self, self._made)}

    def get_config(self):
        parts = self.trainable_parts()
        return {**super().get_config(), **({"trainable_parts": parts} if parts else {})}


def differing_parts(layer, made=None, skip=()):
    """From path to `trainable`, for the parts of a layer, and theirs, that differ from the layer that they are in.

    Args:
        layer: A layer or model.
        made: `trainable` of each part when it was made, by `id`: one that is never trained does not differ.
        skip: Parts with a config of their own.
    """
    found = {}
    for part in parts_of(layer):
        if any(part is other for other in skip):
            continue
        if part.trainable != (layer.trainable and (made or {}).get(id(part), True)):
            found[part.name] = part.trainable
        inner = part.trainable_parts() if isinstance(part, Composite) else differing_parts(part)
        found.update({f"{part.name}/{path}": value for path, value in inner.items()})
    return found


def set_trainable_parts(layer, parts):
    """Set `trainable` of the parts that `differing_parts` found; returns what has no part yet."""
    left = {}
    # Outer parts first: setting them sets what is inside.
    for path, value in sorted(parts.items(), key=lambda item: item[0].count("/")):
        name, _, rest = path.partition("/")
        found = [part for part in parts_of(layer) if part.name == name]
        if not found:
            left[path] = value
        for part in found:
            if not rest:
                part.trainable = value
            elif isinstance(part, Composite):
                part.want({rest: value})
            else:
                set_trainable_parts(part, {rest: value})
    return left
