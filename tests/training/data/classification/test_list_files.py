"""Lists of images: lines and JSON that are read, labels, relabelling by count, and every error with its place."""

import itertools
import json
import pathlib

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from training.config.classification import DataOptions
from training.data.classification.list_files import inaturalist_json, list_files, read_list
from training.data.classification.registry import load_source
from zoo import Preprocessing

pytestmark = pytest.mark.any_backend  # no backend takes part in reading lists

PLACES_LT = pathlib.Path(__file__).parents[3] / "data" / "places_lt_counts.json"


@pytest.fixture
def root(tmp_path):
    """Three classes of 1, 3 and 2 training images, one test image each; each image is filled with its number."""
    lines = {"train": ["a/0.png 0", "b/1.png 1", "b/2.png 1", "b/3.png 1", "c c/4.png 2", "c c/5.png\t2"]}
    lines["test"] = ["test/6.png 0", "test/7.png 1", "test/8.png 2"]
    for number, line in enumerate(lines["train"] + lines["test"]):
        path = tmp_path / line.rsplit(maxsplit=1)[0]
        path.parent.mkdir(exist_ok=True)
        Image.new("RGB", (9, 7), (number,) * 3).save(path)
    for part, own in lines.items():
        (tmp_path / f"{part}.txt").write_text("\n".join(own) + "\n")
    return tmp_path


def read(root, **options):
    return list_files(root / "train.txt", root / "test.txt", root, **options)


def write_list(root, *lines, name="train.txt"):
    (root / name).write_bytes(b"\n".join(line if isinstance(line, bytes) else line.encode() for line in lines))


def shades(images):
    return [int(images.load(tf.constant(i, "int64")).numpy()[0, 0, 0]) for i in range(len(images))]


def test_images_and_labels_are_those_of_the_lines(root):
    source = read(root, class_names=["x", "y", "z"], name="letters")
    assert source.name == "letters" and source.class_names == ("x", "y", "z")
    assert list(source.class_counts) == [1, 3, 2]
    assert source.train.labels.tolist() == [0, 1, 1, 1, 2, 2] and shades(source.train) == [0, 1, 2, 3, 4, 5]
    assert source.test.labels.tolist() == [0, 1, 2] and shades(source.test) == [6, 7, 8]
    assert source.validation is None
    assert source.image_shape == (224, 224, 3)
    assert read(root, preprocessing=Preprocessing(image_size=(64, 64))).image_shape == (64, 64, 3)


def test_a_validation_list_is_read_too(root):
    assert read(root, validation=root / "test.txt").validation.labels.tolist() == [0, 1, 2]


def test_lines_of_any_ending_and_empty_ones_are_read(root):
    (root / "odd.txt").write_bytes(b"\xef\xbb\xbfa/0.png 0\r\n\r\n  b/1.png   1  \r\n\n")
    paths, labels = read_list(root / "odd.txt", "images")
    assert paths == ["images/a/0.png", "images/b/1.png"] and labels.tolist() == [0, 1]
    assert labels.dtype == np.int32


def test_relabelling_ranks_by_falling_count(root):
    source = read(root, class_names=["x", "y", "z"], relabel_by_count=True)
    assert source.class_names == ("y", "z", "x") and list(source.class_counts) == [3, 2, 1]
    assert source.train.labels.tolist() == [2, 0, 0, 0, 1, 1] and shades(source.train) == [0, 1, 2, 3, 4, 5]
    assert source.test.labels.tolist() == [2, 0, 1]


def test_places_lt_is_ranked_stably(root):
    """The published counts; the labels of the 237 classes in a tie are in the list's order."""
    counts = np.array(json.loads(PLACES_LT.read_text())["counts"])
    assert (len(counts), counts.sum(), counts.max(), counts.min()) == (365, 62_500, 4_980, 5)
    write_list(root, *(f"a/0.png {label}" for label, count in enumerate(counts) for _ in range(count)))
    source = read(root, relabel_by_count=True)
    assert list(source.class_counts) == sorted(counts, reverse=True)
    assert [len(group) for group in source.class_counts.shot_groups().values()] == [131, 163, 71]
    names = [int(name) for name in read(root, class_names=range(365), relabel_by_count=True).class_names]
    assert sum(np.bincount(counts)[count] > 1 for count in counts) == 237
    assert all(counts[a] > counts[b] or a < b for a, b in itertools.pairwise(names))


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("b/1.png", "the line must be a path, white space and a label; given: 'b/1.png'"),
        ("b/1.png dog", "the label must be a whole number from 0; given: 'dog'"),
        ("b/1.png -1", "the label must be a whole number from 0; given: '-1'"),
        ("b/1.png 1.0", "the label must be a whole number from 0; given: '1.0'"),
        ("b/1.png ²", "the label must be a whole number from 0; given: '²'"),
        ("b/1.png 99999999999", "the label must be a whole number from 0; given: '99999999999'"),
        (b"b/\xff\xfe.png 1", "the line must be text in UTF-8; given: 'b/.*png 1'"),
        ("x" * 500, r"the line must be a path, white space and a label; given: 'x{77}\.\.\.'"),
    ],
)
def test_a_bad_line_is_an_error_with_file_and_line(root, line, message):
    write_list(root, "a/0.png 0", "", line, "b/2.png 1")
    with pytest.raises(ValueError, match=rf"train\.txt, line 3: {message}"):
        read(root)


def test_labels_beyond_the_classes_are_an_error_with_file_and_line(root):
    with pytest.raises(ValueError, match=r"train\.txt, line 5: the label must be from 0 to 1, for 2 classes; given: 2"):
        read(root, num_classes=2)
    write_list(root, "test/6.png 0", "test/7.png 3", name="test.txt")
    with pytest.raises(ValueError, match=r"test\.txt, line 2: the label must be from 0 to 2, for 3 classes; given: 3"):
        read(root)


def test_a_class_without_training_images_is_an_error(root):
    write_list(root, "a/0.png 0", "b/1.png 2")
    with pytest.raises(ValueError, match=r"train\.txt must have an image of every class; given: none of class 1\."):
        read(root)
    with pytest.raises(ValueError, match=r"none of class 1 \('y'\) and of 1 more classes"):
        read(root, class_names=["x", "y", "z", "w"])


def test_a_list_without_lines_is_an_error(root):
    write_list(root, "", " ")
    with pytest.raises(ValueError, match=r"train\.txt must have lines of a path and a label; given: an empty file"):
        read(root)


def test_missing_lists_and_images_are_named(root):
    with pytest.raises(FileNotFoundError, match=r"the list file .*none\.txt is not there"):
        list_files(root / "none.txt", root / "test.txt", root)
    with pytest.raises(ValueError, match="the list file .* cannot be read: Is a directory"):
        list_files(root, root / "test.txt", root)
    with pytest.raises(
        FileNotFoundError, match=r"6 of the 6 images that the train list names are not there: .* and 1 mo"
    ):
        list_files(root / "train.txt", root / "test.txt", root / "elsewhere")
    (root / "test" / "7.png").unlink()
    with pytest.raises(FileNotFoundError, match=r"1 of the 3 images that the test list names.*7\.png\. Is root"):
        read(root)


def test_images_that_do_not_decode_are_found_before_training_where_asked(root):
    (root / "b" / "2.png").write_bytes(b"?")
    (root / "test" / "8.png").write_bytes(b"")
    assert len(read(root).train) == 6
    with pytest.raises(ValueError, match=r"2 of 9 images cannot be decoded; .*on_corrupt='skip'.*:\n") as error:
        read(root, check_images=True)
    assert "2.png: not an image" in str(error.value) and "8.png: the file is empty" in str(error.value)
    source = read(root, check_images=True, on_corrupt="skip")
    assert (len(source.train), list(source.class_counts)) == (5, list(np.bincount(source.train.labels)))
    assert source.notes[0].startswith("2 of 9 images cannot be decoded and were skipped:\n")
    for file in (root / "b").iterdir():
        file.write_bytes(b"?")
    with pytest.raises(
        ValueError, match="the training list without the images that cannot be decoded must have an image of every"
    ):
        read(root, check_images=True, on_corrupt="skip")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"num_classes": 0}, "num_classes must be a whole number of at least 1; given: 0"),
        (
            {"num_classes": 4, "class_names": ["x", "y", "z"]},
            "num_classes must be the number of class_names, 3; given: 4",
        ),
        ({"relabel_by_count": "yes"}, "relabel_by_count must be True or False; given: 'yes'"),
        ({"check_images": 1}, "check_images must be True or False; given: 1"),
    ],
)
def test_bad_arguments_are_named(root, options, message):
    with pytest.raises(ValueError, match=message):
        read(root, **options)


def named(root, name, **options):
    lists = {"train_list": str(root / "train.txt"), "test_list": str(root / "test.txt"), "path": str(root)}
    return load_source(DataOptions(name=name, **{**lists, **options}), download=False)


def test_lists_of_a_known_data_set_have_its_classes(root):
    assert named(root, "list").num_classes == 3
    with pytest.raises(
        ValueError,
        match=r"train\.txt must have an image of every class; given: none of class 3 and of 361 more classes",
    ):
        named(root, "places_lt")
    with open(root / "train.txt", "a") as file:
        file.write("b/1.png 365\n")
    with pytest.raises(
        ValueError, match=r"train\.txt, line 7: the label must be from 0 to 364, for 365 classes; given: 365"
    ):
        named(root, "places_lt")


@pytest.mark.parametrize(
    ("name", "options", "parts"),
    [
        ("places_lt", {}, ["Places_LT_train.txt", "places2.csail.mit.edu"]),
        ("places_lt", {"train_list": "none.txt", "test_list": "b", "path": "c"}, ["none.txt is not there", "places2"]),
        ("imagenet_lt", {"train_list": "none.txt", "test_list": "b", "path": "c"}, ["ImageNet_LT_", "image-net.org"]),
        ("inaturalist2018", {"path": "/nowhere"}, ["i_naturalist2018 is not in /nowhere", "visipedia/inat_comp"]),
    ],
)
def test_what_is_missing_says_where_it_is_and_what_works_without(name, options, parts):
    with pytest.raises(FileNotFoundError) as error:
        load_source(DataOptions(name=name, **options), download=False)
    for part in [*parts, "--data.train-list", "--data.path", "Without it: digits100_lt, which is embedded"]:
        assert part in str(error.value)


# iNaturalist


@pytest.fixture
def annotations(root):
    """The images of `root` as iNaturalist annotates them; images and annotations in different orders."""
    categories = [{"id": label, "name": f"species {label}", "supercategory": "Aves"} for label in (2, 0, 1)]
    contents = {}
    for part in ("train", "test"):
        lines = [line.rsplit(maxsplit=1) for line in (root / f"{part}.txt").read_text().splitlines()]
        contents[part] = {
            "info": {"year": 2018},
            "images": [{"id": 100 + i, "file_name": path} for i, (path, _) in enumerate(lines)],
            "annotations": [
                {"id": i, "image_id": 100 + i, "category_id": int(label)} for i, (_, label) in enumerate(lines)
            ][::-1],
            "categories": categories,
        }
    return contents


def read_json(root, contents, **options):
    for part, own in contents.items():
        (root / f"{part}.json").write_text(json.dumps(own))
    return inaturalist_json(root / "train.json", root / "test.json", root, **options)


def test_annotations_are_joined_by_the_image(root, annotations):
    source = read_json(root, annotations)
    assert source.class_names == ("species 0", "species 1", "species 2")
    assert source.train.labels.tolist() == [0, 1, 1, 1, 2, 2] and shades(source.train) == [0, 1, 2, 3, 4, 5]
    assert source.test.labels.tolist() == [0, 1, 2] and shades(source.test) == [6, 7, 8]
    assert list(read_json(root, annotations, relabel_by_count=True).class_counts) == [3, 2, 1]


def test_names_may_come_from_the_file_of_categories(root, annotations):
    (root / "categories.json").write_text(json.dumps([{"id": i, "name": name} for i, name in enumerate("abc")]))
    assert read_json(root, annotations, categories=root / "categories.json").class_names == ("a", "b", "c")
    for category in annotations["train"]["categories"]:
        del category["name"]
    assert read_json(root, annotations).class_names == ("0", "1", "2")
    for category in annotations["train"]["categories"]:
        category["name"] = None if category["id"] else ""
    assert read_json(root, annotations).class_names == ("0", "1", "2")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda file: file.pop("images"), r"train\.json must have a list of images"),
        (lambda file: file.update(annotations=[]), r"train\.json must have a list of annotations"),
        (lambda file: file.pop("categories"), r"train\.json must have a list of categories"),
        (
            lambda file: file["categories"].pop(),
            r"the ids of its 2 categories must be 0 to 1, each once; given: 0 to 2",
        ),
        (
            lambda file: file["images"][1].pop("file_name"),
            r"train\.json, image 1: file_name must be a text; given: None",
        ),
        (
            lambda file: file["annotations"][2].update(image_id="x"),
            r"annotation 2: image_id must be a whole number; given: 'x'",
        ),
        (
            lambda file: file["annotations"][0].update(category_id=3),
            r"annotation 0: category_id must be from 0 to 2, for 3 classes; given: 3",
        ),
        (
            lambda file: file["annotations"].append({"image_id": 100, "category_id": 1}),
            r"annotation 6: the image 100 must have one category; given: 0 and 1",
        ),
        (
            lambda file: file["categories"][0].update(name=["a"]),
            r"category 0: name must be a text; given: \['a'\]",
        ),
        (
            lambda file: file["annotations"].pop(),
            r"train\.json, image 0: the image 100 must have an annotation; given: none",
        ),
        (
            lambda file: file["annotations"][-1].update(category_id=1),
            r"train\.json must have an image of every class; given: none of class 0 \('species 0'\)",
        ),
    ],
)
def test_what_an_annotation_file_lacks_is_named(root, annotations, change, message):
    annotations["test"] = json.loads(json.dumps(annotations["test"]))
    change(annotations["train"])
    with pytest.raises(ValueError, match=message):
        read_json(root, annotations)


def test_other_files_are_no_annotations(root, annotations):
    read_json(root, annotations)
    (root / "test.json").write_text("[1]")
    with pytest.raises(ValueError, match=r"test\.json must hold images and annotations; given: a list"):
        inaturalist_json(root / "train.json", root / "test.json", root)
    (root / "train.json").write_text("{")
    with pytest.raises(ValueError, match=r"train\.json must be JSON; "):
        inaturalist_json(root / "train.json", root / "test.json", root)
    with pytest.raises(FileNotFoundError, match=r"the annotation file .*none\.json is not there"):
        inaturalist_json(root / "none.json", root / "test.json", root)


def test_missing_images_of_annotations_are_named(root, annotations):
    (root / "a" / "0.png").unlink()
    with pytest.raises(FileNotFoundError, match=r"1 of the 6 images that the train list names are not there: .*0\.png"):
        read_json(root, annotations)


def test_annotations_of_a_known_data_set_have_its_classes(root, annotations):
    read_json(root, annotations)
    files = {"train_list": str(root / "train.json"), "test_list": str(root / "test.json")}
    assert named(root, "list", **files).num_classes == 3
    with pytest.raises(
        ValueError,
        match=r"data.name must be 'list' for annotations of 3 categories; given: 'inaturalist2018', which has 8142",
    ):
        named(root, "inaturalist2018", **files)
