"""The blocks of docs/detection.md run as they stand, and it holds the tables of the committed measurement."""

import json
import pathlib
import re

import detection
import pytest
from backends import environment
from warm import run_warm

PAGE = pathlib.Path(__file__).parents[1] / "docs" / "detection.md"


@pytest.mark.slow
@pytest.mark.any_backend  # the models are tested on each backend elsewhere
def test_blocks_run(tmp_path):
    program = "\n".join(re.findall(r"^```python\n(.*?)^```", PAGE.read_text(), re.MULTILINE | re.DOTALL))
    # PyTorch compiles nothing, the others for minutes.
    result = run_warm(program, cwd=tmp_path, env=environment("torch"))
    assert result.returncode == 0, result.stderr[-3000:]
    assert ", 120, 160)" in result.stdout and "classifier_loss" in result.stdout
    assert "models/things/1" in result.stdout


@pytest.mark.any_backend
def test_the_page_holds_the_tables_of_the_committed_measurement():
    text = PAGE.read_text(encoding="utf-8")
    assert text.count(detection.START) == text.count(detection.END) == 1
    if detection.RESULTS.exists():
        results = json.loads(detection.RESULTS.read_text(encoding="utf-8"))
        assert results["image"] == [800, 1333] and results["rounds"] >= 3
        found = {(row["process"], row["task"], row["classes"]) for row in results["results"]}
        processes = (detection.PLAIN, *detection.BACKENDS)
        assert found >= {(p, task, n) for p in processes for task in detection.TASKS for n in detection.CLASSES}
        assert detection.section(results) in text
    else:
        assert detection.START + detection.END in text


@pytest.mark.any_backend
def test_the_page_holds_the_measurement_with_avx512():
    path = detection.RESULTS.with_name("detection_avx512.json")
    results = json.loads(path.read_text(encoding="utf-8"))
    assert results["image"] == [800, 1333] and path.name in results["command"]
    found = {(row["process"], row["task"]) for row in results["results"]}
    assert found >= {(p, task) for p in (detection.PLAIN, *detection.BACKENDS) for task in detection.TASKS}
    assert detection.table(results) in PAGE.read_text(encoding="utf-8")
