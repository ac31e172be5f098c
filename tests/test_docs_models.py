"""The page of the models is what its script writes."""

import os

import make_models
import pytest

import zoo
from zoo.weights import list_weights

pytestmark = pytest.mark.skipif("KERAS_APA_CHILD_SUITE" in os.environ, reason="counted on the main backend")
LINES = make_models.PAGE.read_text(encoding="utf-8").splitlines(keepends=True)


@pytest.mark.parametrize("name", ["resnet20", "se_resnet32", "cb_resnet8", "sp_resnet14"])
def test_the_counts_of_small_networks_are_up_to_date(name):
    assert make_models.row(name) in LINES


@pytest.mark.slow
@pytest.mark.parametrize("name", ["resnet18", "se_resnet50", "cb_resnext50_32x4d", "sp_resnet101"])
def test_the_counts_of_large_networks_are_up_to_date(name):
    assert make_models.row(name) in LINES


def test_every_network_and_every_weight_set_has_its_line():
    networks = [line for line in LINES if line.startswith("| `") and line.count("|") == 7]
    assert [line.split("`")[1] for line in networks] == zoo.list_models()
    assert "".join(map(make_models.weights_row, list_weights())) in "".join(LINES)
