"""The embedded scenes: long tail, boxes that fit the masks, disjoint source digits, repeatability."""

import numpy as np
import pytest
from sklearn.datasets import load_digits

from training.data.detection import digit_scenes
from training.data.detection.digit_scenes import digit_scenes_lt
from training.data.detection.masks import decode_mask
from training.data.detection.source import frequency_groups


@pytest.fixture(scope="module")
def source():
    return digit_scenes_lt()


@pytest.fixture(scope="module")
def small():
    return digit_scenes_lt(num_train=40, num_test=10, image_size=(64, 96))


def test_classes_are_rare_common_and_frequent(source):
    groups = frequency_groups(source.image_counts)
    assert [len(own) for own in groups.values()] == [2, 4, 4]
    order = np.random.default_rng(1).permutation(10)
    objects = np.bincount(np.concatenate(source.train.labels), minlength=10)[order]
    total = objects.sum()
    expected = 200.0 ** (-np.arange(10) / 9)
    np.testing.assert_allclose(objects, expected / expected.sum() * total, atol=1)
    # An image counts once, however many objects of the class it shows.
    seen = [sum(c in own for own in source.train.labels) for c in range(10)]
    assert source.image_counts.tolist() == seen
    assert source.num_images == 600


def test_frequency_threshold_lies_between_the_common_and_the_frequent_classes(source):
    frequency = source.image_counts / source.num_images
    below = np.flatnonzero(frequency < source.frequency_threshold)
    groups = frequency_groups(source.image_counts)
    assert below.tolist() == sorted([*groups["r"], *groups["c"]])


def test_every_class_can_be_measured(source):
    counts = np.bincount(np.concatenate(source.test.labels), minlength=10)
    assert len(source.test) == 120 and counts.min() >= 40 and counts.max() - counts.min() <= 1


def test_boxes_are_the_smallest_around_their_masks(small):
    for index in range(len(small.train)):
        image, objects = small.train.load(index)
        assert image.dtype == np.uint8 and image.shape == (64, 96, 3)
        assert 2 <= len(objects) <= 5
        # A pixel belongs to one object at most.
        assert objects.masks.sum(0).max() == 1
        for box, mask in zip(objects.boxes, objects.masks, strict=True):
            rows, columns = np.nonzero(mask)
            assert box.tolist() == [columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]


def test_little_of_an_object_is_hidden():
    source = digit_scenes_lt(num_train=60, num_test=10)
    digit_area = {}
    # Of a digit of 8x8 pixels this share of its box is ink, thinned out by the cubic resizing.
    for image, value in zip(load_digits().images / 16, load_digits().target, strict=True):
        digit_area.setdefault(int(value), []).append((image >= 0.4).mean())
    for index in range(60):
        objects = source.train.objects(index)
        share = objects.masks.sum((1, 2)) / np.prod(objects.boxes[:, 2:] - objects.boxes[:, :2], axis=1)
        for label, each in zip(objects.labels, share, strict=True):
            assert each > 0.5 * min(digit_area[int(label)])


def test_objects_stand_out_from_the_clutter(small):
    inside, outside = [], []
    for index in range(len(small.train)):
        image, objects = small.train.load(index)
        on = objects.masks.any(0)
        inside.append(image[on].mean())
        outside.append(image[~on].mean())
    assert np.mean(inside) > np.mean(outside) + 60


def test_training_and_test_scenes_have_different_source_digits(monkeypatch):
    drawn = []
    split = digit_scenes.split_digits

    def watched(*arguments):
        parts = split(*arguments)
        for part in parts:
            used = {image.tobytes() for image in part.images}
            drawn.append(used)
        return parts

    monkeypatch.setattr(digit_scenes, "split_digits", watched)
    digit_scenes_lt(num_train=10, num_test=2)
    training, test = drawn
    assert len(training) + len(test) == 1797 and not training & test


def test_same_seed_gives_the_same_scenes_and_another_seed_others(small):
    again, other = (digit_scenes_lt(num_train=40, num_test=10, image_size=(64, 96), seed=seed) for seed in (0, 1))
    for index in range(10):
        np.testing.assert_array_equal(again.train.image(index), small.train.image(index))
        np.testing.assert_array_equal(again.test.objects(index).masks, small.test.objects(index).masks)
        assert not np.array_equal(other.train.image(index), small.train.image(index))
    assert again.test_annotations == small.test_annotations


def test_test_scenes_do_not_depend_on_the_training_scenes(small):
    other = digit_scenes_lt(num_train=12, num_test=10, image_size=(64, 96), imbalance_factor=3)
    np.testing.assert_array_equal(other.test.image(9), small.test.image(9))


def test_annotations_say_what_the_test_scenes_show(small):
    contents = small.test_annotations
    assert [each["id"] for each in contents["images"]] == small.test.image_ids.tolist()
    assert len({each["id"] for each in contents["annotations"]}) == len(contents["annotations"])
    at = 0
    for index, image in enumerate(contents["images"]):
        objects = small.test.objects(index)
        own = contents["annotations"][at : at + len(objects)]
        at += len(objects)
        assert {each["image_id"] for each in own} == {image["id"]}
        assert [each["category_id"] - 1 for each in own] == objects.labels.tolist()
        shown = {each["category_id"] for each in own}
        assert set(image["neg_category_ids"]) == set(range(1, 11)) - shown
        for each, box, mask in zip(own, objects.boxes, objects.masks, strict=True):
            x, y, width, height = each["bbox"]
            assert [x, y, x + width, y + height] == box.tolist() and each["area"] == mask.sum()
            np.testing.assert_array_equal(decode_mask(each["segmentation"], 64, 96), mask)
    frequencies = {each["id"] - 1: each["frequency"] for each in contents["categories"]}
    assert frequencies == {
        index: name for name, own in frequency_groups(small.image_counts).items() for index in own.tolist()
    }


def test_smallest_scenes_hold_all_their_objects():
    source = digit_scenes_lt(num_train=20, num_test=4, image_size=(32, 32))
    assert all(len(source.train.objects(index)) >= 2 for index in range(20))
    assert all(mask.any() for index in range(20) for mask in source.train.objects(index).masks)


@pytest.mark.parametrize(
    "arguments, message",
    [
        ({"num_train": 9}, "num_train must be a whole number of at least 10; given: 9"),
        ({"num_test": 0}, "num_test must be a whole number of at least 1; given: 0"),
        ({"image_size": (128, 16)}, "each side of image_size must be a whole number of at least 32; given: 16"),
        ({"imbalance_factor": 0.5}, "imbalance_factor must be a finite number at least 1"),
        ({"seed": -1}, "seed must be a whole number of at least 0"),
    ],
)
def test_bad_arguments_are_named(arguments, message):
    with pytest.raises(ValueError, match=message):
        digit_scenes_lt(**arguments)
