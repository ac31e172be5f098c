"""What holds for each registered object: config round trip, `.keras`, other backends, compiled training."""

import pathlib

import catalog
import cross_backend
import keras
import numpy as np
import pytest
from backends import CURRENT, NEXT, environment
from warm import run_warm

import keras_apa
import zoo

OBJECTS = {**{k: v[0] for k, v in catalog.LAYERS.items()}, **catalog.LOSSES, **catalog.METRICS}


@pytest.mark.parametrize("name", OBJECTS)
@pytest.mark.smoke
def test_config_round_trip(name):
    original = OBJECTS[name]()
    copy = type(original).from_config(original.get_config())
    assert copy.get_config() == original.get_config()
    serialized = keras.saving.serialize_keras_object(original)
    assert serialized["registered_name"].startswith("keras_apa>")
    assert keras.saving.deserialize_keras_object(serialized).get_config() == original.get_config()


@pytest.mark.smoke
def test_the_catalogue_has_every_public_class():
    public = [getattr(m, n) for m in (keras_apa.layers, keras_apa.losses, keras_apa.metrics) for n in m.__all__]
    classes = {c for c in public if isinstance(c, type) and c is not keras_apa.ClassCounts}
    assert classes - {type(build()) for build in OBJECTS.values()} == set()


@pytest.mark.parametrize("name", catalog.LAYERS)
@pytest.mark.smoke
def test_a_layer_saved_as_keras_gives_the_same_outputs(name, tmp_path):
    build, shape = catalog.LAYERS[name]
    inputs = keras.Input(shape)
    model = keras.Model(inputs, build()(inputs, *((1.2, 0.3) if name == "operation" else ())))
    model.save(tmp_path / "layer.keras")
    loaded = keras.models.load_model(tmp_path / "layer.keras", safe_mode=True)
    x = catalog.example(shape)
    np.testing.assert_array_equal(cross_backend.outputs(loaded, x), cross_backend.outputs(model, x))


def test_files_of_this_backend_load_on_the_next(tmp_path):
    cross_backend.write(tmp_path)
    program = "import runpy, sys; runpy.run_path(sys.argv.pop(1), run_name='__main__')"
    result = run_warm(program, pathlib.Path(cross_backend.__file__), "check", tmp_path, env=environment(NEXT))
    assert result.returncode == 0, result.stdout + result.stderr[-2000:]
    assert f"on {NEXT}, 0 failed" in result.stdout


def everything(below=True, shape=(8, 8, 4), classes=4):
    """One network with every layer in it, AGLU pairs that start at and above the clamp and, if asked for, below it."""
    layers = keras_apa.layers
    constant = keras.initializers.Constant
    inputs = keras.Input(shape)
    x = keras.layers.Conv2D(8, 3, padding="same")(inputs)
    x = layers.UnbiasedBatchNormalization()(x)
    x = layers.AGLU(name="aglu")(x)
    if below:
        x = layers.AGLU(per_channel=True, lambda_initializer=constant(-0.05), name="aglu_below")(x)
    x = layers.SqueezeExcite(4, gate="apa", name="se")(x)
    if below:
        x = layers.SqueezeExcite(4, gate=layers.APA(lambda_initializer=constant(-0.01)), name="se_below")(x)
    x = layers.CBAM(4, gate="gumbel_temperature", spatial_gate="apa", name="cbam")(x)
    x = layers.SpatialAttention(3, gate="sigmoid_temperature")(x)
    x = layers.NormalizedConv2D(16, 3, padding="same", temperature=5.0)(x)
    x = keras.layers.Activation(layers.AGLU(lambda_initializer=constant(0.5), lambda_gradient="paper"))(x)
    x = zoo.blocks.PadShortcut(24, 2)(x)
    x = keras.layers.GlobalAveragePooling2D()(x)
    x = keras.layers.Dense(16, activation=layers.AGLU(name="in_dense"))(x)
    heads = [layers.CosineDense(classes, learn_scale=True, dtype="float32")(x)]
    heads.append(layers.NormalizedDense(classes, temperature=5.0, dtype="float32")(x))
    cauchy = layers.WrappedCauchyDense(classes, dtype="float32")(x)
    heads.append(keras.layers.Rescaling(0.05, dtype="float32")(cauchy))
    logits = keras.layers.Average(dtype="float32")(heads)
    return keras.Model(inputs, layers.PriorCorrection(catalog.COUNTS, dtype="float32")(logits))


def separable(n=64):
    """Images whose class is the channel that is bright."""
    labels = catalog.labels(n)
    return catalog.example((8, 8, 4), n) * 0.3 + 2 * np.eye(4, dtype="float32")[labels][:, None, None], labels


def activation_parameters(model):
    names = ("kappa", "lambda", "temperature")
    return [keras.ops.convert_to_numpy(v) for v in model.trainable_variables if v.name in names]


def check_moved(before, after):
    """No parameter is NaN and none is dead, those that started below the clamp included."""
    for start, end in zip(before, after, strict=True):
        assert np.isfinite(end).all()
        assert not np.array_equal(start, end)


def train(model, loss, jit_compile, epochs=6, learning_rate=0.02):
    keras_apa.losses.attach_loss_state(model, loss)
    model.compile(keras.optimizers.Adam(learning_rate), loss=loss, metrics=["accuracy"], jit_compile=jit_compile)
    x, y = separable()
    return model.fit(x, y, batch_size=16, epochs=epochs, verbose=0).history


# PyTorch compiles for about a minute; its compiled case is one network with every layer, in the slow part.
COMPILED = [pytest.param(True, marks=pytest.mark.slow)] if CURRENT == "torch" else [True]
# Operation by operation JAX compiles more than a minute; TensorFlow traces it in half precision in the fast part.
EAGER = [False] if CURRENT == "torch" else [pytest.param(False, marks=pytest.mark.slow)]


@pytest.mark.parametrize("jit_compile", [*EAGER, *COMPILED], ids=lambda v: "compiled" if v else "eager")
def test_one_network_with_every_layer_trains(jit_compile):
    keras.utils.set_random_seed(1)
    below = not (jit_compile and CURRENT == "torch")  # what it compiles for minutes; eagerly it is the same there
    model = everything(below)
    before = activation_parameters(model)
    assert len(before) == (2 * 7 + 2 if below else 2 * 5 + 2)
    # Not longer: once all is learned, a step can carry the wrapped Cauchy classifier across its pole.
    history = train(model, keras.losses.SparseCategoricalCrossentropy(from_logits=True), jit_compile, epochs=4)
    assert history["loss"][-1] < 0.7 * history["loss"][0]
    check_moved(before, activation_parameters(model))


# The network takes long to trace or compile: both on PyTorch, one on each of the others.
HALF = {"tensorflow": ["mixed_float16"], "jax": ["mixed_bfloat16"]}.get(CURRENT, ["mixed_bfloat16", "mixed_float16"])


@pytest.mark.parametrize("policy", HALF)
def test_one_network_with_every_layer_trains_in_mixed_precision(policy):
    keras.utils.set_random_seed(1)
    previous = keras.config.dtype_policy()
    keras.config.set_dtype_policy(policy)
    try:
        model = everything()
    finally:
        keras.config.set_dtype_policy(previous)
    before = activation_parameters(model)
    assert all(value.dtype == "float32" for value in before)
    history = train(model, keras.losses.SparseCategoricalCrossentropy(from_logits=True), CURRENT == "jax")
    assert history["loss"][-1] < 0.7 * history["loss"][0]
    check_moved(before, activation_parameters(model))


@pytest.mark.parametrize(
    "jit_compile",
    [True] if CURRENT != "torch" else [False, *COMPILED],
    ids=lambda v: "compiled" if v else "eager",
)
def test_a_network_trains_on_the_sum_of_all_losses(jit_compile):
    """One output for each loss, so that one compilation covers them all; PyTorch would take minutes for all of them."""
    some = ("gol", "seesaw")  # random, and with counts
    keras.utils.set_random_seed(2)
    inputs = keras.Input((8, 8, 4))
    x = keras.layers.GlobalAveragePooling2D()(inputs)
    chosen = some if jit_compile and CURRENT == "torch" else catalog.LOSSES
    losses = {name: catalog.LOSSES[name]() for name in chosen}
    outputs = {name: keras.layers.Dense(4, name=name)(x) for name in losses}
    model = keras.Model(inputs, outputs)
    keras_apa.losses.attach_loss_state(model, losses)
    model.compile(keras.optimizers.Adam(0.05), loss=losses, jit_compile=jit_compile)
    images, labels = separable()
    targets = {name: labels for name in losses}
    history = model.fit(images, targets, batch_size=16, epochs=8, verbose=0).history
    for name in losses:
        assert history[f"{name}_loss"][-1] < 0.8 * history[f"{name}_loss"][0], name
