"""`keras-apa train`, `evaluate`, `report` and dry runs: what they write, what goes on, what is refused."""

import io
import json
import re
import shutil
import signal

import keras
import numpy as np
import pytest
from backends import CURRENT
from PIL import Image
from processes import KILLED, process
from rich.console import Console

import zoo
from keras_apa import ClassCounts
from training.classification import describe
from training.classification import train as classification
from training.classification.network import model_arguments
from training.cli import train as experiment
from training.cli.main import main
from training.cli.tasks import task_of
from training.config.classification import Recipe
from training.config.classifier_learning import METHODS, learn_classifier
from training.data.classification.source import ArrayImages, Source
from training.engine.checkpoints import Checkpoints
from training.recipes import get_recipe, recipes
from training.runs.ownership import claim

SMALL = [
    "--data.largest-class", "30", "--data.imbalance-factor", "4", "--data.test-images-per-class", "5",
    "--batch-size", "32", "--epochs", "2",
]  # fmt: skip


def train(recipe, *arguments):
    return main(["train", recipe, "--backend", CURRENT, *map(str, arguments)])


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A finished training of two short epochs, with prior correction."""
    folder = tmp_path_factory.mktemp("run") / "digits"
    arguments = [*SMALL, "--evaluation.prior-correction", "raw", "--output", folder]
    assert train("digits10_lt_baseline", *arguments) == 0
    return folder


@pytest.mark.every_backend
@pytest.mark.smoke
def test_a_run_folder_has_model_numbers_report_and_logs(run):
    names = {path.name for path in run.iterdir()}
    expected = {"config.json", "report.md", "history.csv", "figures", "checkpoints", "tensorboard"}
    assert names >= expected | {"digits10_lt_baseline.keras", "digits10_lt_baseline.json"}
    outcome = json.loads((run / "digits10_lt_baseline.json").read_text())
    assert set(outcome["accuracies"]) == {"many", "medium", "few", "all", "top5"}
    assert outcome["uncorrected"] is not None and len(outcome["history"]["val_all"]) == 2
    assert list((run / "tensorboard").iterdir())


def test_the_same_command_again_shows_the_result_and_another_is_refused(run, capsys):
    arguments = [*SMALL, "--evaluation.prior-correction", "raw", "--output", run]
    assert train("digits10_lt_baseline", *arguments) == 0
    assert "This training is finished" in capsys.readouterr().out
    assert train("digits10_lt", *SMALL, "--output", run) == 2
    assert "other settings: name was 'digits10_lt_baseline', is 'digits10_lt'" in capsys.readouterr().err


@pytest.mark.every_backend
@pytest.mark.smoke
def test_evaluate_measures_the_saved_model_again(run, capsys):
    outcome = json.loads((run / "digits10_lt_baseline.json").read_text())
    assert main(["evaluate", str(run), "--backend", CURRENT]) == 0
    again = json.loads((run / "evaluation.json").read_text())
    assert again["accuracies"] == outcome["accuracies"] and again["uncorrected"] == outcome["uncorrected"]
    assert main(["evaluate", str(run), "--backend", CURRENT, "--evaluation.prior-correction", "none"]) == 0
    plain = json.loads((run / "evaluation.json").read_text())
    assert plain["accuracies"] == outcome["uncorrected"] and plain["uncorrected"] is None
    printed = capsys.readouterr().out
    assert "prior correction raw" in printed and "without" in printed and "no prior correction" in printed


def test_report_is_written_again_from_the_numbers(run):
    before = (run / "report.md").read_text()
    (run / "report.md").unlink()
    assert main(["report", str(run), "--backend", CURRENT]) == 0
    table = [line for line in before.splitlines() if line.startswith("| Cross entropy")]
    assert table and table[0] in (run / "report.md").read_text()


@pytest.mark.any_backend
def test_the_same_command_finds_its_run_beside_another_and_reads_what_is_in_use(run, tmp_path, capsys, monkeypatch):
    """Without `--output`, and with the folder of another run where its own would be."""
    runs = tmp_path / "runs"
    shutil.copytree(run, runs / "digits10_lt_baseline-2")
    other = shutil.copytree(run, runs / "digits10_lt_baseline")
    config = json.loads((other / "config.json").read_text())
    config["recipes"][0]["seed"] = 7
    (other / "config.json").write_text(json.dumps(config))
    monkeypatch.chdir(tmp_path)
    assert train("digits10_lt_baseline", *SMALL, "--evaluation.prior-correction", "raw") == 0
    printed = capsys.readouterr().out
    assert "'runs/digits10_lt_baseline' holds another run (seed was 7, is 0); this training is in 'runs/dig" in printed
    assert "This training is finished (--overwrite trains again); its result:" in printed
    assert f"Wrote {runs / 'digits10_lt_baseline-2' / 'report.md'}" in printed
    with claim(other) as owned:
        (other / "report.md").unlink()
        assert main(["report", str(other), "--backend", CURRENT]) == 2  # its numbers are those of seed 0
        (other / "config.json").write_text((run / "config.json").read_text())
        assert main(["report", str(other), "--backend", CURRENT]) == 0
        assert (other / "report.md").is_file() and owned.is_ours()


@pytest.mark.any_backend
def test_a_training_that_lost_its_folder_is_saved_beside_it_and_goes_on(tmp_path, capsys, monkeypatch):
    """The folder is renamed in the first epoch; then another is put in its place while the model is evaluated."""
    monkeypatch.chdir(tmp_path)
    folder, seen = tmp_path / "runs" / "digits10_lt_baseline", []
    note = experiment.EpochProgress.on_epoch_end

    def removed(self, epoch, logs=None):
        seen.append(epoch)
        note(self, epoch, logs)
        folder.rename(tmp_path / "renamed")

    monkeypatch.setattr(experiment.EpochProgress, "on_epoch_end", removed)
    arguments = ["digits10_lt_baseline", *SMALL, "--epochs", "1", "--model.name", "resnet8"]
    assert train(*arguments) == 1
    error = capsys.readouterr().err
    assert "digits10_lt_baseline' was removed or renamed while it was in use; the training is saved up to" in error
    assert re.search(r"Continue with: .*--output \S+/runs/digits10_lt_baseline$", error) and "--debug" not in error
    assert {path.name for path in (tmp_path / "renamed").iterdir()} >= {"config.json", ".lock"}

    evaluated = classification.evaluate

    def replaced(*given):
        shutil.rmtree(folder)
        folder.mkdir()
        (folder / "notes.txt").touch()
        return evaluated(*given)

    monkeypatch.setattr(classification, "evaluate", replaced)
    assert train(*arguments) == 1
    printed = capsys.readouterr()
    assert "Going on from step 5 of 5" in printed.out and seen == [0]
    assert "it or its lock was replaced while it was in use; the finished model, its numbers and" in printed.err
    assert [path.name for path in folder.iterdir()] == ["notes.txt"]
    beside = tmp_path / "runs" / "digits10_lt_baseline-2"
    assert {"digits10_lt_baseline.keras", "digits10_lt_baseline.json", "report.md"} <= {
        p.name for p in beside.iterdir()
    }


@pytest.mark.slow
@pytest.mark.any_backend
def test_a_training_that_was_killed_goes_on_to_the_same_weights(tmp_path):
    """With Dropout (APA* gates), a random loss, mixup-free augmentation and a sampler."""
    arguments = [
        "train", "digits10_lt", *SMALL, "--epochs", "3", "--data.sampler", "class_balanced", "--loss.name", "DropLoss",
        "--loss.options", "frequency_threshold", "0.1", "--data.imbalance-factor", "5",
    ]  # fmt: skip

    def weights(folder):
        return [np.asarray(w) for w in keras.saving.load_model(folder / "digits10_lt.keras").get_weights()]

    result = process(*arguments, "--output", tmp_path / "whole")
    assert result.returncode == 0, result.stderr[-3000:]
    whole = weights(tmp_path / "whole")
    # A minute or two each; where checkpoints are only at the ends of epochs is the same on each backend.
    for every in (0, 3) if CURRENT == "tensorflow" else (3,):
        killed = tmp_path / f"killed{every}"
        saving = [*arguments, "--checkpoint-steps", every, "--output", killed]
        # 149 images, 5 steps an epoch, the last a short one: killed at the end of the second epoch, one step after the
        # last checkpoint of three steps.
        result = process(*saving, program=KILLED.format(step=10))
        assert result.returncode == -signal.SIGKILL
        assert not (killed / "digits10_lt.keras").exists()
        result = process(*saving)
        assert result.returncode == 0, result.stderr[-3000:]
        assert f"Going on from step {8 if every else 5} of 15" in result.stdout
        for expected, got in zip(whole, weights(killed), strict=True):
            np.testing.assert_allclose(got, expected, rtol=0, atol=1e-6)


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    """A folder of class folders: colours, with files that are no images among them."""
    folder = tmp_path_factory.mktemp("photos")
    rng = np.random.default_rng(0)
    for name, colour, count in (("blue", (40, 60, 220), 24), ("green", (50, 200, 60), 9), ("red", (220, 40, 40), 4)):
        (folder / name).mkdir()
        for number in range(count):
            pixels = np.clip(rng.normal(colour, 30, (40, 48, 3)), 0, 255).astype("uint8")
            Image.fromarray(pixels).save(folder / name / f"{number}.jpg")
        (folder / name / "notes.txt").write_text("not an image")
    return folder


@pytest.mark.any_backend
def test_own_images_are_trained_on_with_one_command(photos, tmp_path, capsys):
    """What the command line leaves open is chosen by number and size of the images, and kept with the run."""
    run = tmp_path / "run"
    arguments = ["--data.path", photos, "--model.name", "se_resnet8", "--output", run, "--epochs", "8"]
    arguments += ["--batch-size", "8", "--optimizer.learning-rate", "0.05"]
    assert train("folder", *arguments) == 0
    printed = capsys.readouterr().out
    assert "3 classes" in printed and re.search(r"red +3 +few", printed)
    assert "Chosen by number and size of the images: --augment.crop padded --data.image-size 32 (" in printed
    config = json.loads((run / "config.json").read_text())
    assert config["recipes"][0]["data"]["image_size"] == 32 and config["recipes"][0]["model"]["name"] == "se_resnet8"
    assert config["images"]["classes"] == {"blue": 19, "green": 7, "red": 3}
    outcome = json.loads((tmp_path / "run" / "folder.json").read_text())
    assert outcome["class_names"] == ["blue", "green", "red"] and sum(outcome["class_counts"]) < 37
    assert outcome["accuracies"]["all"] > 0.6
    assert main(["predict", str(tmp_path / "run" / "folder.keras"), str(photos / "red"), "--backend", CURRENT]) == 0
    assert "red" in capsys.readouterr().out
    assert train("folder", *arguments) == 0
    assert "finished (--overwrite trains again, with the images as they are now); its" in capsys.readouterr().out
    # The same command would go on with an unfinished one: what was chosen is known, but the images are others.
    (run / "folder.json").unlink()
    more = shutil.copytree(photos, tmp_path / "more")
    config["recipes"][0]["data"]["path"] = str(more)
    (run / "config.json").write_text(json.dumps(config))
    arguments[1] = more
    shutil.copy(more / "blue" / "0.jpg", more / "blue" / "again.jpg")
    assert train("folder", *arguments) == 2
    assert "the images must be those that the run in" in (error := capsys.readouterr().err)
    assert "class 'blue' had 19 training images, has 20" in error


def test_of_many_classes_the_largest_and_the_smallest_are_printed():
    counts = ClassCounts([*range(60, 10, -1)], names=[f"[class {label}]" for label in range(50)])
    images = ArrayImages(np.zeros((50, 2, 2, 3), "uint8"), np.arange(50))
    table = describe.class_table(Source("many", images, images, class_counts=counts), counts.shot_groups())
    console = Console(file=io.StringIO())
    console.print(table)
    lines = console.file.getvalue().splitlines()
    assert len(lines) == 22 and "30 more" in lines[11]
    assert [lines[place].split() for place in (1, -1)] == [
        ["[class", "0]", "60", "medium"],
        ["[class", "49]", "11", "few"],
    ]


def test_a_damaged_checkpoint_is_not_what_a_training_goes_on_from(run, tmp_path, capsys, monkeypatch):
    folder = shutil.copytree(run, tmp_path / "run")
    (folder / "digits10_lt_baseline.json").unlink()
    newest = Checkpoints(folder / "checkpoints").newest()
    newest.write_bytes(newest.read_bytes()[:-1000])

    def interrupted(*arguments, **options):
        raise KeyboardInterrupt

    monkeypatch.setattr(task_of(get_recipe("digits10_lt_baseline")), "train", interrupted)
    arguments = [*SMALL, "--evaluation.prior-correction", "raw", "--output", folder]
    assert train("digits10_lt_baseline", *arguments) == 130
    printed = capsys.readouterr()
    assert "Going on from step 5 of 10" in printed.out
    assert "step-0000000010.npz' is damaged" in printed.err and "Saved up to step 5 of 10" in printed.err


@pytest.mark.any_backend
def test_a_second_stage_trains_the_classifier_only(run, tmp_path):
    first = keras.saving.load_model(run / "digits10_lt_baseline.keras")
    arguments = [*SMALL, "--epochs", "1", "--output", tmp_path / "crt", "--start.weights", run,
                 "--start.trainable", "classifier", "--data.sampler", "class_aware"]  # fmt: skip
    assert train("digits10_lt_baseline", *arguments) == 0
    second = keras.saving.load_model(tmp_path / "crt" / "digits10_lt_baseline.keras")
    for layer in first.layers:
        if not layer.weights or layer.name == "classifier":
            continue
        for before, after in zip(layer.weights, second.get_layer(layer.name).weights, strict=True):
            same = np.array_equal(keras.ops.convert_to_numpy(before), keras.ops.convert_to_numpy(after))
            # The batch norms follow the batches, as in the authors' code.
            assert same != before.name.startswith("moving"), before.path


@pytest.mark.any_backend
def test_learnable_weight_scaling_ends_in_the_classifier(run, tmp_path):
    recipe = learn_classifier(get_recipe("digits10_lt_baseline").replace(start={"weights": str(run)}), "lws")
    assert recipe.start.trainable == "class_scale" and recipe.name == "digits10_lt_baseline_lws"
    arguments = [*SMALL, "--epochs", "1", "--output", tmp_path, "--start.weights", run, "--classifier-learning", "lws"]
    assert train("digits10_lt_baseline", *arguments) == 0
    first = keras.saving.load_model(run / "digits10_lt_baseline.keras").get_layer("classifier")
    second = keras.saving.load_model(tmp_path / "digits10_lt_baseline_lws.keras")
    assert "class_scale" not in [layer.name for layer in second.layers]
    ratio = keras.ops.convert_to_numpy(second.get_layer("classifier").kernel) / keras.ops.convert_to_numpy(first.kernel)
    np.testing.assert_allclose(ratio, ratio[:1].repeat(len(ratio), 0), rtol=1e-3)
    assert np.ptp(ratio[0]) > 1e-4


@pytest.mark.parametrize("method", METHODS)
def test_every_way_to_learn_a_classifier_is_a_recipe(method):
    recipe = get_recipe("cifar100_lt").replace(start={"weights": "runs/cifar100_lt"})
    learned = learn_classifier(recipe, method)
    assert learned.name == f"cifar100_lt_{method}" and learned.data.name == "cifar100_lt"


# One of each family on every backend, all of them on one; with smaller networks of the same kind where there are any.
FAMILIES = ("gol_cifar100_lt_stage1", "balms_cifar100_lt_ldam", "balms_cifar100_lt_meta", "imagenet_lt", "places_lt")
SMALLER = {"se_resnet32": "se_resnet8", "resnet32": "resnet8", "se_resnet152": "se_resnet50", "resnet152": "resnet50"}


def dry_run(name, capsys, tmp_path):
    recipe = get_recipe(name)
    network = SMALLER.get(recipe.model.name, recipe.model.name)
    arguments = ["--model.name", network]
    if recipe.data.image_size:
        arguments += ["--image-size", "32"]
    if recipe.start.weights:
        # What the first stage would have left.
        classes = {"cifar10_lt": 10, "cifar100_lt": 100, "imagenet_lt": 1000, "places_lt": 365}[recipe.data.name]
        first = recipe.replace(model={"classifier": None}) if recipe.start.trainable == "last_stage" else recipe
        options = model_arguments(first.model) | {"classes": classes, "input_shape": (None, None, 3)}
        zoo.create_model(network, **options).save(tmp_path / "first.keras")
        arguments += ["--start.weights", tmp_path / "first.keras"]
    assert train(name, "--dry-run", *arguments) == 0
    printed = " ".join(capsys.readouterr().out.split())
    for part in ("parameters", "GB for a batch of", "steps an epoch", "2 steps with a batch of", "decay"):
        assert part in printed
    return printed


@pytest.mark.any_backend
def test_a_dry_run_says_what_a_run_would_need(capsys, tmp_path):
    printed = dry_run("cifar100_lt", capsys, tmp_path)
    assert "Changed from the published recipe (APA Table 3b: 52.3): model.name se_resnet8 (was se_resnet32)" in printed
    assert "cifar100_lt (10,847 training images, 100 classes) is not here: 2 steps on random pixels" in printed
    assert "22 steps an epoch, 500 epochs, 11,000 steps" in printed
    assert "weight decay 0.001 on all trained tensors but 20 (kappa, lambda)" in printed
    few = ["--data.largest-class", "1", "--data.imbalance-factor", "1", "--batch-size", "8"]
    assert train("digits10_lt", "--dry-run", *few) == 0
    printed = capsys.readouterr().out
    assert "10 training and 200 test images" in printed and "2 steps with a batch of 10: " in printed


@pytest.mark.slow
@pytest.mark.parametrize("name", FAMILIES)
@pytest.mark.any_backend
def test_a_dry_run_of_each_family(name, capsys, tmp_path):
    if CURRENT == "jax" and name == "imagenet_lt":
        pytest.skip("compiles a start value for each layer, minutes in all; the other families are small")
    dry_run(name, capsys, tmp_path)


@pytest.mark.slow
@pytest.mark.skipif(CURRENT != "torch", reason="all recipes on one backend, one of each family on the others")
@pytest.mark.parametrize(
    "name",
    [
        name
        for name, recipe in recipes().items()
        if isinstance(recipe, Recipe) and name not in (*FAMILIES, "cifar100_lt") and not name.startswith("folder")
    ],
)
def test_a_dry_run_of_every_recipe(name, capsys, tmp_path):
    dry_run(name, capsys, tmp_path)


@pytest.mark.parametrize(
    ("recipe", "arguments", "parts"),
    [
        ("cifar100", [], ["RECIPE must be a known name", "cifar100_lt"]),
        ("cifar100_lt", ["--epochs", "0"], ["epochs", "at least 1"]),
        ("cifar100_lt", ["--epochs", "1.5"], ["--epochs", "1.5", "whole number"]),
        ("cifar100_lt", ["--model.activaton", "relu"], ["--model.activaton", "--model.activation"]),
        ("cifar100_lt", ["--data.sampler", "fair"], ["data.sampler", "class_balanced"]),
        ("cifar100_lt", ["--loss.name", "LDAM"], ["LDAM", "augment.mixup_alpha"]),
        ("cifar100_lt", ["--start.trainable", "classifier"], ["start.trainable", "start.weights"]),
        ("cifar100_lt", ["--classifier-learning", "cr"], ["'cr'", "crt"]),
        ("cifar100_lt", ["--image-size", "32"], ["--image-size", "--dry-run"]),
        ("digits10_lt", ["--batch-size", "5000"], ["batch_size", "1236"]),
        (
            "digits10_lt",
            ["--data.sampler", "downsampling"],
            ["batch_size must be at most the 50 images of an epoch; given: 128"],
        ),
        ("digits10_lt", ["--start.weights", "nothing.pth"], ["start.weights", "nothing.pth"]),
        ("digits10_lt", ["--loss.name", "CTC"], ["loss.name must be a loss of one-hot targets", "given: 'CTC'"]),
        ("digits10_lt", ["--loss.name", "DropLoss"], ["--loss.options frequency_threshold VALUE"]),
        (
            "inaturalist2018",
            ["--data.path", "/nowhere"],
            ["not in /nowhere", "120 GB", "download_and_prepare", "digits100_lt, which is embedded"],
        ),
        ("folder", [], ["data.path"]),
        ("folder", ["--data.path", "/no/such/folder"], ["/no/such/folder"]),
        ("places_lt", ["--start.weights", "none"], ["start.trainable"]),
        ("imagenet_lt", ["--data.train-list", "list.txt"], ["data.test_list"]),
    ],
)
@pytest.mark.any_backend
def test_what_cannot_be_is_said_before_training(recipe, arguments, parts, capsys, tmp_path):
    assert train(recipe, *arguments, "--output", tmp_path / "run") in (1, 2)
    error = capsys.readouterr().err
    assert error.startswith("keras-apa: ") and "Traceback" not in error
    for part in parts:
        assert part in error
    assert not (tmp_path / "run").exists()


@pytest.mark.any_backend
def test_a_bad_line_of_a_list_is_named_with_its_number(tmp_path, capsys):
    (tmp_path / "train.txt").write_text("a.jpg 0\nb.jpg one\n")
    lists = ["--data.train-list", tmp_path / "train.txt", "--data.test-list", tmp_path / "train.txt"]
    assert train("places_lt", *lists, "--data.path", tmp_path, "--start.weights", "none", "--start.trainable", "all",
                 "--output", tmp_path / "run") in (1, 2)  # fmt: skip
    error = capsys.readouterr().err
    assert "train.txt" in error and "2" in error and "one" in error


@pytest.mark.parametrize(
    ("arguments", "part"),
    [
        (
            ["--model.name", "se_resnet14"],
            "is of another: stage1_block2",
        ),
        (
            ["--start.trainable", "last_stage"],
            "start.trainable must be another than 'last_stage' for a network without four stages",
        ),
    ],
)
def test_a_start_that_does_not_fit_is_said_in_plain_words(run, arguments, part, tmp_path, capsys):
    assert train("digits10_lt_baseline", *SMALL, "--start.weights", run, *arguments, "--output", tmp_path / "run") == 2
    error = capsys.readouterr().err
    assert error.startswith("keras-apa: start.") and part in error and "--debug" not in error


def test_evaluate_and_report_refuse_what_is_no_run(tmp_path, capsys):
    for command in ("evaluate", "report"):
        assert main([command, str(tmp_path), "--backend", CURRENT]) == 2
        assert "RUN must be the folder of a run" in capsys.readouterr().err


def folder_of(path, counts, seed=0):
    rng = np.random.default_rng(seed)
    for name, count in counts.items():
        (path / name).mkdir(parents=True)
        for index in range(count):
            pixels = rng.integers(0, 256, (16, 16, 3), "uint8")
            Image.fromarray(pixels).save(path / name / f"{index}.png")
    return path


@pytest.mark.any_backend
def test_other_images_are_measured_by_the_classes_and_counts_of_the_training(tmp_path, capsys):
    first = folder_of(tmp_path / "first", {"ant": 30, "bee": 12, "cat": 5})
    options = ["--data.image-size", "16", "--model.name", "se_resnet8", "--epochs", "1", "--batch-size", "8"]
    output = tmp_path / "run"
    assert train("folder", "--data.path", first, *options, "--evaluation.prior-correction", "raw",
                 "--output", output) == 0  # fmt: skip
    other = folder_of(tmp_path / "other", {"ant": 10, "bee": 10, "dog": 10})
    evaluate = ["evaluate", str(output), "--backend", CURRENT, "--data.path"]
    capsys.readouterr()
    assert main([*evaluate, str(other)]) == 2
    assert (
        "must be the 3 that the model was trained on, in their order; given: 3. They differ in: cat, dog"
        in capsys.readouterr().err
    )
    assert not (output / "evaluation.json").exists()
    turned = folder_of(tmp_path / "turned", {"ant": 5, "bee": 12, "cat": 30}, seed=1)
    assert main([*evaluate, str(turned)]) == 0
    printed = " ".join(capsys.readouterr().out.split())
    assert "the class counts stay those of the training" in printed and "may have been trained on" in printed
    # The shot groups are the training's, in which ant has more than 20 images.
    accuracies = json.loads((output / "evaluation.json").read_text())["accuracies"]
    assert accuracies["medium"] is not None and accuracies["many"] is None


@pytest.mark.any_backend
def test_a_normalized_classifier_is_not_normalized_again(tmp_path, capsys):
    output = tmp_path / "run"
    arguments = [*SMALL, "--classifier-learning", "tau_normalization", "--output", output]
    assert train("digits10_lt_baseline", *arguments) == 0
    trained = json.loads((output / "digits10_lt_baseline_tau_normalization.json").read_text())["accuracies"]
    assert main(["evaluate", str(output), "--backend", CURRENT]) == 0
    assert json.loads((output / "evaluation.json").read_text())["accuracies"] == trained
    capsys.readouterr()
    assert main(["evaluate", str(output), "--backend", CURRENT, "--evaluation.tau-normalization", "0"]) == 2
    assert "tau_normalization must be 0.5, with which the model was saved" in capsys.readouterr().err


@pytest.mark.any_backend
def test_lists_name_images_that_do_not_decode_before_training(tmp_path, capsys):
    images = folder_of(tmp_path / "images", {"ant": 3, "bee": 3})
    (images / "bee" / "0.png").write_bytes(b"broken")
    lines = "".join(f"{name}/{index}.png {label}\n" for label, name in enumerate(("ant", "bee")) for index in range(3))
    (tmp_path / "list.txt").write_text(lines)
    lists = ["--data.train-list", tmp_path / "list.txt", "--data.test-list", tmp_path / "list.txt"]
    arguments = ["--data.name", "list", *lists, "--data.path", images, "--output", tmp_path / "run"]
    assert train("folder", *arguments, "--batch-size", "2") == 2
    assert "0.png" in capsys.readouterr().err and not (tmp_path / "run").exists()
