"""Writes every layer, loss and model of the catalogue with its outputs, or checks files that another backend wrote.

python tests/cross_backend.py write|check FOLDER
"""

import json
import os
import pathlib
import sys

sys.path.insert(0, str(pathlib.Path(__file__).parent))
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import catalog
import keras
import numpy as np
import quick_jax
from backends import forward

import keras_apa

TOLERANCE = 1e-5  # of the largest output
# In compiled models: one without state, those with state of each kind, and one with settings that are arrays.
COMPILED = ("balanced_softmax", "gol", "equalization_softmax", "seesaw", "federated", "ldam")


def as_models():
    """Layers as models of one layer, so that they are saved as `.keras`, and the models."""
    for name, (build, shape) in catalog.LAYERS.items():
        inputs = keras.Input(shape)
        extra = (1.2, 0.3) if name == "operation" else ()
        yield f"layer_{name}", keras.Model(inputs, build()(inputs, *extra)), catalog.example(shape)
    for name, build in catalog.MODELS.items():
        yield f"model_{name}", build(), catalog.example((8, 8, 1))


def outputs(model, x):
    return forward(model, x)


def without_chance(loss):
    """The loss with settings under which its draws decide nothing: all classes are asked, all rare ones left out."""
    config = loss.get_config()
    if "num_sampled_classes" in config:
        config["num_sampled_classes"] = len(config["image_counts"])
    if config.get("activation") == "softmax":
        config["gamma"] = 1.0
    return type(loss).from_config(config)


def evaluated(model):
    """The loss of a compiled model over fixed data."""
    return float(model.evaluate(catalog.example((4,), 8), catalog.labels(), batch_size=8, verbose=0))


def compiled_models():
    """A small model compiled with a loss, after a step of training."""
    for name in COMPILED:
        inputs = keras.Input((4,))
        model = keras.Model(inputs, keras.layers.Dense(4)(inputs))
        loss = keras_apa.losses.attach_loss_state(model, without_chance(catalog.LOSSES[name]()))
        # Compiling takes longer than the step itself.
        model.compile("adam", loss=loss, jit_compile=False, run_eagerly=keras.backend.backend() != "jax")
        model.train_on_batch(catalog.example((4,), 8, seed=1), catalog.labels(seed=1))
        yield name, model


def count_as_in_training(loss):
    """The counts that the step of training left."""
    loss.cumulative_counts.assign(np.bincount(catalog.labels(seed=1), minlength=4))


def loss_value(loss):
    """The value of a loss, without chance: each backend draws other numbers."""
    loss = without_chance(loss)
    logits, labels = catalog.example((4,), 8), catalog.labels()
    if "drop" in loss.name or "optimized" in loss.name:
        # DropLoss draws for background rows only, and there is none.
        assert labels.max() < 4
    return float(keras.ops.convert_to_numpy(loss(labels, logits)))


def write(folder):
    keras.utils.set_random_seed(7)
    for name, model, x in as_models():
        model.save(folder / f"{name}.keras")
        np.savez(folder / f"{name}.npz", x=x, y=outputs(model, x))
    described = {}
    for name, build in {**catalog.LOSSES, **catalog.METRICS}.items():
        loss = build()
        value = loss_value(loss) if isinstance(loss, keras.losses.Loss) else None
        described[name] = {"object": keras.saving.serialize_keras_object(loss), "value": value}
    (folder / "losses.json").write_text(json.dumps(described))
    (folder / "compiled").mkdir()
    values = {}
    for name, model in compiled_models():
        model.save(folder / "compiled" / f"{name}.keras")
        values[name] = evaluated(model)
    (folder / "compiled.json").write_text(json.dumps({"backend": keras.backend.backend(), "values": values}))


def check(folder):
    failures, count = [], 0
    for path in sorted(folder.glob("*.keras")):
        model = keras.models.load_model(path, safe_mode=True)
        with np.load(path.with_suffix(".npz")) as recorded:
            error = np.abs(outputs(model, recorded["x"]) - recorded["y"]).max() / np.abs(recorded["y"]).max()
        count += 1
        if not error <= TOLERANCE:
            failures.append(f"{path.stem}: relative error {error:.1e}")
    for name, entry in json.loads((folder / "losses.json").read_text()).items():
        loss = keras.saving.deserialize_keras_object(entry["object"], safe_mode=True)
        count += 1
        if isinstance(loss, keras.losses.Loss):
            value = loss_value(loss)
            if not abs(value - entry["value"]) <= TOLERANCE * max(abs(entry["value"]), 1e-3):
                failures.append(f"{name}: {value} here, {entry['value']} there")
    written = json.loads((folder / "compiled.json").read_text())
    for name, there in written["values"].items():
        path = folder / "compiled" / f"{name}.keras"
        # Keras stores PyTorch's optimizer by its class, which cannot be made on the others.
        model = keras.models.load_model(path, compile=written["backend"] != "torch", safe_mode=True)
        if model.compiled:
            keras_apa.losses.attach_loss_state(model)
        else:
            loss = without_chance(catalog.LOSSES[name]())
            model.compile("adam", loss=keras_apa.losses.attach_loss_state(model, loss))
            if name == "seesaw":  # its counts are saved with the compiled loss
                count_as_in_training(loss)
        model.run_eagerly = keras.backend.backend() != "jax"
        here = evaluated(model)
        count += 1
        if not abs(here - there) <= TOLERANCE * abs(there):
            failures.append(f"{name} compiled: {here} here, {there} there")
    print(f"{count} checked on {keras.backend.backend()}, {len(failures)} failed", *failures, sep="\n")
    return 1 if failures or not count else 0


if __name__ == "__main__":
    mode, folder = sys.argv[1], pathlib.Path(sys.argv[2])
    if keras.backend.backend() == "jax":
        quick_jax.draw_initial_values_with_numpy()
    sys.exit(write(folder) if mode == "write" else check(folder))
