"""Fields of COCO's and LVIS's files that are missing, empty or of no use mean what COCO defines, or are told."""

import contextlib
import copy
import io
import json

import numpy as np
import pytest
from PIL import Image
from pycocotools import mask as coco_mask
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval
from rich.console import Console

from training.data.detection.coco import coco_source
from training.data.detection.coco_fields import federated_notes, object_area, segmentation_of
from training.data.detection.masks import decode_mask, encode_mask
from training.detection.describe import describe_detection_data
from training.detection.metrics import evaluate_detections
from training.recipes import get_recipe

pytestmark = pytest.mark.any_backend
SIZE = 200
# Polygons that fill less than half of their boxes: by the mask the first is small, by the box medium.
BARS = [([10, 10, 60, 60], 15), ([80, 80, 110, 110], 40), ([5, 120, 40, 40], 40)]


def bar(box, height):
    x, y, w, _ = box
    return [[x, y, x + w, y, x + w, y + height, x, y + height]]


def contents(**more):
    """Two images with the three objects each, without areas and without iscrowd; `more` for each annotation."""
    annotations = [
        {
            "id": 10 * image + place,
            "image_id": image,
            "category_id": 1 + place % 2,
            "bbox": box,
            "segmentation": bar(box, height),
            **more,
        }
        for image in (1, 2)
        for place, (box, height) in enumerate(BARS)
    ]
    return {
        "images": [{"id": n, "file_name": f"{n}.png", "height": SIZE, "width": SIZE} for n in (1, 2)],
        "annotations": annotations,
        "categories": [{"id": 1, "name": "cat"}, {"id": 2, "name": "emu"}],
    }


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("coco")
    for number in (1, 2):
        Image.new("RGB", (SIZE, SIZE), (number, 9, 9)).save(folder / f"{number}.png")
    return folder


@pytest.fixture
def source(folder, tmp_path):
    def read(train, test=None, **options):
        for name, value in (("train", train), ("test", contents(area=700) if test is None else test)):
            (tmp_path / f"{name}.json").write_text(json.dumps(value))
        return coco_source(tmp_path / "train.json", folder, tmp_path / "test.json", **options)

    return read


def found(value):
    """A detection of each object in the first image, and one of a class that is not in the second."""
    shifted = [(each["image_id"], each["category_id"], each["bbox"]) for each in value["annotations"][:3]]
    return [
        {"image_id": image, "category_id": category, "bbox": [x + 1, y, w, h], "score": 0.9}
        for image, category, (x, y, w, h) in shifted
    ]


def pycocotools_summary(value, results):
    """AP, and AP of small, medium and large objects, as pycocotools measures them; NaN without objects."""
    with contextlib.redirect_stdout(io.StringIO()):
        known = COCO()
        known.dataset = {"info": {}, **copy.deepcopy(value)}
        known.createIndex()
        evaluation = COCOeval(known, known.loadRes(copy.deepcopy(results)), "bbox")
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    return [value if value > -1 else np.nan for value in evaluation.stats[[0, 3, 4, 5]]]


def summary(annotations, results):
    values = evaluate_detections(annotations, results, kinds=["box"]).summary
    return [values[f"box_AP{letter}"] for letter in ("", "s", "m", "l")]


def with_mask_areas(value):
    """With the areas that pycocotools counts in the masks."""
    value = copy.deepcopy(value)
    api = COCO()
    with contextlib.redirect_stdout(io.StringIO()):
        api.dataset = value
        api.createIndex()
    for each in value["annotations"]:
        each.update(area=int(coco_mask.area(api.annToRLE(each))), iscrowd=0)
    return value


@pytest.mark.parametrize("masks", [None, False])
@pytest.mark.parametrize("given", [{}, {"area": None}, {"area": 0}, {"area": "900"}, {"area": -1}])
def test_areas_of_no_use_are_those_of_the_masks_as_pycocotools_counts_them(source, given, masks):
    value = contents(**given)
    expected = with_mask_areas(value)
    read = source(contents(area=700), value, masks=masks)
    areas = [each["area"] for each in read.test_annotations["annotations"]]
    assert areas == [each["area"] for each in expected["annotations"]] == [900, 4400, 1600] * 2
    results = found(value)
    np.testing.assert_allclose(
        summary(read.test_annotations, results), pycocotools_summary(expected, results), atol=1e-12
    )
    # In Python, without the reader, too.
    np.testing.assert_allclose(summary(value, results), pycocotools_summary(expected, results), atol=1e-12)
    told = [note for note in read.notes if "areas that are no number above 0 are taken from the segmentations" in note]
    assert len(told) == (given not in ({}, {"area": None}))
    assert all(note.endswith("objects without one (6): annotation 10, 11, 12, 20, 21 and 1 more") for note in told)


def test_what_has_neither_area_nor_mask_is_measured_by_its_box_and_told_among_others(source):
    value = contents()
    del value["annotations"][0]["segmentation"]
    read = source(contents(area=700), value, masks=False)
    assert [each["area"] for each in read.test_annotations["annotations"]][:3] == [3600, 4400, 1600]
    (note,) = [note for note in read.notes if "neither area nor segmentation" in note]
    assert note.endswith("are small, medium or large by their boxes (1): annotation 10")
    for each in value["annotations"]:
        each["segmentation"] = []
    read = source(contents(area=700), value, masks=False)
    assert [each["area"] for each in read.test_annotations["annotations"]][:3] == [3600, 12100, 1600]
    assert not any("area" in note.rpartition("/")[2] for note in read.notes)


def test_an_area_that_is_given_is_used_and_told_where_the_box_cannot_have_it(source):
    read = source(contents(area=700), contents(area=5000))
    assert {each["area"] for each in read.test_annotations["annotations"]} == {5000}
    (note,) = [note for note in read.notes if "areas larger than the box are used as given" in note]
    assert note.endswith("(4): annotation 10, 12, 20, 22")


def test_a_first_polygon_of_two_points_does_not_turn_the_others_into_boxes(source):
    """COCO's code tells polygons from boxes by the first one alone."""
    value = contents(area=700)
    for each in value["annotations"]:
        each["segmentation"].insert(0, [each["bbox"][0], each["bbox"][1], 5, 5])
    read = source(contents(area=700), value)
    objects = read.test.objects(0)
    perfect = [
        {
            "image_id": image,
            "category_id": 1 + place % 2,
            "score": 0.9,
            "bbox": BARS[place][0],
            "segmentation": encode_mask(mask),
        }
        for image in (1, 2)
        for place, mask in enumerate(np.asarray(objects.masks))
    ]
    for annotations in (read.test_annotations, value):
        assert evaluate_detections(annotations, perfect).summary["mask_AP"] == pytest.approx(1.0)


@pytest.mark.parametrize("empty", [None, [], [[]], [[], []], {}])
def test_a_segmentation_without_a_point_is_none(source, empty):
    value = contents(area=700)
    for each in value["annotations"]:
        each["segmentation"] = empty
    read = source(value, value)
    assert not read.train.has_masks
    assert all("segmentation" not in each for each in read.test_annotations["annotations"])
    value["annotations"][0]["segmentation"] = bar(*BARS[0])
    with pytest.raises(
        ValueError, match="every object must have a segmentation, or none; given: none for annotation 11"
    ):
        source(value, value)


def test_a_polygon_on_a_line_is_told(source):
    value = contents(area=700)
    value["annotations"][0]["segmentation"] = [[10, 12, 40, 12, 70, 12]]
    assert any(
        note.endswith("masks without a pixel become their whole boxes (1): annotation 10")
        for note in source(value).notes
    )


def test_where_every_object_is_a_crowd_the_error_says_so(source):
    crowds = contents(area=700, iscrowd=1)
    reason = r"6 of 6 annotations are crowds \(iscrowd 1\), regions that are neither trained on nor measured by COCO's"
    with pytest.raises(ValueError, match=rf"train.json must have an object to train on; given: none. .*{reason}"):
        source(crowds)
    with pytest.raises(ValueError, match=rf"test.json must have an object to measure; given: none. .*{reason}"):
        source(contents(area=700), crowds)


def test_more_crowds_than_objects_and_a_class_of_crowds_alone_are_told(source):
    value = contents(area=700)
    for each in value["annotations"]:
        each["iscrowd"] = int(each["category_id"] == 1)
    notes = source(value).notes
    assert any("train.json: 4 of 6 annotations are crowds (iscrowd 1)" in note for note in notes)
    assert any(
        "left out (1): 'cat' (id 1)" in note and note.endswith("only as crowds (iscrowd 1): 'cat'") for note in notes
    )


def test_ignore_alone_changes_nothing_as_in_pycocotools_and_is_told(source):
    value = with_mask_areas(contents())
    ignored = copy.deepcopy(value)
    for each in ignored["annotations"]:
        each["ignore"] = 1
    read = source(ignored, ignored)
    assert [len(labels) for labels in read.train.labels] == [3, 3]
    assert any(
        "annotations with ignore are trained on; COCO's metrics measure them" in note
        and "LVIS's metrics pass them over (6): annotation 10" in note
        for note in read.notes
    )
    results = found(value)
    expected = pycocotools_summary(value, results)
    np.testing.assert_allclose(summary(read.test_annotations, results), expected, atol=1e-12)
    np.testing.assert_allclose(pycocotools_summary(ignored, results), expected, atol=1e-12)


@pytest.mark.parametrize(
    "change, message",
    [
        ({"neg_category_ids": 2}, r"train.json, image 1: neg_category_ids must be a list of category ids; given: 2"),
        (
            {"not_exhaustive_category_ids": ["cat"]},
            r"not_exhaustive_category_ids must be a list of .*; given: \['cat'\]",
        ),
        ({"file_name": ""}, r"train.json, image 1: file_name must be a path; given: ''"),
        ({"file_name": None, "coco_url": ""}, r"train.json, image 1: file_name must be a text; given: None"),
    ],
)
def test_fields_of_an_image_that_cannot_be_used_are_named(source, change, message):
    value = contents(area=700)
    value["images"][0].update(change)
    with pytest.raises(ValueError, match=message):
        source(value)


def test_fields_that_are_null_are_as_if_they_were_missing(source):
    value = contents(area=700, iscrowd=None, ignore=None)
    value["images"][0].update(neg_category_ids=None, not_exhaustive_category_ids=None, file_name=None)
    value["images"][0]["coco_url"] = "http://images.cocodataset.org/./1.png"
    for category, name in zip(value["categories"], (None, ""), strict=True):
        category["name"] = name
    read = source(value, value)
    assert read.class_names == ("1", "2") and [len(labels) for labels in read.train.labels] == [3, 3]
    assert not {"neg_category_ids", "not_exhaustive_category_ids"} & set(read.test_annotations["images"][0])
    value["categories"][0]["name"] = ["cat"]
    with pytest.raises(ValueError, match=r"category 1: name must be a text; given: \['cat'\]"):
        source(value, value)


@pytest.mark.parametrize("kind", ["box", "mask"])
def test_lvis_passes_over_ignore_and_measures_crowds_as_lvis_api_does(source, kind):
    """Its `evaluate_img` sets `_ignore` from `ignore`, its `compute_iou` takes every object for no crowd."""
    read = source(contents())
    truth = {**read.test_annotations, "categories": [{"id": 1, "name": "cat", "frequency": "r"}]}
    first, _, third = (
        {**each, "segmentation": encode_mask(decode_mask(each["segmentation"], SIZE, SIZE))}
        for each in truth["annotations"]
        if each["image_id"] == 1
    )
    truth["images"] = truth["images"][:1]

    def precision(results, **fields):
        truth["annotations"] = [first, {**third, **fields}]
        results = [{**each, "score": 1 - 0.1 * rank} for rank, each in enumerate(results)]
        metrics = evaluate_detections(truth, results, style="lvis", kinds=[kind])
        return metrics.summary[f"{kind}_AP"]

    assert precision([first]) == precision([first], iscrowd=1) == precision([first], iscrowd=1, ignore=0)
    assert precision([first]) == pytest.approx(51 / 101)  # one of two is found
    assert precision([first], ignore=1) == precision([first], ignore=1, iscrowd=1) == pytest.approx(1)
    # What hits an ignored object is no mistake; a second one that hits it is.
    assert precision([third, first], ignore=1) == pytest.approx(1)
    assert precision([third, third, first], ignore=1) == pytest.approx(1 / 2)
    assert precision([third, third, first], iscrowd=1) == pytest.approx((51 + 50 * 2 / 3) / 101)


def test_crowds_among_the_test_images_are_told_for_lvis(source):
    value = contents(area=700)
    value["annotations"][0]["iscrowd"] = 1
    read = source(contents(area=700), value)
    (note,) = federated_notes(read.test_annotations, "lvis")
    assert note == "LVIS's metrics measure crowds (iscrowd 1) as objects, as LVIS's code does (1): annotation 10"
    assert federated_notes(read.test_annotations, "coco") == []


def lvis(neg=(), not_exhaustive=()):
    value = contents(area=700)
    for image in value["images"]:
        image.update(neg_category_ids=list(neg), not_exhaustive_category_ids=list(not_exhaustive))
    value["annotations"] = [each for each in value["annotations"] if each["category_id"] == 1 or each["image_id"] == 1]
    return value


def test_cocos_metrics_of_images_with_lvis_lists_are_told_and_differ(source):
    value = lvis()
    read = source(value, value)
    (note,) = federated_notes(read.test_annotations, "coco")
    assert (
        note.startswith("in 1 of 2 test images only some classes were looked for") and "--evaluation.style lvis" in note
    )
    assert federated_notes(read.test_annotations, "lvis") == []
    # All classes are annotated or were looked for: the same in both.
    assert federated_notes(source(value, lvis([2])).test_annotations, "coco") == []
    assert len(federated_notes(source(value, lvis([2], [1])).test_annotations, "coco")) == 1
    console = Console(file=io.StringIO(), width=1000)
    recipe = get_recipe("detection").replace(evaluation={"style": "coco"}, loss={"name": "softmax"})
    describe_detection_data(read, recipe, console)
    assert note in console.file.getvalue()


def test_images_without_lvis_lists_among_others_are_told(source):
    value = lvis([2])
    del value["images"][1]["neg_category_ids"]
    (note,) = federated_notes(source(value, value).test_annotations, "lvis")
    assert note.startswith("1 of 2 test images have no neg_category_ids: LVIS's metrics take it that every class was")
    assert note.endswith("image 2")
    # A file of COCO has none, and every class is looked for in every image.
    assert federated_notes(source(value, contents(area=700)).test_annotations, "lvis") == []
    null = {**value, "images": [{**image, "neg_category_ids": None} for image in value["images"]]}
    results = found(value)
    for each in null["categories"]:
        each["frequency"] = "r"
    without = {**null, "images": [{"id": image["id"]} for image in value["images"]]}
    assert repr(evaluate_detections(null, results, style="lvis", kinds=["box"]).summary) == repr(
        evaluate_detections(without, results, style="lvis", kinds=["box"]).summary
    )


def test_categories_of_lvis_without_the_lists_and_with_other_frequencies_are_told(source):
    value = contents(area=700)
    for each in value["categories"]:
        each.update(frequency="f", synset=f"{each['name']}.n.01")
    notes = source(value, value).notes
    assert any("the categories are LVIS's, but no image has neg_category_ids" in note for note in notes)
    (note,) = [note for note in notes if "the file has another frequency for 2 classes" in note]
    assert note.endswith("'cat' ('f', here 'r'), 'emu' ('f', here 'r')")
    for each in value["categories"]:
        each["frequency"] = "r"
    assert not any("frequency" in note for note in source(value, value).notes)


def test_the_area_of_run_lengths_is_the_number_of_their_pixels():
    mask = np.zeros((20, 30), "uint8")
    mask[3:9, 4:10] = 1
    box = {"bbox": [4, 3, 20, 10]}
    runs = {"size": [20, 30], "counts": [4 * 20 + 3, *[6, 14] * 5, 6, 600 - 83 - 106]}
    for segmentation in (encode_mask(mask), runs):
        assert object_area({**box, "segmentation": segmentation}) == 36
    box_of_numpy = {"bbox": [4, 3, 20, 10], "segmentation": [np.array([4.0, 3, 10, 3, 10, 9, 4, 9])]}
    as_pycocotools = {**encode_mask(mask), "counts": encode_mask(mask)["counts"].encode()}
    assert object_area(box_of_numpy) == object_area({**box, "segmentation": as_pycocotools}) == 36
    assert object_area({**box, "area": np.float32(12.5)}) == 12.5 and object_area({**box, "area": np.int64(7)}) == 7
    # What cannot be a mask is none.
    for segmentation in (
        {"size": [20, 30], "counts": [5]},
        {"counts": 3},
        "mask",
        [[1, 2, 3]],
        [[1, 2, [3], 4, 5, 6]],
        {"size": [20, 30], "counts": [600]},
    ):
        assert object_area({**box, "segmentation": segmentation}, 20, 30) == 200


@pytest.mark.parametrize("share", [0.01, 1])
def test_areas_that_are_no_pixels_are_told(source, share):
    value = contents(area=700)
    for each, area in zip(value["annotations"], [share, share, share, share, 20, 20], strict=True):
        each["area"] = area
    (note,) = [note for note in source(contents(area=700), value).notes if "a pixel or less" in note]
    assert "(4 of 6): annotation 10, 11, 12, 20" in note
    value["annotations"][0]["area"] = 20
    assert not [note for note in source(contents(area=700), value).notes if "a pixel or less" in note]


def test_polygons_in_shares_of_the_image_do_not_make_corners_of_the_boxes(source):
    value = contents(area=700)
    for each in value["annotations"]:
        each["segmentation"] = [[x / SIZE for x in part] for part in each["segmentation"]]
    with pytest.raises(
        ValueError, match=r"the segmentation must lie in its bbox .*, both in pixels; given: x from 0.05 to "
    ):
        source(value)


@pytest.mark.parametrize("side", [float("inf"), float("nan"), 4.5])
def test_a_side_that_is_no_whole_number_is_left_for_the_check_that_names_it(side):
    sizes = segmentation_of({"segmentation": {"size": [side, 48.0], "counts": "a"}})["size"]
    assert repr(sizes) == repr([side, 48])
