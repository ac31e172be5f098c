"""What each sampler shows in an epoch: exact rules where there are such, frequencies where it draws."""

import time

import numpy as np
import pytest

from training.config.classification import SAMPLERS
from training.data.classification.samplers import epoch_length, epoch_order

pytestmark = pytest.mark.any_backend  # no backend takes part in sampling

COUNTS = np.array([600, 150, 40, 10])
LABELS = np.random.default_rng(0).permutation(np.repeat(np.arange(4), COUNTS))
N = len(LABELS)


def order(name, epoch=0, epochs=10, labels=LABELS, num_classes=4, seed=3, **options):
    return epoch_order(name, labels, num_classes, seed=seed, epoch=epoch, epochs=epochs, **options)


def options_of(name):
    return {"repeats": 3} if name == "repeated" else {}


@pytest.mark.parametrize("name", SAMPLERS)
def test_an_epoch_depends_on_seed_and_epoch_only(name):
    options = options_of(name)
    first, again = order(name, 4, **options), order(name, 4, **options)
    np.testing.assert_array_equal(first, again)
    assert not np.array_equal(first, order(name, 5, **options))
    assert not np.array_equal(first, order(name, 4, seed=4, **options))
    # Seed and epoch are not added up: (3, 4) is not (4, 3).
    assert not np.array_equal(first, order(name, 3, seed=4, **options))


@pytest.mark.parametrize("name", SAMPLERS)
def test_an_epoch_has_the_stated_length_and_valid_indices(name):
    options = options_of(name)
    length = epoch_length(name, LABELS, 4, **options)
    for epoch in (0, 9):
        indices = order(name, epoch, **options)
        assert indices.dtype == np.int64 and indices.shape == (length,)
        assert indices.min() >= 0 and indices.max() < N


@pytest.mark.parametrize("name", SAMPLERS)
def test_global_random_state_is_neither_read_nor_changed(name):
    np.random.seed(0)
    first = order(name)
    state = np.random.get_state()[1].copy()
    np.random.seed(1)
    np.testing.assert_array_equal(first, order(name))
    np.random.seed(0)
    np.testing.assert_array_equal(np.random.get_state()[1], state)


def test_random_shows_every_image_once():
    np.testing.assert_array_equal(np.sort(order("random")), np.arange(N))


def class_frequencies(name, epoch, epochs, draws=60):
    labels = np.concatenate([LABELS[order(name, epoch, epochs, seed=seed)] for seed in range(draws)])
    return np.bincount(labels, minlength=4) / len(labels)


@pytest.mark.parametrize(
    ("name", "epoch", "epochs", "probabilities"),
    [
        ("class_balanced", 0, 10, np.full(4, 0.25)),
        ("square_root", 7, 10, np.sqrt(COUNTS) / np.sqrt(COUNTS).sum()),
        ("progressively_balanced", 0, 10, COUNTS / N),
        ("progressively_balanced", 3, 10, 2 / 3 * COUNTS / N + 1 / 3 * 0.25),
        ("progressively_balanced", 9, 10, np.full(4, 0.25)),
        ("progressively_balanced", 0, 1, COUNTS / N),
    ],
)
def test_classes_are_drawn_with_their_probability(name, epoch, epochs, probabilities):
    # 48,000 draws: five standard deviations.
    tolerance = 5 * np.sqrt(probabilities * (1 - probabilities) / (60 * N))
    assert (np.abs(class_frequencies(name, epoch, epochs) - probabilities) < tolerance).all()


@pytest.mark.parametrize("name", ["class_balanced", "square_root", "progressively_balanced"])
def test_images_of_a_class_are_drawn_alike(name):
    drawn = np.concatenate([order(name, 9, seed=seed) for seed in range(60)])
    for label in range(4):
        own = np.flatnonzero(LABELS == label)
        counts = np.bincount(drawn, minlength=N)[own]
        expected = counts.sum() / len(own)
        # Chi-squared: mean k - 1, standard deviation sqrt(2 (k - 1)).
        degrees = len(own) - 1
        assert abs(((counts - expected) ** 2 / expected).sum() - degrees) < 5 * np.sqrt(2 * degrees)


def test_upsampling_repeats_only_what_is_too_little():
    indices = order("upsampling")
    assert np.bincount(LABELS[indices]).tolist() == [600] * 4
    times = np.bincount(indices, minlength=N)
    assert (times[LABELS == 0] == 1).all()
    assert times[LABELS == 1].max() > 1
    # Shuffled: the classes do not come one after another.
    assert np.bincount(LABELS[indices[:600]], minlength=4).min() > 100


def test_downsampling_shows_no_image_twice():
    indices = order("downsampling")
    assert np.bincount(LABELS[indices]).tolist() == [10] * 4
    assert len(np.unique(indices)) == 40
    assert set(indices[LABELS[indices] == 3]) == set(np.flatnonzero(LABELS == 3))
    # Another epoch shows other images of the larger classes.
    assert set(indices) != set(order("downsampling", 1))


@pytest.mark.parametrize("images_per_class", [1, 3, 4])
def test_class_aware_cycles_through_classes_and_through_the_images_of_each(images_per_class):
    indices = order("class_aware", images_per_class=images_per_class)
    assert len(indices) == N
    labels = LABELS[indices]
    turns = labels[: N // images_per_class * images_per_class].reshape(-1, images_per_class)
    assert (turns == turns[:, :1]).all()
    cycles = turns[: len(turns) // 4 * 4, 0].reshape(-1, 4)
    assert (np.sort(cycles) == np.arange(4)).all()
    assert len(np.unique(cycles, axis=0)) > 10
    for label, count in enumerate(COUNTS):
        shown = indices[labels == label]
        for start in range(0, len(shown), count):
            cycle = shown[start : start + count]
            assert len(np.unique(cycle)) == len(cycle)
        if len(shown) >= 2 * count:
            assert not np.array_equal(shown[:count], shown[count : 2 * count])


def test_repeated_shows_each_image_in_a_row_and_cuts_to_a_multiple_of_256():
    indices = order("repeated", repeats=3)
    assert len(indices) == 768
    assert (indices.reshape(-1, 3) == indices[::3, None]).all()
    assert len(np.unique(indices)) == 256
    # The four processes of the published iNaturalist runs each take every fourth of 437,513 images times 4.
    assert epoch_length("repeated", np.zeros(437_513, "int32"), 1, repeats=4) / 4 == 109_376
    assert len(order("repeated", repeats=1)) == 768


def test_repeated_keeps_all_of_a_small_set():
    labels = np.zeros(10, dtype="int32")
    indices = order("repeated", labels=labels, num_classes=1, repeats=4)
    assert len(indices) == 10 == epoch_length("repeated", labels, 1, repeats=4)


def test_an_order_of_a_large_set_takes_no_time():
    # iNaturalist 2018 has 437,513 images of 8,142 classes.
    labels = np.arange(437_513) % 8142
    started = time.process_time()
    assert len(order("class_aware", labels=labels, num_classes=8142)) == len(labels)
    # 0.2 s; the loop over classes must not become one over classes times images.
    assert time.process_time() - started < 5


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"name": "balanced"}, "the sampler must be one of random, class_balanced.*given: 'balanced'"),
        ({"seed": -1}, "seed must be a whole number of at least 0; given: -1"),
        ({"epoch": 10}, "epoch must be a whole number of at least 0 and below 10; given: 10"),
        ({"epochs": 0}, "epochs must be a whole number of at least 1; given: 0"),
        ({"name": "repeated", "repeats": 0}, "repeats must be a whole number of at least 1; given: 0"),
        ({"repeats": 2}, "repeats must be 1 where the sampler is not 'repeated'; given: 2 with 'random'"),
        ({"images_per_class": 0}, "images_per_class must be a whole number of at least 1; given: 0"),
        ({"num_classes": 3}, "labels must be from 0 to 2; given: 0 to 3"),
        ({"labels": np.array([0, -1])}, "labels must be from 0 to 3; given: -1 to 0"),
        ({"labels": np.array([0.0, 1.0])}, r"labels must be integers of shape \(N,\).*float64"),
        ({"labels": np.array([], "int32")}, r"labels must be integers of shape \(N,\), at least one"),
        (
            {"name": "class_aware", "num_classes": 6},
            "labels must have each class for the sampler 'class_aware'; given: none of class 4",
        ),
    ],
)
def test_bad_arguments_are_named(arguments, message):
    with pytest.raises(ValueError, match=message):
        order(**{"name": "random", **arguments})


@pytest.mark.parametrize("name", ["random", "repeated"])
def test_samplers_that_do_not_look_at_classes_take_a_class_without_images(name):
    assert len(order(name, num_classes=6)) == epoch_length(name, LABELS, 6)
