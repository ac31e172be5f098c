"""Every code block of README.md and docs/install.md runs, and the README's table is the measured one."""

import importlib.metadata
import json
import pathlib
import re
import tomllib

import demo_seeds
import numpy as np
import pages
import pytest
from backends import CURRENT, environment
from PIL import Image
from warm import run_warm

ROOT = pathlib.Path(__file__).parents[1]
PAGES = (ROOT / "README.md", ROOT / "docs" / "install.md")
README = PAGES[0].read_text(encoding="utf-8")
COMMANDS = [command for page in PAGES for command in pages.commands(page)]


def command(start):
    """The one command that begins with `start`."""
    (found,) = [command for command in COMMANDS if command.startswith(start)]
    return found


def test_every_block_is_of_a_kind_that_is_run_here():
    assert {kind for page in PAGES for kind, _ in pages.blocks(page)} == {"bash", "python"}
    known = ("pip install ", "python -c ", "keras-apa demo", "keras-apa train folder", "keras-apa predict", "pytest")
    assert all(command.startswith(known) for command in COMMANDS)


@pytest.mark.any_backend
def test_python_blocks_run(tmp_path):
    rng = np.random.default_rng(0)
    labels = np.repeat(np.arange(3), [120, 30, 6]).astype("int32")
    images = rng.normal(labels[:, None, None, None], 1.0, (len(labels), 12, 12, 1)).astype("float32")
    np.save(tmp_path / "images.npy", images)
    np.save(tmp_path / "labels.npy", labels)
    result = pages.python(tmp_path, pages.program(PAGES[0]))
    assert (tmp_path / "model.keras").exists()
    assert all(f"{group}: " in result.stdout for group in ("many", "medium", "few", "all"))


@pytest.mark.any_backend
@pytest.mark.parametrize("command", [c for c in COMMANDS if c.startswith("python -c ")])
def test_one_line_checks_of_the_device_run(command):
    program = command.removeprefix('python -c "').removesuffix('"')
    result = run_warm(program, env=environment(CURRENT))
    assert result.returncode == 0 and result.stdout.strip(), result.stderr[-2000:]


@pytest.mark.any_backend
@pytest.mark.parametrize("command", [c for c in COMMANDS if c.startswith("pip install ")])
def test_install_lines_name_what_exists(command):
    """Own extras are those of pyproject.toml; `.ci/run` runs the line itself. Other packages are known to pip."""
    target = command.split()[-1].strip('"')
    if target.startswith("."):
        extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
        assert set(re.findall(r"[a-z]+", target)) <= set(extras)
    else:
        name = re.match(r"[\w-]+", target).group()
        known = importlib.metadata.metadata(name)
        extra = re.search(r"\[(.+)\]", target)
        if extra:
            assert extra.group(1) in known.get_all("Provides-Extra")


@pytest.mark.slow
@pytest.mark.any_backend("torch")  # a short training of tests/training runs on each backend
def test_the_demo_command_runs(tmp_path):
    """All images and classes on one backend, but three epochs; benchmarks/demo_seeds.py has what ten of them give."""
    code = (
        "import resource, sys; from training.cli.main import main; code = main()\n"
        "print('peak', resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, 'KiB', file=sys.stderr); sys.exit(code)"
    )
    options = [*command("keras-apa demo").split()[1:], "--epochs", "3"]
    result = pages.python(tmp_path, code, *options, timeout=2400)
    assert int(re.search(r"peak (\d+) KiB", result.stderr).group(1)) < 4 * 2**20
    for name in ("digits100_lt", "digits100_lt_baseline"):
        outcome = json.loads((tmp_path / "keras-apa-demo" / f"{name}.json").read_text())
        assert outcome["accuracies"]["all"] > 0.05  # chance is 0.01
        assert outcome["history"]["loss"][-1] < 0.9 * outcome["history"]["loss"][0]


@pytest.mark.slow
@pytest.mark.any_backend
def test_the_commands_for_own_images_run(tmp_path):
    """One epoch on a few images: how well it learns is tested elsewhere."""
    rng = np.random.default_rng(0)
    for place, (name, number) in enumerate({"owl": 20, "crow": 10, "eagle": 5}.items()):
        (tmp_path / "photos" / name).mkdir(parents=True)
        for index in range(number):
            pixels = rng.integers(80 * place, 80 * place + 80, (32, 32, 3), "uint8")
            Image.fromarray(pixels).save(tmp_path / "photos" / name / f"{index}.png")
    (tmp_path / "new_photos").mkdir()
    Image.fromarray(pixels).save(tmp_path / "new_photos" / "1.png")
    pages.keras_apa(tmp_path, command("keras-apa train folder"), "--epochs", "1")
    printed = pages.keras_apa(tmp_path, command("keras-apa predict")).stdout
    assert all(name in printed for name in ("1.png", "owl", "crow", "eagle"))


@pytest.mark.any_backend
def test_the_table_is_the_measured_one():
    results = json.loads(demo_seeds.RESULTS.read_text())
    assert len(results["runs"]) == 5 * len(demo_seeds.SETTINGS)
    assert results["code"] == demo_seeds.fingerprint(), "measure again: python benchmarks/demo_seeds.py, then --readme"
    assert demo_seeds.with_table(README, results) == README
    few = {setting: np.mean(demo_seeds.values(results, setting, "few")) for setting in demo_seeds.SETTINGS}
    assert few["APA* + AGLU, Balanced Softmax"] > few["Cross entropy"] + 20


@pytest.mark.any_backend
def test_the_readme_is_short():
    assert len(README.splitlines()) <= 150


@pytest.mark.any_backend
def test_types_are_no_part_of_the_hash_of_the_measured_code(tmp_path):
    (tmp_path / "benchmarks").mkdir()
    (tmp_path / "benchmarks" / "demo_seeds.py").write_text('CODE = ("a.py",)')

    def hash_of(code):
        (tmp_path / "a.py").write_text(code)
        return demo_seeds.fingerprint(tmp_path)

    plain = hash_of("import math\n\nx = 1\n\ndef f(a, *b, c=2, **d):\n    y = a\n    return y")
    typed = hash_of(
        "from __future__ import annotations\nfrom typing import TYPE_CHECKING, Any\nimport math\n\n"
        "if TYPE_CHECKING:\n    from math import pi\n\nx: int = 1\nz: float\n\n"
        "def f(a: int, *b: Any, c: int = 2, **d: Any) -> int:\n    y: int = a\n    return y"
    )
    other = hash_of("import math\n\nx = 1\n\ndef f(a, *b, c=3, **d):\n    y = a\n    return y")
    assert plain == typed != other
