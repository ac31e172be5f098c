"""Training from a recipe: repeatable, learning, and telling what is wrong before it starts."""

import dataclasses

import keras
import numpy as np
import pytest

import keras_apa
from keras_apa.layers import AGLU, APA
from training.classification import build_loss, build_model, check, evaluate, load_images, train
from training.recipe import LossOptions
from training.recipes import get_recipe

BACKEND = keras.backend.backend()


def small(name="digits10_lt", **changes):
    """A training of some seconds: ten classes, few images."""
    data = {"largest_class": 40, "imbalance_factor": 4.0, "test_images_per_class": 5}
    changes = {"epochs": 2, "batch_size": 32, **changes}
    return get_recipe(name).replace(**{"data": data, **changes})


@pytest.fixture(scope="module")
def trained():
    """One training with AGLU, APA gates and Balanced Softmax, shared by the tests that only look at it."""
    recipe = small()
    model, outcome = train(recipe, load_images(recipe.data))
    return recipe, model, outcome


def test_same_seed_gives_the_same_result(trained):
    recipe, _, first = trained
    _, second = train(recipe, load_images(recipe.data))
    np.testing.assert_equal(second.accuracies, first.accuracies)  # an absent group is NaN in both
    np.testing.assert_equal(second.history, first.history)
    assert second.predictions == first.predictions


def test_another_seed_gives_another_result(trained):
    recipe, _, first = trained
    _, other = train(recipe.replace(seed=1), load_images(recipe.data))
    assert other.history["loss"] != first.history["loss"]


def test_the_network_is_the_one_of_the_recipe(trained):
    recipe, model, _ = trained
    assert sum(isinstance(layer, AGLU) for layer in model.layers) == 7
    gates = [layer.gate for layer in model.layers if layer.name.endswith("_gate")]
    assert len(gates) == 3 and all(isinstance(gate, APA) for gate in gates)
    assert isinstance(model.loss, keras_apa.losses.BalancedSoftmaxCrossentropy)
    assert [int(n) for n in model.loss.class_counts.counts] == list(load_images(recipe.data).class_counts)


def test_kappa_and_lambda_of_every_layer_are_recorded(trained):
    _, _, outcome = trained
    assert len(outcome.parameters) == 10
    for record in outcome.parameters.values():
        assert len(record["kappa"]) == len(record["lambda"]) == 3  # the start and two epochs
        assert record["kappa"][0] != record["kappa"][-1]


def test_a_saved_model_gives_the_same_accuracies(trained, tmp_path):
    recipe, model, outcome = trained
    model.save(tmp_path / "m.keras")
    loaded = keras.models.load_model(tmp_path / "m.keras", safe_mode=True)
    accuracies, predictions = evaluate(loaded, load_images(recipe.data))
    np.testing.assert_equal(accuracies, outcome.accuracies)
    np.testing.assert_array_equal(predictions, outcome.predictions)


def test_training_learns():
    recipe = small(data={"largest_class": 150, "imbalance_factor": 2.0, "noise": 0.1}, epochs=5)
    _, outcome = train(recipe, load_images(recipe.data))
    assert outcome.history["loss"][-1] < 0.5 * outcome.history["loss"][0]
    assert outcome.accuracies["all"] > 0.5  # chance is 0.1


def test_losses_with_state_train_too():
    """Seesaw counts what it sees; on JAX only a state that belongs to the model does."""
    recipe = small(loss={"name": "SeesawLoss", "options": {"class_counts": None}}, epochs=1)
    images = load_images(recipe.data)
    model, _ = train(recipe, images)
    counted = np.concatenate([keras.ops.convert_to_numpy(v).ravel() for v in model.loss.state])
    # Every training image once, and every test image of the validation after the epoch.
    assert counted.sum() >= len(images.train_labels)


@pytest.mark.parametrize(
    ("changes", "parts"),
    [
        ({"model": {"name": "se_resnt8"}}, ["se_resnt8", "se_resnet8"]),
        ({"model": {"options": {"gate": "apaa"}}}, ["apaa", "apa"]),
        ({"model": {"options": {"spatial_gate": "apa"}}}, ["spatial_gate", "cb_resnet8"]),
        ({"data": {"name": "digit100_lt"}}, ["digit100_lt", "digits100_lt"]),
        ({"loss": {"name": "BalancedSoftmax"}}, ["BalancedSoftmax", "BalancedSoftmaxCrossentropy"]),
        ({"loss": {"options": {"tua": 1.0}}}, ["tua", "tau"]),
    ],
)
def test_a_wrong_name_is_an_error_before_training(changes, parts):
    with pytest.raises(ValueError) as error:
        check(small(**changes))
    for part in parts:
        assert part in str(error.value)


@pytest.mark.parametrize(("field", "value"), [("epochs", 2.5), ("epochs", 0), ("epochs", "ten"), ("batch_size", -1)])
def test_numbers_that_cannot_be_are_errors(field, value):
    with pytest.raises(ValueError, match=f"{field} must be a whole number"):
        small(**{field: value})


def test_a_loss_is_told_what_the_data_knows():
    counts = [9, 5, 1]
    assert build_loss(LossOptions(name="SeesawLoss"), counts).num_classes == 3
    loss = build_loss(LossOptions(name="BalancedSoftmaxCrossentropy", options={"tau": 0.5}), counts)
    assert loss.tau == 0.5 and [int(n) for n in loss.class_counts.counts] == counts


def test_labels_that_are_no_class_are_an_error_before_training():
    recipe = small(epochs=1)
    images = load_images(recipe.data)
    labels = images.train_labels.copy()
    labels[0] = 10
    with pytest.raises(ValueError, match="labels must be below the number of classes, 10; got 10"):
        train(recipe, dataclasses.replace(images, train_labels=labels))


def test_a_channels_first_configuration_trains_the_same_network():
    recipe = small(epochs=1)
    keras.config.set_image_data_format("channels_first")
    try:
        model = build_model(recipe.model, load_images(recipe.data))
    finally:
        keras.config.set_image_data_format("channels_last")
    assert model.get_layer("stem_conv").kernel.shape == (3, 3, 1, 16)


def test_losses_that_want_image_counts_get_them():
    loss = build_loss(LossOptions(name="DropLoss", options={"frequency_threshold": 0.1}), [60, 30, 10])
    assert loss.get_config()["num_images"] == 100
