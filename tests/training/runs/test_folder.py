import dataclasses
import json
import shutil

import pytest

from training.classification.outcome import Outcome
from training.files import atomic_path, last_numbered_folder, write_json
from training.recipes import get_recipe
from training.runs.folder import has_begun, load_finished, open_run_folder


def config(**changes):
    recipes = [get_recipe(name).replace(**changes).to_dict() for name in ("digits10_lt_baseline", "digits10_lt")]
    return {"recipes": recipes, "backend": "jax"}


def opened(*arguments, **options):
    """The folder of a run that was opened and given back."""
    with open_run_folder(*arguments, **options) as owned:
        return owned.path


def test_interrupted_write_leaves_the_old_file_and_nothing_else(tmp_path):
    path = tmp_path / "a.txt"
    path.write_text("old")
    with pytest.raises(KeyboardInterrupt), atomic_path(path) as temporary:
        temporary.write_text("ne")
        raise KeyboardInterrupt
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_json_writes_nan_as_null(tmp_path):
    write_json(tmp_path / "a.json", {"a": [float("nan"), (1, 2.5)]})
    assert json.loads((tmp_path / "a.json").read_text()) == {"a": [None, [1, 2.5]]}


def test_default_folder_is_numbered_when_taken(tmp_path):
    stem = tmp_path / "demo"
    assert last_numbered_folder(stem) is None
    stem.mkdir()
    assert last_numbered_folder(stem) is None
    (stem / "a").touch()
    assert last_numbered_folder(stem) == stem
    first = opened(None, config(), default=stem)
    assert first == tmp_path / "demo-2"
    assert opened(None, config(), default=stem, resume=True) == first


def test_earlier_run_is_refused_continued_or_replaced(tmp_path):
    folder = opened(tmp_path / "run", config(), default=tmp_path)
    for name in ("digits10_lt.keras", "digits10_lt.json", "report.md", "mine.txt"):
        (folder / name).write_text("{}")
    (folder / "figures").mkdir()
    (folder / "figures" / "a.png").touch()
    with pytest.raises(ValueError, match="--resume to continue it, --overwrite to replace it"):
        opened(folder, config(), default=tmp_path)
    opened(folder, config(), default=tmp_path, resume=True)
    assert (folder / "digits10_lt.keras").exists()
    opened(folder, config(epochs=3), default=tmp_path, overwrite=True)
    assert sorted(path.name for path in folder.iterdir()) == ["config.json", "figures", "mine.txt"]
    assert not any((folder / "figures").iterdir())
    assert json.loads((folder / "config.json").read_text())["recipes"][0]["epochs"] == 3


def test_resume_with_other_settings_names_them(tmp_path):
    opened(tmp_path / "run", config(epochs=2), default=tmp_path)
    with pytest.raises(ValueError, match="epochs was 2, is 3"):
        opened(tmp_path / "run", config(epochs=3), default=tmp_path, resume=True)
    other = config(epochs=2) | {"backend": "torch"}
    with pytest.raises(ValueError, match="backend was 'jax', is 'torch'"):
        opened(tmp_path / "run", other, default=tmp_path, resume=True)


def test_a_lambda_gradient_that_no_aglu_used_is_no_other_setting(tmp_path):
    was, now = (config() for _ in range(2))
    for each, value in ((was, "paper"), (now, "exact")):
        model = {**each["recipes"][0].get("model", {}), "activation": "relu", "lambda_gradient": value}
        each["recipes"] = [{**each["recipes"][0], "model": model}]
    opened(tmp_path / "run", was, default=tmp_path)
    assert opened(tmp_path / "run", now, default=tmp_path, resume=True) == tmp_path / "run"


def test_nothing_to_resume_is_an_error(tmp_path):
    with pytest.raises(ValueError, match="which holds no run"):
        opened(tmp_path / "none", config(), default=tmp_path, resume=True)
    with pytest.raises(ValueError, match="must be the run to resume; given: none, and there is no .* here"):
        opened(None, config(), default=tmp_path / "demo", resume=True)
    with pytest.raises(ValueError, match="--resume and --overwrite must not be given together"):
        opened(None, config(), default=tmp_path / "demo", resume=True, overwrite=True)
    assert not any(tmp_path.iterdir())


@pytest.mark.parametrize("overwrite", [False, True])
def test_files_of_somebody_else_are_never_written_over(tmp_path, overwrite):
    (tmp_path / "config.json").write_text('{"theirs": 1}')
    with pytest.raises(ValueError, match="not empty and holds no earlier run"):
        opened(tmp_path, config(), default=tmp_path, overwrite=overwrite)
    assert (tmp_path / "config.json").read_text() == '{"theirs": 1}'


def test_folder_that_cannot_be_written_is_an_error(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(ValueError, match="--output must be a folder; given: .*, which is a file"):
        opened(tmp_path / "file", config(), default=tmp_path)
    with pytest.raises(ValueError, match="--output must be a folder that can be written to; given: .*file"):
        opened(tmp_path / "file" / "below", config(), default=tmp_path)


def test_run_counts_as_finished_only_with_model_and_numbers(tmp_path):
    recipe = get_recipe("digits10_lt")
    assert load_finished(tmp_path, recipe, Outcome) is None
    (tmp_path / "digits10_lt.json").write_text("{}")
    assert load_finished(tmp_path, recipe, Outcome) is None


def test_a_run_has_begun_when_something_would_be_lost(tmp_path):
    (tmp_path / "config.json").touch()
    for name in ("tensorboard", "checkpoints"):
        (tmp_path / name).mkdir()
    assert not has_begun(tmp_path)
    (tmp_path / "checkpoints" / "step-0000000002.npz").touch()
    assert has_begun(tmp_path)
    shutil.rmtree(tmp_path / "checkpoints")
    (tmp_path / "digits10_lt.json").touch()
    assert has_begun(tmp_path)


def test_numbers_that_are_damaged_or_of_another_recipe_are_named(tmp_path):
    recipe = get_recipe("digits10_lt")
    (tmp_path / "digits10_lt.keras").touch()
    (tmp_path / "digits10_lt.json").write_text("{")
    with pytest.raises(ValueError, match="digits10_lt.json' must hold the result of a training; given: a damaged file"):
        load_finished(tmp_path, recipe, Outcome)
    outcome = {field.name: {} for field in dataclasses.fields(Outcome)} | {"recipe": recipe.replace(seed=5).to_dict()}
    (tmp_path / "digits10_lt.json").write_text(json.dumps(outcome))
    with pytest.raises(ValueError, match="must hold the result of this recipe; given: that of another"):
        load_finished(tmp_path, recipe, Outcome)
