"""The Python blocks of the page on serving run, one after the other, in a fresh process."""

import pathlib
import re

import pytest
from backends import CURRENT, environment
from warm import run_warm

PAGE = (pathlib.Path(__file__).parents[1] / "docs" / "serving.md").read_text(encoding="utf-8")


@pytest.mark.slow
@pytest.mark.any_backend  # each export goes through TensorFlow: once is enough
def test_python_blocks_run(tmp_path):
    blocks = re.findall(r"^```python\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL)
    assert len(blocks) == 4
    program = "\n".join([f"import os; os.chdir({str(tmp_path)!r})", *blocks])
    result = run_warm(program, env=environment(CURRENT))
    assert result.returncode == 0, result.stderr[-3000:]
    assert "models/birds/1" in result.stdout and "(2, 3)" in result.stdout
    assert sorted(path.name for path in (tmp_path / "models").iterdir()) == ["birds", "check", "onnx", "phone"]
