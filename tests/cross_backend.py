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

TOLERANCE = 1e-5  # of the largest output


def as_models():
    """Layers as models of one layer, so that they are saved as `.keras`, and the models."""
    for name, (build, shape) in catalog.LAYERS.items():
        inputs = keras.Input(shape)
        extra = (1.2, 0.3) if name == "operation" else ()
        yield f"layer_{name}", keras.Model(inputs, build()(inputs, *extra)), catalog.example(shape)
    for name, build in catalog.MODELS.items():
        yield f"model_{name}", build(), catalog.example((8, 8, 1))


def outputs(model, x):
    return keras.ops.convert_to_numpy(model(x, training=False))


def loss_value(loss):
    """The value of a loss; None where it is random, since each backend draws other numbers."""
    if getattr(loss, "activation", None) == "softmax" or loss.name == "federated_loss":
        return None
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
        if entry["value"] is not None:
            value = loss_value(loss)
            if not abs(value - entry["value"]) <= TOLERANCE * max(abs(entry["value"]), 1e-3):
                failures.append(f"{name}: {value} here, {entry['value']} there")
    print(f"{count} checked on {keras.backend.backend()}, {len(failures)} failed", *failures, sep="\n")
    return 1 if failures or not count else 0


if __name__ == "__main__":
    mode, folder = sys.argv[1], pathlib.Path(sys.argv[2])
    sys.exit(write(folder) if mode == "write" else check(folder))
