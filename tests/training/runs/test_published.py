"""A recipe that was changed says so in its title and beside the published number."""

import pytest
import tyro

from training.cli.tasks import task_of
from training.cli.train_options import train_options
from training.recipes import get_recipe
from training.runs.published import changes

TITLE = "APA* + AGLU, PC-softmax"


def test_what_was_changed_is_named_and_where_things_are_is_not():
    own = get_recipe("cifar100_lt")
    changed = own.replace(model={"activation": "relu"}, epochs=5, seed=3, data={"path": "images"})
    assert changes(changed) == ["epochs 5 (was 500)", "model.activation relu (was aglu)"]
    assert changes(own) == changes(own.replace(seed=1)) == []
    # No number was published for these.
    assert changes(get_recipe("folder").replace(epochs=1)) == changes(own.replace(name="mine", epochs=1)) == []


@pytest.mark.parametrize(
    ("options", "title"),
    [
        ([], TITLE),
        (["--epochs", "3", "--model.name", "se_resnet8"], TITLE),
        (["--model.activation", "relu"], f"{TITLE}, but model.activation relu"),
        (["--model.activation", "relu", "--classifier-learning", "ce"], f"{TITLE}, but model.activation relu, ce"),
        (["--model.activation", "relu", "--title", "APA*"], "APA*"),
        (
            ["--model.activation", "relu", "--model.gate", "none", "--loss.name", "LDAM", "--evaluation.tau", "2"],
            f"{TITLE}, but evaluation.tau 2.0, loss.name LDAM, model.activation relu and 1 more",
        ),
    ],
)
def test_titles_follow_the_method(options, title):
    assert train_options(["cifar100_lt", *options], tyro.cli).changed_recipe().title == title


def test_the_report_says_of_which_recipe_the_number_is():
    from training.runs.describe import describe

    config = {"backend": "jax", "versions": {"keras": "3"}, "machine": "", "command": ""}
    own = get_recipe("cifar100_lt")
    assert describe(task_of(own), own, config)["published"] == "APA Table 3b: 52.3"
    changed = own.replace(model={"gate": "sigmoid"})
    assert describe(task_of(changed), changed, config)["published"] == (
        "APA Table 3b: 52.3, for the recipe without changes; changed here: model.gate sigmoid (was apa)"
    )
