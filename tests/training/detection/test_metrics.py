import contextlib
import copy
import io
import json

import numpy as np
import pytest
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

import zoo
from training.data.detection.masks import encode_mask
from training.detection.metrics import DetectionEvaluation, coco_results, detect, evaluate_detections, logged_names

CATEGORIES = [
    {"id": 3, "name": "rare", "frequency": "r"},
    {"id": 5, "name": "common", "frequency": "c"},
    {"id": 8, "name": "frequent", "frequency": "f"},
    {"id": 9, "name": "never seen in the test images", "frequency": "f"},
]
SIZE = (60, 80)


def rectangle(box):
    mask = np.zeros(SIZE, "uint8")
    x1, y1, x2, y2 = (round(value) for value in box)
    mask[y1:y2, x1:x2] = 1
    mask[y1 : y1 + 3, x1 : x1 + 3] = 0  # so that masks and boxes differ
    return mask


def xywh(box):
    return [float(v) for v in (box[0], box[1], box[2] - box[0], box[3] - box[1])]


@pytest.fixture(scope="module")
def scene():
    """Objects in 12 images, and detections that are shifted copies of them, wrong classes and noise."""
    rng = np.random.default_rng(0)
    images, annotations, found = [], [], []
    for image_id in range(12):
        images.append({"id": image_id, "height": SIZE[0], "width": SIZE[1]})
        boxes, labels, scores = [], [], []
        for _ in range(rng.integers(1, 6)):
            corner, side = rng.uniform(0, 30, 2) * [1, 0.5], rng.uniform(8, 44, 2)
            box = np.round([*corner, *(corner + side)])
            label = int(rng.choice([0, 1, 2], p=[0.1, 0.3, 0.6]))
            annotations.append(
                {
                    "id": len(annotations),  # from 0, which pycocotools takes for "not matched"
                    "image_id": image_id,
                    "category_id": CATEGORIES[label]["id"],
                    "bbox": xywh(box),
                    "area": float(rectangle(box).sum()),
                    "iscrowd": int(rng.random() < 0.1),
                    "segmentation": encode_mask(rectangle(box)),
                }
            )
            for _ in range(rng.integers(0, 4)):
                boxes.append(np.clip(box + rng.normal(0, 1.5, 4), 0, [80, 60, 80, 60]))
                labels.append(label if rng.random() < 0.8 else int(rng.integers(4)))
                scores.append(rng.random())
        for _ in range(3):
            corner = rng.uniform(0, 30, 2)
            boxes.append([*corner, *(corner + rng.uniform(5, 20, 2))])
            labels.append(int(rng.integers(4)))
            scores.append(rng.random() * 0.5)
        boxes = np.array(boxes, "float32")
        masks = np.array([rectangle(box) for box in boxes], bool)
        found.append(
            (image_id, {"boxes": boxes, "scores": np.array(scores), "labels": np.array(labels), "masks": masks})
        )
    truth = {"images": images, "annotations": annotations, "categories": CATEGORIES}
    return truth, coco_results(found, [category["id"] for category in CATEGORIES])


def with_pycocotools(truth, results, kind):
    """COCOeval after `accumulate` and `summarize`."""
    truth = copy.deepcopy(truth)
    for index, annotation in enumerate(truth["annotations"], start=1):
        annotation["id"] = index
    key = "bbox" if kind == "box" else "segmentation"
    with contextlib.redirect_stdout(io.StringIO()):
        known = COCO()
        known.dataset = {"info": {}, **truth}
        known.createIndex()
        kept = ("image_id", "category_id", "score", key)
        found = known.loadRes([{name: copy.deepcopy(result[name]) for name in kept} for result in results])
        evaluation = COCOeval(known, found, "bbox" if kind == "box" else "segm")
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    return evaluation


@pytest.mark.parametrize("kind", ["box", "mask"])
def test_coco_metrics_are_those_of_pycocotools(scene, kind):
    truth, results = scene
    reference = with_pycocotools(truth, results, kind)
    metrics = evaluate_detections(truth, results)
    names = [f"{kind}_{name}" for name in ("AP", "AP50", "AP75", "APs", "APm", "APl")]
    expected = [value if value > -1 else np.nan for value in reference.stats[:6]]
    np.testing.assert_allclose([metrics.summary[name] for name in names], expected, atol=1e-12)
    assert 0.1 < metrics.summary[f"{kind}_AP"] < 0.9
    precision = reference.eval["precision"][:, :, :, 0, -1]
    by_class = [precision[:, :, k].mean() if precision[0, 0, k] > -1 else np.nan for k in range(4)]
    np.testing.assert_allclose(metrics.by_class[kind], by_class, atol=1e-12)


@pytest.mark.parametrize("kind", ["box", "mask"])
def test_lvis_metrics_of_full_annotations_are_those_of_pycocotools_by_group(scene, kind):
    """Where every class was looked for in every image, LVIS's rule about absent classes changes nothing."""
    truth, results = scene
    # LVIS's code takes crowds for objects.
    objects = {**truth, "annotations": [{**each, "iscrowd": 0} for each in truth["annotations"]]}
    precision = with_pycocotools(objects, results, kind).eval["precision"][:, :, :, 0, -1]
    metrics = evaluate_detections(truth, results, style="lvis")
    for letter, k in (("r", 0), ("c", 1), ("f", 2)):
        assert metrics.summary[f"{kind}_AP{letter}"] == pytest.approx(precision[:, :, k].mean(), abs=1e-12)
        assert metrics.summary[f"{kind}_AP50{letter}"] == pytest.approx(precision[0, :, k].mean(), abs=1e-12)


def test_lvis_leaves_out_classes_that_nobody_looked_for(scene):
    truth, results = scene
    strict = evaluate_detections(truth, results, style="lvis").summary["box_AP"]
    partly = {**truth, "images": [{**image, "neg_category_ids": []} for image in truth["images"]]}
    assert evaluate_detections(partly, results, style="lvis").summary["box_AP"] > strict + 0.01


def test_lvis_counts_the_best_of_an_image_over_all_classes(scene):
    truth, results = scene
    best = evaluate_detections(truth, results, style="lvis", max_detections=2).summary["box_AP"]
    kept = []
    for image in truth["images"]:
        of_image = sorted((r for r in results if r["image_id"] == image["id"]), key=lambda r: -r["score"])
        kept += of_image[:2]
    assert best == evaluate_detections(truth, kept, style="lvis").summary["box_AP"]
    assert best < evaluate_detections(truth, results, style="lvis").summary["box_AP"]


def test_class_without_test_objects_is_nan_and_left_out_of_means(scene):
    truth, results = scene
    metrics = evaluate_detections(truth, results)
    assert np.isnan(metrics.by_class["box"][3])
    assert metrics.summary["box_AP"] == pytest.approx(np.mean(metrics.by_class["box"][:3]))
    without_rare = [each for each in truth["annotations"] if each["category_id"] != 3]
    assert np.isnan(evaluate_detections({**truth, "annotations": without_rare}, results).summary["box_APr"])


def test_perfect_detections_score_one_and_none_score_zero(scene):
    truth, _ = scene
    keys = ("image_id", "category_id", "bbox", "segmentation")
    perfect = [{**{key: each[key] for key in keys}, "score": 0.9} for each in truth["annotations"]]
    assert evaluate_detections(truth, perfect).summary["mask_AP50"] > 0.99
    nothing = evaluate_detections(truth, []).summary
    assert nothing["box_AP"] == nothing["mask_APf"] == 0.0


def test_results_survive_json_and_the_input_is_left_alone(scene):
    truth, results = scene
    before = copy.deepcopy((truth, results))
    read = json.loads(json.dumps(results))
    again, first = (evaluate_detections(truth, each).summary for each in (read, results))
    assert repr(again) == repr(first)
    assert (truth, results) == before


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"image_id": 99}, "image_id of a result must be in the annotations; given: 99"),
        ({"category_id": 4}, "category_id of a result must be in the annotations; given: 4"),
    ],
)
def test_results_of_something_else_are_an_error(scene, change, message):
    truth, results = scene
    with pytest.raises(ValueError, match=message):
        evaluate_detections(truth, [{**results[0], **change}])


@pytest.mark.any_backend
@pytest.mark.parametrize(
    ("where", "change", "message"),
    [
        ("results", {"image_id": "1"}, r"image_id of a result must be in the annotations; given: '1'\."),
        ("results", {"image_id": [1]}, r"image_id of a result must be in the annotations; given: \[1\]"),
        ("results", {"category_id": "rare"}, r"category_id of a result must be in the annotations; given: 'rare'"),
        ("results", {"bbox": None}, "bbox of a result must be four finite numbers x, y, width, height; given: None"),
        ("results", {"bbox": [1, 2, 3]}, r"bbox of a result must be four finite .*; given: \[1, 2, 3\]"),
        ("results", {"bbox": ["1", 2, 3, 4]}, "bbox of a result must be four finite"),
        ("results", {"score": "a"}, "score of a result must be a finite number; given: 'a'"),
        ("results", {"score": float("nan")}, "score of a result must be a finite number; given: nan"),
        ("results", {"segmentation": [[1, 1, 9, 1, 9, 9]]}, "segmentation of a result must be run lengths as a text"),
        ("results", {"segmentation": {"size": [48, 64], "counts": "1"}}, r"size of a result's .*\[60, 80\]; given: "),
        (
            "annotations",
            {"category_id": "3"},
            "category_id of an annotation must be among the ids of categories; .*'3'",
        ),
        ("annotations", {"image_id": None}, "image_id of an annotation must be among the ids of images; given: None"),
        ("annotations", {"bbox": None}, "bbox of an annotation must be four finite numbers .*; given: None"),
        ("annotations", {"iscrowd": "no"}, "iscrowd of an annotation must be 0 or 1; given: 'no'"),
        ("categories", {"id": "a"}, "id of categories must be whole numbers; given: 'a'"),
    ],
)
def test_fields_that_cannot_be_measured_are_named(scene, where, change, message):
    """COCO's code gives NaN for some, as an object of no class, and errors without the field's name for others."""
    truth, results = scene
    given = {**truth, "results": results}
    given[where] = [{**given[where][0], **change}, *given[where][1:]]
    with pytest.raises(ValueError, match=message):
        evaluate_detections(given, given["results"])


@pytest.mark.any_backend
def test_numbers_may_be_of_numpy(scene):
    truth, results = scene
    truth, results = {**truth, "annotations": truth["annotations"][:3]}, results[:3]
    arrays = [{**each, "bbox": np.array(each["bbox"]), "score": np.float32(each["score"])} for each in results]
    counted = [{**each, "image_id": np.int64(each["image_id"])} for each in truth["annotations"]]
    expected = evaluate_detections(truth, results).summary
    assert repr(evaluate_detections({**truth, "annotations": counted}, arrays).summary) == repr(expected)


def test_bad_settings_are_named(scene):
    truth, results = scene
    with pytest.raises(ValueError, match="style must be one of coco, lvis, not 'voc'"):
        evaluate_detections(truth, results, style="voc")
    plain = {**truth, "categories": [{"id": each["id"], "name": each["name"]} for each in CATEGORIES]}
    with pytest.raises(ValueError, match="frequency of r, c or f for each category; 'rare' has None"):
        evaluate_detections(plain, results, style="lvis")
    assert "box_APr" not in evaluate_detections(plain, results).summary
    with pytest.raises(ValueError, match="every result must have 'segmentation'"):
        evaluate_detections(truth, [{key: results[0][key] for key in ("image_id", "category_id", "bbox", "score")}])


@pytest.fixture(scope="module")
def detector():
    backbone = zoo.create_model("resnet8", stem="imagenet", pyramid=True, input_shape=(None, None, 3))
    return zoo.MaskRCNN(
        backbone,
        4,
        seed=0,
        pyramid_filters=8,
        box_units=16,
        mask_filters=8,
        anchor_sizes=((16,), (32,), (64,), (128,)),
        proposals=20,
        max_detections=5,
        score_threshold=0.0,
    )


def test_detect_gives_what_predict_images_gives(detector):
    rng = np.random.default_rng(0)
    images = [rng.integers(0, 256, (*size, 3), "uint8") for size in ((64, 64), (64, 48), (32, 64))]
    found = dict(detect(detector, enumerate(images), (64, 64), batch_size=2))
    assert list(found) == [0, 1, 2]
    for index, image in enumerate(images):
        # Twice the same, so that there is one function to compile.
        padded = np.zeros((2, 64, 64, 3), "float32")
        padded[:, : image.shape[0], : image.shape[1]] = image
        sizes = np.array([image.shape[:2]] * 2, "int32")
        alone = detector.predict_on_batch({"images": padded, "image_size": sizes})
        boxes = np.asarray(alone["boxes"])[0]
        np.testing.assert_allclose(found[index]["boxes"], boxes[np.asarray(alone["labels"])[0] >= 0], atol=1e-3)
        assert found[index]["masks"].shape[1:] == image.shape[:2]


def test_landscape_and_portrait_are_seen_alike_large():
    class Detector:
        def predict_on_batch(self, inputs):
            self.sizes = inputs["image_size"]
            return {"labels": np.zeros((2, 0))}

        def to_image(self, found, resized, size):
            return found

    detector = Detector()
    images = [np.zeros((*size, 3), "uint8") for size in ((30, 60), (60, 40))]
    list(detect(detector, enumerate(images), (96, 96), batch_size=2, shorter_side=48))
    assert detector.sizes.tolist() == [[48, 96], [72, 48]]


def test_callback_logs_every_name_each_epoch(detector, scene):
    truth, _ = scene
    images = [(image["id"], np.zeros((*SIZE, 3), "uint8")) for image in truth["images"][:2]]
    callback = DetectionEvaluation(lambda: images, truth, [3, 5, 8, 9], (64, 64), batch_size=2, every_epochs=2)
    callback.set_model(detector)
    callback.set_params({"epochs": 3})
    logs = [{"loss": 1.0}, {}, {}]
    for epoch, values in enumerate(logs):
        callback.on_epoch_end(epoch, values)
    names = {f"val_{name}" for name in logged_names(detector, truth)}
    assert [set(values) - {"loss"} == names for values in logs] == [True] * 3
    assert [np.isnan(values["val_box_AP"]) for values in logs] == [True, False, False]
    assert len(callback.results) == 10
