"""The `keras-apa` command as its user meets it: files, tables, exit codes, and two-line errors."""

import json
import os
import pathlib
import re
import signal
import subprocess
import sys
import time
from typing import get_args

import pytest
from backends import BLOCK, CURRENT, OTHERS, environment, run
from warm import run_warm

from training.cli.main import _explain, main, unboxed, version
from training.errors import OptionError, UsageError

# Something that prints when Python takes itself down, and something that a library registers.
TORN_DOWN = """
import atexit, sys
import training.cli.main as cli

class Kept:
    def __del__(self):
        print("torn down")

def main():
    atexit.register(print, "registered")
    print("last line")
    return 3

kept, cli.main = Kept(), main
sys.exit(cli.console())
"""
# What the console script of an installed package runs.
PROGRAM = "import sys; from training.cli.main import console; sys.exit(console())"
FAST = ["demo", "--data", "digits10_lt", "--epochs", "1", "--backend", CURRENT]


def command(*arguments):
    """Run `keras-apa` in a process of its own."""
    return run_warm(PROGRAM, *arguments, env=environment(CURRENT))


@pytest.fixture(scope="module")
def demo(tmp_path_factory):
    """A finished demo of one epoch, with what it printed."""
    folder = tmp_path_factory.mktemp("demo") / "out"
    result = command(*FAST, "--output", folder)
    assert result.returncode == 0, result.stderr[-3000:]
    return folder, result.stdout


@pytest.mark.any_backend
def test_the_process_ends_with_its_last_line():
    """A backend takes seconds to be torn down."""
    ended = subprocess.run([sys.executable, "-c", TORN_DOWN], capture_output=True, text=True, timeout=300)
    assert (ended.returncode, ended.stdout, ended.stderr) == (3, "last line\nregistered\n", "")


def test_demo_writes_everything_that_it_promises(demo):
    folder, printed = demo
    for name in ("report.md", "history.csv", "config.json", "digits10_lt.keras", "digits10_lt_baseline.keras"):
        assert (folder / name).stat().st_size > 0
    figures = {path.stem: path.read_bytes() for path in (folder / "figures").glob("*.png")}
    expected = {"training_curves", "accuracy_by_class", "confusion_matrix", "kappa_lambda", "apa_curves"}
    assert set(figures) == expected
    assert all(content.startswith(b"\x89PNG") and len(content) > 10_000 for content in figures.values())
    assert "many" in printed and "few" in printed and "Cross entropy" in printed
    assert printed.strip().splitlines()[-1].startswith(f"Wrote {folder}/report.md")


def test_demo_report_has_the_table_and_the_command(demo):
    folder, _ = demo
    report = (folder / "report.md").read_text()
    assert "| many | medium | few | all |" in report and "keras-apa" not in report.splitlines()[1]
    for line in report.splitlines():
        if "](figures/" in line:
            assert (folder / line.split("](")[1].rstrip(")")).exists()
    config = json.loads((folder / "config.json").read_text())
    assert config["backend"] == CURRENT and [r["epochs"] for r in config["recipes"]] == [1, 1]


@pytest.mark.any_backend
@pytest.mark.parametrize("backend", [CURRENT, OTHERS[0]], ids=["this", "another"])
def test_demo_models_load_as_the_report_says(demo, backend):
    """In a fresh process, which knows the learning rate's schedule only if the file needs it."""
    folder, _ = demo
    report = (folder / "report.md").read_text()
    program = report.partition("```python\n")[2].partition("```")[0]
    assert "digits10_lt.keras" in program
    program = f"import os; os.chdir({str(folder)!r})\n{program}\nprint(model.output_shape, model.class_names[3])"
    result = run_warm(program, env=environment(CURRENT)) if backend == CURRENT else run(backend, "-c", program)
    assert result.stdout.strip() == "(None, 10) 3", result.stderr[-2000:]


@pytest.mark.any_backend  # folders and files: the same on each backend
def test_a_second_demo_does_not_touch_the_first(demo):
    folder, _ = demo
    before = {path: path.read_bytes() for path in folder.rglob("*.json")}
    result = command(*FAST, "--output", folder)
    assert result.returncode == 2
    assert "holds an earlier run" in result.stderr and "--overwrite" in result.stderr
    assert {path: path.read_bytes() for path in folder.rglob("*.json")} == before
    resumed = command(*FAST, "--output", folder, "--resume")
    assert resumed.returncode == 0 and resumed.stdout.count("not trained again") == 2


@pytest.mark.parametrize(
    ("arguments", "parts"),
    [
        (["demo", "--model", "se_resnet9"], ["--model", "se_resnet9", "se_resnet8"]),
        (["demo", "--model", "se_resnet50"], ["--model", "se_resnet50", "small images", "se_resnet56"]),
        (["demo", "--epochs", "0"], ["--epochs", "0", "at least 1"]),
        (["demo", "--seed", "-1"], ["--seed"]),
        (["demo", "--output", __file__], ["--output must be a folder", "which is a file"]),
        (["convert", "a.pth", "b.keras", "--image-size", "16"], ["--image-size", "2 values"]),
        (
            ["predict", "a.keras", "b.png", "--image-size", "a", "0"],
            ["--image-size", "whole numbers above 0; given: 'a 0'."],
        ),
        (["export", "se_resnet_digits100_lt", "served", "--image-size", "8", "8"], ["image_size must be left out"]),
        (["dmo"], ["dmo", "demo"]),
        (["list", "modles"], ["modles", "models"]),
    ],
)
@pytest.mark.smoke
def test_wrong_usage_is_said_in_two_lines(arguments, parts, capsys):
    if arguments[0] == "demo" and "--backend" not in arguments:
        arguments = [*arguments, "--backend", CURRENT]
    assert main(arguments) == 2
    error = capsys.readouterr().err
    assert error.startswith("keras-apa: ") and len(error.strip().splitlines()) <= 2 and "Traceback" not in error
    for part in parts:
        assert part in error


@pytest.mark.any_backend
@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        ("demo --epochs 2.5", "--epochs must be a whole number of at least 1; given: '2.5'."),
        ("demo --backend tensorflew", "--backend must be one of tensorflow, jax, torch; given: 'tensorflew'."),
        ("demo --data=digits", "--data must be one of digits100_lt, digits10_lt; given: 'digits'."),
        ("demo --epochs", "--epochs must have a value; given: none."),
        ("evaluate RUN --evaluation.style voc", "--evaluation.style must be one of coco, lvis; given: 'voc'."),
        ("evaluate RUN --evaluation.tau x", "--evaluation.tau must be a number; given: 'x'."),
        ("evaluate", "RUN must be given. The folder that keras-apa train wrote."),
        ("convert", "IN and OUT must be given."),
        ("convert IN OUT --image-size 8", "--image-size must have 2 values; given: fewer."),
        ("predict MODEL IMAGE --min-score abc", "--min-score must be a number; given: 'abc'."),
        (
            "list kindd",
            "KIND must be one of models, weights, presets, recipes, losses, layers, metrics, backends; given: 'kindd'.",
        ),
        ("train digits10_lt --optimizer.clip-norm x", "--optimizer.clip-norm must be a number; given: 'x'."),
        ("train digits10_lt --optimizer.milestones 3 x", "--optimizer.milestones must be whole numbers; given: '3 x'."),
        (
            "train digits10_lt --model.frozen-batch-norm x",
            "--model.frozen-batch-norm must be one of None, True, False; given: 'x'.",
        ),
        (
            "train digits10_lt --loss.options tau",
            "--loss.options must be names, each followed by its value; given: 'tau'.",
        ),
        ("train digits10_lt --data.noise inf", "data.noise must be a finite number at least 0.0; given: inf."),
        ("train detection --augment.scale 1 x", "--augment.scale must be 2 numbers; given: '1 x'."),
        (
            "train detection --data.image-size 3 3",
            "each side of data.image_size must be a whole number of at least 32; given: 3.",
        ),
    ],
)
def test_a_wrong_word_has_one_form_whatever_the_option(arguments, error, capsys):
    words = arguments.split()
    assert main(words) == 2
    printed = capsys.readouterr()
    said, help_is = printed.err.splitlines()
    assert (said, printed.out) == (f"keras-apa: {error}", "")
    named = " ".join(words[: 2 if words[0] == "train" else 1])
    assert help_is.startswith("For full helptext, ") and help_is.endswith(f" keras-apa {named} --help")


@pytest.mark.any_backend
def test_a_wrong_backend_of_the_environment_is_named(capsys, monkeypatch):
    monkeypatch.setenv("KERAS_BACKEND", "tensorflew")
    assert main(["demo"]) == 2
    error = "keras-apa: KERAS_BACKEND must be one of tensorflow, jax, torch; given: 'tensorflew'.\n"
    assert capsys.readouterr() == ("", error)


@pytest.mark.any_backend
def test_choices_of_commands_are_what_stands_behind_them():
    from keras_apa.layers.adjustment import VARIANTS
    from training.cli import choices, listing
    from training.config import classification, classifier_learning
    from zoo.export import FORMATS, QUANTIZATIONS
    from zoo.serving.graph import ACTIVATIONS

    for choice, behind in (
        (choices.ExportFormat, FORMATS),
        (choices.ExportActivation, ACTIVATIONS),
        (choices.Quantization, QUANTIZATIONS),
        (choices.ListKind, listing.KINDS),
        (classification.PriorCorrectionVariant, ("none", *VARIANTS)),
        (classifier_learning.Method, classifier_learning.METHODS),
    ):
        assert get_args(choice) == (*behind,)


@pytest.mark.any_backend
def test_help_shows_choices_and_no_none(capsys):
    assert main(["export", "--help"]) == 0
    printed = capsys.readouterr().out
    assert "--quantization {float16,int8}" in printed and "--backend {tensorflow,jax,torch}" in printed
    assert "None" not in printed


@pytest.mark.any_backend
def test_errors_are_two_lines_in_a_process_of_its_own(tmp_path):
    """TensorFlow, which reads the data on every backend, must not put its remarks before them."""
    variables = {k: v for k, v in environment(CURRENT).items() if k != "TF_CPP_MIN_LOG_LEVEL"}
    result = subprocess.run(
        [sys.executable, "-c", PROGRAM, "demo", "--model", "se_resnet50"],
        env=variables,
        capture_output=True,
        text=True,
        cwd=tmp_path,
        timeout=900,
    )
    assert result.returncode == 2 and not result.stdout
    assert result.stderr.startswith("keras-apa: --model must be a network for small images; given: 'se_resnet50'"), (
        result.stderr
    )
    assert len(result.stderr.strip().splitlines()) <= 2, result.stderr


@pytest.mark.any_backend
def test_a_reader_that_goes_away_gets_no_traceback():
    """`keras-apa train digits10_lt --help | head -1`"""
    arguments = [sys.executable, "-c", PROGRAM, "train", "digits10_lt", "--help"]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    with subprocess.Popen(arguments, env=environment(CURRENT), **pipes) as process:
        process.stdout.close()
        error = process.stderr.read().decode()
    assert process.returncode == 141 and not error, error


def test_what_is_optional_stands_in_brackets(capsys):
    assert main(["list", "--help"]) == 0
    assert "[KIND] [PATTERN]" in capsys.readouterr().out


def test_unwritable_output_is_an_error_before_training(tmp_path, capsys):
    (tmp_path / "file").write_text("")
    assert main([*FAST, "--output", str(tmp_path / "file" / "below")]) == 2
    printed = capsys.readouterr()
    assert "--output" in printed.err and "below" in printed.err
    assert "epoch" not in printed.out


@pytest.mark.smoke
def test_list_names_models_recipes_and_losses(capsys):
    assert main(["list"]) == 0
    printed = capsys.readouterr().out
    for name in ("se_resnet32", "digits100_lt", "BalancedSoftmaxCrossentropy", "AGLU", "ShotAccuracy"):
        assert name in printed
    assert main(["list", "models", "cb_*"]) == 0
    printed = capsys.readouterr().out
    assert "cb_resnet56" in printed and "se_resnet8" not in printed


def test_help_and_version_do_not_import_keras():
    program = (
        "import sys, contextlib, io; from training.cli.main import main\n"
        "with contextlib.redirect_stdout(io.StringIO()) as out:\n"
        "    codes = [main(['--help']), main(['--version']), main(['demo', '--help'])]\n"
        "print(codes, 'keras' in sys.modules, 'keras-apa' in out.getvalue())"
    )
    result = run(CURRENT, "-c", program)
    assert result.stdout.strip() == "[0, 0, 0] False True", result.stderr[-2000:]


def test_version_is_the_package_version(capsys):
    import keras_apa

    assert main(["--version"]) == 0
    assert capsys.readouterr().out.strip() == f"keras-apa {keras_apa.__version__}" == f"keras-apa {version()}"


@pytest.mark.any_backend
@pytest.mark.parametrize(
    ("blocked", "arguments", "parts"),
    [
        (("jax",), ["demo", "--backend", "jax"], ["jax", "not installed", 'pip install "keras-apa[jax]"']),
        (("tyro",), ["demo"], ["tyro", 'pip install "keras-apa[training]"']),
        (("sklearn",), ["demo", "--backend", CURRENT], ["sklearn", 'pip install "keras-apa[training]"']),
    ],
)
def test_what_is_not_installed_is_named_with_its_extra(blocked, arguments, parts, tmp_path):
    program = BLOCK.format(blocked=blocked) + (f"from training.cli.main import main; sys.exit(main({[*arguments]!r}))")
    if "--backend" in arguments and CURRENT in arguments:
        # Keras is imported before what is blocked: as if the package had not been imported either.
        forget = (
            f"import sys\nfor name in [n for n in sys.modules if n.split('.')[0] in {blocked}]: del sys.modules[name]\n"
        )
        result = run_warm(forget + program, cwd=tmp_path, env=environment(CURRENT))
    else:
        environment_ = {k: v for k, v in environment(CURRENT).items() if "jax" not in blocked or k != "KERAS_BACKEND"}
        result = subprocess.run(
            [sys.executable, "-c", program], capture_output=True, text=True, env=environment_, cwd=tmp_path, timeout=300
        )
    assert result.returncode in (1, 2)
    message = result.stderr.strip().splitlines()[-1]
    for part in parts:
        assert part in message, result.stderr[-2000:]


@pytest.mark.slow
@pytest.mark.parametrize("seconds", [1, 12])
@pytest.mark.any_backend
def test_ctrl_c_inside_the_first_epoch_ends_with_130(seconds, tmp_path):
    """Data threads and compiled steps are at work then, and must not crash Python on its way out."""
    folder = tmp_path / "out"
    process = start("demo", "--data", "digits10_lt", "--epochs", "300", "--backend", CURRENT, "--output", folder)
    wait_for(folder / "config.json", process)
    time.sleep(seconds)
    os.kill(process.pid, signal.SIGINT)
    _, errors = process.communicate(timeout=300)
    assert process.returncode == 130, errors[-3000:]
    assert "interrupted. Finished: no model yet" in errors and "--resume" in errors
    assert "Fatal Python error" not in errors


@pytest.mark.slow
@pytest.mark.any_backend("torch")  # two demos: minutes where they are compiled
def test_ctrl_c_keeps_what_is_finished_and_resume_goes_on(tmp_path):
    folder = tmp_path / "out"
    arguments = ["demo", "--data", "digits10_lt", "--epochs", "1", "--backend", CURRENT, "--output", folder]
    process = start(*arguments)
    wait_for(folder / "digits10_lt_baseline.json", process)
    os.kill(process.pid, signal.SIGINT)
    _, errors = process.communicate(timeout=300)
    assert process.returncode == 130, errors[-3000:]
    assert "interrupted" in errors and "digits10_lt_baseline.keras" in errors and "--resume" in errors
    assert not list(pathlib.Path(folder).rglob("*.tmp"))
    resumed = command(*arguments, "--resume")
    assert resumed.returncode == 0 and resumed.stdout.count("not trained again") == 1, resumed.stderr[-3000:]


@pytest.mark.slow
@pytest.mark.any_backend
def test_ctrl_c_saves_a_training_and_the_same_command_goes_on(tmp_path):
    arguments = ["train", "digits10_lt", "--backend", CURRENT, "--output", tmp_path / "run", "--epochs", "8"]
    arguments += ["--data.largest-class", "30", "--data.imbalance-factor", "4", "--batch-size", "32"]
    process = start(*arguments)
    wait_for(tmp_path / "run" / "checkpoints", process)
    os.kill(process.pid, signal.SIGINT)
    _, errors = process.communicate(timeout=300)
    assert process.returncode == 130, errors[-3000:]
    saved = int(re.search(r"Saved up to step (\d+) of 40", errors).group(1))
    assert 0 <= saved < 40 and f"Continue with: keras-apa train digits10_lt --backend {CURRENT}" in errors
    resumed = command(*arguments)
    assert resumed.returncode == 0, resumed.stderr[-3000:]
    assert not saved or f"Going on from step {saved} of 40" in resumed.stdout


def start(*arguments):
    """`keras-apa` in a process that goes on while the test does."""
    return subprocess.Popen(
        [sys.executable, "-c", PROGRAM, *map(str, arguments)],
        # With the faults of a crash in its output.
        env=environment(CURRENT, PYTHONFAULTHANDLER="1"),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        # A runner in the background may have this process ignore Ctrl-C, and its children with it.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )


def wait_for(path, process):
    deadline = time.monotonic() + 900
    while not path.exists() and time.monotonic() < deadline:
        assert process.poll() is None, process.stderr.read()[-3000:]
        time.sleep(0.2)


def test_a_frame_of_hyphens_is_taken_off_too():
    """What tyro prints where the terminal has only ASCII."""
    text = (
        " Unrecognized options           \n ------------------------------ \n  Unrecognized options: --epochz\n"
        "  ------------------------------\n  Perhaps you meant:            \n      --epochs INT              \n"
        "  ------------------------------\n  For full helptext, run x --help\n                                \n"
    )
    assert unboxed(text).splitlines() == [
        "Unrecognized options: --epochz. Perhaps you meant: --epochs INT",
        "For full helptext, run x --help",
    ]


@pytest.mark.any_backend
def test_the_exit_code_follows_the_type_of_an_error_and_not_its_text():
    from training.data.decoding import UnreadableImageError

    text = "model.name must be a known name; given: 'x'."
    assert _explain(OptionError(text)) == _explain(UsageError(text)) == (text, 2)
    message, code = _explain(ValueError(text))
    assert code == 1 and message.startswith(f"ValueError: {text}") and "--debug" in message
    assert _explain(UnreadableImageError("a.png: not an image")) == ("a.png: not an image", 1)
