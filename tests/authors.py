"""Our networks with the weights that the authors' networks had when their outputs were recorded."""

import fill_rule
import keras
import numpy as np
import pytest
from backends import forward
from reference import load_json

import zoo

# "gumbel" in the authors' names switches AGLU and the APA gate together, "_cb" the spatial gate of CBAM as well.
FULL = {"activation": "aglu", "gate": "apa"}
SPATIAL = {"activation": "aglu", "spatial_gate": "apa"}
CIFAR = {
    "resnet32": ("resnet32", {}),
    "se_resnet32": ("se_resnet32", {}),
    "se_resnet32_gumbel": ("se_resnet32", FULL),
    "se_resnet32_gumbel_cosine": ("se_resnet32", {**FULL, "classifier": "cosine"}),
    "se_resnet32_gumbel_norm": ("se_resnet32", {**FULL, "classifier": "normalized"}),
    "cb_resnet32": ("cb_resnet32", {}),
    "cb_resnet32_gumbel": ("cb_resnet32", FULL),
}
IMAGENET = {
    "resnet50": ("resnet50", {}),
    "se_resnet50": ("se_resnet50", {}),
    "se_resnet50_gumbel": ("se_resnet50", FULL),
    "cb_resnet50_gumbel_cb": ("cb_resnet50", {**FULL, **SPATIAL}),
    "sp_resnet50_gumbel": ("sp_resnet50", SPATIAL),
    "se_resnext50_32x4d_gumbel_cosine": ("se_resnext50_32x4d", {**FULL, "classifier": "cosine"}),
}
REFERENCES = {**CIFAR, **IMAGENET}
# These have every kind of layer and are compared on each backend; of the others, each on one.
EVERYWHERE = ("se_resnet32_gumbel", "cb_resnet32_gumbel", "se_resnext50_32x4d_gumbel_cosine")


def each_or_any_backend(names):
    """The names as parameters of a test."""
    return [name if name in EVERYWHERE else pytest.param(name, marks=pytest.mark.any_backend) for name in names]


def filled(reference, **changes):
    """Our network with the deterministic weights of the reference, and the reference's description."""
    name, options = REFERENCES[reference]
    description = load_json(f"models/{reference}.json")
    model = zoo.create_model(name, input_shape=(None, None, 3), **{**options, **changes})
    zoo.load_torch_checkpoint(model, state_dict(description))
    return model, description


def state_dict(description):
    """The tensors of the reference, whose checksums prove that they are the recorded ones."""
    state = {row["key"]: fill_rule.fill(row["key"], row["shape"]) for row in description["state_dict"]}
    for row in description["state_dict"]:
        assert fill_rule.checksum(state[row["key"]]) == row["crc32"]
    return state


def nhwc(x):
    return np.ascontiguousarray(np.transpose(x, (0, 2, 3, 1)))


def trainable_parameters(model):
    return sum(int(np.prod(v.shape)) for v in model.trainable_variables)


def check_outputs(model, arrays, description, stages, odd_size):
    """Logits and stages at even and odd sizes; logits within 20 times the recorded float32 noise.

    `stages`: name in the reference -> name of the layer. `odd_size` may be `None`.
    """
    noise = description["logits_f32_vs_f64_maxabs"]
    probe = keras.Model(model.input, [model.output, *(model.get_layer(layer).output for layer in stages.values())])
    logits, *features = forward(probe, nhwc(arrays["x"]))
    assert np.abs(logits - arrays["logits_f64"]).max() <= 20 * noise
    for feature, stage in zip(features, stages, strict=True):
        scale = np.abs(arrays[f"corner_{stage}"]).max()
        corner = np.transpose(feature[:, :4, :4, :8], (0, 3, 1, 2))
        np.testing.assert_allclose(corner, arrays[f"corner_{stage}"], atol=1e-5 * scale)
        np.testing.assert_allclose(feature.mean((1, 2)), arrays[f"gap_{stage}"], atol=1e-5 * scale)
        statistics = [feature.mean(), feature.std(), np.sqrt((feature.astype("float64") ** 2).sum())]
        np.testing.assert_allclose(statistics, arrays[f"stage_{stage}"], rtol=1e-5)
    if odd_size is None:
        return
    logits, *features = forward(probe, nhwc(fill_rule.images(1, odd_size)))
    assert np.abs(logits - arrays["logits_odd"]).max() <= 20 * noise
    assert set(description["stages_odd"]) == set(stages)
    for feature, stage in zip(features, stages, strict=True):
        recorded = description["stages_odd"][stage]
        assert np.moveaxis(feature, -1, 1).shape == tuple(recorded["shape"])
        statistics = [feature.mean(), feature.std(), np.sqrt((feature.astype("float64") ** 2).sum())]
        np.testing.assert_allclose(statistics, [recorded[name] for name in ("mean", "std", "l2")], rtol=1e-5)
        extremes = [recorded["min"], recorded["max"]]
        np.testing.assert_allclose([feature.min(), feature.max()], extremes, atol=1e-5 * np.abs(extremes).max())


def check_state_dict(model, description):
    """Parameter count, keys and shapes of the PyTorch state dict."""
    assert trainable_parameters(model) == description["params_trainable"]
    state = zoo.to_torch_state_dict(model)
    assert {k: v.shape for k, v in state.items()} == {
        row["key"]: tuple(row["shape"]) for row in description["state_dict"]
    }
