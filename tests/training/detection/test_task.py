"""The commands on detection: a user's own images, the demo, what is refused before training."""

import contextlib
import json
import signal

import keras
import numpy as np
import pytest
from backends import CURRENT
from PIL import Image
from processes import KILLED, process

from training.cli.main import main
from training.data.detection.digit_scenes import digit_scenes_lt
from training.detection.outcome import DetectionOutcome
from training.detection.train import load_source_of, train_detector
from training.recipes import get_recipe
from training.recipes.demo import detection_demo_recipes

TINY = [
    "--backend", CURRENT, "--model.backbone", "resnet8", "--model.anchor-sizes", "16", "28", "44", "64",
    "--model.pyramid-filters", "8", "--model.box-units", "16", "--model.mask-filters", "8",
    "--model.options", "proposals", "20", "proposals_training", "20", "roi_samples", "16", "rpn_samples", "32",
    "--data.image-size", "64", "64", "--batch-size", "4", "--epochs", "1",
]  # fmt: skip


@pytest.fixture(scope="module")
def own_data(tmp_path_factory):
    """Twelve images of 80 x 64 pixels with the JSON of COCO, without LVIS's keys."""
    folder = tmp_path_factory.mktemp("own")
    scenes = digit_scenes_lt(num_train=10, num_test=12, image_size=(64, 80))
    images = []
    for index, image in enumerate(scenes.test_annotations["images"]):
        Image.fromarray(scenes.test.image(index)).save(folder / image["file_name"])
        images.append({key: image[key] for key in ("id", "file_name", "height", "width")})
    categories = [{"id": each["id"], "name": each["name"]} for each in scenes.test_annotations["categories"]]
    annotations = scenes.test_annotations["annotations"]
    (folder / "ann.json").write_text(
        json.dumps({"images": images, "annotations": annotations, "categories": categories})
    )
    return folder


@contextlib.contextmanager
def changed(file):
    """What a JSON file holds, to be changed; it is written as it is made here."""
    contents = json.loads(file.read_text())
    yield contents
    file.write_text(json.dumps(contents))


def own(folder):
    return ["train", "detection", "--data.train", str(folder / "ann.json"), "--data.images", str(folder), *TINY]


@pytest.mark.slow
def test_own_images_are_trained_on_measured_and_reported(own_data, tmp_path, capsys):
    output = tmp_path / "run"
    command = [*own(own_data), "--output", str(output), "--precision", "mixed_bfloat16"]
    assert main(command) == 0
    printed = capsys.readouterr()
    assert "training images" in printed.out and "rare" in printed.out and "report.md" in printed.out
    detector = keras.saving.load_model(output / "detection.keras")
    assert detector.mask_head.compute_dtype == detector.backbone.layers[-1].compute_dtype == "bfloat16"
    assert {variable.dtype for variable in detector.weights} == {"float32"}
    history = json.loads((output / "detection.json").read_text())["history"]
    assert np.isfinite([values for name, values in history.items() if name.endswith("loss")]).all()
    # The classifier starts at GOL's small weights and negative bias: few false positives to unlearn.
    assert history["classifier_loss"][0] < 4
    results = json.loads((output / "detection.results.json").read_text())
    assert {"image_id", "category_id", "score", "bbox", "segmentation"} == set(results[0])
    config = json.loads((output / "config.json").read_text())
    assert config["recipes"][0]["task"] == "detection"
    assert main(["evaluate", str(output), "--backend", CURRENT, "--evaluation.style", "coco"]) == 0
    again = json.loads((output / "evaluation.json").read_text())
    assert again["evaluation"]["style"] == "coco" and set(again["by_class"]) == {"box", "mask"}
    # LVIS measures detections of any score, COCO those above 0.05, of the same model.
    assert min(each["score"] for each in results) < 0.05
    assert all(each["score"] > 0.05 for each in json.loads((output / "evaluation.results.json").read_text()))
    with changed(own_data / "ann.json") as contents:
        contents["categories"][0]["name"] = "nought"
    capsys.readouterr()
    assert main(["evaluate", str(output), "--backend", CURRENT]) == 2
    assert "the classes of the images must be the" in capsys.readouterr().err
    with changed(own_data / "ann.json") as contents:
        contents["categories"][0]["name"] = "0"
    predicted = ["predict", str(output / "detection.keras"), str(own_data), "--backend", CURRENT, "--json"]
    assert main([*predicted, "--min-score", "0.1"]) == 0
    assert len(json.loads(capsys.readouterr().out)["images"]) == 12
    (output / "report.md").unlink()
    assert main(["report", str(output), "--backend", CURRENT]) == 0
    assert "figures/scenes.png" in (output / "report.md").read_text()
    # The same command again trains nothing.
    capsys.readouterr()
    assert main(command) == 0
    assert "This training is finished" in capsys.readouterr().out


@pytest.mark.slow
@pytest.mark.skipif(CURRENT != "torch", reason="compiles least; test_detection cuts a training off on each backend")
def test_a_training_that_was_killed_goes_on_to_the_same_weights(own_data, tmp_path, capsys):
    """GOL draws which negatives it drops, images are repeated, resized and mirrored at random."""
    arguments = [*own(own_data), "--batch-size", "2", "--epochs", "2", "--checkpoint-steps", "3"]
    arguments += ["--evaluation.every-epochs", "2"]
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    # One thread each: several add up their parts in another order every time.
    result = process(*arguments, "--output", whole, OMP_NUM_THREADS="1")
    assert result.returncode == 0, result.stderr[-3000:]
    # 6 steps an epoch; killed in the middle of the second one, a step after the last checkpoint.
    result = process(*arguments, "--output", killed, program=KILLED.format(step=11), OMP_NUM_THREADS="1")
    assert result.returncode == -signal.SIGKILL
    assert not (killed / "detection.keras").exists()
    with changed(own_data / "ann.json") as contents:
        contents["annotations"][0]["bbox"][2] -= 1
    assert main([*map(str, arguments), "--output", str(killed)]) == 2
    assert "but other files or annotations" in capsys.readouterr().err
    with changed(own_data / "ann.json") as contents:
        contents["annotations"][0]["bbox"][2] += 1
    result = process(*arguments, "--output", killed, OMP_NUM_THREADS="1")
    assert result.returncode == 0, result.stderr[-3000:]
    assert "Going on from step 9 of 12" in result.stdout
    detectors = [keras.saving.load_model(folder / "detection.keras") for folder in (whole, killed)]
    for expected, got in zip(*(detector.weights for detector in detectors), strict=True):
        values = [keras.ops.convert_to_numpy(each) for each in (got, expected)]
        np.testing.assert_allclose(*values, rtol=0, atol=1e-6, err_msg=got.path)
    losses = [json.loads((folder / "detection.json").read_text())["history"]["loss"] for folder in (whole, killed)]
    assert losses[0] == losses[1]


@pytest.mark.slow
def test_a_dry_run_on_boxes_alone(own_data, tmp_path, capsys):
    values = json.loads((own_data / "ann.json").read_text())
    for annotation in values["annotations"]:
        del annotation["segmentation"]
    path = tmp_path / "boxes.json"
    path.write_text(json.dumps(values))
    arguments = [*own(own_data), "--dry-run", "--data.train", str(path), "--output", str(tmp_path / "run")]
    assert main(arguments) == 2
    assert "model.name must be 'faster_rcnn'" in capsys.readouterr().err
    assert main([*arguments, "--model.name", "faster_rcnn"]) == 0
    printed = " ".join(capsys.readouterr().out.split())
    assert "faster_rcnn on resnet8" in printed and "2 steps with a batch of 2: loss" in printed
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("arguments", "parts"),
    [
        (["train", "detection"], ["data.train must be the JSON file"]),
        (["train", "detection", "--data.train", "no.json", "--data.images", "."], ["no.json"]),
        (["train", "detection", "--data.train", "no.json"], ["data.images must be the folder"]),
        (["train", "detection", "--model.backbone", "resnet9"], ["resnet9"]),
        (["train", "digit_scenes_lt", "--loss.name", "GOL"], ["loss.name must be a known name; given: 'GOL'"]),
        (["train", "digit_scenes_lt", "--batch-size", "5000"], ["batch_size", "600"]),
        (["train", "digit_scenes_lt", "--batch-size", "5000", "--dry-run"], ["batch_size", "600"]),
        (["train", "digit_scenes_lt", "--image-size", "64"], ["--image-size", "--dry-run"]),
        (["train", "digit_scenes_lt", "--classifier-learning", "crt"], ["--classifier-learning"]),
        (["train", "digit_scene_lt"], ["RECIPE must be a known name", "digit_scenes_lt"]),
        (["demo", "--task", "segmentation"], ["--task", "classification, detection"]),
        (
            ["demo", "--task", "detection", "--model", "resnet8"],
            ["--model must be left out with --task detection", "given: 'resnet8'"],
        ),
        (["demo", "--task", "detection", "--data", "digits10_lt"], ["--data must be left out with --task detection"]),
    ],
)
@pytest.mark.any_backend
def test_what_cannot_be_is_said_before_training(arguments, parts, capsys, tmp_path):
    output = [] if "--classifier-learning" in arguments else ["--output", str(tmp_path / "run")]
    assert main([*arguments, "--backend", CURRENT, *output]) == 2
    error = capsys.readouterr().err
    assert error.startswith("keras-apa: ") and "Traceback" not in error
    for part in parts:
        assert part in error
    assert not (tmp_path / "run").exists()


def test_options_of_classification_are_refused_for_a_detector(tmp_path, capsys):
    recipe = get_recipe("digit_scenes_lt").replace(data={"num_train": 10, "num_test": 2})
    config = {"backend": CURRENT, "recipes": [recipe.to_dict()]}
    (tmp_path / "config.json").write_text(json.dumps(config))
    (tmp_path / "digit_scenes_lt.keras").write_bytes(b"")
    assert main(["evaluate", str(tmp_path), "--evaluation.tau", "1", "--backend", CURRENT]) == 2
    assert "the settings of evaluation must be known ones; given: 'tau'" in capsys.readouterr().err


def test_the_demo_trains_three_detectors_that_differ_in_their_loss():
    recipes = detection_demo_recipes(epochs=3, seed=7)
    assert [each.loss.name for each in recipes] == ["softmax", "GumbelOptimizedLoss", "BalancedSigmoidCrossentropy"]
    assert {(each.epochs, each.seed) for each in recipes} == {(3, 7)}


@pytest.mark.slow
def test_a_shortened_training_of_the_demo_finds_the_frequent_digits():
    """180 of the demo's 600 steps; AP50 of the frequent classes was 0.60 and 0.61 on TensorFlow and PyTorch."""
    recipe = detection_demo_recipes(epochs=3)[1].replace(data={"num_train": 480, "num_test": 40})
    _, outcome = train_detector(recipe, load_source_of(recipe))
    assert isinstance(outcome, DetectionOutcome)
    assert outcome.metrics["box_AP50f"] > 0.35 and outcome.metrics["mask_AP50f"] > 0.35, outcome.metrics
    losses = outcome.history["loss"]
    assert losses[2] < 0.75 * losses[0]
    frequent = np.asarray(outcome.image_counts) > 100
    by_class = np.asarray(outcome.by_class50["box"])
    assert by_class[frequent].mean() == pytest.approx(outcome.metrics["box_AP50f"])
