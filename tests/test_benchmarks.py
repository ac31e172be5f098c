"""Plain PyTorch's networks are ours and the references', and the benchmarks run and write what they say."""

import importlib.util
import json
import pathlib
import subprocess
import sys

import detection
import fill_rule
import inference
import keras
import numpy as np
import plain_torch
import plain_torch_detection
import pytest
import torch
from authors import filled, nhwc, state_dict
from backends import CURRENT, environment
from reference import DATA, load, load_json

import zoo

pytestmark = pytest.mark.any_backend
SCRIPT = pathlib.Path(inference.__file__)
REFERENCES = {"se_resnet50": False, "se_resnet50_gumbel": True}


def plain_logits(arrays, adaptive, images):
    network = plain_torch.SEResNet50(adaptive)
    plain_torch.load_arrays(network, arrays)
    with torch.no_grad():
        return network.eval()(torch.from_numpy(images)).numpy()


@pytest.mark.parametrize("reference", REFERENCES)
def test_plain_pytorch_equals_our_network(reference):
    model, description = filled(reference)
    images = fill_rule.images(2, 64)
    plain = plain_logits(zoo.to_torch_state_dict(model), REFERENCES[reference], images)
    ours = keras.ops.convert_to_numpy(model(keras.ops.convert_to_tensor(nhwc(images)), training=False))
    assert np.abs(plain - ours).max() <= 20 * description["logits_f32_vs_f64_maxabs"]


@pytest.mark.parametrize("reference", REFERENCES)
def test_plain_pytorch_equals_the_authors_network(reference):
    description, arrays = load_json(f"models/{reference}.json"), load(f"models/{reference}.npz")
    plain = plain_logits(state_dict(description), REFERENCES[reference], arrays["x"])
    assert np.abs(plain - arrays["logits_f64"]).max() <= 20 * description["logits_f32_vs_f64_maxabs"]


def mask_rcnn(permutation=torch.randperm):
    """The detector in plain PyTorch with the reference's weights."""
    spec = importlib.util.spec_from_file_location("detection_fill_rule", DATA / "detection" / "fill_rule.py")
    rule = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(rule)
    network = plain_torch_detection.MaskRCNN(91, permutation)
    shapes = [(key, shape) for key, shape, *_ in load_json("detection/maskrcnn_eval.json")["state_dict"]]
    plain_torch_detection.load_arrays(network, {key: rule.fill(key, shape) for key, shape in shapes})
    return network


@pytest.mark.slow
def test_plain_pytorch_detects_what_torchvision_detects():
    recorded = load("detection/maskrcnn_eval.npz")
    images = np.stack([recorded["A/image_u8_0"], recorded["A/image_u8_1"]]).transpose(0, 3, 1, 2)
    with torch.no_grad():
        detections = mask_rcnn()(torch.from_numpy(images.copy()))
    for i, found in enumerate(detections):
        np.testing.assert_array_equal(found["labels"], recorded[f"A/det_labels_{i}"])
        # Six times what the reference itself differs from float64.
        np.testing.assert_allclose(found["boxes"], recorded[f"A/det_boxes_{i}"], rtol=0, atol=5e-4)
        np.testing.assert_allclose(found["scores"], recorded[f"A/det_scores_{i}"], rtol=0, atol=3e-5)
        masks = 1 / (1 + np.exp(-recorded[f"A/mask_logits_label_{i}"].astype("float64")))
        np.testing.assert_allclose(found["masks"][:10], masks, rtol=0, atol=5e-5)


@pytest.mark.slow
def test_plain_pytorch_has_the_losses_of_torchvision():
    recorded = load("detection/train.npz")
    images = np.stack([recorded["image_u8_0"], recorded["image_u8_1"]]).transpose(0, 3, 1, 2)
    targets = [
        {
            "boxes": torch.from_numpy(recorded[f"target_boxes_{i}"]),
            "labels": torch.from_numpy(recorded[f"target_labels_{i}"]).long(),
            "masks": torch.from_numpy(np.unpackbits(recorded[f"target_masks_bits_{i}"], axis=-1)),
        }
        for i in range(2)
    ]
    with torch.no_grad():
        losses = mask_rcnn(torch.arange)(torch.from_numpy(images.copy()), targets)
    expected = load_json("detection/train.json")["models"]["maskrcnn"]["losses"]
    assert set(losses) == set(expected)
    for name, value in losses.items():
        np.testing.assert_allclose(float(value), expected[name], rtol=6e-6, err_msg=name)


def test_the_detection_benchmark_knows_what_is_the_same_network():
    found = {"boxes": np.eye(4, dtype="float32")[:2], "scores": np.array([0.9, 0.8]), "labels": np.array([3, 1])}
    padded = {key: np.concatenate([value, np.zeros_like(value[:1])]) for key, value in found.items()}
    padded["labels"][2] = -1
    swapped = {key: value[[1, 0, 2]] for key, value in padded.items()}
    assert detection.differences(swapped, found) == {"boxes": 0.0, "scores": 0.0}
    for key, value in (("labels", 2), ("scores", 0.5), ("boxes", 9.0)):
        wrong = padded[key].copy()
        wrong[0] = value
        with pytest.raises(RuntimeError, match=key):
            detection.differences({**padded, key: wrong}, found)
    with pytest.raises(RuntimeError, match="losses differ by 0.5"):
        detection.differences({"box_loss": 1.5, "loss": 2.0}, {"box_loss": 1.0})


@pytest.mark.slow
@pytest.mark.any_backend("torch")  # the others compile a Mask R-CNN of full size
def test_the_detection_benchmark_writes_every_key_and_its_table(tmp_path):
    path = tmp_path / "detection.json"
    # One thread: those of PyTorch wait for each other where other suites compute.
    quick = ("--quick", "--backends", CURRENT, "--tasks", "detect", "--classes", 80, "--threads", 1)
    quick += ("--results", path)
    result = run(*quick, script=pathlib.Path(detection.__file__))
    assert result.returncode == 0, result.stderr[-3000:]
    assert [file.name for file in tmp_path.iterdir()] == [path.name] and str(path) in result.stdout
    results = json.loads(path.read_text())
    assert {"machine", "threads", "versions", "date", "command", "image", "rounds"} <= set(results)
    keys = ("process", "network", "task", "classes")
    found = [detection.Contender(*(row[key] for key in keys)) for row in results["results"]]
    (expected,) = detection.groups([CURRENT], ["detect"], [80])
    assert found == expected
    for row in results["results"]:
        assert row["seconds"] > 0 and row["gib"]["peak"] >= row["gib"]["step"] > 0
        same = row["process"] == CURRENT and (row["network"], row["classes"]) == ("mask_rcnn", 80)
        assert (row["difference"] is not None) == same
    printed = run("--table", "--results", path, script=pathlib.Path(detection.__file__)).stdout.strip()
    assert printed == detection.table(results) and "| Mask R-CNN | plain PyTorch | 80 |" in printed


def run(*arguments, script=SCRIPT):
    return subprocess.run(
        [sys.executable, script, *map(str, arguments)],
        env=environment(CURRENT),
        capture_output=True,
        text=True,
        timeout=1800,
    )


def test_bad_options_say_what_is_allowed(tmp_path):
    for arguments, message in {
        ("--images", "16"): "--images must be at least 32; given: 16.",
        ("--rounds", "0"): "--rounds must be at least 1; given: 0.",
        ("--threads", "0"): "--threads must be from 1 to",
        ("--table", "--results", str(tmp_path / "none.json")): "none.json does not exist",
    }.items():
        result = run(*arguments)
        assert result.returncode and message in result.stderr and "Traceback" not in result.stderr


@pytest.mark.slow
def test_the_inference_benchmark_writes_every_key_and_its_table(tmp_path):
    path = tmp_path / "inference.json"
    quick = ("--quick", "--images", 32, "--batches", 1, "--threads", 1, "--device", "cpu", "--backends", CURRENT)
    quick += ("--results", path)
    result = run(*quick)
    assert result.returncode == 0, result.stderr[-3000:]
    assert [file.name for file in tmp_path.iterdir()] == [path.name] and str(path) in result.stdout
    results = json.loads(path.read_text())
    assert {"machine", "device", "threads", "versions", "date", "command", "images", "rounds"} <= set(results)
    assert results["device"] == "cpu" and 0 < results["largest_difference"] <= inference.LIMITS["cpu"]
    rows = {
        inference.Contender(*(row[key] for key in ("process", "network", "mode", "batch"))): row
        for row in results["results"]
    }
    assert set(rows) == set(inference.contenders([CURRENT], [1], compile_torch=False))
    for contender, row in rows.items():
        assert row["milliseconds"] > 0 and row["images_per_second"] > 0
        assert set(row["time_ratios"]) == set(contender.references())
        assert (row["difference"] is None) == (contender.network not in inference.OURS)
    printed = run("--table", "--results", path).stdout.strip()
    assert printed == inference.table(results)
    assert all(printed.count(f"| {inference.NETWORKS[network]} |") for network in inference.OURS)
