"""The CIFAR networks against the authors' running code: logits, stages, gradients, batch statistics, counts."""

import keras
import numpy as np
import pytest
from authors import CIFAR, check_outputs, check_state_dict, each_or_any_backend, filled, nhwc, trainable_parameters
from backends import forward
from gradients import value_and_gradient
from reference import load, load_json

import zoo
from keras_apa.layers import AGLU, APA

# parity/README.md: trainable parameters of CIFAR combinations that have no stored arrays.
COUNTS = {
    ("resnet32", "normalized", None, None, None): 470_004,
    ("resnet32", "cosine", None, None, None): 469_904,
    ("resnet32", "learned_cosine", None, None, None): 469_905,
    ("se_resnet32", "learned_cosine", "aglu", "apa", None): 484_557,
    ("cb_resnet32", "linear", "aglu", "apa", "apa"): 486_886,
}


# 20 times the float32 noise that was recorded for the logits of the network whose training step is compared.
NOISE = 20 * load_json("models/se_resnet32_gumbel.json")["logits_f32_vs_f64_maxabs"]


def predict(model, x):
    return forward(model, x)


@pytest.mark.parametrize("reference", each_or_any_backend(CIFAR))
def test_logits_and_stages_equal_the_authors(reference):
    model, description = filled(reference)
    stages = {"stem_act": "stem_activation", **{f"layer{i}": f"stage{i}_block5_activation2" for i in (1, 2, 3)}}
    check_outputs(model, load(f"models/{reference}.npz"), description, stages, 37)


@pytest.mark.parametrize("reference", CIFAR)
@pytest.mark.any_backend
def test_parameter_counts_equal_the_authors(reference):
    check_state_dict(*filled(reference))


@pytest.mark.parametrize("combination", COUNTS, ids=lambda c: "-".join(str(v) for v in c if v))
@pytest.mark.any_backend
@pytest.mark.smoke
def test_parameter_counts_of_other_combinations(combination):
    name, classifier, activation, gate, spatial_gate = combination
    options = {"gate": gate, "spatial_gate": spatial_gate}
    model = zoo.create_model(name, classifier=classifier, activation=activation or "relu", **options)
    assert trainable_parameters(model) == COUNTS[combination]


def torch_gradients(model, x, labels, training):
    """The loss, and the gradient of every trainable tensor by its PyTorch key and in its layout."""
    tensors = {t.key: t for t in zoo.torch_tensors.torch_tensors(model)}
    trainable = [t for t in tensors.values() if any(t.variable is v for v in model.trainable_variables)]
    index = {id(v): i for i, v in enumerate(model.trainable_variables)}
    start = [keras.ops.convert_to_numpy(v) for v in model.trainable_variables]
    frozen = [v.value for v in model.non_trainable_variables]

    def loss(*values):
        logits, _ = model.stateless_call(list(values), frozen, x, training=training)
        log_p = keras.ops.log_softmax(logits, axis=-1)
        return -keras.ops.mean(keras.ops.take_along_axis(log_p, labels[:, None], axis=-1))

    value, gradients = value_and_gradient(loss, *start, jit=True)
    by_key = {}
    for t in trainable:
        gradient = gradients[index[id(t.variable)]]
        by_key[t.key] = t.to_torch(gradient.reshape(gradient.shape or (1,)))
    return value, by_key


@pytest.mark.parametrize("mode", [pytest.param("eval", marks=pytest.mark.any_backend), "train"])
def test_gradients_equal_the_authors(mode):
    """Cross entropy against labels [3, 7], dropout 0; the authors' backward drops a term of d lambda (`paper`)."""
    reference = load("models/train_se_resnet32_gumbel.npz")
    model, _ = filled(
        "se_resnet32_gumbel", activation=AGLU(lambda_gradient="paper"), gate_dropout=0.0, gate_normalization=True
    )
    x = keras.ops.convert_to_tensor(nhwc(load("models/se_resnet32_gumbel.npz")["x"]))
    labels = keras.ops.convert_to_tensor(np.int32([3, 7]))
    value, gradients = torch_gradients(model, x, labels, mode == "train")
    assert abs(value - reference[f"{mode}/loss"]) <= NOISE
    # Of the largest gradient, not of each: rounding is that of the terms of a sum, and those of kappa cancel to 1e-5.
    largest = max(np.abs(values).max() for key, values in reference.items() if key.startswith(f"{mode}/grad/"))
    tolerance = NOISE * largest
    checked = 0
    for key, gradient in gradients.items():
        total, norm = reference[f"{mode}/grad_sum_l2/{key}"]
        assert abs(np.sqrt((gradient.astype("float64") ** 2).sum()) - norm) <= tolerance, key
        assert abs(gradient.sum(dtype="float64") - total) <= tolerance * np.sqrt(gradient.size), key
        if f"{mode}/grad/{key}" in reference:
            exact = reference[f"{mode}/grad/{key}"].reshape(gradient.shape)
            assert np.abs(gradient - exact).max() <= tolerance, key
            checked += 1
    assert checked > 100


@pytest.mark.any_backend  # on each for the function alone, in test_ops.py
def test_exact_lambda_gradients_equal_autograd():
    reference = load("models/train_se_resnet32_gumbel.npz")
    model, _ = filled("se_resnet32_gumbel", gate_dropout=0.0, gate_normalization=True)
    x = keras.ops.convert_to_tensor(nhwc(load("models/se_resnet32_gumbel.npz")["x"]))
    labels = keras.ops.convert_to_tensor(np.int32([3, 7]))
    _, gradients = torch_gradients(model, x, labels, False)
    keys = [k for k in gradients if f"eval_autograd/grad/{k}" in reference]
    assert len(keys) >= 31
    ours = np.array([gradients[k].item() for k in keys])
    exact = np.array([reference[f"eval_autograd/grad/{k}"].item() for k in keys])
    assert np.abs(ours - exact).max() <= NOISE * np.abs(exact).max()


def test_batch_statistics_after_a_step_equal_the_authors():
    reference = load("models/train_se_resnet32_gumbel.npz")
    model, _ = filled("se_resnet32_gumbel", gate_dropout=0.0, gate_normalization=True)
    logits = model(nhwc(load("models/se_resnet32_gumbel.npz")["x"]), training=True)
    assert np.abs(keras.ops.convert_to_numpy(logits) - reference["train/logits"]).max() <= NOISE
    state = zoo.to_torch_state_dict(model)
    compared = 0
    for key, value in state.items():
        if "running" in key:
            expected = reference[f"after_train/{key}"]
            assert np.abs(value - expected).max() <= NOISE * np.abs(expected).max(), key
            compared += 1
    assert compared == 62


def test_torch_state_dict_there_and_back_is_exact():
    model = zoo.create_model("cb_resnet8", activation="aglu", gate="apa", spatial_gate="apa")
    state = zoo.to_torch_state_dict(model)
    other = zoo.create_model("cb_resnet8", activation="aglu", gate="apa", spatial_gate="apa")
    zoo.load_torch_checkpoint(other, {"model": {f"module.{k}": v for k, v in state.items()}})
    for key, value in zoo.to_torch_state_dict(other).items():
        np.testing.assert_array_equal(value, state[key])


def test_checkpoint_that_does_not_fit_names_every_tensor_and_loads_nothing():
    model = zoo.create_model("resnet8", classes=10)
    before = [keras.ops.convert_to_numpy(w) for w in model.weights]
    state = zoo.to_torch_state_dict(zoo.create_model("resnet8", classes=7))
    state["extra.weight"] = state.pop("conv1.weight")
    with pytest.raises(ValueError, match="nothing was loaded") as error:
        zoo.load_torch_checkpoint(model, state)
    for part in ("missing: conv1.weight", "unexpected: extra.weight", "linear.weight: (7, 64) given, (10, 64)"):
        assert part in str(error.value)
    for weight, value in zip(model.weights, before, strict=True):
        np.testing.assert_array_equal(keras.ops.convert_to_numpy(weight), value)
    report = zoo.load_torch_checkpoint(model, state, strict=False)
    assert report["missing"] == ["conv1.weight"] and len(report["misshapen"]) == 2


def test_gates_and_activations_stand_where_they_should():
    model = zoo.create_model("se_resnet14", activation="aglu", gate="apa")
    assert sum(isinstance(layer, AGLU) for layer in model.layers) == 13  # the stem and two in each of 6 blocks
    gates = [model.get_layer(f"stage{s}_block{b}_gate") for s in (1, 2, 3) for b in (1, 2)]
    assert all(isinstance(gate.gate, APA) and gate.dropout == 0.1 and gate.normalize for gate in gates)
    kappas = [float(keras.ops.convert_to_numpy(gate.gate.kappa)) for gate in gates]
    assert all(-1 <= kappa <= 0 for kappa in kappas) and len(set(kappas)) == 6
    baseline = zoo.create_model("se_resnet14").get_layer("stage1_block1_gate")
    assert not baseline.dropout and not baseline.normalize


def test_kappa_of_cbam_gates_starts_positive_also_for_a_given_layer():
    for gate in ("apa", APA()):
        model = zoo.create_model("cb_resnet8", gate=gate, spatial_gate="apa")
        block = model.get_layer("stage1_block1_gate")
        for apa in (block.channel.gate, block.spatial.gate):
            assert 0 <= float(keras.ops.convert_to_numpy(apa.kappa)) <= 1
    chosen = APA(kappa_initializer=keras.initializers.Constant(-0.5))
    block = zoo.create_model("cb_resnet8", gate=chosen).get_layer("stage1_block1_gate")
    assert float(keras.ops.convert_to_numpy(block.channel.gate.kappa)) == -0.5


def test_a_layer_as_activation_is_cloned_with_fresh_start_values():
    model = zoo.create_model("resnet8", activation=AGLU(lambda_gradient="paper", per_channel=True))
    layers = [layer for layer in model.layers if isinstance(layer, AGLU)]
    assert len(layers) == 7 and all(layer.lambda_gradient == "paper" for layer in layers)
    first = keras.ops.convert_to_numpy(layers[0].lam)
    assert first.shape == (16,) and not np.array_equal(first, keras.ops.convert_to_numpy(layers[1].lam))


@pytest.mark.parametrize("prefix", ["", "se_", "cb_", "sp_"])
def test_non_square_and_small_inputs(prefix):
    model = zoo.create_model(
        f"{prefix}resnet8", classes=5, input_shape=(None, None, 1), classifier_activation="softmax"
    )
    probabilities = predict(model, np.ones((2, 13, 22, 1), "float32"))
    assert probabilities.shape == (2, 5)
    np.testing.assert_allclose(probabilities.sum(-1), 1, rtol=1e-5)


def test_without_top_the_output_is_the_last_stage():
    assert zoo.create_model("se_resnet8", include_top=False).output_shape == (None, 8, 8, 64)
    for pooling in ("avg", "max"):
        assert zoo.create_model("se_resnet8", include_top=False, pooling=pooling).output_shape == (None, 64)


@pytest.mark.parametrize("classifier", zoo.blocks.CLASSIFIERS)
def test_every_classifier_gives_logits(classifier):
    model = zoo.create_model("resnet8", classes=4, classifier=classifier, input_shape=(8, 8, 3))
    logits = predict(model, np.random.default_rng(0).standard_normal((2, 8, 8, 3)).astype("float32"))
    assert logits.shape == (2, 4) and np.isfinite(logits).all()
