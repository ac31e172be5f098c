"""Layers that are made of layers: what is frozen in the original is frozen in copies and files, and nothing else."""

from copy import deepcopy

import keras
import numpy as np
import pytest

import zoo
from keras_apa.layers import AGLU, APA, CBAM, ChannelAttention, SpatialAttention, SqueezeExcite
from keras_apa.layers.composite import Composite
from zoo.detection.fpn import FeaturePyramid
from zoo.detection.heads import BoxHead, MaskHead, ProposalHead

pytestmark = pytest.mark.any_backend
LAST = {"data_format": "channels_last"}
IMAGE = (None, 6, 6, 4)
MAKERS = {
    "squeeze": lambda **o: (SqueezeExcite(2, gate="apa", **LAST, **o), IMAGE),
    "given": lambda **o: (SqueezeExcite(2, gate=APA(), **LAST, **o), IMAGE),
    "temperature": lambda **o: (SqueezeExcite(2, gate="gumbel_temperature", **LAST, **o), IMAGE),
    "channel": lambda **o: (ChannelAttention(2, **LAST, **o), IMAGE),
    "spatial": lambda **o: (SpatialAttention(3, gate="apa", **LAST, **o), IMAGE),
    "frozen_norm": lambda **o: (SpatialAttention(3, frozen_batch_norm=True, **LAST, **o), IMAGE),
    "cbam": lambda **o: (CBAM(2, gate=APA(), spatial_gate="apa", **LAST, **o), IMAGE),
    "pyramid": lambda **o: (FeaturePyramid(4, **o), [(None, 8, 8, 3), (None, 4, 4, 6)]),
    "proposals": lambda **o: (ProposalHead(1, 4, **o), [IMAGE]),
    "boxes": lambda **o: (BoxHead(3, 2, units=4, **o), (None, 2, 2, 4)),
    "masks": lambda **o: (MaskHead(2, 4, depth=2, **o), IMAGE),
}


def states(layer):
    """`trainable` of each layer inside, and of each variable, in order."""
    parts = layer._flatten_layers(include_self=False)
    inner = [(part.name, part.trainable) for part in parts if not isinstance(part, keras.layers.InputLayer)]
    return [layer.trainable, *inner, *(variable.trainable for variable in layer.weights)]


def copy(layer, shape):
    made = type(layer).from_config(layer.get_config())
    if shape is not None:
        made.build(shape)
    return made


def test_every_layer_that_has_layers_is_tried():
    def subclasses(kind):
        return {kind, *(found for each in kind.__subclasses__() for found in subclasses(each))}

    public = {kind for kind in subclasses(Composite) if not kind.__name__.startswith("_")} - {Composite}
    assert public == {type(maker()[0]) for maker in MAKERS.values()}


@pytest.mark.parametrize("name", MAKERS)
def test_layer_frozen_at_any_time_is_frozen_whole_in_a_copy(name):
    for when in ("made", "before", "after"):
        layer, shape = MAKERS[name](**({"trainable": False} if when == "made" else {}))
        if when == "before":
            layer.trainable = False
        layer.build(shape)
        if when == "after":
            layer.trainable = False
        assert not any(variable.trainable for variable in layer.weights)
        assert "trainable_parts" not in layer.get_config()
        assert states(copy(layer, shape)) == states(layer)


@pytest.mark.parametrize("name", MAKERS)
def test_part_frozen_or_thawed_on_its_own_stays_so_in_a_copy(name):
    for frozen in (False, True):
        layer, shape = MAKERS[name]()
        layer.build(shape)
        assert "trainable_parts" not in layer.get_config()
        layer.trainable = not frozen
        parts = list(layer._flatten_layers(include_self=False))
        parts[0].trainable = parts[-1].trainable = frozen
        found = copy(layer, shape)
        assert states(found) == states(layer)
        # The copy of a copy that is not built yet knows it too.
        assert states(copy(copy(layer, None), shape)) == states(layer)
        found.trainable = layer.trainable = True
        assert states(found) == states(layer)
        assert states(copy(found, shape)) == states(layer)


def freeze_and_thaw(name):
    """A layer of the name, and what somebody freezes and thaws before it is built."""
    given = SqueezeExcite(2, gate=APA(), **LAST)
    twice = CBAM(2, gate=keras.Sequential([keras.layers.Dense(4, trainable=False), APA()]), **LAST)
    cases = {
        "channel": (cbam := CBAM(2, gate="apa", **LAST), [(cbam.channel, False)]),
        "spatial": (cbam := CBAM(2, gate="apa", **LAST), [(cbam.spatial, False)]),
        "gate": (given, [(given.gate, False)]),
        "fitted gate": (gated := ChannelAttention(2, gate=APA(), **LAST), [(gated.gate, False)]),
        "gate of a part": (cbam := CBAM(2, gate=APA(), **LAST), [(cbam.channel.gate, False)]),
        "made frozen": (gated := SqueezeExcite(2, gate=APA(trainable=False), **LAST), [(gated.gate, True)]),
        "all but a gate": (cbam := CBAM(2, gate=APA(), **LAST), [(cbam, False), (cbam.channel.gate, True)]),
        "inside a gate": (twice, [(twice.channel.gate.layers[0], True), (twice.channel.gate.layers[1], False)]),
        "frozen and thawed": (cbam := CBAM(2, gate=APA(), **LAST), [(cbam.channel, False), (cbam.channel, True)]),
        "heads": (head := BoxHead(3, 2, units=4), [(head.classifier, False)]),
        "maps": (head := MaskHead(2, 4, depth=2), [(head.convs[0], False)]),
        "proposals": (head := ProposalHead(1, 4), [(head.deltas, False)]),
    }
    return cases[name]


@pytest.mark.parametrize("frozen", [False, True])
@pytest.mark.parametrize(
    "name",
    "channel,spatial,gate,fitted gate,gate of a part,made frozen,all but a gate,inside a gate,frozen and thawed,"
    "heads,maps,proposals".split(","),
)
def test_what_is_frozen_before_the_layer_is_built_stays_so(name, frozen, tmp_path):
    layer, changes = freeze_and_thaw(name)
    if frozen:
        layer.trainable = False
    for part, value in changes:
        part.trainable = value
    early = copy(layer, None)
    if name in ("heads", "maps", "proposals"):
        shape = {"heads": (None, 2, 2, 4), "maps": IMAGE, "proposals": [IMAGE]}[name]
        layer.build(shape)
        expected = states(layer)
        for made in (copy(layer, shape), copy(copy(early, None), shape)):
            assert states(made) == expected
        return
    inputs = keras.Input(IMAGE[1:])
    model = keras.Model(inputs, layer(inputs))
    expected = states(layer)
    model.save(tmp_path / "model.keras")
    for made in (
        keras.saving.load_model(tmp_path / "model.keras"),
        keras.models.clone_model(model),
        keras.Model.from_config(model.get_config()),
        deepcopy(model),
        keras.models.clone_model(deepcopy(model)),
    ):
        assert states(made.layers[-1]) == expected
        assert len(made.trainable_variables) == len(model.trainable_variables)
    assert states(copy(copy(early, None), IMAGE)) == expected


@keras.saving.register_keras_serializable(package="test_composite")
class Late(keras.layers.Layer):
    """A gate of somebody else, whose parts are made when it is built, one of them frozen."""

    def build(self, shape):
        self.parts = [
            keras.layers.Dense(shape[-1], name="same"),
            keras.layers.Dense(shape[-1], name="frozen", trainable=False),
        ]
        for part in self.parts:
            part.build(shape)

    def call(self, x):
        return self.parts[1](self.parts[0](x))


@pytest.mark.parametrize("values", [(False, False), (True, True), (False, True)])
def test_parts_of_another_s_layer_stay_frozen_and_thawed(values):
    layer = SqueezeExcite(2, gate=Late(), **LAST)
    layer.build(IMAGE)
    for part, value in zip(layer.gate.parts, values, strict=True):
        part.trainable = value
    for made in (copy(layer, IMAGE), copy(copy(layer, None), IMAGE)):
        assert states(made) == states(layer)


def test_parts_of_one_name_are_kept_apart():
    for frozen in ("gate", "norm"):
        layer = SqueezeExcite(2, gate=APA(name="norm"), normalize=True, **LAST)
        layer.build(IMAGE)
        getattr(layer, frozen).trainable = False
        assert layer.get_config()["trainable_parts"] == {frozen: False}
        assert states(copy(layer, IMAGE)) == states(layer)
    late = SqueezeExcite(2, gate=Late(), **LAST)
    late.build(IMAGE)
    for part in late.gate.parts:
        part.name = "same"
    late.gate.parts[0].trainable = False
    assert not copy(late, IMAGE).gate.parts[0].trainable


def test_files_that_name_parts_by_their_names_are_read():
    layer, shape = MAKERS["masks"]()
    found = MaskHead.from_config({**layer.get_config(), "trainable_parts": {"conv2": False}})
    found.build(shape)
    assert [part.trainable for part in found.convs] == [True, False]
    gated = SqueezeExcite(2, gate=APA(name="mine"), **LAST)
    found = SqueezeExcite.from_config({**gated.get_config(), "trainable_parts": {"mine": False}})
    found.build(IMAGE)
    assert [part.trainable for part in (found.gate, found.reduce)] == [False, True]


def test_given_gate_that_was_frozen_and_then_thawed_is_trained():
    layer = SqueezeExcite(2, gate=APA(trainable=False), **LAST)
    layer.build(IMAGE)
    assert not layer.gate.trainable and not copy(layer, IMAGE).gate.trainable
    layer.gate.trainable = True
    assert copy(layer, IMAGE).gate.trainable


def test_thawing_before_the_parts_exist_thaws_them():
    layer, shape = MAKERS["cbam"]()
    layer.build(shape)
    layer.spatial.gate.trainable = layer.channel.trainable = False
    found = copy(layer, None)
    found.trainable = False  # Keras on TensorFlow passes over a value that the layer has
    found.trainable = True
    found.build(shape)
    assert all(variable.trainable for variable in found.weights if "moving" not in variable.name)


def test_frozen_layers_stay_frozen_in_files_clones_and_presets(tmp_path):
    def names(model):
        return [variable.path for variable in model.trainable_variables]

    network = zoo.create_model("cb_resnet8", classes=3, input_shape=(8, 8, 3), gate="apa", activation="aglu")
    for layer in network.layers[:-20]:
        layer.trainable = False
    network.layers[-1].trainable = False
    gates = [layer for layer in network.layers if isinstance(layer, CBAM)]
    assert gates[0].trainable is False and gates[-1].trainable is True
    gates[-1].spatial.norm.trainable = gates[-1].channel.gate.trainable = False
    inputs = keras.Input((8, 8, 3))
    outer = keras.Model(inputs, keras.layers.Dense(2, activation=AGLU(trainable=False))(network(inputs)))
    outer.save(tmp_path / "outer.keras")
    network.save(tmp_path / "network.keras")
    zoo.save_preset(network, tmp_path / "preset")
    expected = [states(layer) for layer in network.layers if layer.weights]
    for model in (
        keras.saving.load_model(tmp_path / "network.keras"),
        keras.models.clone_model(network),
        zoo.from_preset(tmp_path / "preset"),
        keras.saving.load_model(tmp_path / "outer.keras").get_layer(network.name),
        keras.models.clone_model(outer).get_layer(network.name),
    ):
        assert [states(layer) for layer in model.layers if layer.weights] == expected
    assert len(names(outer)) == len(names(network)) + 2
    pixels = np.zeros((2, 8, 8, 3), "float32")
    loaded = keras.saving.load_model(tmp_path / "network.keras")
    np.testing.assert_array_equal(loaded.predict(pixels, verbose=0), network.predict(pixels, verbose=0))
