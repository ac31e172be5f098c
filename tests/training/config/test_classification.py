import ast
import dataclasses
import json
import pathlib
import subprocess
import sys

import pytest

import training
from training.cli.main import parse
from training.config.classification import AugmentOptions, DataOptions, LossOptions, ModelOptions, Recipe
from training.config.detection import DetectionRecipe
from training.config.experiment import OptimizerOptions
from training.recipes import get_recipe, recipes


@pytest.mark.smoke
def test_every_recipe_survives_json_unchanged():
    assert {"digits100_lt", "digits100_lt_baseline", "digits10_lt", "digits10_lt_baseline"} <= set(recipes())
    for name, recipe in recipes().items():
        assert recipe.name == name
        assert type(recipe).from_dict(json.loads(json.dumps(recipe.to_dict()))) == recipe


def test_recipes_are_read_without_keras_or_tensorflow():
    program = (
        "import sys; from training.recipes import recipes; recipes();"
        "sys.exit(len({'keras', 'tensorflow', 'torch', 'jax'} & set(sys.modules)))"
    )
    assert subprocess.run([sys.executable, "-c", program]).returncode == 0


def test_pair_of_the_demo_differs_in_nothing_but_network_switches_and_loss():
    for data in ("digits100_lt", "digits10_lt"):
        recipe, baseline = get_recipe(data), get_recipe(f"{data}_baseline")
        same = recipe.replace(
            name=baseline.name, title=baseline.title, loss=baseline.loss, model={"gate": None, "activation": None}
        )
        assert same == baseline
        assert recipe.model.switches() == {"gate": "apa", "activation": "aglu"}


def test_replace_changes_only_what_a_mapping_names():
    recipe = Recipe(name="a", data=DataOptions(noise=0.1, seed=4)).replace(data={"seed": 5}, epochs=3)
    assert recipe.data == DataOptions(noise=0.1, seed=5)
    assert recipe.epochs == 3
    assert recipe.model == ModelOptions()


def test_recipe_cannot_be_changed_in_place():
    with pytest.raises(AttributeError):
        get_recipe("digits100_lt").epochs = 3


@pytest.mark.parametrize(
    "make, named, given",
    [
        (lambda: Recipe(name="a", epochs=2.5), "epochs", "2.5"),
        (lambda: Recipe(name="a", epochs=2.0), "epochs", "2.0"),
        (lambda: Recipe(name="a", epochs=0), "epochs", "0"),
        (lambda: Recipe(name="a", epochs="10"), "epochs", "'10'"),
        (lambda: Recipe(name="a", epochs=True), "epochs", "True"),
        (lambda: Recipe(name="a", batch_size=0), "batch_size", "0"),
        (lambda: Recipe(name="a", seed=-1), "seed", "-1"),
        (lambda: Recipe(name="a", seed=2**32), "seed", str(2**32)),
        (lambda: Recipe(name=""), "name", "''"),
        (lambda: Recipe(name="a", title=None), "title", "None"),
        (lambda: Recipe(name="a", model="se_resnet8"), "model", "se_resnet8"),
        (lambda: DataOptions(imbalance_factor=0.5), "imbalance_factor", "0.5"),
        (lambda: DataOptions(image_size=16, test_image_size=224, resize_size=16), "data.resize_size", "16"),
        (lambda: DataOptions(imbalance_factor=float("nan")), "imbalance_factor", "nan"),
        (lambda: DataOptions(noise=-0.1), "noise", "-0.1"),
        (lambda: AugmentOptions(flip=1), "augment.flip", "1"),
        (lambda: OptimizerOptions(name="lion"), "optimizer.name", "'lion'"),
        (lambda: OptimizerOptions(learning_rate=0), "learning_rate", "0"),
        (lambda: OptimizerOptions(learning_rate=float("inf")), "learning_rate", "inf"),
        (lambda: OptimizerOptions(momentum=1.0), "momentum", "1.0"),
        (lambda: LossOptions(options={"tau": object()}), "loss.options", "object"),
        (lambda: ModelOptions(options={"shape": (1, 2)}), "model.options", "(1, 2)"),
        (lambda: ModelOptions(options=3), "model.options", "3"),
    ],
)
@pytest.mark.smoke
def test_bad_value_is_an_error_that_names_setting_and_value(make, named, given):
    with pytest.raises(ValueError) as error:
        make()
    assert named in str(error.value)
    assert given in str(error.value)


def test_thresholds_cannot_cross():
    with pytest.raises(ValueError, match="many_threshold"):
        Recipe(name="a").replace(evaluation={"many_threshold": 5})


def test_unknown_setting_names_the_nearest():
    with pytest.raises(ValueError, match="epoch'.*Nearest: epochs"):
        Recipe(name="a").replace(epoch=3)
    with pytest.raises(ValueError, match=r"the settings of data must be known ones; given: 'noize'. Nearest: noise"):
        Recipe.from_dict({"name": "a", "data": {"noize": 0.3}})
    with pytest.raises(ValueError, match="must have a name"):
        Recipe.from_dict({"epochs": 3})


def test_unknown_recipe_names_the_nearest():
    with pytest.raises(ValueError, match="RECIPE must be a known name; given: 'digits100'. Nearest: .*digits100_lt"):
        get_recipe("digits100")


def test_the_lambda_gradient_of_a_recipe_goes_with_its_aglu():
    own = get_recipe("cifar100_lt")
    changed = own.replace(model={"activation": "relu"})
    assert (own.model.lambda_gradient, changed.model.lambda_gradient) == ("paper", "exact")
    assert own.replace(epochs=1).model.lambda_gradient == "paper"
    kept = {**changed.to_dict(), "model": {**changed.to_dict()["model"], "lambda_gradient": "paper"}}
    assert Recipe.from_dict(kept) == changed  # as earlier versions wrote it


@pytest.mark.parametrize("model", [{"activation": "relu", "lambda_gradient": "paper"}, {"lambda_gradient": "exact"}])
def test_a_lambda_gradient_that_is_given_beside_another_activation_is_an_error(model):
    with pytest.raises(
        ValueError, match=r"model\.lambda_gradient must be left out beside .*; given: '(paper|exact)'\."
    ):
        get_recipe("digits10_lt_baseline").replace(model=model)


def test_the_command_line_tells_a_given_lambda_gradient_from_that_of_the_recipe():
    relu = ["train", "cifar100_lt", "--model.activation", "relu"]
    recipe = parse(relu).changed_recipe()
    assert recipe.model.lambda_gradient == "exact" and recipe.title.endswith(", but model.activation relu")
    with pytest.raises(ValueError, match="model.activation 'relu', since only aglu has a lambda; given: 'paper'"):
        parse([*relu, "--model.lambda-gradient", "paper"]).changed_recipe()


def test_every_option_of_a_recipe_is_used():
    """A field that only training/config knows would be an option that does nothing."""
    package = pathlib.Path(training.__file__).parent
    files = [path for path in package.rglob("*.py") if path.parent.name != "config" or path.name == "experiment.py"]
    read = {
        node.attr
        for path in files
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.Attribute)
    }
    parts = [Recipe(name="a"), DetectionRecipe(name="a")]
    parts += [value for part in parts for value in vars(part).values() if dataclasses.is_dataclass(value)]
    unused = {f"{type(part).__name__}.{field.name}" for part in parts for field in dataclasses.fields(part)}
    read |= {"gate_normalization", "gate_dropout"}  # `ModelOptions.switches` hands them on by their names
    unused = {name for name in unused if name.rpartition(".")[2] not in read}
    assert unused == set()


@pytest.mark.parametrize("recipe", ["digits10_lt", "folder", "detection"])
def test_help_has_no_remarks_for_tools(recipe, capsys):
    """An option without a docstring of its own gets the comment beside it as its help."""
    with pytest.raises(SystemExit):
        parse(["train", recipe, "--help"])
    printed = capsys.readouterr().out
    assert "--optimizer.learning-rate" in printed and "noqa" not in printed and "type: ignore" not in printed
