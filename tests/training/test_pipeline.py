"""The tf.data pipeline: every image once, order and augmentation repeatable, the same whatever the backend
does."""

import doctest
import time

import keras
import numpy as np
import pytest

from training.data import pipeline
from training.data.digits import digits100_lt
from training.data.pipeline import evaluation_dataset, training_dataset


@pytest.fixture
def numbered():
    """Images that can be told apart, even after a move by a pixel; labels are their numbers."""
    images = np.random.default_rng(0).normal(size=(23, 6, 5, 2)).astype("float32")
    return images, np.arange(23, dtype="int32")


def epoch(dataset):
    images, labels = zip(*[(image.numpy(), label.numpy()) for image, label in dataset], strict=True)
    return np.concatenate(images), np.concatenate(labels)


def moves(image, max_shift):
    """All moves of an image by whole pixels, the border mirrored."""
    padded = np.pad(image, ((max_shift,) * 2, (max_shift,) * 2, (0, 0)), mode="symmetric")
    span = range(2 * max_shift + 1)
    return {
        (max_shift - row, max_shift - column): padded[row : row + image.shape[0], column : column + image.shape[1]]
        for row in span
        for column in span
    }


def test_docstring_examples():
    assert doctest.testmod(pipeline).failed == 0


def test_every_image_comes_once_an_epoch_in_another_order(numbered):
    images, labels = numbered
    dataset = training_dataset(images, labels, 8, seed=0, augment=False)
    assert len(dataset) == 3
    assert [len(batch) for batch, _ in dataset] == [8, 8, 7]
    orders = []
    for _ in range(3):
        got, order = epoch(dataset)
        np.testing.assert_array_equal(got, images[order])
        np.testing.assert_array_equal(np.sort(order), labels)
        orders.append(tuple(order))
    assert len({*orders, tuple(labels)}) == 4


@pytest.mark.parametrize("max_shift", [1, 2])
def test_augmentation_moves_images_by_whole_pixels_in_all_directions(numbered, max_shift):
    images, labels = numbered
    dataset = training_dataset(images, labels, 8, seed=0, shuffle=False, max_shift=max_shift)
    seen, epochs = set(), []
    for _ in range(12):
        got, order = epoch(dataset)
        assert got.dtype == np.float32
        np.testing.assert_array_equal(order, labels)
        for image, moved in zip(images, got, strict=True):
            possible = moves(image, max_shift).items()
            matching = [move for move, expected in possible if np.array_equal(moved, expected)]
            assert len(matching) == 1
            seen.add(matching[0])
        epochs.append(got)
    assert len(seen) == (2 * max_shift + 1) ** 2
    assert not np.array_equal(epochs[0], epochs[1])


def test_same_seed_gives_the_same_epochs_and_another_seed_others(numbered):
    first, second, other = (training_dataset(*numbered, 8, seed=seed) for seed in (7, 7, 8))
    for _ in range(3):
        (images, labels), (same_images, same_labels) = epoch(first), epoch(second)
        np.testing.assert_array_equal(images, same_images)
        np.testing.assert_array_equal(labels, same_labels)
        assert not np.array_equal(images, epoch(other)[0])


def test_a_look_at_the_first_batch_does_not_make_the_next_epoch_random(numbered):
    """Keras takes a first batch to build the model; what was prefetched then must not matter."""
    epochs = []
    for wait in (0.0, 0.2):
        dataset = training_dataset(*numbered, 2, seed=7)
        next(iter(dataset))
        time.sleep(wait)
        epochs.append(epoch(dataset))
    np.testing.assert_array_equal(epochs[0][0], epochs[1][0])
    np.testing.assert_array_equal(epochs[0][1], epochs[1][1])


def test_whole_number_images_and_one_hot_labels_keep_their_types(numbered):
    images = (numbered[0] * 50 + 100).astype("uint8")
    labels = np.eye(23, dtype="float32")
    got, rows = epoch(training_dataset(images, labels, 8, seed=0, shuffle=False))
    assert (got.dtype, rows.dtype) == (np.uint8, np.float32)
    np.testing.assert_array_equal(rows, labels)
    assert any(np.array_equal(got[0], move) for move in moves(images[0], 1).values())


def test_mixed_precision_leaves_the_images_alone(numbered):
    images, labels = numbered
    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy("mixed_bfloat16")
    try:
        got, _ = epoch(training_dataset(images, labels, 8, seed=0, shuffle=False))
    finally:
        keras.config.set_dtype_policy(before)
    assert any(np.array_equal(got[0], move) for move in moves(images[0], 1).values())


def test_evaluation_keeps_order_and_every_image(numbered):
    images, labels = numbered
    dataset = evaluation_dataset(images, labels, 10)
    assert [len(batch) for batch, _ in dataset] == [10, 10, 3]
    for _ in range(2):
        got, order = epoch(dataset)
        np.testing.assert_array_equal(got, images)
        np.testing.assert_array_equal(order, labels)


def test_fit_is_repeatable_with_a_ragged_last_batch(numbered):
    def history():
        keras.utils.set_random_seed(5)
        model = keras.Sequential([keras.Input((6, 5, 2)), keras.layers.Flatten(), keras.layers.Dense(23)])
        model.compile("sgd", keras.losses.SparseCategoricalCrossentropy(from_logits=True))
        return model.fit(training_dataset(*numbered, 8, seed=1), epochs=3, verbose=0).history["loss"]

    assert history() == history()


def test_an_epoch_of_the_digits_has_85_batches():
    images = digits100_lt()
    dataset = training_dataset(images.train_images, images.train_labels, 128, seed=0)
    assert [sum(1 for _ in dataset) for _ in range(2)] == [85, 85]


GOOD = (np.zeros((4, 6, 6, 1), "float32"), np.zeros(4, "int32"), 2)


@pytest.mark.parametrize(
    "change, message",
    [
        ({"images": np.zeros((4, 6, 6))}, r"images must have shape \(N, .*channels\), got \(4, 6, 6\)"),
        ({"images": np.zeros((0, 6, 6, 1)), "labels": np.zeros(0, int)}, r"images must have shape"),
        ({"images": np.full((4, 6, 6, 1), "a")}, "images must be numbers, got dtype <U1"),
        ({"labels": np.zeros(3, int)}, r"labels must have shape \(4,\).*got \(3,\)"),
        ({"labels": np.zeros(4)}, "labels must be integers, got dtype float64"),
        ({"batch_size": 0}, "batch_size must be a whole number of at least 1, not 0"),
        ({"batch_size": 2.0}, r"batch_size must be a whole number of at least 1, not 2\.0"),
        ({"seed": None}, "seed must be a whole number of at least 0, not None"),
        ({"augment": 1}, "augment must be True or False, not 1"),
        ({"shuffle": "yes"}, "shuffle must be True or False, not 'yes'"),
        ({"num_classes": 1, "labels": np.array([0, 0, 1, 0])}, "labels must be below the number of classes, 1; got 1"),
        ({"num_classes": 3, "labels": np.zeros((4, 2))}, "one-hot labels must have 3 columns, one a class; got 2"),
        ({"max_shift": 6}, "max_shift must be a whole number of at least 0 and below 6, not 6"),
    ],
)
def test_bad_arguments_are_named(change, message):
    arguments = {**dict(zip(("images", "labels", "batch_size"), GOOD, strict=True)), "seed": 0, **change}
    with pytest.raises(ValueError, match=message):
        training_dataset(**arguments)
    shared = {"images", "labels", "batch_size", "num_classes"}
    if set(change) <= shared:
        with pytest.raises(ValueError, match=message):
            evaluation_dataset(**{name: value for name, value in arguments.items() if name in shared})
