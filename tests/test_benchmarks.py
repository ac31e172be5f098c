"""Plain PyTorch's networks are ours and the authors', and the inference benchmark runs and writes what it says."""

import json
import os
import pathlib
import subprocess
import sys

import fill_rule
import inference
import keras
import numpy as np
import plain_torch
import pytest
import torch
from authors import filled, nhwc, state_dict
from backends import CURRENT, environment
from reference import load, load_json

import zoo

pytestmark = pytest.mark.skipif("KERAS_APA_CHILD_SUITE" in os.environ, reason="the same on each backend")
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


def run(*arguments):
    return subprocess.run(
        [sys.executable, SCRIPT, *map(str, arguments)],
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
    quick = ("--quick", "--images", "32", "--device", "cpu", "--backends", CURRENT, "--results", path)
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
    assert set(rows) == set(inference.contenders([CURRENT], [1, 2], compile_torch=False))
    for contender, row in rows.items():
        assert row["milliseconds"] > 0 and row["images_per_second"] > 0
        assert set(row["time_ratios"]) == set(contender.references())
        assert (row["difference"] is None) == (contender.network not in inference.OURS)
    printed = run("--table", "--results", path).stdout.strip()
    assert printed == inference.table(results)
    assert all(printed.count(f"| {inference.NETWORKS[network]} |") for network in inference.OURS)
