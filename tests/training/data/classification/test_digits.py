"""The embedded digits: counts, split, noise and repeatability, read off the arrays themselves."""

import dataclasses
import itertools

import numpy as np
import pytest
from sklearn.datasets import load_digits

from training.data.classification.digits import digits10_lt, digits100_lt

NOISE = 0.3


@pytest.fixture(scope="module")
def hundred():
    return digits100_lt()


@pytest.fixture(scope="module")
def clean():
    """The same without noise, where every image shows which source digits it was made of."""
    return digits100_lt(noise=0)


def sources_of(images, columns):
    """Index among scikit-learn's digits of what stands in these columns of each clean image, and its row."""
    table = {}
    for index, image in enumerate((load_digits().images / 16).astype("float32")):
        table.setdefault(image.tobytes(), index)
    found = []
    for image in images[..., 0]:
        places = [(table.get(image[row : row + 8, columns].tobytes()), row) for row in range(9)]
        found.append(next((index, row) for index, row in places if index is not None))
    return np.array(found).T


def test_sizes_types_and_names(hundred):
    assert hundred.train_images.shape == (10_847, 16, 16, 1)
    assert hundred.test_images.shape == (2_000, 16, 16, 1)
    assert hundred.image_shape == (16, 16, 1)
    assert {hundred.train_images.dtype, hundred.test_images.dtype} == {np.dtype("float32")}
    assert {hundred.train_labels.dtype, hundred.test_labels.dtype} == {np.dtype("int32")}
    assert hundred.num_classes == 100
    assert hundred.class_names[7] == "07" and hundred.class_names[99] == "99"


def test_counts_are_cifar100_lt_in_the_permuted_class_order(hundred):
    order = np.random.default_rng(1).permutation(100)
    expected = [int(500 * 100 ** (-i / 99)) for i in range(100)]
    # 500 * 100**-1 is 5 in exact numbers and may be just below it in floats.
    expected[-1] = 5
    assert np.bincount(hundred.train_labels)[order].tolist() == expected
    assert list(hundred.class_counts) == np.bincount(hundred.train_labels).tolist()
    assert np.bincount(hundred.test_labels).tolist() == [20] * 100
    groups = hundred.class_counts.shot_groups()
    assert [len(group) for group in groups.values()] == [35, 35, 30]
    # Every tens digit has frequent and rare classes.
    for group in ("many", "few"):
        assert {index // 10 for index in groups[group]} == set(range(10))


def test_images_show_the_digits_of_their_class_in_their_columns(clean):
    targets = load_digits().target
    rows = []
    for images, labels in ((clean.train_images, clean.train_labels), (clean.test_images, clean.test_labels)):
        tens, tens_row = sources_of(images, slice(0, 8))
        ones, ones_row = sources_of(images, slice(8, 16))
        np.testing.assert_array_equal(10 * targets[tens] + targets[ones], labels)
        rows.append((tens_row, ones_row))
        assert images.min() == 0 and images.max() == 1
    for row in itertools.chain(*rows):
        assert set(row) == set(range(9))
    # Offsets of the two digits are independent: correlation of 10,847 pairs has standard deviation 0.01.
    assert abs(np.corrcoef(*rows[0])[0, 1]) < 0.05


def test_no_source_digit_is_in_training_and_test_images(clean):
    def used(images):
        return {*sources_of(images, slice(0, 8))[0], *sources_of(images, slice(8, 16))[0]}

    training, test = used(clean.train_images), used(clean.test_images)
    assert not training & test
    assert len(training) <= 1200 and len(test) <= 597
    # 21,694 draws from 1,200 digits and 4,000 from 597 miss hardly any.
    assert len(training) > 1190 and len(test) > 580
    targets = load_digits().target
    assert set(targets[list(training)]) == set(targets[list(test)]) == set(range(10))


def test_noise_is_gaussian_of_the_given_strength_and_clipped(hundred, clean):
    for noisy, ink in ((hundred.train_images, clean.train_images), (hundred.test_images, clean.test_images)):
        noise = (noisy - ink)[ink == 0]
        inside = noise > -0.5
        assert noise.min() == -0.5
        assert noisy.max() == 1.5 and noisy.min() == -0.5
        # A Gaussian of 0.3 lies below -0.5 in 4.78 % of cases.
        assert (~inside).mean() == pytest.approx(0.0478, abs=0.002)
        assert np.median(noise) == pytest.approx(0, abs=0.005)
        assert np.quantile(noise, 0.8413) == pytest.approx(NOISE, abs=0.005)


def arrays(images):
    return [getattr(images, name) for name in ("train_images", "train_labels", "test_images", "test_labels")]


@pytest.mark.parametrize("make", [digits100_lt, digits10_lt])
def test_same_seed_gives_the_same_arrays_and_another_seed_others(make):
    first, second, other = make(seed=4), make(seed=4), make(seed=5)
    assert all(np.array_equal(a, b) for a, b in zip(arrays(first), arrays(second), strict=True))
    assert not np.array_equal(first.train_images, other.train_images)
    assert not np.array_equal(first.test_images, other.test_images)
    assert first.class_counts == other.class_counts


def test_test_images_do_not_depend_on_the_size_of_the_training_set(hundred):
    smaller = digits100_lt(imbalance_factor=10, largest_class=50)
    assert len(smaller.train_images) == sum(int(50 * 0.1 ** (i / 99)) for i in range(100))
    np.testing.assert_array_equal(smaller.test_images, hundred.test_images)


def test_sizes_are_adjustable():
    images = digits100_lt(largest_class=7, imbalance_factor=1, test_images_per_class=3, training_digits=900)
    assert list(images.class_counts) == [7] * 100
    assert len(images.test_images) == 300


def test_digits10_has_one_digit_at_a_random_offset():
    images = digits10_lt(noise=0)
    order = np.random.default_rng(1).permutation(10)
    counts = np.bincount(images.train_labels)[order]
    assert counts.tolist() == [500, 299, 179, 107, 64, 38, 23, 13, 8, 5]
    assert np.bincount(images.test_labels).tolist() == [100] * 10
    targets = load_digits().target
    sources = (load_digits().images / 16).astype("float32")
    table = {image.tobytes(): index for index, image in enumerate(sources)}
    seen, used = set(), {"train": set(), "test": set()}
    for part in used:
        for image, label in zip(getattr(images, f"{part}_images"), getattr(images, f"{part}_labels"), strict=True):
            matches = [
                (table[window], row, column)
                for row, column in itertools.product(range(9), range(9))
                if (window := image[row : row + 8, column : column + 8, 0].tobytes()) in table
            ]
            assert label in {targets[index] for index, _, _ in matches}
            assert image.sum() == pytest.approx(sources[matches[0][0]].sum())
            used[part].add(matches[0][0])
            seen |= {(row, column) for _, row, column in matches}
    assert len(seen) == 81
    assert not used["train"] & used["test"]


def test_data_set_is_frozen(hundred):
    with pytest.raises(dataclasses.FrozenInstanceError):
        hundred.train_images = None


@pytest.mark.parametrize("make", [digits100_lt, digits10_lt])
@pytest.mark.parametrize(
    "arguments, message",
    [
        ({"imbalance_factor": 0.5}, "imbalance_factor must be a finite number at least 1"),
        ({"imbalance_factor": 501}, "imbalance_factor must be at most largest_class, 500.*given: 501"),
        ({"largest_class": 0}, "largest_class must be a whole number of at least 1; given: 0"),
        ({"test_images_per_class": 2.5}, r"test_images_per_class must be a whole number.*given: 2\.5"),
        ({"noise": -0.1}, r"noise must be a finite number at least 0.*given: -0\.1"),
        ({"noise": float("nan")}, "noise must be a finite number"),
        ({"seed": -1}, "seed must be a whole number of at least 0; given: -1"),
        ({"training_digits": 1797}, "training_digits must be a whole number of at least 1 and below 1797"),
        ({"training_digits": 1}, "training_digits must leave a training image of each digit; given: 1 of 1797"),
        ({"training_digits": 1796}, "training_digits must leave a test image of each digit; given: 1796 of 1797"),
    ],
)
def test_bad_arguments_are_named(make, arguments, message):
    with pytest.raises(ValueError, match=message):
        make(**arguments)
