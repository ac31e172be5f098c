"""Own images with COCO's annotations: what is read, what is repaired and told, and what is refused, with its id."""

import json
import re

import numpy as np
import pytest
from PIL import Image

from training.data.detection.coco import coco_source
from training.data.detection.masks import encode_mask
from training.detection.metrics import evaluate_detections

HEIGHT, WIDTH = 40, 50


def pixels(number, height=HEIGHT, width=WIDTH):
    """Pixels that tell the image and, along both axes, the place."""
    y, x = np.mgrid[:height, :width]
    return np.stack([4 * y, 4 * x, np.full_like(x, number)], axis=-1).astype("uint8")


def polygon(x, y, w, h):
    return [[x, y, x + w, y, x + w, y + h, x, y + h]]


def notes_of(source):
    """Without the one on the images of `Place`, which are the same in training and test."""
    return [note for note in source.notes if "test images are training images" not in note]


def annotation(number, image, category, box, segmentation="polygon", **more):
    each = {"id": number, "image_id": image, "category_id": category, "bbox": box, **more}
    if segmentation is not None:
        each["segmentation"] = polygon(*box) if segmentation == "polygon" else segmentation
    return each


def contents():
    """Three images, categories 3 and 17, every kind of mask, a crowd."""
    mask = np.zeros((HEIGHT, WIDTH), "uint8")
    mask[5:15, 20:30] = 1
    runs = [20 * HEIGHT + 5, *[10, HEIGHT - 10] * 9, 10, HEIGHT - 15 + 20 * HEIGHT]
    return {
        "images": [
            {"id": number, "file_name": f"{number}.png", "height": HEIGHT, "width": WIDTH} for number in (5, 9, 12)
        ],
        "annotations": [
            annotation(100, 5, 3, [2, 3, 10, 20]),
            annotation(101, 5, 17, [20, 5, 10, 10], {"size": [HEIGHT, WIDTH], "counts": runs}),
            annotation(102, 9, 17, [20, 5, 10, 10], encode_mask(mask), area=77),
            annotation(103, 9, 3, [0, 0, 30, 30], {"size": [HEIGHT, WIDTH], "counts": [HEIGHT * WIDTH]}, iscrowd=1),
            annotation(104, 12, 3, [1, 1, 8, 8]),
        ],
        "categories": [{"id": 17, "name": "emu"}, {"id": 3, "name": "cat"}],
    }


@pytest.fixture
def place(tmp_path):
    """A folder with the three images; `write` puts an annotation file beside them."""
    for number in (5, 9, 12):
        Image.fromarray(pixels(number)).save(tmp_path / f"{number}.png")

    class Place:
        folder = tmp_path

        @staticmethod
        def write(value, name="a.json"):
            path = tmp_path / name
            path.write_text(value if isinstance(value, str) else json.dumps(value))
            return path

        @staticmethod
        def source(value, **options):
            return coco_source(Place.write(value), tmp_path, Place.write(contents(), "test.json"), **options)

    return Place


def test_images_objects_and_classes_are_read(place):
    source = place.source(contents())
    # Labels follow the ids, whose gaps do not matter, and not the order in the file.
    assert source.class_names == ("cat", "emu") and source.category_ids.tolist() == [3, 17]
    assert source.train.image_ids.tolist() == [5, 9, 12]
    assert source.image_counts.tolist() == [2, 2] and source.num_images == 3
    image, objects = source.train.load(0)
    np.testing.assert_array_equal(image, pixels(5))
    assert objects.boxes.tolist() == [[2, 3, 12, 23], [20, 5, 30, 15]]
    assert objects.labels.tolist() == [0, 1] and not objects.ignored.any()
    expected = np.zeros((2, HEIGHT, WIDTH), "uint8")
    expected[0, 3:23, 2:12] = expected[1, 5:15, 20:30] = 1
    np.testing.assert_array_equal(np.asarray(objects.masks), expected)
    assert notes_of(source) == []


def test_compressed_masks_and_crowds(place):
    _, objects = place.source(contents()).train.load(1)
    assert objects.labels.tolist() == [1, -1] and objects.ignored.tolist() == [False, True]
    assert objects.masks[0][5:15, 20:30].all() and objects.masks[0].sum() == 100
    assert not objects.masks[1].any()


def test_annotations_for_the_evaluation(place):
    found = place.source(contents()).test_annotations
    assert [(each["id"], each["frequency"]) for each in found["categories"]] == [(3, "r"), (17, "r")]
    assert [each["id"] for each in found["annotations"]] == [100, 101, 102, 103, 104]
    assert [each["area"] for each in found["annotations"]] == [200, 100, 77, 900, 64]
    assert [each["iscrowd"] for each in found["annotations"]] == [0, 0, 0, 1, 0]
    assert "path" not in found["images"][0]
    json.dumps(found)


def test_a_crowd_without_a_mask_is_measured_as_its_box(place):
    """Nothing else asks for its mask, so that only the measurement after the first epoch would miss it."""
    given = contents()
    del given["annotations"][3]["segmentation"]
    place.write(given, "test.json")
    source = coco_source(place.write(given), place.folder, place.folder / "test.json")
    crowd = source.test_annotations["annotations"][3]
    assert crowd["iscrowd"] == 1 and crowd["segmentation"] == polygon(0, 0, 30, 30)
    evaluate_detections(source.test_annotations, [], kinds=["mask"])


def test_boxes_without_masks_are_enough(place):
    value = contents()
    for each in value["annotations"]:
        each.pop("segmentation")
    path = place.write(value)
    source = coco_source(path, place.folder, path)
    assert not source.train.has_masks and source.train.objects(0).masks is None


def test_without_test_file_a_part_is_held_out_but_no_last_image_of_a_class(place):
    value = contents()
    value["images"] += [{**value["images"][0], "id": number} for number in range(20, 40)]
    value["annotations"] += [annotation(number, number, 3, [1, 1, 5, 5]) for number in range(20, 40)]
    value["annotations"] = [each for each in value["annotations"] if each["id"] != 102]
    path = place.write(value)
    for seed in range(5):
        source = coco_source(path, place.folder, validation_fraction=0.3, seed=seed)
        assert len(source.test) == 7 and len(source.train) == 16
        assert not set(source.test.image_ids.tolist()) & set(source.train.image_ids.tolist())
        # Image 5 is the only one with an emu.
        assert 5 in source.train.image_ids
        assert {each["id"] for each in source.test_annotations["images"]} == set(source.test.image_ids.tolist())
    again, other = (coco_source(path, place.folder, validation_fraction=0.3, seed=seed) for seed in (4, 5))
    assert again.test.image_ids.tolist() == source.test.image_ids.tolist() != other.test.image_ids.tolist()
    assert "classes that are in no test image have no AP (1): 'emu' (id 17)" in source.notes


def test_images_without_objects_stay_or_go(place):
    value = contents()
    value["annotations"] = value["annotations"][:3]
    source = place.source(value)
    assert len(source.train) == 3 and source.num_images == 2 and len(source.train.objects(2)) == 0
    source = place.source(value, empty_images=False)
    assert source.train.image_ids.tolist() == [5, 9]
    assert "training images that show no object are left out (1)" in source.notes


def test_classes_without_training_image_are_left_out_and_told(place):
    value = contents()
    value["categories"].append({"id": 4, "name": "yak"})
    value["annotations"] = [each for each in value["annotations"] if each["category_id"] == 3]
    source = place.source(value)
    assert source.class_names == ("cat",) and [each["id"] for each in source.test_annotations["categories"]] == [3]
    assert {each["category_id"] for each in source.test_annotations["annotations"]} == {3}
    assert source.test.labels[0].tolist() == [0]
    assert notes_of(source) == [
        "categories without a training image are left out (2): 'yak' (id 4), 'emu' (id 17); with them 2 test objects",
    ]


def test_boxes_are_cut_to_the_image_and_those_without_area_are_left_out(place):
    value = contents()
    value["annotations"][0]["bbox"] = [-5, 3, 17, 60]
    value["annotations"][4]["bbox"] = [1, 1, 0, 8]
    # Half a pixel is rounding, and no reason for a note.
    value["annotations"][1]["bbox"] = [20, 5, 30.5, 10]
    value["annotations"][1]["segmentation"] = polygon(20, 5, 30, 10)
    source = place.source(value)
    assert source.train.objects(0).boxes.tolist() == [[0, 3, 12, 40], [20, 5, 50, 15]]
    assert len(source.train.objects(2)) == 0
    flat, cut = notes_of(source)
    assert re.search(r"a.json: boxes without area are left out \(1\): annotation 104", flat)
    assert re.search(r"boxes that reach beyond their image by more than a pixel are cut \(1\): annotation 100", cut)


def test_small_images_are_told(place):
    Image.fromarray(pixels(5, 20, 31)).save(place.folder / "small.png")
    value = contents()
    value["images"][0].update(file_name="small.png", height=20, width=31)
    value["annotations"] = value["annotations"][2:]
    assert any(
        "images of less than 32 pixels on a side are enlarged as all are (1)" in note
        for note in place.source(value).notes
    )


@pytest.mark.parametrize("orientation, turned", [(1, 0), (3, 2), (6, -1), (8, 1)])
@pytest.mark.parametrize("annotated", ["upright", "stored"])
def test_exif_is_followed_unless_the_annotations_were_made_on_the_stored_pixels(place, orientation, turned, annotated):
    stored = pixels(5)
    upright = np.rot90(stored, turned)
    exif = Image.Exif()
    exif[0x0112] = orientation
    Image.fromarray(stored).save(place.folder / "5.png", exif=exif)
    expected = upright if annotated == "upright" or orientation == 3 else stored
    value = contents()
    value["images"][0].update(height=expected.shape[0], width=expected.shape[1])
    value["annotations"] = [annotation(1, 5, 3, [1, 2, 3, 4]), *value["annotations"][2:]]
    np.testing.assert_array_equal(place.source(value).train.image(0), expected)


def test_lvis_names_files_by_their_address(place):
    (place.folder / "train2017").mkdir()
    Image.fromarray(pixels(7)).save(place.folder / "train2017" / "5.png")
    value = contents()
    value["images"][0].pop("file_name")
    value["images"][0]["coco_url"] = "http://images.cocodataset.org/train2017/5.png"
    np.testing.assert_array_equal(place.source(value).train.image(0), pixels(7))


def change(path, value):
    """A function that sets what lies at `path`, or removes it."""

    def changed(contents):
        *parents, last = path
        inner = contents
        for key in parents:
            inner = inner[key]
        if value is KeyError:
            del inner[last]
        else:
            inner[last] = value
        return contents

    return changed


def as_corners(contents, segmentations=True):
    for each in contents["annotations"]:
        x, y, w, h = each["bbox"]
        each["bbox"] = [x, y, x + w, y + h]
        if not segmentations:
            each.pop("segmentation")
    return contents


ANNOTATION = ("annotations", 1)


@pytest.mark.parametrize(
    "changed, message",
    [
        (change(["images"], KeyError), r"a.json must have a list of images; given: annotations, categories"),
        (change(["annotations"], KeyError), r"a.json must have a list of annotations"),
        (change(["categories"], {}), r"a.json must have a list of categories"),
        (change(["images"], []), r"a.json must have images in its list of images"),
        (change(["categories"], []), r"a.json must have categories in its list"),
        (change(["annotations", 1], 5), r"a.json, annotation at position 1 must have an id and more by name; given: 5"),
        (change(["annotations"], []), r"a.json must have an object to train on; given: none."),
        (change(["images", 1, "id"], KeyError), r"a.json, image at position 1: id must be a whole number; given: None"),
        (change(["images", 1, "id"], 5), r"a.json: the ids of images must be unique; given: 5 at positions 0 and 1"),
        (
            change([*ANNOTATION, "id"], 100),
            r"a.json: the ids of annotations must be unique; given: 100 at positions 0 and 1",
        ),
        (change(["categories", 1, "id"], 17), r"a.json: the ids of categories must be unique; given: 17"),
        (change(["images", 1, "height"], KeyError), r"a.json, image 9: height must be a whole number; given: None"),
        (change(["images", 1, "width"], 0), r"a.json, image 9: width must be at least 1; given: 0"),
        (change(["images", 1, "file_name"], KeyError), r"a.json, image 9: file_name must be a text; given: None"),
        (
            change([*ANNOTATION, "image_id"], 6),
            r"annotation 101: image_id must be among the ids of the 3 images; given: 6",
        ),
        (
            change([*ANNOTATION, "category_id"], 1),
            r"annotation 101: category_id must be among .* 2 categories, 3, 17; given: 1",
        ),
        (change([*ANNOTATION, "category_id"], KeyError), r"annotation 101: category_id must be a whole number"),
        (change([*ANNOTATION, "bbox"], KeyError), r"annotation 101: bbox must be four numbers .*; given: None"),
        (change([*ANNOTATION, "bbox"], [1, 2, 3]), r"annotation 101: bbox must be four numbers x, y, width, height"),
        (change([*ANNOTATION, "bbox"], [1, 2, float("nan"), 4]), r"annotation 101: bbox must be finite numbers"),
        (change([*ANNOTATION, "bbox"], [1, 2, 10**400, 4]), r"annotation 101: bbox must be finite numbers"),
        (change([*ANNOTATION, "bbox"], [20, 5, -10, 10]), r"annotation 101: width and height of bbox must not be neg"),
        (
            change([*ANNOTATION, "bbox"], [60, 5, 10, 10]),
            r"annotation 101: bbox .* must lie in image 5, .* 40 pixels high and 50 wide; given: \[60, 5, 10, 10\]",
        ),
        (change([*ANNOTATION, "iscrowd"], 2), r"annotation 101: iscrowd must be 0 or 1; given: 2"),
        (
            change([*ANNOTATION, "segmentation", "size"], [50, 40]),
            r"annotation 101 of image 5: its segmentation must be a mask of 40x50 pixels .*; given: 50x40",
        ),
        (change([*ANNOTATION, "segmentation"], [[1, 2, 3]]), r"annotation 101 of image 5: its polygon must be finite"),
        # As shares of the image instead of pixels.
        (
            change([*ANNOTATION, "segmentation"], [[0.4, 0.1, 0.6, 0.1, 0.6, 0.4]]),
            r"annotation 101 of image 5: the segmentation must lie in its bbox \[20, 5.*; given: x from 0.4 to 0.6",
        ),
        (
            change([*ANNOTATION, "segmentation"], {"size": [40, 50], "counts": [1999, 1]}),
            r"annotation 101 of image 5: the segmentation must lie in its bbox .* x from 49 to 50 and y from 39 to 40",
        ),
        (
            change([*ANNOTATION, "id"], 2**70),
            r"annotation at position 1: id must fit 64 bits; given: 1180591620717411303424",
        ),
        (
            change([*ANNOTATION, "segmentation"], []),
            r"every object must have a segmentation, or none; given: none for annotation 101",
        ),
        (
            as_corners,
            r"a.json: bbox must be x, y, width, height; given: boxes that look like x1, y1, x2, y2 .annotation 1",
        ),
        (
            change(["categories", 0, "name"], "yak"),
            r"category 17 must have one name; given: 'yak' in .*a.json and 'emu' in .*test.json",
        ),
        (
            change(["images", 2, "height"], 41),
            r"12.png \(id 12\): the image must be 41 pixels high and 50 wide, .*; given: 40 and",
        ),
    ],
)
def test_what_cannot_be_trained_on_is_named_with_its_id(place, changed, message):
    with pytest.raises(ValueError, match=message):
        place.source(changed(contents()))


def test_a_mask_without_a_pixel_is_told(place):
    value = change([*ANNOTATION, "segmentation"], {"size": [40, 50], "counts": [2000]})(contents())
    (note,) = [note for note in place.source(value).notes if "without a pixel" in note]
    assert note.endswith("a.json: masks without a pixel become their whole boxes (1): annotation 101")


def test_corners_are_found_without_polygons_too(place):
    message = r"bbox must be x, y, width, height; given: boxes that look like x1, y1, x2, y2 \(annotation 101 has"
    value = change([*ANNOTATION, "bbox"], [30, 5, 10, 10])(contents())
    with pytest.raises(ValueError, match=message):
        place.source(as_corners(value, segmentations=False), masks=False)


@pytest.mark.parametrize("segmentations", [True, False])
def test_boxes_as_shares_of_the_image_are_found(place, segmentations):
    value = contents()
    for each in value["annotations"]:
        each["bbox"] = [0.25, 0.5, 0.5, 0.125]
        if not segmentations:
            del each["segmentation"]
    with pytest.raises(
        ValueError, match=r"a.json: bbox must be in pixels; given: \d+ boxes that all look like shares of the"
    ):
        place.source(value, masks=segmentations)


def test_one_box_of_corners_among_others_is_found_by_its_polygon(place):
    value = contents()
    value["annotations"][0]["bbox"] = [2, 3, 12, 23]
    with pytest.raises(ValueError, match=r"look like x1, y1, x2, y2 \(annotation 100 has \[2.0, 3.0, 12.0, 23.0\]"):
        place.source(value)
    # Sides that are counted as x2 - x1 + 1 are no corners.
    value["annotations"][0].update(bbox=[1, 1, 10, 20], segmentation=[[1, 1, 10, 1, 10, 20, 1, 20]])
    assert place.source(value).train.objects(0).boxes[0].tolist() == [1, 1, 11, 21]


@pytest.mark.any_backend
def test_test_images_that_are_training_images_are_told(place):
    path = place.write(contents())
    whole = f"{path}: the test images are training images: the numbers say nothing about other images"
    assert coco_source(path, place.folder, path).notes == (whole,)
    Image.fromarray(pixels(7)).save(place.folder / "7.png")
    value = contents()
    value["images"][0]["file_name"] = "7.png"
    assert place.source(value).notes == (
        f"{place.folder / 'test.json'}: 2 of 3 test images are training images: id 9, 12",
    )
    assert not any("are training images" in note for note in coco_source(path, place.folder).notes)


@pytest.mark.any_backend
def test_sizes_of_run_lengths_may_be_whole_floats_and_no_texts(place):
    value = contents()
    for each in value["annotations"]:
        if isinstance(each["segmentation"], dict):
            each["segmentation"]["size"] = [float(HEIGHT), float(WIDTH)]
    path = place.write(value)
    source = coco_source(path, place.folder, path)
    assert source.train.objects(0).masks[1].sum() == source.train.objects(1).masks[0].sum() == 100
    assert evaluate_detections(source.test_annotations, [], kinds=["mask"]).summary["mask_AP"] == 0
    value["annotations"][1]["segmentation"]["size"] = ["40", "50"]
    with pytest.raises(ValueError, match=r"annotation 101 of image 5: size of its .* given: \['40', '50'\]"):
        place.source(value)


def test_images_that_share_a_file_are_told(place):
    value = contents()
    value["images"][2]["file_name"] = "5.png"
    (note,) = notes_of(place.source(value))
    assert "images with the file of another one (1)" in note and note.endswith("id 12 ('5.png', as 5)")


def test_categories_of_one_name_are_told(place):
    value = contents()
    value["categories"][0]["name"] = "cat"
    train = place.write(value)
    (note,) = notes_of(coco_source(train, place.folder, train))
    assert note == f"{train}: categories of one name are classes of their own (1): 'cat' (ids 17, 3)"


def test_without_an_object_that_is_left_the_error_says_why(place):
    value = contents()
    for each in value["annotations"]:
        each.update(bbox=[1, 1, 0, 8], iscrowd=0)
    message = r"an object to train on; given: none. .*boxes without area are left out \(5\): annotation 100, 101"
    with pytest.raises(ValueError, match=message):
        place.source(value)


def test_files_that_are_not_there_or_no_images_are_named(place):
    value = contents()
    value["images"][1]["file_name"] = "absent.png"
    with pytest.raises(FileNotFoundError, match=r"1 of the 3 images of .*a.json are not there: .*absent.png \(id 9\)"):
        place.source(value)
    (place.folder / "broken.png").write_bytes(b"no image")
    value["images"][1]["file_name"] = "broken.png"
    with pytest.raises(
        ValueError,
        match=r"the images of .*a.json must .*; given: 1 of the 3 are not\.\n  .*broken.png \(id 9\): not an image",
    ):
        place.source(value)
    with pytest.raises(
        FileNotFoundError, match="images must be the folder of the images; given: .*, which is not there"
    ):
        coco_source(place.write(contents()), place.folder / "nowhere")
    with pytest.raises(FileNotFoundError, match="the annotation file .*absent.json is not there"):
        coco_source(place.folder / "absent.json", place.folder)
    with pytest.raises(ValueError, match="a.json must be JSON"):
        place.source("{")
    with pytest.raises(ValueError, match="a.json must hold images, annotations and categories; given: a list"):
        place.source("[]")


def test_an_image_that_breaks_off_is_named_when_it_is_read(place):
    source = place.source(contents())
    whole = (place.folder / "5.png").read_bytes()
    (place.folder / "5.png").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(ValueError, match=r"5.png \(id 5\): cannot be read"):
        source.train.image(0)


def test_an_image_that_breaks_off_is_named_before_the_training_unless_there_are_very_many(place, monkeypatch):
    whole = (place.folder / "5.png").read_bytes()
    (place.folder / "5.png").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(
        ValueError,
        match=r"the images of .*a.json must .*; given: 1 of the 3 are not\.\n  .*5.png \(id 5\): cannot be read",
    ):
        place.source(contents())
    monkeypatch.setattr("training.data.detection.coco_file._DECODED", 2)
    assert "only the heads of its 3 images are checked before the training" in place.source(contents()).notes[0]


@pytest.mark.parametrize("orientation, turned", [(3, 2), (6, -1)])
def test_a_turned_tiff_stands_upright(place, orientation, turned):
    exif = Image.Exif()
    exif[0x0112] = orientation
    Image.fromarray(pixels(5)).save(place.folder / "5.tif", exif=exif)
    expected, value = np.rot90(pixels(5), turned), contents()
    value["images"][0].update(file_name="5.tif", height=expected.shape[0], width=expected.shape[1])
    value["annotations"] = [annotation(1, 5, 3, [1, 2, 3, 4]), *value["annotations"][2:]]
    np.testing.assert_array_equal(place.source(value).train.image(0), expected)


def test_large_boxes_as_they_should_be_are_not_taken_for_corners(place):
    """Wider than their distance from the border, but within their images."""
    value = contents()
    for each in value["annotations"]:
        each["bbox"] = [4, 4, 40, 30]
        each.pop("segmentation")
    path = place.write(value)
    assert coco_source(path, place.folder, path).train.objects(0).boxes[0].tolist() == [4, 4, 44, 34]


def test_a_class_that_would_lose_its_last_image_cannot_be_held_out(place):
    value = contents()
    value["annotations"] = value["annotations"][:2]
    with pytest.raises(
        ValueError, match=r"an image with objects that can be held out for testing; given: none.* test images\.$"
    ):
        coco_source(place.write(value), place.folder)
    value["annotations"].append(contents()["annotations"][3])
    with pytest.raises(ValueError, match=r"Give a file of test images\. Its 1 crowds \(iscrowd 1\) are no objects\.$"):
        coco_source(place.write(value), place.folder)


def test_a_test_set_without_a_class_of_the_training_set_is_refused(place):
    value = contents()
    value["annotations"] = [each for each in value["annotations"] if each["category_id"] == 17]
    tested = contents()
    tested["annotations"] = [each for each in tested["annotations"] if each["category_id"] == 3]
    with pytest.raises(ValueError, match="must have an object of a class that is trained on; given: none"):
        coco_source(place.write(value), place.folder, place.write(tested, "t.json"))
