"""Exported detectors: loaded as a server loads them, equal to Keras; images of any size; what is refused."""

import json

import keras
import numpy as np
import pytest
import served
from backends import CURRENT
from exported import encode, smooth_picture

import zoo
from zoo.detection import MaskRCNN, resize_image

SIZE = (48, 64)
SMALL = {
    "pyramid_filters": 8,
    "box_units": 16,
    "mask_filters": 8,
    "rpn_candidates": 40,
    "proposals": 30,
    "max_detections": 5,
    "anchor_sizes": ((8,), (16,), (32,), (48,)),
    "score_threshold": 0.0,
}


def make(**options):
    """A detector for small images whose scores differ by more than rounding."""
    keras.utils.set_random_seed(0)
    network = zoo.create_model(
        "resnet8", pyramid=True, stem="imagenet", frozen_batch_norm=True, input_shape=(None, None, 3)
    )
    transform = zoo.detection.DetectionPreprocessing(min_size=48, max_size=64, divisor=16)
    detector = MaskRCNN(network, 3, preprocessing=transform, class_names=("a", "b", "c"), **SMALL, **options)
    random = np.random.default_rng(0)
    for head in (detector.proposal_head, detector.box_head, detector.mask_head):
        for variable in head.weights:
            variable.assign(random.normal(0, 0.2, variable.shape).astype("float32"))
    return detector


@pytest.fixture(scope="module")
def detector():
    return make()


@pytest.fixture(scope="module")
def folder(detector, tmp_path_factory):
    # What somebody does first; its functions for each size of image have no place in the export.
    detector.predict_images([smooth_picture(96, 100)])
    return detector.export(tmp_path_factory.mktemp("models") / "digits", image_size=SIZE)


def close(served_outputs, expected):
    np.testing.assert_array_equal(served_outputs["labels"], expected["labels"])
    for key in ("scores", "masks"):
        np.testing.assert_allclose(served_outputs[key], expected[key], rtol=0, atol=1e-4, err_msg=key)
    # In pixels, up to 64: float32 keeps seven digits of them.
    np.testing.assert_allclose(served_outputs["boxes"], expected["boxes"], rtol=0, atol=64e-4)


@pytest.mark.any_backend  # written by TensorFlow whichever it is; test_export.py of zoo asks each
def test_served_detections_equal_those_of_keras(detector, folder):
    # Smooth ones: on noise, a box that is rounded otherwise by 1e-3 pixels moves a mask by more than the bound.
    images = np.stack([np.flip(smooth_picture(*SIZE), axis) for axis in ((), 0, 1)]).astype("float32")
    size = np.array([[48, 64], [40, 64], [48, 33]], "int32")
    picture = smooth_picture(96, 100)
    warmup, names = served.read_warmup_requests(folder)
    results = served.run(
        folder,
        [
            ("serving_default", {"images": images, "image_size": size}),
            ("serve_jpeg", {"image_bytes": [encode(picture), encode(picture[:30, :90])]}),
            ("serve_jpeg", {"image_bytes": [encode(picture), b"GIF89a"]}),
            ("serving_default", {"images": images[:0], "image_size": size[:0]}),
            *warmup,
        ],
    )
    expected = detector.predict_on_batch({"images": images, "image_size": size})
    close(results[0], expected)
    assert set(results[0]) == {"boxes", "scores", "labels", "masks"} and (expected["labels"] >= 0).sum() > 5

    # The shorter side to 48 if the longer one is at most 64 then.
    pixels, sizes, given = np.zeros((2, *SIZE, 3), "float32"), [[48, 50], [21, 64]], [[96, 100], [30, 90]]
    for target, (height, width), (top, left) in zip(pixels, sizes, given, strict=True):
        target[:height, :width] = resize_image(picture[:top, :left], (height, width))
    expected = detector.predict_on_batch({"images": pixels, "image_size": np.array(sizes, "int32")})
    scale = np.array(given, "float32") / np.array(sizes, "float32")
    expected["boxes"] = np.asarray(expected["boxes"]) * scale[:, [1, 0, 1, 0]][:, None]
    close(results[1], expected)
    wanted = [["abc"[label] if label >= 0 else "" for label in row] for row in expected["labels"]]
    assert [[name.decode() for name in row] for row in results[1]["classes"]] == wanted

    assert "image_bytes must be JPEG or PNG" in results[2] and "the batch is empty" in results[3]
    assert [name for name, _ in warmup] == ["serving_default", "serve_jpeg"] and set(names) == {"digits"}
    assert results[4]["boxes"].shape == results[5]["boxes"].shape == (1, 5, 4)
    description = json.loads((folder / "assets.extra" / "model.json").read_text())
    assert description["class_names"] == ["a", "b", "c"] and description["image_size"] == list(SIZE)


@pytest.mark.any_backend
def test_what_has_no_place_is_named(detector, tmp_path):
    for options, text in (
        ({"format": "onnx"}, "must be 'tf_saved_model' for a detector; given: 'onnx'"),
        ({"top_k": 3}, "top_k must be left out of the export of a detector; given: 3"),
        ({"activation": "softmax"}, "activation must be left out"),
        ({"image_size": (8, 64)}, "at least 16 pixels"),
        ({"image_size": 64}, "image_size must be a height and a width of at least 16 pixels, .* given: 64"),
        ({"class_names": ["a"]}, "class_names must have 3 names"),
    ):
        with pytest.raises(ValueError, match=text):
            detector.export(tmp_path / "birds", **options)
    with pytest.raises(ValueError, match="image_size must be left out"):
        model = zoo.create_model("resnet8", classes=2, input_shape=(8, 8, 3))
        zoo.export(model, tmp_path / "birds", image_size=(8, 8), preprocessing=zoo.Preprocessing(image_size=(8, 8)))
    assert not list(tmp_path.iterdir())


@pytest.mark.skipif(CURRENT != "tensorflow", reason="the export itself is tested on each backend")
def test_the_command_exports_a_saved_detector(detector, tmp_path, capsys):
    from training.cli.export import run_export

    detector.save(tmp_path / "digits.keras")
    assert run_export(tmp_path / "digits.keras", tmp_path / "served") == 0
    assert capsys.readouterr().out.splitlines()[-1] == f"Wrote {tmp_path}/served/1"
    description = json.loads((tmp_path / "served" / "1" / "assets.extra" / "model.json").read_text())
    assert description["image_size"] == [64, 64]


@pytest.mark.slow
@pytest.mark.skipif(CURRENT != "tensorflow", reason="the numbers are TensorFlow's anyway")
def test_a_detector_in_half_precision_is_served_in_float32(tmp_path):
    detector = make(dtype="mixed_bfloat16")
    path = detector.export(tmp_path / "half", image_size=SIZE)
    images = np.random.default_rng(1).integers(0, 256, (1, *SIZE, 3)).astype("float32")
    size = np.array([SIZE], "int32")
    (found,) = served.run(path, [("serving_default", {"images": images, "image_size": size})])
    exact = make()
    exact.set_weights(detector.get_weights())
    close(found, exact.predict_on_batch({"images": images, "image_size": size}))
