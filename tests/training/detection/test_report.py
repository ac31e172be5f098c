import dataclasses
import json

import numpy as np
import pytest

from training.detection.metrics import evaluate_detections
from training.detection.outcome import DetectionOutcome
from training.detection.report import detection_table, presence_divergences, write_detection_report
from training.detection.task import write_results
from training.detection.train import load_source_of
from training.recipes import get_recipe


@pytest.fixture(scope="module")
def perfect():
    """What a detector would give that finds every object, with scores that fall."""
    recipe = get_recipe("digit_scenes_lt").replace(data={"num_train": 150, "num_test": 6}, epochs=3)
    source = load_source_of(recipe)
    truth = source.test_annotations
    keys = ("image_id", "category_id", "bbox", "segmentation")
    results = [
        {**{key: each[key] for key in keys}, "score": 0.9 - 0.3 * (index % 3)}
        for index, each in enumerate(truth["annotations"])
    ]
    metrics = evaluate_detections(truth, results, style="lvis")
    outcome = DetectionOutcome(
        recipe=recipe,
        backend="jax",
        seconds=12.3,
        metrics=metrics.summary,
        by_class=metrics.by_class,
        by_class50=metrics.by_class50,
        history={"loss": [2.0, 1.0, 0.5], "mask_loss": [1.0, 0.5, 0.25]},
        parameters={},
        image_counts=source.image_counts.tolist(),
        num_images=source.num_images,
        class_names=source.class_names,
        weight_norms=np.linspace(1, 2, 10).tolist(),
        results=results,
    )
    return outcome, source


def test_report_has_the_numbers_the_figures_and_the_files(tmp_path, perfect):
    outcome, _ = perfect
    second = dataclasses.replace(outcome, recipe=outcome.recipe.replace(name="other", title="another"), results=())
    write_results(tmp_path / "other.results.json", outcome.results)
    report = write_detection_report(tmp_path, [outcome, second], title="a title", settings={"machine": "this"})
    text = report.read_text()
    assert "| GOL | box | 100.0 | 100.0 |" in text and "| another | mask | 100.0 | 100.0 |" in text
    assert "| another | 0.0" in text  # the KL divergence, from the detections in the file
    for name in ("scenes", "presence", "precision_by_class", "weight_norms", "losses"):
        assert f"figures/{name}.png" in text
        assert (tmp_path / "figures" / f"{name}.png").stat().st_size > 10_000
    assert (tmp_path / "history.csv").read_text().splitlines()[0] == "recipe,epoch,loss,mask_loss"


def test_report_without_the_images_says_so(tmp_path, perfect):
    outcome, _ = perfect
    gone = outcome.recipe.replace(data={"name": "coco", "train": str(tmp_path / "no.json"), "images": str(tmp_path)})
    write_results(tmp_path / "digit_scenes_lt.results.json", outcome.results)
    lost = dataclasses.replace(outcome, recipe=gone, results=())
    text = write_detection_report(tmp_path, [lost], title="a title", settings={}).read_text()
    assert "Without pictures and maps, for which the images are needed" in text and "no.json" in text
    assert "figures/scenes.png" not in text and "figures/weight_norms.png" in text


def test_results_are_those_of_coco(tmp_path, perfect):
    outcome, source = perfect
    write_results(tmp_path / "results.json", outcome.results)
    read = json.loads((tmp_path / "results.json").read_text())
    assert evaluate_detections(source.test_annotations, read).summary["mask_AP"] > 0.99


def test_divergence_of_the_annotations_from_themselves_is_nothing(perfect):
    outcome, source = perfect
    same = [{**each, "score": 1.0} for each in outcome.results]
    assert presence_divergences(source.test_annotations, same)["all"] < 1e-5
    one_corner = [{**each, "bbox": [0, 0, 20, 20]} for each in same]
    assert presence_divergences(source.test_annotations, one_corner)["all"] > 1


def test_absent_group_is_a_dash(perfect):
    outcome, _ = perfect
    absent = dataclasses.replace(outcome, metrics={**outcome.metrics, "box_APr": float("nan")})
    column = detection_table([absent]).columns[4]
    assert column.header == "APr" and list(map(str, column.cells)) == ["–", "100.0"]
