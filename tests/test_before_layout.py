"""What an earlier version wrote, with other modules, loads and gives the same numbers (tests/data/before_layout)."""

import json
import pathlib
import shutil

import keras
import numpy as np
import pytest
from backends import environment
from processes import PROGRAM
from warm import run_warm

import zoo

FOLDER = pathlib.Path(__file__).parent / "data" / "before_layout"
EXPECTED = json.loads((FOLDER / "expected.json").read_text())


@pytest.mark.parametrize(
    "load",
    [
        lambda: keras.saving.load_model(FOLDER / "tiny.keras"),
        lambda: zoo.from_preset(FOLDER / "tiny_preset"),
    ],
    ids=["keras file", "preset"],
)
def test_a_model_gives_the_same_logits(load):
    model = load()
    images = np.random.default_rng(0).uniform(-1, 1, (4, 8, 8, 3)).astype("float32")
    np.testing.assert_allclose(model.predict(images, verbose=0), EXPECTED["logits"], rtol=1e-5, atol=1e-5)
    assert model.class_names == ("a", "b", "c") and model.preprocessing.image_size == (8, 8)


@pytest.mark.any_backend
def test_a_run_folder_goes_on(tmp_path):
    folder = shutil.copytree(FOLDER / "cut_off", tmp_path / "run")
    settings = ["--epochs", "1", "--model.name", "se_resnet8", "--data.imbalance-factor", "10"]
    arguments = ["train", "digits10_lt", *settings, "--checkpoint-steps", "15", "--output", str(folder)]
    # The run was begun on PyTorch.
    result = run_warm(PROGRAM, *arguments, cwd=tmp_path, env=environment("torch"))
    assert result.returncode == 0, result.stderr
    assert "Going on from step 15 of 16" in result.stdout
    outcome = json.loads((folder / "digits10_lt.json").read_text())
    # Fifteen of its sixteen steps were made before; another processor rounds the last one otherwise.
    assert outcome["history"]["val_loss"][0] == pytest.approx(EXPECTED["val_loss"], rel=1e-3)
    assert outcome["history"]["loss"][0] == pytest.approx(EXPECTED["loss"], rel=1e-3)
    assert np.mean(np.equal(outcome["predictions"], EXPECTED["predictions"])) > 0.98
