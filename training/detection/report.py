"""The report of one or more trained detectors: tables, figures and CSV, from what a run folder holds and its data."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from keras_apa.class_counts import LVIS_COMMON, LVIS_RARE
from training.data.detection.source import DetectionSource, frequency_groups
from training.detection import figures
from training.detection.metrics import GROUPS, KINDS
from training.detection.outcome import DetectionOutcome
from training.detection.presence import divergence, presence_map
from training.detection.train import load_source_of
from training.files import write_text
from training.reporting import history_csv, percent, quoted, save_figures, settings_and_figures
from training.runtime.console import TextTable
from zoo._markdown import code, markdown

COLUMNS = ("AP", "AP50", "APr", "APc", "APf", "AP50f")
SHOWN_IMAGES = 4


def detection_table(outcomes: Sequence[DetectionOutcome]) -> TextTable:
    """Average precisions of boxes and masks in percent, for the terminal."""
    return metrics_table({outcome.recipe.title: outcome.metrics for outcome in outcomes})


def metrics_table(rows: Mapping[str, Mapping[str, float]]) -> TextTable:
    """The table of `detection_table` from titles and metrics."""
    table = TextTable(title="Average precision on the test images, %", title_justify="left", title_style="bold")
    for column in ("", "", *_columns(rows.values())):
        table.add_column(column, justify="right" if column else "left")
    for title, kind, values in _rows(rows):
        table.add_row(title, kind, *values)
    return table


def markdown_metrics(rows: Mapping[str, Mapping[str, float]]) -> str:
    """The same table in Markdown."""
    columns = _columns(rows.values())
    lines = [f"| | | {' | '.join(columns)} |", "| --- | --- |" + " ---: |" * len(columns)]
    return "\n".join(
        lines + [f"| {markdown(title)} | {kind} | {' | '.join(values)} |" for title, kind, values in _rows(rows)]
    )


def _columns(metrics):
    return [name for name in COLUMNS if any(f"box_{name}" in each for each in metrics)]


def _rows(rows):
    columns = _columns(rows.values())
    for title, metrics in rows.items():
        for kind in KINDS:
            if f"{kind}_AP" in metrics:
                yield title, kind, [percent(metrics.get(f"{kind}_{name}", float("nan"))) for name in columns]


def read_results(folder: Path, outcome: DetectionOutcome) -> Sequence[Mapping[str, Any]]:
    """The detections of an outcome: its own, or those that the run folder has."""
    path = folder / f"{outcome.recipe.name}.results.json"
    if outcome.results or not path.is_file():
        return outcome.results
    return json.loads(path.read_text(encoding="utf-8"))


def write_detection_report(
    folder: Path, outcomes: Sequence[DetectionOutcome], *, title: str, settings: Mapping[str, str]
) -> Path:
    """Writes `report.md`, `history.csv` and the figures into `folder`; returns the path of the report.

    Args:
        folder: A run folder, with the detections of each outcome.
        outcomes: What to compare, the baseline first, all on the same data.
        title: The heading.
        settings: What is said about the run as a whole, in the order given.
    """
    source, missing = _source(outcomes[0])
    results = {outcome.recipe.title: read_results(folder, outcome) for outcome in outcomes}
    drawings = [
        (
            "precision_by_class",
            "AP50 of the boxes of each class against the number of training images that show it.",
            lambda: figures.precision_by_class(outcomes),
        ),
        (
            "weight_norms",
            "Length of each class's weights in the classifier of the box head (GOL, Fig. 1).",
            lambda: figures.weight_norms(outcomes),
        ),
        (
            "losses",
            "The losses by epoch; the classifier's have different scales.",
            lambda: figures.loss_curves(outcomes),
        ),
    ]
    divergences: dict[str, dict[str, float]] = {}
    if source is not None:
        truth = source.test_annotations
        maps = {"annotations": presence_map(truth["images"], truth["annotations"])}
        maps |= {name: presence_map(truth["images"], found) for name, found in results.items()}
        divergences = {name: presence_divergences(truth, found) for name, found in results.items()}
        everywhere = {name: values["all"] for name, values in divergences.items()}
        pictures = _pictures(source)
        rows = {"annotations": _by_image(truth["annotations"]), **{n: _by_image(r) for n, r in results.items()}}
        names = {int(number): name for number, name in zip(source.category_ids, source.class_names, strict=True)}
        drawings = [
            (
                "scenes",
                f"Test images with the annotations, and with the detections of a score of at least "
                f"{figures.DRAWN_SCORE:g}.",
                lambda: figures.scenes(pictures, rows, names),
            ),
            (
                "presence",
                "P(obj, u), the share of object presence at each location, and its KL divergence from that of the "
                "annotations (GOL, Eqs. 1-2 and Fig. 5).",
                lambda: figures.presence_maps(maps, everywhere),
            ),
            *drawings,
        ]
    drawn = save_figures(folder / "figures", drawings)
    write_text(folder / "history.csv", history_csv(outcomes))
    report = folder / "report.md"
    write_text(report, _markdown(outcomes, title, settings, drawn, divergences, missing))
    return report


def presence_divergences(truth: Mapping[str, Any], results: Sequence[Mapping[str, Any]]) -> dict[str, float]:
    """KL divergence of P(obj, u) from the annotations, of all classes and of the rare, common and frequent ones."""
    frequency = {category["id"]: category.get("frequency") for category in truth["categories"]}
    values = {}
    for group in ("all", *GROUPS):
        own = [
            [each for each in objects if group == "all" or frequency[each["category_id"]] == group]
            for objects in (truth["annotations"], results)
        ]
        values[group] = divergence(*(presence_map(truth["images"], objects) for objects in own))
    return values


def _source(outcome):
    """The data once more, and why they cannot be had."""
    try:
        return load_source_of(outcome.recipe), ""
    except (ValueError, OSError) as error:
        return None, f"Without pictures and maps, for which the images are needed: {error}"


def _by_image(objects):
    found: dict[int, list] = {}
    for each in objects:
        found.setdefault(each["image_id"], []).append(each)
    return found


def _pictures(source: DetectionSource) -> dict[int, np.ndarray]:
    """The test images with the most classes of the rare groups, in which there is most to see."""
    groups = frequency_groups(source.image_counts)
    worth = np.zeros(source.num_classes)
    worth[groups["c"]], worth[groups["r"]] = 1, 2
    seen = [worth[np.unique(labels)].sum() for labels in source.test.labels]
    best = sorted(np.argsort(-np.asarray(seen), kind="stable")[:SHOWN_IMAGES])
    return {int(source.test.image_ids[index]): source.test.image(int(index)) for index in best}


def _markdown(outcomes, title, settings, drawn, divergences, missing):
    first = outcomes[0]
    groups = {letter: len(own) for letter, own in frequency_groups(np.asarray(first.image_counts)).items()}
    most = 300 if first.recipe.evaluation.style == "lvis" else 100
    lines = [
        f"# {markdown(title)}",
        "",
        "Average precision on the test images in percent, IoU 0.50 to 0.95:",
        "",
        markdown_metrics({outcome.recipe.title: outcome.metrics for outcome in outcomes}),
        "",
        f"r: classes in at most {LVIS_RARE} training images ({groups['r']}); c: {LVIS_RARE + 1} to {LVIS_COMMON} "
        f"({groups['c']}); "
        f"f: more ({groups['f']}). {first.recipe.evaluation.style.upper()} style, {most} detections an image at most. "
        "A dash stands for classes without test objects.",
        "",
        "One training with one seed each: between seeds the AP of rare classes alone differs by several points.",
        "",
    ]
    if divergences:
        lines += ["KL divergence of P(obj, u) from that of the annotations, in nats:", ""]
        lines += ["| | all | rare | common | frequent |", "| --- | ---: | ---: | ---: | ---: |"]
        lines += [
            f"| {markdown(name)} | {' | '.join('–' if np.isnan(x) else f'{x:.4f}' for x in values.values())} |"
            for name, values in divergences.items()
        ]
        lines.append("")
    lines += [markdown(missing), ""] if missing else []
    lines += [*settings_and_figures(outcomes, settings, drawn), "## Files", ""]
    for outcome in outcomes:
        name = outcome.recipe.name
        lines += [
            f"- {code(name + '.keras')}: the detector ({markdown(outcome.recipe.title)})",
            f"- {code(name + '.json')}: its recipe and every number of this report; "
            f"{code(name + '.results.json')}: its detections in COCO's results format",
        ]
    lines += [
        "- `history.csv`: losses and metrics by epoch",
        "- `config.json`: what was run, with which versions",
        "",
        "```python",
        "import keras",
        "import keras_apa",
        "",
        f"detector = keras.saving.load_model({quoted(outcomes[-1].recipe.name + '.keras')})",
        "found = detector.predict_images([image])  # uint8, (height, width, 3)",
        "```",
        "",
    ]
    return "\n".join(lines)
