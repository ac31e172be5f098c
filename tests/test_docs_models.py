"""The page of the models is what its script writes, and its Python blocks run."""

import make_models
import pages
import pytest

import zoo
from zoo.weights import list_weights

pytestmark = pytest.mark.any_backend
LINES = make_models.PAGE.read_text(encoding="utf-8").splitlines(keepends=True)


def test_the_text_is_that_of_the_script():
    text = "".join(LINES)
    assert text.startswith(make_models.HEAD) and make_models.WEIGHTS in text and text.endswith(make_models.MORE)


def test_python_blocks_run(tmp_path):
    printed = pages.python(tmp_path, pages.program(make_models.PAGE)).stdout
    assert "se_resnet8" in printed


SMALL = [name for name in zoo.list_models() if name.endswith(("resnet8", "resnet14"))]


@pytest.mark.parametrize("name", SMALL)
def test_the_counts_of_small_networks_are_up_to_date(name):
    assert make_models.row(name) in LINES


@pytest.mark.any_backend("torch")
@pytest.mark.slow
@pytest.mark.parametrize("name", [name for name in zoo.list_models() if name not in SMALL][::6])
def test_the_counts_of_the_other_networks_are_up_to_date(name):
    assert make_models.row(name) in LINES


def counted(architecture, adaptive):
    """Trainable parameters by the formulas of the layers; `adaptive`: AGLU, and APA gates where there are gates."""
    total, activations = 0, 1
    channels = architecture.filters[0]
    pair = 2  # kappa and lambda
    total += (7 if architecture.stem == "imagenet" else 3) ** 2 * 3 * channels + 2 * channels
    for stage, (filters, depth) in enumerate(zip(architecture.filters, architecture.depths, strict=True)):
        for block in range(depth):
            before = channels
            for width, size, _, groups in architecture.convolutions(filters, 1):
                total += size**2 * channels // groups * width + 2 * width
                channels, activations = width, activations + 1
            if block == 0 and architecture.shortcut == "projection" and (stage > 0 or before != channels):
                total += before * channels + 2 * channels
            if architecture.attention in ("se", "cb"):
                hidden = channels // architecture.reduction_ratio
                total += 2 * channels * hidden + pair * adaptive
                norm, biases = architecture.attention == "cb" or adaptive, architecture.attention == "cb"
                total += 2 * channels * norm + (hidden + channels) * biases
            if architecture.attention in ("cb", "sp"):
                total += 7 * 7 * 2 + 2 + pair * adaptive
    return total + channels * architecture.classes + architecture.classes + pair * activations * adaptive


@pytest.mark.parametrize("name", zoo.list_models())
def test_parameters_of_every_row_are_those_of_the_formulas(name):
    row = next(line for line in LINES if line.startswith(f"| `{name}` |") and line.count("|") == 7)
    cells = [cell.strip() for cell in row.split("|")]
    architecture = make_models.ARCHITECTURES[name]
    assert cells[4:6] == [f"{counted(architecture, adaptive):,}" for adaptive in (False, True)]


def test_every_network_and_every_weight_set_has_its_line():
    networks = [line for line in LINES if line.startswith("| `") and line.count("|") == 7]
    assert [line.split("`")[1] for line in networks] == zoo.list_models()
    assert "".join(map(make_models.weights_row, list_weights())) in "".join(LINES)
