"""`keras-apa export`: what its `run_export` writes, prints and refuses."""

import os

import exported
import numpy as np
import pytest
from backends import CURRENT
from exported import classifier, encode, smooth_picture

from training.cli.export import run_export
from training.errors import UsageError

pytestmark = [
    pytest.mark.skipif(CURRENT != "tensorflow", reason="the export itself is tested on each backend in zoo"),
    pytest.mark.any_backend("tensorflow"),
]


@pytest.fixture(scope="module")
def file(tmp_path_factory):
    path = tmp_path_factory.mktemp("models") / "birds.keras"
    classifier().save(path)
    return path


def test_export_ends_with_the_path_that_it_wrote(file, tmp_path, capsys):
    assert run_export(file, tmp_path / "birds" / "12", top_k=2) == 0
    assert capsys.readouterr().out.splitlines()[-1] == f"Wrote {tmp_path}/birds/12"
    assert (tmp_path / "birds" / "12" / "saved_model.pb").is_file()


def test_int8_takes_its_ranges_from_image_files(file, tmp_path, capsys):
    (tmp_path / "photos").mkdir()
    for i in range(3):
        (tmp_path / "photos" / f"{i}.png").write_bytes(encode(smooth_picture(30 + i, 40)))
    names = tmp_path / "names.txt"
    names.write_text("\n".join(exported.CLASS_NAMES))
    options = {"format": "litert", "quantization": "int8", "images": [tmp_path / "photos"], "class_names": names}
    assert run_export(file, tmp_path / "birds", **options) == 0
    assert capsys.readouterr().out.splitlines()[-1] == f"Wrote {tmp_path}/birds/1/model.tflite"
    assert os.path.getsize(tmp_path / "birds" / "1" / "model.tflite") > 0


def test_wrong_use_is_named(file, tmp_path):
    (tmp_path / "model.pth").touch()
    (tmp_path / "broken.keras").write_bytes(np.arange(9).tobytes())
    cases = (
        ("missing.keras", {}, "the model must be a file that is there; given: 'missing.keras'"),
        (tmp_path / "model.pth", {}, "the model must be a .keras file; .* keras-apa convert"),
        (tmp_path / "broken.keras", {}, "cannot load '.*broken.keras'"),
        (file, {"format": "tensorflow"}, "format must be one of tf_saved_model, onnx, litert; given: 'tensorflow'"),
        (file, {"top_k": 0}, "top_k must be a whole number"),
        (
            file,
            {"format": "litert", "quantization": "int8"},
            "--images must be given with --quantization int8, and with no other",
        ),
        (file, {"images": [tmp_path]}, "--images must be given with --quantization int8, and with no other"),
        (
            file,
            {"format": "litert", "quantization": "int8", "images": [tmp_path / "none"]},
            "--images must be images; given: .*none: no such file, folder or pattern",
        ),
    )
    for model, options, message in cases:
        with pytest.raises(UsageError, match=message):
            run_export(model, tmp_path / "out", **options)
    assert not (tmp_path / "out").exists()
