"""Training from a recipe: repeatable, learning, and telling what is wrong before it starts."""

import dataclasses

import keras
import numpy as np
import pytest

import keras_apa
from keras_apa.layers import AGLU, APA
from training.classification.evaluate import evaluate
from training.classification.losses import build_loss, sample_weights
from training.classification.network import build_model
from training.classification.train import check, compiled_model, train
from training.data.classification.pipeline import steps_per_epoch, training_dataset
from training.data.classification.registry import load_source
from training.recipes import get_recipe

BACKEND = keras.backend.backend()


def small(name="digits10_lt", **changes):
    """A training of some seconds: ten classes, few images."""
    data = {"largest_class": 40, "imbalance_factor": 4.0, "test_images_per_class": 5}
    # 216 images: a last batch of another size would be compiled again on JAX.
    changes = {"epochs": 2, "batch_size": 36, **changes}
    return get_recipe(name).replace(**{"data": data, **changes})


@pytest.fixture(scope="module")
def trained():
    """One training with AGLU, APA gates and Balanced Softmax, shared by the tests that only look at it."""
    recipe = small()
    model, outcome = train(recipe, load_source(recipe.data))
    return recipe, model, outcome


def test_same_seed_gives_the_same_result(trained):
    recipe, _, first = trained
    _, second = train(recipe, load_source(recipe.data))
    np.testing.assert_equal(second.accuracies, first.accuracies)  # an absent group is NaN in both
    np.testing.assert_equal(second.history, first.history)
    assert second.predictions == first.predictions


@pytest.mark.any_backend
def test_another_seed_gives_another_result(trained):
    recipe, _, first = trained
    _, other = train(recipe.replace(seed=1), load_source(recipe.data))
    assert other.history["loss"] != first.history["loss"]


def test_the_network_is_the_one_of_the_recipe(trained):
    recipe, model, _ = trained
    assert sum(isinstance(layer, AGLU) for layer in model.layers) == 7
    gates = [layer.gate for layer in model.layers if layer.name.endswith("_gate")]
    assert len(gates) == 3 and all(isinstance(gate, APA) for gate in gates)
    compiled = compiled_model(recipe, load_source(recipe.data), steps=1)
    assert isinstance(compiled.loss, keras_apa.losses.BalancedSoftmaxCrossentropy)
    assert [int(n) for n in compiled.loss.class_counts.counts] == list(load_source(recipe.data).class_counts)


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
    result = evaluate(loaded, load_source(recipe.data))
    np.testing.assert_equal(result.accuracies, outcome.accuracies)
    np.testing.assert_array_equal(result.predictions, outcome.predictions)


def test_training_learns():
    recipe = small(data={"largest_class": 55, "imbalance_factor": 1.5, "noise": 0.1}, batch_size=16, epochs=6)
    _, outcome = train(recipe, load_source(recipe.data))
    assert outcome.history["loss"][-1] < 0.65 * outcome.history["loss"][0]
    assert outcome.accuracies["all"] > 0.35  # chance is 0.1


@pytest.mark.any_backend("jax")
def test_losses_with_state_train_too():
    """Seesaw counts what it sees; on JAX only a state that belongs to the model does."""
    recipe = small(loss={"name": "SeesawLoss", "options": {"class_counts": None}}, epochs=1)
    images = load_source(recipe.data)
    steps = steps_per_epoch(recipe, images)
    model = compiled_model(recipe, images, steps=steps)
    model.fit(training_dataset(recipe, images), steps_per_epoch=steps, verbose=0)
    counted = np.concatenate([keras.ops.convert_to_numpy(v).ravel() for v in model.loss.state])
    assert counted.sum() == len(images.train_labels)


@pytest.mark.parametrize(
    ("changes", "parts"),
    [
        ({"model": {"name": "se_resnt8"}}, ["se_resnt8", "se_resnet8"]),
        ({"model": {"gate": "apaa"}}, ["apaa", "apa"]),
        ({"model": {"spatial_gate": "apa"}}, ["spatial_gate", "cb_resnet8"]),
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


def told(loss, counts, **changes):
    return build_loss(small(loss=loss, **changes), counts)


def test_a_loss_is_told_what_the_data_knows():
    counts = [9, 5, 1]
    assert told({"name": "SeesawLoss"}, counts).num_classes == 3
    loss = told({"name": "BalancedSoftmaxCrossentropy", "options": {"tau": 0.5}}, counts)
    assert loss.tau == 0.5 and [int(n) for n in loss.class_counts.counts] == counts


def test_labels_that_are_no_class_are_an_error_before_training():
    recipe = small(epochs=1)
    images = load_source(recipe.data)
    labels = images.train_labels.copy()
    labels[0] = 10
    with pytest.raises(ValueError, match="labels must be from 0 to 9; given: 0 to 10"):
        train(recipe, dataclasses.replace(images, train_labels=labels))


def test_a_channels_first_configuration_trains_the_same_network():
    recipe = small(epochs=1)
    keras.config.set_image_data_format("channels_first")
    try:
        model = build_model(recipe, load_source(recipe.data))
    finally:
        keras.config.set_image_data_format("channels_last")
    assert model.get_layer("stem_conv").kernel.shape == (3, 3, 1, 16)


def test_losses_that_want_image_counts_get_them():
    loss = told({"name": "DropLoss", "options": {"frequency_threshold": 0.1}}, [60, 30, 10])
    assert loss.get_config()["num_images"] == 100


def test_soft_targets_need_a_loss_that_takes_them():
    mixing = {"augment": {"mixup_alpha": 0.2}}
    assert isinstance(told({"name": "SparseCategoricalCrossentropy"}, [2, 1], **mixing), keras.losses.Loss)
    assert told({"name": "SparseCategoricalCrossentropy"}, [2, 1], **mixing).name == "categorical_crossentropy"
    with pytest.raises(
        ValueError, match=r"augment\.mixup_alpha, .* must be 0 with the loss LDAM, which needs images of one class"
    ):
        told({"name": "LDAM"}, [2, 1], **mixing)


@pytest.mark.parametrize(
    "changes",
    [
        {"augment": {"mixup_alpha": 0.2}},  # as most published recipes
        {"augment": {"cutmix_alpha": 1.0}, "loss": {"class_weights": "effective"}},
        {"loss": {"name": "CategoricalFocalCrossentropy"}},  # one-hot, but nothing mixed
    ],
)
@pytest.mark.any_backend
def test_soft_targets_are_trained_on_and_validated(changes):
    recipe = small("digits10_lt_baseline", epochs=1, **changes)
    _, outcome = train(recipe, load_source(recipe.data))
    assert np.isfinite(outcome.history["val_loss"]).all() and outcome.accuracies["all"] == outcome.history["val_all"][0]


@pytest.mark.parametrize(
    ("changes", "parts"),
    [
        ({"loss": {"name": "CTC"}}, ["loss.name must be a loss of one-hot targets", "given: 'CTC'"]),
        ({"loss": {"name": "DropLoss"}}, ["with the loss DropLoss", "frequency_threshold"]),
        (
            {"model": {"classifier": "cosine"}, "evaluation": {"tau_normalization": 0.5}},
            ["evaluation.tau_normalization must be 0 unless the classifier is linear"],
        ),
        (
            {"model": {"classifier": "cosine"}, "start": {"weights": "some.keras", "trainable": "class_scale"}},
            ["start.trainable must be another than 'class_scale' unless the classifier is linear", "'cosine'"],
        ),
    ],
)
def test_what_would_fail_in_or_after_the_training_is_said_before(changes, parts):
    with pytest.raises(ValueError) as error:
        check(small(**changes))
    for part in parts:
        assert part in str(error.value)


@pytest.mark.parametrize(("kind", "expected"), [("inverse", [1 / 3, 5 / 3]), ("none", None)])
def test_class_weights_have_a_mean_of_one(kind, expected):
    weights = sample_weights(small(loss={"class_weights": kind}).loss, keras_apa.ClassCounts([10, 2]))
    assert (expected is None and weights is None) or np.allclose(weights, expected)


@pytest.mark.any_backend
def test_a_recipe_with_prior_correction_gives_both_numbers_and_a_model_that_carries_it(tmp_path):
    recipe = small("digits10_lt_baseline", epochs=1, evaluation={"prior_correction": "raw"})
    source = load_source(recipe.data)
    model, outcome = train(recipe, source)
    assert isinstance(model.layers[-1], keras_apa.layers.PriorCorrection)
    plain = keras.Model(model.input, model.layers[-1].input)
    logits = plain.predict(source.test_images, verbose=0)
    labels = source.test_labels
    assert outcome.uncorrected["all"] == pytest.approx(np.mean(logits.argmax(1) == labels))
    counts = np.array(list(source.class_counts))
    assert outcome.accuracies["all"] == pytest.approx(np.mean((logits - np.log(counts)).argmax(1) == labels))
    best = np.argsort(-(logits - np.log(counts)), axis=1)[:, :5]
    assert outcome.accuracies["top5"] == pytest.approx(np.mean((best == labels[:, None]).any(1)))
