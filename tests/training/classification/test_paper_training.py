"""The published AGLU training, in float64 numpy beside Keras: the recipe's optimizer and Eq. 8 for lambda."""

import keras
import numpy as np
import pytest

from keras_apa import no_weight_decay
from keras_apa.layers import AGLU
from training.engine.optimizers import build_optimizer
from training.recipes import get_recipe

EPOCHS, STEPS_PER_EPOCH, BATCH = 20, 10, 32
SIZES = (8, 12, 12, 5)


def aglu_and_slopes(z, kappa, lam):
    """AGLU and its slopes for z, kappa and lambda: Eqs. 6, 7, 9 and 8 of the APA paper, as the authors train them."""
    used = max(lam, 0.0) + 1e-8
    w = used * np.exp(-kappa * z)
    eta = (1 + w) ** (-1 / used)
    share = w / (1 + w) / used
    return z * eta, eta * (1 + kappa * z * share), z * z * eta * share, -z * eta * share / used if lam > 0 else 0 * z


def gradients(weights, x, labels):
    """Mean cross entropy's gradients of a network dense, AGLU, dense, AGLU, dense."""
    kept, h = [], x
    for layer in range(3):
        z = h @ weights[f"kernel{layer}"] + weights[f"bias{layer}"]
        if layer == 2:
            break
        value, *slopes = aglu_and_slopes(z, weights[f"kappa{layer}"], weights[f"lambda{layer}"])
        kept.append((h, slopes))
        h = value
    probabilities = np.exp(z - z.max(1, keepdims=True))
    probabilities /= probabilities.sum(1, keepdims=True)
    upstream = (probabilities - np.eye(SIZES[-1])[labels]) / len(labels)
    found = {"kernel2": h.T @ upstream, "bias2": upstream.sum(0)}
    for layer in (1, 0):
        upstream = upstream @ weights[f"kernel{layer + 1}"].T
        below, (dz, dkappa, dlambda) = kept[layer]
        found[f"kappa{layer}"], found[f"lambda{layer}"] = (upstream * dkappa).sum(), (upstream * dlambda).sum()
        upstream = upstream * dz
        found[f"kernel{layer}"], found[f"bias{layer}"] = below.T @ upstream, upstream.sum(0)
    return found


def named(model):
    """The weights by the names of `gradients`."""
    layers = [layer for layer in model.layers if layer.weights]
    names = [("kernel", 0), ("kappa", 0), ("kernel", 1), ("kappa", 1), ("kernel", 2)]
    second = {"kernel": "bias", "kappa": "lambda"}
    return {
        f"{kind}{index}": weight
        for layer, (name, index) in zip(layers, names, strict=True)
        for kind, weight in zip((name, second[name]), layer.weights, strict=True)
    }


@pytest.mark.every_backend
def test_two_hundred_steps_equal_the_published_rule_in_float64():
    keras.utils.set_random_seed(3)
    options = get_recipe("cifar100_lt").optimizer
    optimizer = build_optimizer(options, epochs=EPOCHS, steps_per_epoch=STEPS_PER_EPOCH)
    model = keras.Sequential([keras.Input(SIZES[:1])])
    for size in SIZES[1:-1]:
        model.add(keras.layers.Dense(size))
        model.add(AGLU(lambda_gradient="paper", lambda_initializer=keras.initializers.Constant(0.6)))
    model.add(keras.layers.Dense(SIZES[-1]))
    no_weight_decay(optimizer, model)
    model.compile(optimizer, keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    variables = named(model)
    weights = {name: keras.ops.convert_to_numpy(v).astype("float64") for name, v in variables.items()}
    buffers = {name: 0.0 for name in weights}
    rng = np.random.default_rng(0)
    lowest = []
    for step in range(EPOCHS * STEPS_PER_EPOCH):
        x, labels = rng.standard_normal((BATCH, SIZES[0])).astype("float32"), rng.integers(0, SIZES[-1], BATCH)
        x[np.arange(BATCH), labels] += 0.5
        rate = float(optimizer.learning_rate)
        model.train_on_batch(x, labels)
        for name, gradient in gradients(weights, x.astype("float64"), labels).items():
            decay = 0.0 if name[:-1] in ("kappa", "lambda") else options.weight_decay
            buffers[name] = options.momentum * buffers[name] + gradient + decay * weights[name]
        weights = {name: weights[name] - rate * buffers[name] for name in weights}
        lowest.append(min(weights["lambda0"], weights["lambda1"]))
        if lowest[-1] < 0.01:
            # From here on the rule itself is too steep for float32 to follow.
            break
        for name, variable in variables.items():
            # float32 rounds each step at 6e-8 of a weight, and the next steps carry that on.
            np.testing.assert_allclose(
                keras.ops.convert_to_numpy(variable), weights[name], rtol=2e-4, atol=2e-4, err_msg=f"{name} {step}"
            )
    assert len(lowest) == EPOCHS * STEPS_PER_EPOCH
    assert min(weights["lambda0"], weights["lambda1"]) > 1.0  # Eq. 8 has moved both
