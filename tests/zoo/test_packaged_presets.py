"""The two presets inside the package: found by name, small, and as accurate as their cards say."""

import keras
import numpy as np
import pytest

import zoo
from training.classification.evaluate import evaluate
from training.classification.outcome import GROUPS
from training.data.classification.digits import digits100_lt

NAMES = ["se_resnet_digits100_lt", "se_resnet_digits100_lt_baseline"]


def test_both_are_listed_and_small():
    assert zoo.list_presets() == NAMES
    for name in NAMES:
        assert sum(path.stat().st_size for path in (zoo.presets.FOLDER / name).iterdir()) < 600_000


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.any_backend
def test_the_accuracy_measured_again_is_the_one_on_the_card(name):
    model = zoo.from_preset(name)
    assert model.class_names == tuple(f"{i:02d}" for i in range(100))
    accuracies = evaluate(model, digits100_lt()).accuracies
    metrics = zoo.preset_config(name)["metrics"]
    for group in GROUPS:
        accuracy = accuracies[group]
        # One of 2000 test images, or of the 600 of the few-shot classes, may fall on the other side by rounding.
        assert abs(100 * accuracy - metrics[f"accuracy_{group}"]) < 0.2


def test_the_preprocessing_is_that_of_the_images():
    model = zoo.from_preset(NAMES[0])
    pixels = np.random.default_rng(0).integers(0, 256, (2, 16, 16, 1), "uint8")
    np.testing.assert_allclose(keras.ops.convert_to_numpy(model.preprocessing(pixels)), pixels / 255, rtol=1e-6)
