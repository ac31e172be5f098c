"""One's own images: which settings are chosen for them, and what is said when they change during a run."""

import json

import pytest
from PIL import Image

from training.classification import own_images
from training.classification.own_images import fingerprint, suitable
from training.data.classification.folder import folder
from training.recipes import get_recipe
from training.runs.choices import check_same_images, describe_choice, with_suitable

pytestmark = pytest.mark.any_backend  # no backend takes part in choosing and comparing


def fill(root, size=(9, 7), **counts):
    for name, count in counts.items():
        (root / name).mkdir(parents=True)
        for number in range(count):
            Image.new("RGB", size).save(root / name / f"{number}.png")
    return root


def recipe_of(root, **changes):
    return get_recipe("folder").replace(data={"path": str(root)}).replace(**changes)


@pytest.mark.parametrize(
    ("count", "size", "network", "side", "batch"),
    [
        (10, (80, 64), "se_resnet20", 32, 2),
        (30, (64, 64), "se_resnet32", 32, 4),
        (10, (80, 65), "se_resnet18", 128, 2),
        (30, (300, 65), "se_resnet50", 224, 4),
    ],
)
def test_number_and_size_of_the_images_choose_the_network(tmp_path, monkeypatch, count, size, network, side, batch):
    monkeypatch.setattr(own_images, "FEW", 20)
    source = folder(fill(tmp_path, size, emu=count, wren=2))
    recipe = recipe_of(tmp_path)
    chosen = suitable(recipe, source)
    assert chosen == suitable(recipe, source)
    changed = with_suitable(recipe, chosen)
    assert (changed.model.name, changed.data.image_size, changed.batch_size) == (network, side, batch)
    assert (changed.augment.crop == "padded") == (side == 32)
    assert f"--batch-size {batch}" in describe_choice(recipe, changed)


def test_what_is_given_or_changed_is_not_chosen(tmp_path):
    recipe = recipe_of(tmp_path, epochs=3)
    chosen = suitable(recipe, folder(fill(tmp_path, emu=9, wren=2)))
    changed = with_suitable(recipe, chosen, ["model.name", "epochs"])
    assert (changed.model.name, changed.epochs, changed.data.image_size) == ("se_resnet50", 3, 32)
    assert with_suitable(recipe, {}) == recipe and describe_choice(recipe, recipe) is None
    assert suitable(get_recipe("imagenet_lt"), None) == {}


def test_the_network_of_the_weights_is_kept(tmp_path):
    source = folder(fill(tmp_path / "images", emu=9, wren=2))
    run = tmp_path / "run"
    run.mkdir()
    earlier = get_recipe("folder").replace(model={"name": "se_resnet14"}, data={"image_size": 48})
    (run / "config.json").write_text(json.dumps({"backend": "jax", "recipes": [earlier.to_dict()]}))
    for weights, network, side in (
        ("se_resnet101/imagenet", "se_resnet101", 224),
        (str(run), "se_resnet14", 48),
        ("some.keras", "se_resnet50", 224),
    ):
        recipe = recipe_of(tmp_path / "images", start={"weights": weights})
        changed = with_suitable(recipe, suitable(recipe, source))
        assert (changed.model.name, changed.data.image_size) == (network, side)
        assert (changed.epochs, changed.optimizer.learning_rate) == (30, 0.01)


def test_changed_images_are_named(tmp_path):
    fill(tmp_path, emu=9, wren=4)

    def now(**data):
        recipe = recipe_of(tmp_path, data=data)
        return json.loads(json.dumps(fingerprint(recipe, folder(tmp_path, seed=recipe.data.seed))))

    def said(images):
        with pytest.raises(
            ValueError, match="the images must be those that the run in 'run' began with; given: others: "
        ) as error:
            check_same_images("run", before, images)
        return str(error.value)

    before = now()
    assert before["classes"] == {"emu": 7, "wren": 3} and before["test_images"] == 3
    check_same_images("run", before, now())
    check_same_images("run", {}, now())  # of a run that kept nothing
    assert "the same number of each class, but other files or annotations, or another split" in said(now(seed=1))
    (tmp_path / "wren" / "0.png").rename(tmp_path / "wren" / "new.png")
    assert "but other files" in said(now())
    fill(tmp_path, kiwi=3)
    assert "class 'kiwi' had 0 training images, has 2, there were 3 test images, there are 4" in said(now())
