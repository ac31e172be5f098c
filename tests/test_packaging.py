"""The wheel holds the three packages with their data files, works where it is installed, and has one version."""

import pathlib
import re
import subprocess
import sys
import tomllib
import zipfile

import pytest
from backends import CURRENT, environment

import keras_apa

ROOT = pathlib.Path(__file__).parents[1]


def test_version_is_written_once():
    assert re.search(rf"^version: {re.escape(keras_apa.__version__)}$", (ROOT / "CITATION.cff").read_text(), re.M)
    assert f"## {keras_apa.__version__}" in (ROOT / "CHANGELOG.md").read_text()
    assert "version" not in tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]


@pytest.mark.any_backend
@pytest.mark.slow
def test_an_installed_wheel_works_outside_the_repository(tmp_path):
    subprocess.run(
        [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--wheel-dir", tmp_path, ROOT],
        check=True,
        timeout=900,
    )
    (wheel,) = tmp_path.glob("keras_apa-*.whl")
    names = set(zipfile.ZipFile(wheel).namelist())
    assert {f"{package}/py.typed" for package in ("keras_apa", "zoo", "training")} <= names
    preset = "zoo/presets_data/se_resnet_digits100_lt"
    assert {f"{preset}{end}/model.weights.h5" for end in ("", "_baseline")} <= names
    assert not any(name.startswith(("tests/", "docs/", "benchmarks/")) for name in names)
    assert any(name.endswith("LICENSE") for name in names)
    site = tmp_path / "site"
    subprocess.run(
        [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--target", site, wheel],
        check=True,
        timeout=900,
    )
    program = (
        "import keras_apa, zoo, training.cli.main\n"
        "print(keras_apa.__file__, zoo.create_model('se_resnet8').count_params())\n"
        "training.cli.main.main(['list', 'recipes'])\n"
        "zoo.from_preset('se_resnet_digits100_lt')\n"
    )
    result = subprocess.run(
        [sys.executable, "-c", program],
        cwd=tmp_path,
        env=environment(CURRENT, PYTHONPATH=str(site)),
        capture_output=True,
        text=True,
        timeout=900,
    )
    assert result.returncode == 0, result.stderr[-2000:]
    assert str(site) in result.stdout and "digits100_lt" in result.stdout
