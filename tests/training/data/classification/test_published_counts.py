"""The class counts of dry runs: what was published, and profiles where only total and extremes were."""

import numpy as np
import pytest

from training.config.classification import DataOptions
from training.data.classification.published_counts import IMAGENET_LT, PLACES_LT, falling_profile
from training.data.classification.registry import DATA_SETS


def test_places_lt_has_the_published_groups():
    assert (len(PLACES_LT), PLACES_LT.sum(), PLACES_LT.max(), PLACES_LT.min()) == (365, 62_500, 4980, 5)
    assert [int(each) for each in ((PLACES_LT > 100).sum(), (PLACES_LT < 20).sum())] == [131, 71]
    assert PLACES_LT[:4].tolist() == [219, 20, 115, 86]  # in the order of the labels


@pytest.mark.parametrize(
    ("name", "classes", "total", "largest", "smallest"),
    [
        ("imagenet_lt", 1000, 115_846, 1280, 5),
        ("places_lt", 365, 62_500, 4980, 5),
        ("inaturalist2018", 8142, 437_513, 1000, 2),
        ("imagenet1k", 1000, 1_281_167, 1300, 732),
        ("cifar100_lt", 100, 10_847, 500, 5),
    ],
)
def test_every_data_set_has_its_classes_total_and_extremes(name, classes, total, largest, smallest):
    counts = DATA_SETS[name].published_counts(DataOptions(name=name))
    assert (len(counts), counts.sum(), counts.max(), counts.min()) == (classes, total, largest, smallest)
    made_up = name in ("inaturalist2018", "imagenet1k")
    assert ("made-up" in DATA_SETS[name].counts_are) == made_up


def test_imagenet_lt_is_in_the_order_in_which_the_recipes_number_the_classes():
    assert np.all(np.diff(IMAGENET_LT) <= 0)


@pytest.mark.parametrize("total", [7, 8, 9, 10, 11])
def test_a_profile_has_any_sum_that_its_extremes_allow(total):
    counts = falling_profile(3, 5, 1, total)
    assert counts.sum() == total and counts[0] == 5 and counts[-1] == 1 and np.all(np.diff(counts) <= 0)


def test_another_sum_is_an_error():
    with pytest.raises(ValueError, match="total must be from 7 to 11 with these extremes; given: 12"):
        falling_profile(3, 5, 1, 12)
