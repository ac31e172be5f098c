"""`keras-apa predict`: what a model sees in image files, classes or objects, as a table or as JSON."""

from __future__ import annotations

import contextlib
import json
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.text import Text

from training.checks import check_number, check_whole
from training.errors import OptionError, usage
from training.files import is_empty, make_writable, write_json
from training.image_files import mark_written, search_images
from training.inference.classifier import load_predictor, predict_files
from training.inference.detector import DetectionPredictor, detect_files
from training.runtime.console import TextConsole, TextTable, tell, text_console, with_progress
from training.runtime.output import escaped_output, visible


@escaped_output()
def run_predict(
    model: str | os.PathLike,
    images: Sequence[str | os.PathLike],
    *,
    top_k: int = 5,
    as_json: bool = False,
    output: Path | None = None,
    batch_size: int = 16,
    class_names: Path | None = None,
    image_size: tuple[int, int] | None = None,
    min_score: float | None = None,
    pictures: Path | None = None,
    console: Console | TextConsole | None = None,
) -> int:
    """Predicts the classes of images, or the objects in them, with the options of the command; returns the exit code.

    A file that cannot be read is named on stderr, the rest goes on, and the exit code is 1.

    Raises: training.errors.UsageError: If there is no such model or no image, or an option does not fit the model.
    """
    with usage():
        check_whole("--top-k", top_k, at_least=1)
        check_whole("--batch-size", batch_size, at_least=1)
        looked = search_images(images)
        files, missing = looked.files, looked.missing
        for name, reason in missing.items():
            tell(f"{name}: {reason}")
        for note in looked.notes():
            tell(note)
        if not files:
            raise OptionError(
                "IMAGES must be image files, folders of them or patterns such as 'photos/*.jpg'; given: "
                f"{', '.join(map(str, images)) or 'nothing':.80}."
            )
        if output is not None:
            _check_output(Path(output))
        if min_score is not None:
            check_number("--min-score", min_score, at_least=0.0, below=1.0)
        if pictures is not None:
            _check_pictures(Path(pictures), output)
    # What libraries print while they load must not get into the JSON.
    with contextlib.redirect_stdout(sys.stderr) if as_json else contextlib.nullcontext():
        with usage():
            predictor = load_predictor(
                model, class_names=class_names, image_size=image_size, min_score=min_score, pictures=pictures
            )
            if pictures is not None:
                make_writable(Path(pictures).absolute(), "--pictures")
                mark_written(pictures)
        if isinstance(predictor, DetectionPredictor):
            found, step = detect_files(predictor, files), 1
        else:
            found, step = predict_files(predictor, files, top_k, batch_size), batch_size
            if predictor.assumption:
                tell(f"{model} does not say how images are prepared for it; {predictor.assumption}")
        results = []
        for result in with_progress(found, len(files), text="predicting", above=step):
            if "error" in result:
                tell(f"{result['file']}: {result['error']}")
            results.append(result)
    results += [{"file": name, "error": reason} for name, reason in missing.items()]
    document = {"model": os.fspath(model), "images": results}
    if as_json:
        print(json.dumps(document, indent=2, allow_nan=False))
    elif any("predictions" in result or "detections" in result for result in results):
        table = _detection_table if isinstance(predictor, DetectionPredictor) else _table
        text_console(console).print(table(results))
    failed = sum("error" in result for result in results)
    if failed:
        tell(f"{failed} of {len(results)} not predicted" + " or drawn" * (pictures is not None))
    if output is not None:
        write_json(output, document)
        print(visible(f"Wrote {Path(output).resolve()}"), file=sys.stderr if as_json else sys.stdout)
    if pictures is not None and any("picture" in result for result in results):
        print(visible(f"Wrote pictures to {Path(pictures).resolve()}"), file=sys.stderr if as_json else sys.stdout)
    return 1 if failed else 0


def _table(results: list[dict[str, Any]]) -> TextTable:
    table = TextTable("file", "rank", "class", "probability")
    table.columns[0].overflow = table.columns[2].overflow = "fold"
    for column in (table.columns[1], table.columns[3]):
        column.justify = "right"
    for result in results:
        predictions = result.get("predictions", ())
        for row in predictions:
            table.add_row(
                result["file"] if row["rank"] == 1 else "",
                str(row["rank"]),
                row["class"],
                f"{row['probability']:.4f}",
                end_section=row is predictions[-1],
            )
    return table


def _detection_table(results: list[dict[str, Any]]) -> TextTable:
    table = TextTable("file", "class", "score", "x", "y", "width", "height")
    table.columns[0].overflow = table.columns[1].overflow = "fold"
    for column in table.columns[2:]:
        column.justify = "right"
    for result in results:
        if "detections" not in result:
            continue
        name = result["file"]
        if not result["detections"]:
            table.add_row(name, Text("nothing found", style="dim"), end_section=True)
        for row in result["detections"]:
            last = row is result["detections"][-1]
            box = (f"{side:.1f}" for side in row["bbox"])
            table.add_row(name, row["class"], f"{row['score']:.4f}", *box, end_section=last)
            name = ""
    return table


def _check_output(path: Path) -> None:
    if path.is_dir():
        raise OptionError(
            f"--output must be a file; given: {str(path)!r}, which is a folder. Name a file in it, such as "
            f"{str(path / 'out.json')!r}."
        )
    make_writable(path.absolute().parent)


def _check_pictures(folder: Path, output: Path | None) -> None:
    if output is not None and Path(output).absolute() == folder.absolute():
        raise OptionError(f"--output must be a file and --pictures a folder; given: {str(folder)!r} for both.")
    if folder.exists() and not is_empty(folder):
        raise OptionError(
            f"--pictures must be a new or an empty folder; given: {str(folder)!r}, which is not empty. Choose "
            "another one."
        )
