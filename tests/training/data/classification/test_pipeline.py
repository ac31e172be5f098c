"""The tf.data pipeline: every image once, and a pure function of seed, epoch and position."""

import keras
import numpy as np
import pytest

from keras_apa import ClassCounts
from training.classification.train import with_targets
from training.config.classification import Recipe
from training.data.classification import pipeline
from training.data.classification.digits import digits100_lt
from training.data.classification.pipeline import evaluation_dataset, steps_per_epoch, training_dataset
from training.data.classification.source import ArrayImages, Source


@pytest.fixture
def source():
    """Images that can be told apart, even after a move by a pixel; labels are their numbers."""
    images = np.random.default_rng(0).normal(size=(23, 6, 6, 3)).astype("float32")
    labelled = ArrayImages(images, np.arange(23, dtype="int32"))
    return Source("numbered", train=labelled, test=labelled, class_counts=ClassCounts([1] * 23))


def recipe(**changes):
    return Recipe(name="tested", batch_size=8, epochs=3).replace(**changes)


def epochs(dataset, steps):
    """The images and labels of each epoch."""
    batches = [(images.numpy(), labels.numpy()) for images, labels in dataset]
    parts = [batches[i : i + steps] for i in range(0, len(batches), steps)]
    return [tuple(np.concatenate(each) for each in zip(*part, strict=True)) for part in parts]


def moves(image, max_shift):
    """All moves of an image by whole pixels, the border mirrored."""
    padded = np.pad(image, ((max_shift,) * 2, (max_shift,) * 2, (0, 0)), mode="symmetric")
    span = range(2 * max_shift + 1)
    return {
        (max_shift - row, max_shift - column): padded[row : row + image.shape[0], column : column + image.shape[1]]
        for row in span
        for column in span
    }


@pytest.mark.smoke
def test_every_image_comes_once_an_epoch_in_another_order(source):
    dataset = training_dataset(recipe(), source)
    assert len(dataset) == 9 and steps_per_epoch(recipe(), source) == 3
    assert [len(batch) for batch, _ in dataset] == [8, 8, 7] * 3
    orders = []
    for images, labels in epochs(dataset, 3):
        np.testing.assert_array_equal(images, source.train.images[labels])
        np.testing.assert_array_equal(np.sort(labels), np.arange(23))
        orders.append(tuple(labels))
    assert len({*orders, tuple(range(23))}) == 4


@pytest.mark.parametrize("max_shift", [1, 2])
def test_augmentation_moves_images_by_whole_pixels_in_all_directions(source, max_shift):
    moved = recipe(augment={"shift": max_shift}, epochs=12)
    seen = set()
    for images, labels in epochs(training_dataset(moved, source), 3):
        assert images.dtype == np.float32
        for number, image in zip(labels, images, strict=True):
            possible = moves(source.train.images[number], max_shift).items()
            matching = [move for move, expected in possible if np.array_equal(image, expected)]
            assert len(matching) == 1
            seen.add(matching[0])
    assert len(seen) == (2 * max_shift + 1) ** 2


def test_same_seed_gives_the_same_batches_and_another_seed_others(source):
    first, second, other = (
        list(training_dataset(recipe(seed=seed, augment={"shift": 1}), source).as_numpy_iterator())
        for seed in (7, 7, 8)
    )
    for (images, labels), (same_images, same_labels), (others, _) in zip(first, second, other, strict=True):
        np.testing.assert_array_equal(images, same_images)
        np.testing.assert_array_equal(labels, same_labels)
        assert not np.array_equal(images, others)


@pytest.mark.parametrize("augment", [{"shift": 1}, {"shift": 1, "mixup_alpha": 0.4, "label_smoothing": 0.1}])
@pytest.mark.parametrize("start", [1, 3, 5, 8, 9])
def test_a_dataset_that_starts_at_a_step_is_the_rest_of_the_whole_one(source, start, augment):
    whole = list(training_dataset(recipe(augment=augment), source).as_numpy_iterator())
    rest = list(training_dataset(recipe(augment=augment), source, start_step=start).as_numpy_iterator())
    assert len(rest) == 9 - start
    for expected, got in zip(whole[start:], rest, strict=True):
        for left, right in zip(expected, got, strict=True):
            np.testing.assert_array_equal(left, right)


def test_mixed_targets_are_soft_and_add_up_to_one(source):
    for images, targets in training_dataset(recipe(augment={"mixup_alpha": 0.4}), source).as_numpy_iterator():
        assert targets.shape == (len(images), 23) and targets.dtype == np.float32
        np.testing.assert_allclose(targets.sum(1), 1, rtol=1e-6)


def test_deferred_class_weights_begin_at_their_epoch(source):
    weights = np.linspace(1, 2, 23, dtype="float32")
    late = recipe(loss={"class_weights": "inverse", "class_weights_from_epoch": 1})
    for step, (_, labels, got) in enumerate(training_dataset(late, source, class_weights=weights)):
        expected = np.ones(len(labels)) if step < 3 else weights[labels.numpy()]
        np.testing.assert_array_equal(got, expected)


def test_class_weights_weigh_each_class_of_a_mixed_image(source):
    """`sum_c w_c t_c loss(c)`, from a sample weight and targets that add up to one."""
    weights = np.linspace(1, 20, 23, dtype="float32")
    mixed = recipe(
        augment={"mixup_alpha": 0.4, "label_smoothing": 0.1},
        loss={"class_weights": "inverse", "class_weights_from_epoch": 1},
    )
    datasets = (training_dataset(mixed, source, class_weights=each) for each in (None, weights))
    plain, weighed = (dataset.as_numpy_iterator() for dataset in datasets)
    for step, ((_, expected), (_, targets, got)) in enumerate(zip(plain, weighed, strict=True)):
        expected = expected * (np.ones(23) if step < 3 else weights)
        np.testing.assert_allclose(got[:, None] * targets, expected, rtol=1e-5, atol=1e-7)
        np.testing.assert_allclose(np.sum(targets, axis=1), 1, rtol=1e-5)


@pytest.mark.parametrize("readers", [1, 7])
def test_the_number_of_parallel_calls_changes_nothing(source, monkeypatch, readers):
    mixed = recipe(augment={"shift": 1, "mixup_alpha": 0.4})
    expected = list(training_dataset(mixed, source).as_numpy_iterator())
    monkeypatch.setattr(pipeline, "READERS", readers)
    monkeypatch.setattr(pipeline, "PREFETCHED", readers)
    for left, right in zip(expected, training_dataset(mixed, source).as_numpy_iterator(), strict=True):
        for one, other in zip(left, right, strict=True):
            np.testing.assert_array_equal(one, other)


def test_no_dataset_leaves_numbers_to_the_tuning_thread(source):
    """Which holds up the end of a training by seconds."""
    wants_one_hot = recipe(loss={"name": "CategoricalCrossentropy"})
    training, test = training_dataset(recipe(), source), evaluation_dataset(source.test, 5, num_classes=23)
    for dataset in (training, test, with_targets(wants_one_hot, source, training)):
        assert dataset.options().autotune.enabled is False


def test_mixed_precision_leaves_the_images_alone(source):
    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy("mixed_bfloat16")
    try:
        images, labels = next(training_dataset(recipe(), source).as_numpy_iterator())
    finally:
        keras.config.set_dtype_policy(before)
    np.testing.assert_array_equal(images, source.train.images[labels])


def test_evaluation_keeps_order_and_every_image(source):
    dataset = evaluation_dataset(source.test, 10, num_classes=23)
    assert [len(batch) for batch, _ in dataset] == [10, 10, 3]
    images, labels = (np.concatenate(part) for part in zip(*dataset.as_numpy_iterator(), strict=True))
    np.testing.assert_array_equal(images, source.test.images)
    np.testing.assert_array_equal(labels, np.arange(23))


def test_fit_is_repeatable_with_a_ragged_last_batch(source):
    def history():
        keras.utils.set_random_seed(5)
        model = keras.Sequential([keras.Input((6, 6, 3)), keras.layers.Flatten(), keras.layers.Dense(23)])
        model.compile("sgd", keras.losses.SparseCategoricalCrossentropy(from_logits=True))
        fit = {"epochs": 3, "steps_per_epoch": 3, "verbose": 0, "shuffle": False}
        return model.fit(training_dataset(recipe(), source), **fit).history["loss"]

    assert history() == history()


def test_an_epoch_of_the_digits_has_85_batches():
    assert steps_per_epoch(recipe(batch_size=128), digits100_lt()) == 85


def test_what_cannot_be_is_an_error(source):
    with pytest.raises(ValueError, match="batch_size must be at most the 23 images of an epoch; given: 24"):
        training_dataset(recipe(batch_size=24), source)
    with pytest.raises(ValueError, match="start_step must be a whole number of at least 0 and below 10; given: 10"):
        training_dataset(recipe(), source, start_step=10)
    with pytest.raises(ValueError, match="labels must be below the number of classes, 5; given: 22"):
        evaluation_dataset(source.test, 5, num_classes=5)
    with pytest.raises(ValueError, match="batch_size must be a whole number of at least 1; given: 0"):
        evaluation_dataset(source.test, 0, num_classes=23)
