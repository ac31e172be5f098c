"""The blocks of docs/detection.md run as they stand."""

import os
import pathlib
import re
import subprocess
import sys

import pytest
from backends import CURRENT, environment

PAGE = pathlib.Path(__file__).parents[1] / "docs" / "detection.md"


@pytest.mark.slow
@pytest.mark.skipif("KERAS_APA_CHILD_SUITE" in os.environ, reason="the models are tested on each backend elsewhere")
def test_blocks_run(tmp_path):
    program = "\n".join(re.findall(r"^```python\n(.*?)^```", PAGE.read_text(), re.MULTILINE | re.DOTALL))
    result = subprocess.run(
        [sys.executable, "-c", program],
        cwd=tmp_path,
        env=environment(CURRENT),
        capture_output=True,
        text=True,
        timeout=900,
    )
    assert result.returncode == 0, result.stderr[-3000:]
    assert ", 120, 160)" in result.stdout and "classifier_loss" in result.stdout
