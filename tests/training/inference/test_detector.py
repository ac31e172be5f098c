"""`keras-apa predict` with a detector: the detections of `predict_images`, pictures, and what is refused."""

import json

import keras
import numpy as np
import pytest
from PIL import Image
from rich.console import Console

import zoo
from training.cli.predict import run_predict
from training.data.detection.masks import decode_mask, encode_mask
from training.detection.figures import picture
from training.errors import UsageError
from training.image_files import find_images, is_written
from zoo.detection import DetectionPreprocessing

NAMES = ("cat", "dog", "owl")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Images of two sizes, a broken one, and a Mask R-CNN of random weights."""
    keras.utils.set_random_seed(0)
    folder = tmp_path_factory.mktemp("detector")
    random = np.random.default_rng(0)
    for name, size in (("a", (40, 50, 3)), ("b", (50, 40, 3))):
        (folder / name).mkdir()
        Image.fromarray(random.integers(0, 256, size, "uint8")).save(folder / name / "photo.png")
    (folder / "broken.jpg").write_bytes(b"no image")
    zoo.MaskRCNN(
        zoo.create_model("resnet8", pyramid=True, stem="imagenet", frozen_batch_norm=True, input_shape=(None, None, 3)),
        num_classes=3,
        class_names=NAMES,
        preprocessing=DetectionPreprocessing(min_size=48, max_size=64),
        pyramid_filters=8,
        box_units=16,
        mask_filters=8,
        anchor_sizes=((8,), (16,), (32,), (64,)),
        proposals=20,
        max_detections=5,
        seed=0,
    ).save(folder / "detector.keras")
    return folder


def files(folder):
    return [folder / name / "photo.png" for name in ("a", "b")]


def test_detections_are_those_of_predict_images(folder, tmp_path, capsys):
    out = tmp_path / "pictures"
    code = run_predict(
        folder / "detector.keras", [*files(folder), folder / "broken.jpg"], as_json=True, min_score=0.3, pictures=out
    )
    printed = capsys.readouterr()
    *found, broken = json.loads(printed.out)["images"]
    assert code == 1 and "not an image" in broken["error"] and "broken.jpg: not an image" in printed.err
    detector = keras.saving.load_model(folder / "detector.keras")
    images = [np.asarray(Image.open(file)) for file in files(folder)]
    total = 0
    for image, one, wanted in zip(images, found, detector.predict_images(images), strict=True):
        kept = wanted["scores"] > 0.3
        total += kept.sum()
        assert [each["class"] for each in one["detections"]] == [NAMES[label] for label in wanted["labels"][kept]]
        assert [each["index"] for each in one["detections"]] == wanted["labels"][kept].tolist()
        boxes = np.array([each["bbox"] for each in one["detections"]]).reshape(-1, 4)
        boxes[:, 2:] += boxes[:, :2]
        np.testing.assert_allclose(boxes, wanted["boxes"][kept], atol=1e-4)
        np.testing.assert_allclose([each["score"] for each in one["detections"]], wanted["scores"][kept], atol=1e-5)
        for each, mask in zip(one["detections"], wanted["masks"][kept], strict=True):
            assert (decode_mask(each["segmentation"], *image.shape[:2]) != mask).mean() < 0.01
        with Image.open(one["picture"]) as drawn:
            assert drawn.size == image.shape[1::-1]
    assert total > 0
    assert sorted(path.name for path in out.glob("*")) == [".keras-apa", "photo-2.png", "photo.png"]
    # They are told from photographs.
    assert is_written(out) and find_images([tmp_path / "*" / "*.png"])[1]


@pytest.mark.any_backend
def test_the_table_names_files_and_classes(folder, tmp_path, capsys):
    (tmp_path / "names.txt").write_text("x\ny\nz\n")
    options = {"class_names": tmp_path / "names.txt", "output": tmp_path / "found.json", "image_size": (32, 48)}
    options["console"] = Console(width=300)  # wide enough for any temporary folder
    assert run_predict(folder / "detector.keras", files(folder), min_score=0.0, **options) == 0
    printed = capsys.readouterr().out
    found = json.loads((tmp_path / "found.json").read_text())["images"]
    assert {each["class"] for one in found for each in one["detections"]} & set("xyz")
    assert printed.count("photo.png") == 2 and "Wrote" in printed
    assert run_predict(folder / "detector.keras", files(folder), min_score=0.999, console=options["console"]) == 0
    assert capsys.readouterr().out.count("nothing found") == 2


def test_a_picture_keeps_the_pixels_beside_what_is_drawn():
    image = np.random.default_rng(0).integers(0, 256, (60, 80, 3), "uint8")
    mask = np.zeros((60, 80), "uint8")
    mask[35:45, 45:55] = 1
    objects = [
        {"bbox": [40, 30, 20, 20], "category_id": 1, "score": 0.75, "segmentation": encode_mask(mask)},
        {"bbox": [40, 0, 20, 20], "category_id": 0},
    ]
    figure = picture(image, objects, ("US$ and A$", r"a $\foo$ b", "owl"))
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    drawn = np.asarray(canvas.buffer_rgba())[..., :3]
    assert drawn.shape == image.shape
    np.testing.assert_array_equal(drawn[:, :30], image[:, :30])
    assert (drawn[30:50, 40] != image[30:50, 40]).any()
    assert (drawn[mask.astype(bool)] != image[mask.astype(bool)]).any(axis=-1).mean() > 0.9
    # The name at the upper border stands within the picture.
    assert (drawn[2:12, 42:70] != image[2:12, 42:70]).mean() > 0.5


def test_options_that_do_not_fit_are_refused(folder, tmp_path):
    zoo.create_model("resnet8", classes=3, input_shape=(16, 16, 3)).save(tmp_path / "classifier.keras")
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "photo.png").write_bytes(b"mine")
    (tmp_path / "two.txt").write_text("a\nb\n")
    for model, options, message in (
        ("classifier.keras", {"min_score": 0.5}, "--min-score must be left out .* It is for detectors"),
        ("classifier.keras", {"pictures": tmp_path / "new"}, "--pictures must be left out .* It is for detectors"),
        (folder / "detector.keras", {"min_score": 2.0}, "--min-score must be a finite number"),
        (folder / "detector.keras", {"pictures": tmp_path / "full"}, "must be a new or an empty folder"),
        (folder / "detector.keras", {"pictures": tmp_path / "x", "output": tmp_path / "x"}, "for both"),
        (
            folder / "detector.keras",
            {"class_names": tmp_path / "two.txt"},
            "must have the 3 class names of .*; given: 2",
        ),
    ):
        with pytest.raises(UsageError, match=message):
            run_predict(tmp_path / model, files(folder), **options)
    assert (tmp_path / "full" / "photo.png").read_bytes() == b"mine"
    assert not (tmp_path / "new").exists() and not (tmp_path / "x").exists()


@pytest.mark.any_backend
def test_a_detector_that_is_broken_is_named(folder, tmp_path):
    detector = keras.saving.load_model(folder / "detector.keras")
    detector.weights[0].assign(np.full(detector.weights[0].shape, np.nan, "float32"))
    detector.save(tmp_path / "nan.keras")
    with pytest.raises(UsageError, match="the weights of .* must be finite"):
        run_predict(tmp_path / "nan.keras", files(folder))
