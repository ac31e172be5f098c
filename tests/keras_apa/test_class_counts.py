"""Class counts against brute force and against the published counts of Places-LT, LVIS and CIFAR-LT."""

import collections
import dataclasses
import pickle

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from reference import load_json

from keras_apa.class_counts import (
    ClassCounts,
    as_class_counts,
    exponential_profile,
    pareto_profile,
    step_profile,
)

FEW = settings(max_examples=25, deadline=None)
COUNTS = st.lists(st.integers(0, 10**6), min_size=1, max_size=40)


def sizes(groups):
    return [len(group) for group in groups.values()]


@pytest.mark.smoke
def test_places_lt_groups_are_the_published_ones():
    counts = ClassCounts(load_json("places_lt_counts.json")["counts"])
    assert (counts.num_classes, counts.total) == (365, 62_500)
    assert (counts.counts.min(), counts.counts.max()) == (5, 4980)
    assert counts.imbalance_factor == 996
    assert sizes(counts.shot_groups()) == [131, 163, 71]


@pytest.mark.parametrize("version, expected", [("v1", [337, 461, 405]), ("v0.5", [454, 461, 315])])
def test_lvis_frequency_groups_are_its_letters(version, expected):
    reference = load_json(f"lvis_{version}_counts.json")
    groups = ClassCounts(reference["image_count"]).lvis_frequency_groups()
    assert sizes(groups) == expected
    letters = np.empty(len(reference["image_count"]), dtype="<U1")
    for group, indices in groups.items():
        letters[indices] = group[0]
    assert "".join(letters) == "".join(reference["frequency"])


@pytest.mark.parametrize("factor, total, smallest", [(10, 19573, 50), (50, 12608, 10), (100, 10847, 5), (200, 9502, 2)])
def test_exponential_profile_is_cifar100_lt(factor, total, smallest):
    counts = exponential_profile(500, 100, factor)
    assert (counts.sum(), counts.min(), counts.max()) == (total, smallest, 500)


@pytest.mark.parametrize(
    "factor, expected", [(10, [69, 31, 0]), (50, [41, 41, 18]), (100, [35, 35, 30]), (200, [30, 31, 39])]
)
def test_exponential_profile_has_cifar100_lt_groups(factor, expected):
    assert sizes(ClassCounts(exponential_profile(500, 100, factor)).shot_groups()) == expected


@pytest.mark.parametrize("factor, total", [(10, 20431), (50, 13996), (100, 12406), (200, 11203)])
def test_exponential_profile_is_cifar10_lt(factor, total):
    assert exponential_profile(5000, 10, factor).sum() == total


@FEW
@given(st.integers(1, 5000), st.integers(2, 200), st.sampled_from([1, 2, 3, 7, 10, 33, 100, 256]))
def test_exponential_profile_differs_from_truncation_only_by_rounding(max_count, num_classes, factor):
    exact = np.array([max_count * (1 / factor) ** (i / (num_classes - 1)) for i in range(num_classes)])
    counts = exponential_profile(max_count, num_classes, factor)
    differs = counts != exact.astype(int)
    assert (exact[differs] / counts[differs] > 1 - 2e-12).all()
    assert counts[-1] == max_count // factor
    assert (np.diff(counts) <= 0).all()


def test_exponential_profile_of_one_class_and_of_no_imbalance():
    assert exponential_profile(7, 1, 100).tolist() == [7]
    assert exponential_profile(7, 3, 1).tolist() == [7, 7, 7]


def test_pareto_profile_is_close_to_imagenet_lt():
    counts = ClassCounts(pareto_profile(1280, 1000, 256))
    assert (counts.counts.max(), counts.counts.min()) == (1280, 5)
    # The published list is one random draw; for 1000 classes the groups of a draw move by some 15 (binomial).
    assert np.abs(np.array(sizes(counts.shot_groups())) - [385, 479, 136]).max() <= 30
    assert counts.total == pytest.approx(115_846, rel=0.1)


@FEW
@given(st.integers(1, 5000), st.integers(1, 200), st.floats(1, 500), st.floats(0.5, 20))
def test_pareto_profile_falls_from_largest_to_smallest(max_count, num_classes, factor, alpha):
    counts = pareto_profile(max_count, num_classes, factor, alpha)
    assert counts[0] == max_count
    assert (np.diff(counts) <= 0).all()
    if num_classes > 1:
        assert abs(counts[-1] - max_count / factor) <= 1


def test_step_profile_has_two_levels():
    assert step_profile(500, 5, 100, minority_fraction=0.6).tolist() == [500, 500, 5, 5, 5]
    assert step_profile(500, 4, 10, minority_fraction=0).tolist() == [500] * 4
    assert step_profile(500, 4, 10, minority_fraction=1).tolist() == [50] * 4


@pytest.mark.parametrize("profile", [exponential_profile, pareto_profile, step_profile])
@pytest.mark.parametrize(
    "arguments, name",
    [
        ((0, 10, 10), "max_count"),
        ((500, 0, 10), "num_classes"),
        ((500, 2.5, 10), "num_classes"),
        ((500, 10, 0.1), "imbalance_factor"),
    ],
)
def test_profiles_name_the_bad_argument(profile, arguments, name):
    with pytest.raises(ValueError, match=name):
        profile(*arguments)


@FEW
@given(COUNTS)
def test_groups_prior_and_total_are_the_brute_force_ones(counts):
    got = ClassCounts(counts)
    for groups in (got.shot_groups(), got.shot_groups(many_threshold=7, few_threshold=7)):
        assert sorted(np.concatenate(list(groups.values()))) == list(range(len(counts)))
    assert got.shot_groups()["many"].tolist() == [i for i, n in enumerate(counts) if n > 100]
    assert got.shot_groups()["medium"].tolist() == [i for i, n in enumerate(counts) if 20 <= n <= 100]
    assert got.shot_groups()["few"].tolist() == [i for i, n in enumerate(counts) if n < 20]
    assert got.lvis_frequency_groups()["rare"].tolist() == [i for i, n in enumerate(counts) if 0 < n <= 10]
    assert got.total == sum(counts)
    assert len(got) == got.num_classes == len(counts)
    if sum(counts):
        np.testing.assert_allclose(got.prior, [n / sum(counts) for n in counts], rtol=1e-15)
    assert got.imbalance_factor == (max(counts) / min(counts) if min(counts) else np.inf)


@FEW
@given(st.lists(st.integers(0, 9), min_size=1, max_size=60))
def test_labels_mapping_and_counts_agree(labels):
    counts = [labels.count(i) for i in range(10)]
    expected = ClassCounts(counts)
    assert ClassCounts.from_labels(labels, num_classes=10) == expected
    assert ClassCounts.from_labels(np.array(labels, dtype="float32")[:, None], num_classes=10) == expected
    assert ClassCounts.from_mapping(collections.Counter(labels), num_classes=10) == expected
    assert as_class_counts(dict(enumerate(counts)), allow_zero=True) == expected
    assert ClassCounts.from_labels(labels).num_classes == max(labels) + 1
    assert ClassCounts.from_labels(labels, names=list("abcdefghij")) == ClassCounts(counts, tuple("abcdefghij"))


@FEW
@given(COUNTS, st.sampled_from([0.0, 0.5, 0.9, 0.999, 0.9999]))
def test_effective_numbers_are_the_geometric_sum(counts, beta):
    # float64 powers of beta: exact to rounding of 1 - beta**n, n up to 1e6.
    exact = [min(n, 1) if beta == 0 else (1 - beta**n) / (1 - beta) for n in counts]
    np.testing.assert_allclose(ClassCounts(counts).effective_numbers(beta), exact, rtol=1e-11, atol=0)


def test_effective_numbers_keep_their_digits_near_beta_one():
    np.testing.assert_allclose(ClassCounts([1, 10, 5000]).effective_numbers(1 - 2.0**-50), [1, 10, 5000], rtol=1e-10)


@FEW
@given(st.lists(st.integers(1, 10**5), min_size=1, max_size=40), st.sampled_from([0.0, 0.9, 0.9999]))
def test_class_balanced_weights_sum_to_the_number_of_classes(counts, beta):
    counts = ClassCounts(counts)
    weights = counts.class_balanced_weights(beta)
    assert weights.sum() == pytest.approx(len(counts), rel=1e-12)
    product = weights * counts.effective_numbers(beta)
    np.testing.assert_allclose(product, product[0], rtol=1e-12)


def test_counts_are_immutable_hashable_and_survive_pickle():
    source = np.array([3, 2, 1])
    counts = ClassCounts(source, names=["a", "b", "c"])
    source[0] = 99
    assert counts.counts.tolist() == [3, 2, 1]
    assert counts.counts.dtype == np.int64
    with pytest.raises(ValueError, match="read-only"):
        counts.counts[0] = 5
    with pytest.raises(dataclasses.FrozenInstanceError):
        counts.names = None
    assert len({counts, pickle.loads(pickle.dumps(counts)), ClassCounts([3, 2, 1])}) == 2
    assert counts != [3, 2, 1]


def test_counts_are_iterable_and_convert_to_arrays():
    counts = ClassCounts([3, 2])
    assert list(counts) == [3, 2] and all(type(count) is int for count in counts)
    assert np.asarray(counts, dtype="float32").dtype == np.float32
    np.array(counts)[0] = 9
    assert list(counts) == [3, 2]


def test_smoothing_makes_empty_classes_usable():
    counts = ClassCounts([4, 0], names=["cat", "emu"])
    assert counts.smoothed(2) == ClassCounts([6, 2], names=["cat", "emu"])
    assert as_class_counts(counts.smoothed()).counts.tolist() == [5, 1]
    with pytest.raises(ValueError, match=r"pseudo_count must be a whole number of at least 1; given: 0\.5"):
        counts.smoothed(0.5)


def test_as_class_counts_returns_the_same_object():
    counts = ClassCounts([2, 1])
    assert as_class_counts(counts, num_classes=2) is counts
    assert as_class_counts(np.array([2.0, 1.0])) == counts
    assert as_class_counts((2, 1)) == counts


@pytest.mark.parametrize(
    "value, message",
    [
        ({"cat": 5, "emu": 0}, r"train_counts must be above 0; given: no images of class 1 \('emu'\)\..*smooth"),
        ([5, 0, 0], r"train_counts must be above 0; given: no images of class 1 and 1 more classes"),
        ([5, -3], r"train_counts must not be negative; given: -3 for class 1"),
        ({"cat": 5, "emu": -3}, r"train_counts must not be negative; given: -3 for class 1 \('emu'\)"),
        ([5, 2.5], r"train_counts must be whole numbers; given: 2.5 for class 1"),
        ([5, float("nan")], r"train_counts must be whole numbers; given: nan for class 1"),
        ([True, False], r"train_counts must be whole numbers; given: dtype bool"),
        (["5", "3"], r"train_counts must be whole numbers"),
        ([], r"train_counts must be a one-dimensional sequence"),
        ([[1, 2]], r"train_counts must be a one-dimensional sequence.*\(1, 2\)"),
        ([[1], [2, 3]], r"train_counts must be a one-dimensional sequence"),
        (7, r"train_counts must be a one-dimensional sequence.*given: 7"),
        (None, r"train_counts must be .*given: None"),
        ({}, r"train_counts must be a mapping with at least one class; given: {}"),
        ({"cat": 5, 1: 3}, r"train_counts must have class names or class indices for all keys; given: 'cat', 1"),
        ({-1: 5}, r"train_counts must have class indices from 0 to -1; given: -1"),
    ],
)
@pytest.mark.smoke
def test_bad_counts_name_argument_class_and_remedy(value, message):
    with pytest.raises(ValueError, match=message):
        as_class_counts(value, argument="train_counts")


def test_wrong_number_of_classes_is_named():
    with pytest.raises(ValueError, match="class_counts must have 3 counts, one a class; given: 2"):
        as_class_counts([2, 1], num_classes=3)
    with pytest.raises(ValueError, match="names must be 2, one a class; given: 1"):
        ClassCounts([2, 1], names=["a"])
    with pytest.raises(ValueError, match="names must be a sequence"):
        ClassCounts([2, 1], names="ab")


@pytest.mark.parametrize(
    "labels, message",
    [
        ([0, 3, -1], r"labels must be from 0 to 2; given: 3 at position 1 \(and 1 more outside\)"),
        ([0, -1], r"labels must be from 0 to 2; given: -1 at position 1.$"),
        ([0, 0.5], r"labels must be whole numbers; given: 0.5 at position 1"),
        (np.eye(3), r"labels must have shape \(N,\) or \(N, 1\); given: shape \(3, 3\). For one-hot"),
    ],
)
def test_bad_labels_are_named(labels, message):
    with pytest.raises(ValueError, match=message):
        ClassCounts.from_labels(labels, num_classes=3)


def test_negative_label_is_an_error_without_num_classes():
    with pytest.raises(ValueError, match="given: -1"):
        ClassCounts.from_labels([-1])
    with pytest.raises(ValueError, match="labels must not be empty"):
        ClassCounts.from_labels([])


def test_undefined_statistics_are_errors():
    with pytest.raises(ValueError, match="counts must not all be 0 for a prior"):
        _ = ClassCounts([0, 0]).prior
    with pytest.raises(ValueError, match="no images of class 1"):
        ClassCounts([3, 0]).class_balanced_weights(0.9)
    with pytest.raises(ValueError, match="beta must be a finite number of at least 0 and below 1; given: 1"):
        ClassCounts([3]).effective_numbers(1)
    with pytest.raises(ValueError, match="many_threshold must be at least few_threshold, 6; given: 5"):
        ClassCounts([3]).shot_groups(many_threshold=5, few_threshold=6)


def test_repr_is_short():
    assert (
        repr(ClassCounts(exponential_profile(500, 100, 100)))
        == "ClassCounts(100 classes, 10847 images, 5 to 500 a class)"
    )


def test_a_sum_beyond_int64_does_not_wrap_round():
    counts = ClassCounts([2**62] * 3)
    assert counts.total == 3 * 2**62
    np.testing.assert_allclose(counts.prior, 1 / 3)
