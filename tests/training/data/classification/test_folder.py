"""A folder of class folders: what is taken, how it is split, what is left out and what is refused."""

import os

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from training.data.classification.folder import folder, stratified_split
from zoo import Preprocessing

pytestmark = pytest.mark.any_backend  # no backend takes part in reading folders


def write(path, shade=0):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (9, 7), (shade,) * 3).save(path)


def fill(root, **counts):
    for shade, (name, count) in enumerate(counts.items()):
        (root / name).mkdir(parents=True)
        for number in range(count):
            write(root / name / f"{number:03d}.png", shade)
    return root


def names_of(images):
    return sorted(os.path.basename(os.path.dirname(path)) + "/" + os.path.basename(path) for path in images.paths)


def test_classes_are_sorted_by_name_and_images_have_their_labels(tmp_path):
    source = folder(fill(tmp_path / "birds", wren=5, emu=10, Auk=3))
    assert source.name == "birds"
    assert source.class_names == ("Auk", "emu", "wren")
    assert list(source.class_counts) == [2, 8, 4] == np.bincount(source.train.labels).tolist()
    assert np.bincount(source.test.labels).tolist() == [1, 2, 1]
    assert source.validation is None and source.notes == ()
    for images in (source.train, source.test):
        for path, label in zip(images.paths, images.labels, strict=True):
            assert os.path.basename(os.path.dirname(path)) == source.class_names[label]
    assert not {*source.train.paths} & {*source.test.paths}
    assert len({*source.train.paths, *source.test.paths}) == 18


def test_images_are_loaded(tmp_path):
    source = folder(fill(tmp_path, emu=2, wren=2))
    shades = [source.train.load(tf.constant(index, "int64")).numpy()[0, 0, 0] for index in range(2)]
    assert shades == source.train.labels.tolist()
    assert source.image_shape == (224, 224, 3)
    small = Preprocessing(image_size=(32, 32))
    assert folder(tmp_path, preprocessing=small).image_shape == (32, 32, 3)


def test_the_split_depends_on_the_seed_only(tmp_path):
    fill(tmp_path, emu=20, wren=20)
    first, again, other = folder(tmp_path, seed=1), folder(tmp_path, seed=1), folder(tmp_path, seed=2)
    assert first.test.paths.tolist() == again.test.paths.tolist()
    assert first.test.paths.tolist() != other.test.paths.tolist()


@pytest.mark.parametrize("fraction", [0.01, 0.2, 0.5, 0.99])
def test_every_class_is_trained_on_and_tested_where_it_can_be(fraction):
    counts = np.arange(1, 30)
    labels = np.random.default_rng(0).permutation(np.repeat(np.arange(29), counts))
    kept, held_out = stratified_split(labels, fraction, seed=0)
    np.testing.assert_array_equal(np.sort(np.concatenate([kept, held_out])), np.arange(len(labels)))
    held = np.bincount(labels[held_out], minlength=29)
    assert held[0] == 0 and (held[1:] >= 1).all()
    assert (np.bincount(labels[kept], minlength=29) >= 1).all()
    np.testing.assert_array_equal(held[1:], np.clip(np.round(fraction * counts[1:]), 1, counts[1:] - 1))


def test_a_class_keeps_its_split_when_another_class_gets_more_images():
    few, many = np.array([0] * 10 + [1] * 10), np.array([0] * 10 + [1] * 10 + [2] * 5)
    held = stratified_split(few, 0.3, seed=5)[1]
    assert set(held) <= set(stratified_split(many, 0.3, seed=5)[1])


def test_a_class_of_one_image_is_trained_on_and_named(tmp_path):
    source = folder(fill(tmp_path, emu=6, kiwi=1, wren=2))
    assert list(source.class_counts) == [5, 1, 1]
    assert np.bincount(source.test.labels, minlength=3).tolist() == [1, 0, 1]
    assert len(source.notes) == 1
    assert "class 1 ('kiwi') has one image: it is trained on, and no test image is left" in source.notes[0]


def test_what_is_hidden_or_no_image_is_left_out(tmp_path):
    fill(tmp_path, emu=4, wren=4)
    write(tmp_path / "emu" / ".hidden.png")
    write(tmp_path / "emu" / ".cache" / "a.png")
    write(tmp_path / ".git" / "a.png")
    (tmp_path / "emu" / "notes.txt").write_text("eats anything")
    write(tmp_path / "emu" / "young" / "CHICK.PNG")
    write(tmp_path / "loose.png")
    source = folder(tmp_path)
    assert source.class_names == ("emu", "wren")
    assert len(source.train) + len(source.test) == 9
    assert "young/CHICK.PNG" in names_of(source.train) + names_of(source.test)
    assert source.notes == (
        "1 images lie beside the class folders, not in one, and are left out: loose.png …",
        "files without the ending of an image that can be read here are left out: 1 .txt",
    )


@pytest.mark.parametrize("name", ["test", "val", "validation", "valid"])
def test_a_given_split_is_used(tmp_path, name):
    fill(tmp_path / "train", emu=3, wren=2)
    fill(tmp_path / name, emu=1, wren=2)
    source = folder(tmp_path)
    assert list(source.class_counts) == [3, 2]
    assert source.test.labels.tolist() == [0, 1, 1] and source.validation is None
    assert names_of(source.test) == ["emu/000.png", "wren/000.png", "wren/001.png"]
    assert source.notes == ()


def test_a_given_validation_set_is_kept_apart_from_the_test(tmp_path):
    fill(tmp_path / "train", emu=3, wren=2)
    fill(tmp_path / "val", emu=1, wren=1)
    fill(tmp_path / "test", emu=2)
    source = folder(tmp_path)
    assert source.validation.labels.tolist() == [0, 1] and source.test.labels.tolist() == [0, 0]
    assert source.notes[0].startswith("class 1 ('wren') has no image in the test folder")


def test_a_class_of_the_test_folder_only_is_an_error(tmp_path):
    fill(tmp_path / "train", emu=3, wren=2)
    fill(tmp_path / "test", emu=1, kiwi=1, auk=1)
    with pytest.raises(
        ValueError, match=r"test must have class folders that are in .*train too; given: 'auk' and 1 more"
    ):
        folder(tmp_path)


def corrupt(root):
    (root / "emu" / "000.png").write_bytes((root / "emu" / "000.png").read_bytes()[:40])
    (root / "wren" / "001.png").write_bytes(b"")
    (root / "wren" / "text.jpg").write_text("no image")


def test_corrupt_files_are_all_listed(tmp_path):
    corrupt(fill(tmp_path, emu=4, wren=4))
    with pytest.raises(
        ValueError, match="3 of 9 images cannot be decoded; .*on_corrupt='skip' .--data.on-corrupt skip.:"
    ) as error:
        folder(tmp_path)
    for name in ("emu/000.png: ", "wren/001.png: the file is empty", "wren/text.jpg: not an image"):
        assert name in str(error.value)


def test_corrupt_files_are_skipped_and_listed_where_that_is_asked_for(tmp_path):
    corrupt(fill(tmp_path, emu=4, wren=4))
    source = folder(tmp_path, on_corrupt="skip")
    assert len(source.train) + len(source.test) == 6
    assert "3 of 9 images cannot be decoded and were skipped" in source.notes[0]
    assert all(name in source.notes[0] for name in ("000.png", "001.png", "text.jpg"))


def test_a_class_of_corrupt_files_only_is_an_error(tmp_path):
    fill(tmp_path, emu=4, wren=1)
    (tmp_path / "wren" / "000.png").write_bytes(b"?")
    with pytest.raises(ValueError, match="wren must have a readable image; given: none"):
        folder(tmp_path, on_corrupt="skip")


def test_an_empty_class_folder_is_an_error(tmp_path):
    fill(tmp_path, emu=4, wren=3, kiwi=0, auk=0)
    with pytest.raises(
        ValueError, match=r"auk and 1 more class folders must have an image; given: none. Put images there"
    ):
        folder(tmp_path)


def test_one_image_of_each_class_cannot_be_split(tmp_path):
    with pytest.raises(ValueError, match="must have two images of a class.*; given: one of each"):
        folder(fill(tmp_path, emu=1, wren=1))


def test_a_folder_that_is_none_is_an_error(tmp_path):
    with pytest.raises(
        FileNotFoundError, match=r"path must be a folder of class folders; given: .*none, which is not there"
    ):
        folder(tmp_path / "none")
    write(tmp_path / "a.png")
    with pytest.raises(FileNotFoundError, match=r"a\.png, which is a file"):
        folder(tmp_path / "a.png")
    with pytest.raises(ValueError, match="at least two classes; given: none"):
        folder(tmp_path)
    write(tmp_path / "emu" / "a.png")
    with pytest.raises(ValueError, match="at least two classes; given: one, 'emu'"):
        folder(tmp_path)
    (tmp_path / "wren").mkdir()
    (tmp_path / "emu" / "a.png").unlink()
    with pytest.raises(ValueError, match=r"must have images; given: none\. Allowed endings: \.jpg"):
        folder(tmp_path)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"validation_fraction": 0}, "validation_fraction must be a finite number above 0 and below 1; given: 0"),
        ({"validation_fraction": 1.0}, r"validation_fraction must be a finite number .*given: 1\.0"),
        ({"on_corrupt": "ignore"}, "on_corrupt must be one of error, skip; given: 'ignore'"),
        ({"seed": -1}, "seed must be a whole number of at least 0; given: -1"),
    ],
)
def test_bad_arguments_are_named(tmp_path, arguments, message):
    with pytest.raises(ValueError, match=message):
        folder(tmp_path, **arguments)
