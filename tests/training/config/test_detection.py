import json

import pytest

from training.config.classification import Recipe
from training.config.detection import DetectionModelOptions, DetectionRecipe
from training.recipes import get_recipe, recipes
from training.runs.recipes import recipe_from_dict


@pytest.mark.parametrize("name", [name for name, each in recipes().items() if isinstance(each, DetectionRecipe)])
@pytest.mark.smoke
def test_every_recipe_survives_json(name):
    recipe = get_recipe(name)
    read = recipe_from_dict(json.loads(json.dumps(recipe.to_dict())))
    assert read == recipe and isinstance(read, DetectionRecipe)


def test_a_recipe_without_a_task_is_one_of_classification():
    recipe = get_recipe("digits10_lt")
    assert "task" not in recipe.to_dict()
    assert isinstance(recipe_from_dict(recipe.to_dict()), Recipe)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"data": {"shorter_side": 129}}, "data.shorter_side must be a whole number of at least 32 and below 129"),
        ({"model": {"name": "yolo"}}, "model.name must be one of mask_rcnn, faster_rcnn; given: 'yolo'"),
        ({"model": {"anchor_sizes": ()}}, "model.anchor_sizes must be a list of sizes"),
        ({"model": {"anchor_sizes": (16, -1)}}, "each of model.anchor_sizes must be a finite number above 0"),
        ({"model": {"options": {"anchor_sizes": 3}}}, "model.options must have other names.* given: 'anchor_sizes'"),
        ({"model": {"frozen_stages": -1}}, "model.frozen_stages must be a whole number of at least 0"),
        ({"model": {"box_units": 0}}, "model.box_units must be a whole number of at least 1"),
        (
            {"model": {"backbon": "resnet18"}},
            "the settings of model must be known ones; given: 'backbon'. Nearest: backbone",
        ),
        ({"evaluation": {"style": "voc"}}, "evaluation.style must be one of coco, lvis; given: 'voc'"),
        ({"epochs": 0}, "epochs must be a whole number of at least 1"),
        ({"precision": "float16"}, "precision must be one of float32"),
    ],
)
def test_bad_values_are_named(change, message):
    with pytest.raises(ValueError, match=message):
        DetectionRecipe(name="mine").replace(**change)


def test_none_on_the_command_line_means_random_weights():
    assert DetectionModelOptions(backbone_weights="none", weights="none") == DetectionModelOptions()


def test_the_three_recipes_of_the_demo_differ_in_name_and_loss_alone():
    first, *others = (get_recipe(f"digit_scenes_lt{end}") for end in ("_softmax", "", "_balanced"))
    for other in others:
        assert other.replace(name=first.name, title=first.title, loss=first.loss) == first
