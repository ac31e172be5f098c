"""Names that are markup, Markdown, formulas or no UTF-8: they stop no training, and stay what they are."""

import contextlib
import io
import json
import os
import warnings

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image
from rich.console import Console

from training import reporting
from training.checks import check_same_classes
from training.cli.main import _explain, main, unboxed
from training.config.detection import DetectionRecipe
from training.data.classification.encoded import FileImages
from training.data.classification.list_files import read_list
from training.data.decoding import UnreadableImageError, naming_unreadable
from training.data.detection.coco import coco_source
from training.data.detection.coco_file import opened_image
from training.detection import figures as detection_figures
from training.detection.describe import describe_detection_data
from training.engine.callbacks import TensorBoardLog
from training.files import write_json, write_text
from training.inference.classifier import read_class_names
from training.inference.detector import _free
from training.models import load_model
from training.runs.choices import check_same_images, kept_fingerprint
from training.runtime.console import text_console

NOT_UTF8 = b"caf\xe9".decode("utf-8", "surrogateescape")
MARKUP = "cup [mug] $a_b$ :smile: 猫|*x*"


def images_of(folder, count=6):
    folder.mkdir(parents=True)
    for number in range(count):
        Image.new("RGB", (16, 16), (40 * number, 0, 0)).save(folder / f"{number}.png")


@pytest.mark.any_backend("torch")
def test_a_training_takes_any_names_to_any_output_and_its_model_holds_text(tmp_path):
    """In a folder that is no UTF-8, with an output of cp1252: table, checkpoints, logs, model and report."""
    for name in (NOT_UTF8, MARKUP):
        images_of(tmp_path / NOT_UTF8 / name)
    run = tmp_path / f"{NOT_UTF8} [run]\x1b[31m"
    out = io.TextIOWrapper(io.BytesIO(), "cp1252")
    arguments = ["--data.path", tmp_path / NOT_UTF8, "--model.name", "se_resnet8", "--data.image-size", "16"]
    arguments += ["--augment.crop", "padded", "--batch-size", "4", "--epochs", "1", "--output", run]
    with contextlib.redirect_stdout(out):
        assert main(["train", "folder", "--backend", "torch", *map(str, arguments)]) == 0
    out.flush()
    printed = out.buffer.getvalue().decode("cp1252")
    for name in (r" caf\xe9 ", MARKUP.replace("猫", r"\u732b"), r"caf\xe9 [run]\x1b[31m/report.md"):
        assert name in printed
    assert "\x1b" not in printed
    names = [r"caf\xe9", MARKUP]
    assert json.loads((run / "folder.json").read_text(encoding="utf-8"))["class_names"] == names
    assert load_model(str(run / "folder.keras")).class_names == tuple(names)
    assert os.listdir(run / "tensorboard") and (run / "figures" / "confusion_matrix.png").is_file()
    assert "se_resnet8" in (run / "report.md").read_text(encoding="utf-8")


@pytest.mark.any_backend
def test_categories_with_brackets_are_named_as_they_are(tmp_path):
    Image.new("RGB", (40, 30)).save(tmp_path / "a.png")
    Image.new("RGB", (40, 30)).save(tmp_path / "b.png")
    contents = {
        "images": [{"id": n, "file_name": f, "height": 30, "width": 40} for n, f in ((1, "a.png"), (2, "b.png"))],
        "annotations": [{"id": n, "image_id": n, "category_id": 7, "bbox": [1, 2, 10, 20]} for n in (1, 2)],
        "categories": [{"id": 7, "name": "half \ud83d"}, {"id": 8, "name": "cup [/mug]"}],
    }
    for encoding in ("utf-8", "utf-8-sig", "utf-16"):
        (tmp_path / "a.json").write_text(json.dumps(contents), encoding=encoding)
        source = coco_source(tmp_path / "a.json", tmp_path)
    assert source.class_names == (r"half \ud83d",)
    console = Console(file=io.StringIO(), width=40)
    describe_detection_data(source, DetectionRecipe(name="mine"), text_console(console))
    assert "'cup [/mug]' (id 8)\n" in console.file.getvalue()


@pytest.mark.any_backend
def test_files_in_another_encoding_are_refused_with_their_name(tmp_path):
    (tmp_path / "a.json").write_text(json.dumps({"images": "é"}, ensure_ascii=False), encoding="latin-1")
    with pytest.raises(ValueError, match=r"a\.json must be JSON in UTF-8"):
        coco_source(tmp_path / "a.json", tmp_path)
    for encoding in ("latin-1", "utf-16"):
        (tmp_path / "list.txt").write_text("é.png 0\n", encoding=encoding)
        with pytest.raises(
            ValueError, match=r"list\.txt, line 1: the line must be text in UTF-8; given: .*Save the list as UTF-8"
        ):
            read_list(tmp_path / "list.txt")
        (tmp_path / "names.txt").write_text("é\nü\n", encoding=encoding)
        with pytest.raises(ValueError, match=r"must be a text file in UTF-8; given: .*names\.txt"):
            read_class_names(tmp_path / "names.txt")


@pytest.mark.any_backend
def test_runs_with_the_names_of_before_are_still_the_same():
    check_same_classes([NOT_UTF8, "emu"], [r"caf\xe9", "emu"])
    was = {"classes": {NOT_UTF8: 3}, "test_images": 1, "files": "0"}
    now = {**was, "classes": {r"caf\xe9": 3}}
    check_same_images("runs/birds", was, now)
    assert kept_fingerprint(was) == now and kept_fingerprint(None) == {}
    with pytest.raises(ValueError, match="class 'emu' had 0 training images, has 3"):
        check_same_images("runs/birds", was, {**was, "classes": {"emu": 3}})


@pytest.mark.any_backend
def test_written_text_is_utf8_and_json_keeps_the_bytes_of_a_path(tmp_path):
    write_text(tmp_path / f"{NOT_UTF8}.md", f"{NOT_UTF8} 猫")
    assert (tmp_path / f"{NOT_UTF8}.md").read_text(encoding="utf-8") == r"caf\xe9 猫"
    write_json(tmp_path / "a.json", {"command": NOT_UTF8})
    assert json.loads((tmp_path / "a.json").read_text(encoding="utf-8")) == {"command": NOT_UTF8}


@pytest.mark.any_backend("tensorflow")
def test_the_log_of_a_training_goes_to_any_folder(tmp_path):
    TensorBoardLog(tmp_path / NOT_UTF8).on_epoch_end(0, {"loss": 1.0})
    assert os.listdir(tmp_path / NOT_UTF8)


@pytest.mark.any_backend
def test_a_file_that_is_gone_in_a_training_is_named(tmp_path):
    """TensorFlow passes on nothing of an error that is no UTF-8."""
    dataset = tf.data.Dataset.range(1).map(FileImages([tmp_path / f"{NOT_UTF8}\n.png"], [0]).load)
    with pytest.raises(UnreadableImageError) as raised, naming_unreadable():
        list(dataset)
    message, code = _explain(raised.value)
    assert message.endswith(r"caf\xe9\n.png: no such file or directory") and code == 1
    with pytest.raises(ValueError, match=r"caf\\xe9 \(id 7\): no such file"), opened_image(NOT_UTF8, 7):
        pass


@pytest.mark.any_backend
def test_a_picture_has_the_name_of_its_image(tmp_path):
    assert _free(tmp_path, NOT_UTF8, set()) == tmp_path / f"{NOT_UTF8}.png"
    assert len(os.fsencode(_free(tmp_path, 200 * NOT_UTF8, set()).name)) <= 255
    assert _free(tmp_path, "猫" * 84, set()).name == "猫" * 66 + ".png"


@pytest.mark.any_backend
def test_names_in_figures_are_no_formulas():
    """`$\\frac$` is a formula that matplotlib cannot read; a legend passes over what begins with an underscore."""
    title = r"$\frac$ _5 $"
    maps = {title: np.ones((4, 4)), "_cat": np.ones((4, 4))}
    figure = detection_figures.presence_maps(maps, {title: 0.5})
    found = {1: [{"bbox": [1, 1, 5, 5], "category_id": 3}]}
    scenes = detection_figures.scenes({1: np.zeros((16, 16, 3), "uint8")}, {title: found}, {3: "$\\frac$ 猫\n2"})
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with reporting.any_glyphs():
            for drawn in (figure, scenes):
                drawn.savefig(io.BytesIO(), dpi=30)
    assert reporting.plain("_a").strip() == "_a" and not reporting.plain("_a").startswith("_")
    assert scenes.axes[0].texts[0].get_text() == r"$\frac$ 猫\n2"


@pytest.mark.any_backend
def test_a_long_name_leaves_the_images_their_room():
    image, found = {1: np.zeros((16, 16, 3), "uint8")}, {1: [{"bbox": [1, 1, 5, 5], "category_id": 3}]}
    widths = []
    for name in ("cat", "y" * 200):
        figure = detection_figures.scenes(image, {"annotations": found}, {3: name})
        figure.savefig(io.BytesIO(), dpi=30)
        widths.append(figure.axes[0].get_position().width)
    assert widths[1] > 0.8 * widths[0]


@pytest.mark.any_backend
def test_errors_of_the_command_line_keep_brackets_and_long_paths(capsys):
    path = "/a [bold]folder[/bold]" * 12
    assert main(["train", "folder", "--data.pth", path]) == 2
    assert path in capsys.readouterr().err
    assert main(["train", "folder", "--epochs", "[/x]\x1b"]) == 2
    assert r"--epochs must be a whole number; given: '[/x]\x1b'." in capsys.readouterr().err
    framed = "╭─ Invalid ─╮\n│ got 2 for `[bold]INT INT[/bold]`: [x] │\n│ ────── │\n│ see --help │\n╰──╯"
    assert unboxed(framed).startswith("got 2 for `INT INT`: [x]\nsee --help")
