import csv
import dataclasses
import io
import json
import math

import numpy as np
import pytest
from matplotlib import rcParams
from matplotlib.image import imread
from rich.console import Console

from training.classification import figures
from training.classification.outcome import Outcome
from training.classification.report import accuracy_table, markdown_table, write_report
from training.config.classification import Recipe
from training.reporting import history_csv


def outcome(name="tested", *, counts=(300, 50, 8, 4), parameters=True, few=0.25, predictions=None):
    labels = np.repeat(np.arange(len(counts)), 4)
    layers = {
        "stem_activation": {"kind": "AGLU", "kappa": [1.0, 1.1, 1.2], "lambda": [0.5, 0.4, 0.3]},
        "stage1_block1_gate/apa": {"kind": "APA", "kappa": [-0.5, -0.6, -0.7], "lambda": [0.2, 0.1, -0.1]},
    }
    return Outcome(
        recipe=Recipe(name=name, title=f"Title of {name}", epochs=2),
        backend="jax",
        seconds=3.2,
        accuracies={"many": 0.875, "medium": 0.5, "few": few, "all": 0.55},
        history={"loss": [2.0, 1.5], "val_few": [0.1, 0.25], "val_all": [0.3, 0.55]},
        parameters=layers if parameters else {},
        class_counts=list(counts),
        class_names=[str(label) for label in range(len(counts))],
        labels=labels.tolist(),
        predictions=np.where(np.arange(len(labels)) % 4 == 0, 0, labels).tolist()
        if predictions is None
        else predictions,
    )


def test_outcome_survives_json(tmp_path):
    from training.files import write_json

    written = outcome(few=math.nan)
    write_json(tmp_path / "o.json", written.to_dict())
    read = Outcome.from_dict(json.loads((tmp_path / "o.json").read_text()))
    assert math.isnan(read.accuracies["few"])
    assert read.to_dict() | {"accuracies": 0} == written.to_dict() | {"accuracies": 0}


def test_confusion_matrix_counts_each_test_image_once():
    result = outcome(counts=(5, 9, 7), predictions=[0, 0, 1, 2, 1, 1, 1, 1, 0, 2, 2, 0])
    assert result.confusion_matrix().tolist() == [[2, 1, 1], [0, 4, 0], [2, 0, 2]]
    assert result.class_accuracies().tolist() == [0.5, 1.0, 0.5]
    assert result.classes_by_count().tolist() == [1, 2, 0]


def test_shot_groups_keep_both_thresholds_in_medium():
    groups = figures.shot_groups(outcome(counts=(20, 101, 100, 19)))
    assert groups == [("many-shot", 0, 1), ("medium-shot", 1, 3), ("few-shot", 3, 4)]
    assert figures.shot_groups(outcome(counts=(300, 200))) == [("many-shot", 0, 2)]


def test_drawn_curve_is_apa():
    from keras import ops

    from keras_apa.ops import apa

    x = np.linspace(-6, 6, 25)
    for kappa, lam in ((-0.5, 0.3), (1.2, 1.0), (0.7, 2.5), (1.0, -0.2)):
        expected = ops.convert_to_numpy(apa(ops.convert_to_tensor(x.astype("float32")), kappa, lam))
        # float32 noise of a value of at most 1
        np.testing.assert_allclose(figures.apa_curve(x, kappa, lam), expected, atol=1e-5)


def test_tables_show_percent_and_a_dash_for_an_absent_group():
    outcomes = [outcome("a"), outcome("b", few=math.nan)]
    assert markdown_table(outcomes).splitlines()[2:] == [
        "| Title of a | 87.5 | 50.0 | 25.0 | 55.0 |",
        "| Title of b | 87.5 | 50.0 | – | 55.0 |",
    ]
    console = Console(file=io.StringIO(), width=100)
    console.print(accuracy_table(outcomes))
    lines = console.file.getvalue().splitlines()
    assert any(all(word in line for word in ("Title of a", "87.5", "50.0", "25.0", "55.0")) for line in lines)


def test_history_has_a_row_for_each_outcome_and_epoch():
    rows = list(csv.DictReader(io.StringIO(history_csv([outcome("a", parameters=False), outcome("b")]))))
    assert [(row["recipe"], row["epoch"]) for row in rows] == [("a", "1"), ("a", "2"), ("b", "1"), ("b", "2")]
    assert [float(row["loss"]) for row in rows] == [2.0, 1.5, 2.0, 1.5]
    # The start value is not an epoch.
    assert [row["stem_activation/kappa"] for row in rows] == ["", "", "1.1", "1.2"]


def test_a_group_without_classes_is_an_empty_field_also_when_it_was_read_again(tmp_path):
    from training.files import write_json

    written = dataclasses.replace(outcome(), history={"loss": [2.0, 1.5], "val_many": [math.nan, math.nan]})
    write_json(tmp_path / "o.json", written.to_dict())
    read = Outcome.from_dict(json.loads((tmp_path / "o.json").read_text()))
    for each in (written, read):
        rows = list(csv.DictReader(io.StringIO(history_csv([each]))))
        assert [(row["loss"], row["val_many"]) for row in rows] == [("2.0", ""), ("1.5", "")]


def test_report_is_written_with_figures_that_can_be_read(tmp_path):
    before = dict(rcParams)
    outcomes = [outcome("a", parameters=False), outcome("b")]
    report = write_report(tmp_path, outcomes, title="A title", settings={"data": "some"})
    assert dict(rcParams) == before
    text = report.read_text(encoding="utf-8")
    assert text.startswith("# A title\n")
    assert markdown_table(outcomes) in text
    assert "| data | some |" in text
    names = {path.name for path in (tmp_path / "figures").glob("*.png")}
    assert names == {
        "training_curves.png",
        "accuracy_by_class.png",
        "confusion_matrix.png",
        "kappa_lambda.png",
        "apa_curves.png",
    }
    for name in names:
        assert f"(figures/{name})" in text
        pixels = imread(tmp_path / "figures" / name)
        assert min(pixels.shape[:2]) > 200
        # White paper, and something on it.
        assert 0.01 < np.mean(pixels[..., :3].min(axis=-1) < 0.9) < 0.9
    assert {path.name for path in tmp_path.iterdir()} == {"report.md", "history.csv", "figures"}


def test_report_of_networks_without_learned_activations_has_no_figures_of_them(tmp_path):
    write_report(tmp_path, [outcome("a", parameters=False)], title="T", settings={})
    assert not {"kappa_lambda.png", "apa_curves.png"} & {p.name for p in (tmp_path / "figures").iterdir()}


def test_two_networks_with_learned_activations_get_figures_each(tmp_path):
    write_report(tmp_path, [outcome("a"), outcome("b")], title="T", settings={})
    names = {path.name for path in (tmp_path / "figures").iterdir()}
    assert {"apa_curves_a.png", "apa_curves_b.png", "kappa_lambda_a.png", "kappa_lambda_b.png"} <= names


def test_figures_bear_a_missing_group_and_a_class_without_test_images():
    result = outcome(counts=(300, 200, 150), predictions=[0] * 12)
    values = result.to_dict() | {"labels": [0] * 12}
    result = Outcome.from_dict(values)
    assert np.isnan(result.class_accuracies()[1:]).all()
    for figure in (figures.accuracy_by_class([result]), figures.confusion_matrices([result])):
        assert figure.axes


def test_smoothing_averages_the_neighbours_that_are_there():
    assert figures.smooth(np.array([0.0, 3.0, 6.0]), 3).tolist() == [1.5, 3.0, 4.5]
    assert figures.smooth(np.array([0.0, np.nan, 6.0]), 1).tolist()[::2] == [0.0, 6.0]
    assert figures.smooth(np.array([1.0, 2.0]), 0) == pytest.approx([1.0, 2.0])
