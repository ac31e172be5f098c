"""Folders that are splits by their names and by what is in them, and classes that only have such a name."""

import re

import pytest
from PIL import Image

from training.data.classification.folder import folder
from training.data.classification.split_folders import part_of

pytestmark = pytest.mark.any_backend  # no backend takes part in reading folders


def fill(root, **counts):
    for name, count in counts.items():
        place = root if name == "flat" else root / name
        place.mkdir(parents=True, exist_ok=True)
        for number in range(count):
            Image.new("RGB", (4, 3)).save(place / f"{number}.png")
    return root


NAMES = {
    "train": (
        "train",
        "Train",
        "TRAINING",
        "seg_train",
        "train_set",
        "TrainSet",
        "train2017",
        "train-images",
        "trn",
        "training_set",
        "Tr",
    ),
    "validation": ("val", "VALID", "Validation", "dev", "eval", "val2017", "vld", "va"),
    "test": ("test", "Testing", "seg_test", "test set", "testset", "tst", "test_set", "te"),
    None: ("trainer", "trains", "contest", "train2", "trainA", "seg_pred", "data", "value", "intrain", "train test"),
}


@pytest.mark.parametrize("part", NAMES)
def test_names_of_parts_are_known_in_every_case(part):
    assert {name: part_of(name) for name in NAMES[part]} == dict.fromkeys(NAMES[part], part)


@pytest.mark.parametrize(
    "names",
    [
        ("Train", "Test"),
        ("Training", "Testing"),
        ("TRAIN", "VAL"),
        ("train", "validation"),
        ("trn", "tst"),
        ("tr", "te"),
        ("training_set", "test_set"),
    ],
)
def test_splits_are_used_in_any_spelling(tmp_path, names):
    fill(tmp_path / names[0], emu=5, wren=3)
    fill(tmp_path / names[1], emu=2, wren=1)
    source = folder(tmp_path)
    assert (source.class_names, list(source.class_counts)) == (("emu", "wren"), [5, 3])
    assert source.test.labels.tolist() == [0, 0, 1] and source.validation is None and source.notes == ()


def test_an_archive_within_a_folder_of_its_name_is_opened(tmp_path):
    fill(tmp_path / "seg_train" / "seg_train", emu=5, wren=3)
    fill(tmp_path / "seg_test" / "seg_test", emu=2, wren=1)
    fill(tmp_path / "seg_pred" / "seg_pred", flat=4)
    source = folder(tmp_path)
    assert (len(source.train), len(source.test)) == (8, 3)
    assert source.notes == ("folders beside 'seg_test', 'seg_train' are left out: 'seg_pred'",)


def test_short_names_are_splits_only_with_class_folders(tmp_path):
    fill(tmp_path, tr=3, te=3, fr=3)  # languages
    assert (folder(tmp_path).class_names, folder(tmp_path).notes) == (("fr", "te", "tr"), ())


@pytest.mark.parametrize("wrapper", ["data", "archive/dataset", "images"])
def test_splits_in_a_folder_of_their_own_are_named_with_it(tmp_path, wrapper):
    for part in ("train", "test"):
        fill(tmp_path / wrapper / part, cat=3, dog=3)
    (tmp_path / "__MACOSX").mkdir()
    place = re.escape(str(tmp_path / wrapper))
    with pytest.raises(ValueError, match=rf"must be the folder that has the splits; .*\(--data\.path {place}\)$"):
        folder(tmp_path)
    assert folder(tmp_path / wrapper).class_names == ("cat", "dog")


def test_splits_of_a_data_set_for_detection_have_no_classes(tmp_path):
    for part in ("train", "val"):
        fill(tmp_path / "images" / part, flat=3)
        (tmp_path / "labels" / part).mkdir(parents=True)
        (tmp_path / "labels" / part / "0.txt").touch()
    with pytest.raises(ValueError, match=r"'train', 'val' in .*images have no class folders, as in .* detection: put"):
        folder(tmp_path)


def test_a_wrapper_with_a_link_to_itself_is_no_endless_search(tmp_path):
    fill(tmp_path, flat=2)
    (tmp_path / "again").symlink_to(".")
    with pytest.raises(ValueError, match="at least two classes"):
        folder(tmp_path)


def test_a_flat_test_folder_beside_training_and_validation_is_left_out_and_told(tmp_path):
    fill(tmp_path / "train", emu=5, wren=3)
    fill(tmp_path / "val", emu=2, wren=1)
    fill(tmp_path / "test", flat=4)
    source = folder(tmp_path)
    assert len(source.test) == 3 and source.validation is None
    assert source.notes == (
        "the folder 'test' is left out: its 4 images are in no class folders, so they have no labels",
    )


def test_of_training_images_alone_a_part_is_held_out(tmp_path):
    fill(tmp_path / "train", emu=5, wren=5)
    assert len(folder(tmp_path).test) == 2
    fill(tmp_path / "test", flat=4)
    source = folder(tmp_path)
    assert (len(source.train), len(source.test)) == (8, 2)
    assert "'test' is left out" in source.notes[0]
    assert source.notes[1].startswith("there are no test images in class folders: a part of each class in ")


def test_images_beside_the_class_folders_of_a_split_are_told(tmp_path):
    fill(tmp_path / "train", emu=5, wren=3, flat=2)
    fill(tmp_path / "test", emu=2, wren=1)
    assert (
        folder(tmp_path).notes[0].startswith(f"2 images lie beside the class folders in {tmp_path / 'train'}, not in")
    )


@pytest.mark.parametrize("counts", [{"train": 4}, {"test": 4}, {"Valid": 4}, {"test/old": 3, "test/new": 3}])
def test_a_class_may_be_called_train_or_test(tmp_path, counts):
    fill(tmp_path, car=4, bus=4, **counts)
    source = folder(tmp_path)
    name = next(iter(counts)).partition("/")[0]
    assert source.class_names == tuple(sorted(["bus", "car", name]))
    assert source.notes == (
        f"the folder {name!r} is a class here, no part of a split: there are images in 'bus', 'car' beside it",
    )


@pytest.mark.parametrize(
    ("folders", "message"),
    [
        (
            ("train/a", "train/b", "val/a", "valid/a"),
            "one folder of validation images; given: 'val', 'valid', by their names. Keep",
        ),
        (("train/a", "train/b", "Train/a", "Train/b", "test/a"), "one folder of training images; given: "),
        (
            ("train", "test"),
            "'test', 'train', which are splits by their names, but 'train' has 0 class folders with images and 2 im",
        ),
        (("train/a", "test/a"), "'train' has 1 class folders with images"),
        (
            ("val/a", "val/b", "test/a"),
            "'test', 'val', which are splits by their names, but there is no folder of training images",
        ),
        (
            ("train/a", "train/b", "car", "bus"),
            "'train', which may be the training images, in 2 class folders, or a class beside",
        ),
        (
            ("train/a", "train/b", "test/a", "test/c"),
            "test must have class folders that are in .*train too; given: 'c'",
        ),
        (
            ("train1/a", "train1/b", "test1/a", "test1/b"),
            "'test1', 'train1', which have the same folders in them, 'a', 'b'",
        ),
        (("Trainingsdaten/a", "Trainingsdaten/b", "Testdaten/a", "Testdaten/b"), "may be splits"),
        (("train_val/a", "train_val/b", "test/a", "test/b"), "'test', 'train_val', which have the same folders"),
        (("train_clean/a", "train_clean/b", "more/a", "more/b"), "'more', 'train_clean', which have the same folders"),
        (
            ("emu/train", "emu/test", "wren/train"),
            "emu must have the images of one class; given: 'test', 'train'.* as train/emu",
        ),
    ],
)
def test_what_may_be_one_or_the_other_is_refused_with_the_reason(tmp_path, folders, message):
    fill(tmp_path, **dict.fromkeys(folders, 2))
    with pytest.raises(ValueError, match=message):
        folder(tmp_path)


def test_folders_that_are_in_every_class_are_told(tmp_path):
    fill(tmp_path, **{f"{fold}/{name}": 2 for fold in ("fold0", "fold1") for name in ("emu", "wren")})
    assert "the same folders are in all of them: 'emu', 'wren'; if these are the classes" in folder(tmp_path).notes[0]
    fill(tmp_path, **{"fold2/emu": 2, "fold2/kiwi": 2})
    assert folder(tmp_path).notes == ()


def test_names_with_the_letters_of_a_split_are_classes(tmp_path):
    fill(tmp_path, **{"trainer/red": 2, "trainer/blue": 2, "valley/red": 2, "valley/green": 2, "contest": 2})
    source = folder(tmp_path)
    assert (source.class_names, source.notes) == (("contest", "trainer", "valley"), ())


def test_an_empty_test_folder_is_refused(tmp_path):
    fill(tmp_path / "train", emu=5, wren=3)
    (tmp_path / "test").mkdir()
    with pytest.raises(
        ValueError, match=r"test must have images in class folders; given: none. Put images there, or remove"
    ):
        folder(tmp_path)
