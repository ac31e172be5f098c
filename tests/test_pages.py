"""The project's own pages and settings: links lead somewhere, files exist, YAML can be read."""

import pathlib
import re
import tomllib

import pytest
import yaml

pytestmark = pytest.mark.any_backend
ROOT = pathlib.Path(__file__).parents[1]
PAGES = [ROOT / name for name in ("README.md", "CHANGELOG.md", "CONTRIBUTING.md", "SECURITY.md", "tests/README.md")]
PAGES += sorted((ROOT / "docs").glob("*.md"))
SETTINGS = [ROOT / ".pre-commit-config.yaml", *sorted((ROOT / ".github").rglob("*.yml"))]
EVERY_PAGE = pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)


def anchors(page):
    """The anchors that GitHub gives to the headings of a page."""
    headings = re.findall(r"^#+ (.+)$", page.read_text(encoding="utf-8"), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@EVERY_PAGE
def test_links_lead_somewhere(page):
    text = re.sub(r"^```.*?^```", "", page.read_text(encoding="utf-8"), flags=re.MULTILINE | re.DOTALL)
    for target in re.findall(r"\]\(([^)\s]+)\)", text):
        if target.startswith("https://"):
            continue
        path, _, anchor = target.partition("#")
        file = page.parent / path if path else page
        assert file.exists(), target
        assert not anchor or anchor in anchors(file), target


@pytest.mark.parametrize("page", ["CONTRIBUTING.md", "SECURITY.md", "docs/design.md"])
def test_files_that_a_page_names_exist(page):
    """A path from the root, or below the last package or folder that was named; `tests/x.py` and `margin.py` alike."""
    files = [str(path.relative_to(ROOT)) for path in ROOT.rglob("*") if ".git/" not in str(path)]
    for name in re.findall(r"`([\w./]+(?:\.py|\.md|/))`", (ROOT / page).read_text(encoding="utf-8")):
        assert any(f"/{file}".endswith(f"/{name.rstrip('/')}") for file in files), name


def test_names_in_code_that_contributing_mentions_exist():
    for file, name in (
        ("zoo/resnet.py", "_PLAIN"),
        ("zoo/resnet.py", "_block"),
        ("zoo/cifar_resnet.py", "DEPTHS"),
        ("keras_apa/_siblings.py", "_ZOO_CLASSES"),
        ("training/classification/losses.py", "_ONE_CLASS"),
        ("training/data/classification/registry.py", "DATA_SETS"),
        ("tests/catalog.py", "LOSSES"),
        ("tests/keras_apa/losses/test_losses_contract.py", "LOSSES"),
    ):
        assert f"`{name}`" in (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
        assert re.search(rf"^(def )?{name}\b", (ROOT / file).read_text(encoding="utf-8"), re.MULTILINE), (file, name)


@pytest.mark.parametrize("path", SETTINGS, ids=lambda path: path.name)
def test_settings_are_yaml(path):
    assert isinstance(yaml.safe_load(path.read_text(encoding="utf-8")), dict)


def test_workflows_run_the_python_versions_that_the_package_names():
    classifiers = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["classifiers"]
    jobs = yaml.safe_load((ROOT / ".github/workflows/tests.yml").read_text())["jobs"]
    versions = {line.rpartition(" ")[2] for line in classifiers if "Python :: 3." in line}
    for job in ("test", "wheel"):
        assert versions <= {*jobs[job]["strategy"]["matrix"]["python"]}


def test_ruff_has_one_version():
    (hook,) = yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text())["repos"]
    assert f"ruff=={hook['rev'].removeprefix('v')}" in (ROOT / ".github/workflows/tests.yml").read_text()
