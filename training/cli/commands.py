"""The sub-commands of `keras-apa`: a dataclass for each command, and in it a field with its help for each option.

To add an option, change up to three files:

1. here, add a field to the command's class, and hand it on in `run`. (For `keras-apa train`, do so in
   `train_options.py`. For a value of a recipe, add a field in `training/config/` and nothing else.)
2. if it takes a few fixed words, add them to `choices.py` as a `Literal`; if tyro cannot read its words, add a rule to
   `options.py`.
3. in the command's module beside this one, such as `predict.py`, use it: there `run_predict` does the work.

To add a command, write its module, then its class here, and name it in `COMMANDS` at the end. The modules import Keras.
So `run` imports its module only when it is called: `--help` must not wait for Keras.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import tyro

from training.cli.choices import (
    ExportActivation,
    ExportFormat,
    ListKind,
    PreprocessingName,
    Quantization,
    Task,
)
from training.cli.options import BackendOption, sides, use_backend, whole_number
from training.cli.train_options import Train
from training.config.classification import PriorCorrectionVariant
from training.config.detection import Style
from training.errors import OptionError, usage
from training.recipes.demo import DemoData


@dataclasses.dataclass(frozen=True, kw_only=True)
class Demo:
    """Train networks on embedded long-tailed images and compare them.

    classification: compares the plain network with cross entropy to one with APA* gates, AGLU and Balanced Softmax.
    detection: compares softmax cross entropy, GOL and Balanced Sigmoid in a small Mask R-CNN, on scenes of digits.
    Downloads nothing. Writes the models, a report with figures, and the numbers.
    """

    task: Task = "classification"
    """Task that the networks learn."""
    model: str = "se_resnet8"
    """A network for small images; keras-apa list models names them. (classification)"""
    backend: BackendOption = None
    data: DemoData = "digits100_lt"
    """digits100_lt has 100 classes and takes minutes; digits10_lt has 10 and takes seconds. (classification)"""
    epochs: Annotated[int | None, whole_number(1), tyro.conf.arg(help_behavior_hint="")] = None
    """Passes over the training images. If not given: 10, or 8 for detection."""
    seed: Annotated[int, whole_number(0)] = 0
    """Seed of start weights, order, augmentation and dropout. The same seed and backend give the same table."""
    output: Annotated[Path | None, tyro.conf.arg(metavar="DIR", help_behavior_hint="")] = None
    """Folder to write to. If not given: keras-apa-demo in this folder, or keras-apa-demo-2, ... if that is taken."""
    resume: bool = False
    """Resume the run in --output, or in the last keras-apa-demo here. Finished networks are not trained again."""
    overwrite: bool = False
    """Replace the run that is in --output."""
    debug: bool = False
    """Show the traceback of an error."""

    def run(self) -> int:
        """Runs the command and returns its exit code."""
        with usage():
            for option in ("model", "data"):
                if self.task == "detection" and getattr(self, option) != getattr(Demo, option):
                    raise OptionError(
                        f"--{option} must be left out with --task detection, which has one network and data; given: "
                        f"{getattr(self, option)!r}."
                    )
        use_backend(self.backend)
        common: dict[str, Any] = {
            "seed": self.seed,
            "output": self.output,
            "resume": self.resume,
            "overwrite": self.overwrite,
        }
        if self.task == "detection":
            from training.cli.detection_demo import run_detection_demo

            return run_detection_demo(epochs=self.epochs, **common)
        _check_small_network(self.model)
        from training.cli.demo import run_demo

        return run_demo(
            model=self.model,
            data=self.data,
            epochs=10 if self.epochs is None else self.epochs,
            **common,
        )


@dataclasses.dataclass(frozen=True, kw_only=True)
class Convert:
    """Turn a PyTorch checkpoint (.pth, .pt, .safetensors) into a Keras model (.keras), or back.

    Infers the network from the tensors of the checkpoint. The endings of IN and OUT decide the direction.
    """

    source: Annotated[tyro.conf.Positional[Path], tyro.conf.arg(metavar="IN")]
    """The file to read."""
    target: Annotated[tyro.conf.Positional[Path], tyro.conf.arg(metavar="OUT")]
    """The file to write."""
    backend: BackendOption = None
    image_size: Annotated[tuple[int, int] | None, sides(), tyro.conf.arg(help_behavior_hint="")] = None
    """Image size of the Keras model in pixels. If not given: the size of the data set that the network is made for."""
    activation: Annotated[str | None, tyro.conf.arg(metavar="NAME", help_behavior_hint="")] = None
    """Activation. A checkpoint shows only one with parameters, such as AGLU. If not given and not shown: relu."""
    gate: Annotated[str | None, tyro.conf.arg(metavar="NAME", help_behavior_hint="")] = None
    """Channel gate. If not given: apa if the checkpoint has its parameters, else sigmoid."""
    spatial_gate: Annotated[str | None, tyro.conf.arg(metavar="NAME", help_behavior_hint="")] = None
    """Spatial gate. If not given: as for the channel gate."""
    preprocessing: Annotated[PreprocessingName | None, tyro.conf.arg(help_behavior_hint="")] = None
    """Mean and deviation for normalizing images. If not given: the usual ones of the network."""
    overwrite: bool = False
    """Replace OUT if it exists."""
    debug: bool = False
    """Show the traceback of an error."""

    def run(self) -> int:
        """Runs the command and returns its exit code."""
        use_backend(self.backend)
        from training.cli.convert import run_convert

        return run_convert(
            self.source,
            self.target,
            image_size=self.image_size,
            activation=self.activation,
            gate=self.gate,
            spatial_gate=self.spatial_gate,
            preprocessing=self.preprocessing,
            overwrite=self.overwrite,
        )


@dataclasses.dataclass(frozen=True, kw_only=True)
class Predict:
    """Predict the classes of image files with a classifier, or the objects in them with a detector.

    MODEL is a .keras file, a preset (name or folder) or a SavedModel of a classifier (NAME or NAME/VERSION). If a
    file cannot be read, the command names it and goes on with the others. The exit code is 1 then.
    """

    model: Annotated[tyro.conf.Positional[str], tyro.conf.arg(metavar="MODEL", help_behavior_hint="")]
    """A .keras file, a preset or a SavedModel, which runs on TensorFlow."""
    images: Annotated[tyro.conf.Positional[tuple[str, ...]], tyro.conf.arg(metavar="IMAGE...", help_behavior_hint="")]
    """Files, folders (with all images below them) or patterns such as 'photos/*.jpg'."""
    backend: BackendOption = None
    top_k: Annotated[int, whole_number(1)] = 5
    """Classes to list for each image, the most probable first. (classifier)"""
    json: bool = False
    """Print one JSON document instead of a table."""
    output: Annotated[Path | None, tyro.conf.arg(metavar="FILE", help_behavior_hint="")] = None
    """File to which the JSON document is written, too."""
    batch_size: Annotated[int, whole_number(1)] = 16
    """Images in memory at a time. (classifier; a detector takes one image at a time)"""
    class_names: Annotated[Path | None, tyro.conf.arg(metavar="FILE", help_behavior_hint="")] = None
    """Text file with the names of the classes, one a line. If not given: the model's own."""
    image_size: Annotated[tuple[int, int] | None, sides(), tyro.conf.arg(help_behavior_hint="")] = None
    """Image size in pixels; for a detector, bounds of the shorter and the longer side. If not given: the model's."""
    min_score: Annotated[float | None, tyro.conf.arg(metavar="NUMBER", help_behavior_hint="")] = None
    """Score above which an object is listed, whatever the threshold of the model. If not given: 0.5. (detector)"""
    pictures: Annotated[Path | None, tyro.conf.arg(metavar="FOLDER", help_behavior_hint="")] = None
    """New folder for copies of the images with boxes and masks drawn. (detector)"""
    debug: bool = False
    """Show the traceback of an error."""

    def run(self) -> int:
        """Runs the command and returns its exit code."""
        from training.runtime.backend import choose_backend

        with usage():
            choose_backend(self.backend)  # and leave TensorFlow alone: only a SavedModel needs it
        from training.cli.predict import run_predict

        return run_predict(
            self.model,
            self.images,
            top_k=self.top_k,
            as_json=self.json,
            output=self.output,
            batch_size=self.batch_size,
            class_names=self.class_names,
            image_size=self.image_size,
            min_score=self.min_score,
            pictures=self.pictures,
        )


@dataclasses.dataclass(frozen=True, kw_only=True)
class Export:
    """Write a model for TensorFlow Serving, ONNX Runtime or LiteRT, with its preprocessing inside.

    Writes the next free version in FOLDER, or the version that FOLDER ends in, and prints its path.
    """

    model: Annotated[tyro.conf.Positional[str], tyro.conf.arg(metavar="MODEL")]
    """A .keras file or a preset."""
    folder: Annotated[tyro.conf.Positional[Path], tyro.conf.arg(metavar="FOLDER")]
    """NAME or NAME/VERSION, such as models/birds or models/birds/3."""
    backend: BackendOption = None
    format: ExportFormat = "tf_saved_model"
    """Format to write, for TensorFlow Serving, ONNX Runtime or LiteRT."""
    top_k: Annotated[int, whole_number(1)] = 5
    """Classes that the signature serve_jpeg of a SavedModel returns for an image."""
    activation: Annotated[ExportActivation | None, tyro.conf.arg(help_behavior_hint="")] = None
    """Function that turns logits into probabilities. If not given: the one at the end of the model, else softmax."""
    quantization: Annotated[Quantization | None, tyro.conf.arg(help_behavior_hint="")] = None
    """Smaller number format (litert). If not given: float32."""
    images: Annotated[tuple[Path, ...], tyro.conf.arg(metavar="PATH...", help_behavior_hint="")] = ()
    """Some 100 images, as files or folders, from which int8 takes its ranges."""
    class_names: Annotated[Path | None, tyro.conf.arg(metavar="FILE", help_behavior_hint="")] = None
    """Text file with the names of the classes, one a line. If not given: the model's own, else 0, 1, ..."""
    image_size: Annotated[tuple[int, int] | None, sides(), tyro.conf.arg(help_behavior_hint="")] = None
    """Input size in pixels, padding included. If not given: a square that fits every image. (detector)"""
    debug: bool = False
    """Show the traceback of an error."""

    def run(self) -> int:
        """Runs the command and returns its exit code."""
        use_backend(self.backend)
        from training.cli.export import run_export

        return run_export(
            self.model,
            self.folder,
            format=self.format,
            top_k=self.top_k,
            activation=self.activation,
            quantization=self.quantization,
            images=self.images,
            class_names=self.class_names,
            image_size=self.image_size,
        )


def _check_small_network(name: str) -> None:
    """The digits are too small for other networks, whose own error would name an input that the user never gave."""
    from training.checks import check_name
    from zoo.cifar_resnet import CIFAR_RESNETS

    check_name("--model", name, CIFAR_RESNETS, "a network for small images")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Evaluate:
    """Measure the model of a run again, if you like with another prior correction, other rules or other images."""

    run_folder: Annotated[tyro.conf.Positional[Path], tyro.conf.arg(metavar="RUN")]
    """The folder that keras-apa train wrote."""
    backend: BackendOption = None
    prior_correction: Annotated[
        PriorCorrectionVariant | None, tyro.conf.arg(name="evaluation.prior-correction", help_behavior_hint="")
    ] = None
    """Prior correction of the logits; raw is PC-softmax. If not given: the recipe's. (classification)"""
    tau: Annotated[float | None, tyro.conf.arg(name="evaluation.tau", metavar="NUMBER", help_behavior_hint="")] = None
    """Factor of the prior correction. If not given: the recipe's. (classification)"""
    tau_normalization: Annotated[
        float | None, tyro.conf.arg(name="evaluation.tau-normalization", metavar="NUMBER", help_behavior_hint="")
    ] = None
    """tau in w / |w|^tau for the weights w of the classifier; 0: no change. If not given: the recipe's."""
    path: Annotated[str | None, tyro.conf.arg(name="data.path", metavar="DIR", help_behavior_hint="")] = None
    """Folder of the images now. If not given: the recipe's. (classification)"""
    style: Annotated[Style | None, tyro.conf.arg(name="evaluation.style", help_behavior_hint="")] = None
    """Rules for measuring detections. If not given: the recipe's. (detection)"""
    images: Annotated[str | None, tyro.conf.arg(name="data.images", metavar="DIR", help_behavior_hint="")] = None
    """Folder of the images now. If not given: the recipe's. (detection)"""
    test: Annotated[str | None, tyro.conf.arg(name="data.test", metavar="FILE", help_behavior_hint="")] = None
    """JSON file of other test images, with the categories of the training. If not given: the recipe's. (detection)"""
    test_images: Annotated[str | None, tyro.conf.arg(name="data.test-images", metavar="DIR", help_behavior_hint="")] = (
        None
    )
    """Folder of the test images. If not given: the recipe's. (detection)"""
    debug: bool = False
    """Show the traceback of an error."""

    def run(self) -> int:
        """Runs the command and returns its exit code."""
        use_backend(self.backend)
        from training.cli.evaluate import run_evaluate

        def given(*names: str) -> dict[str, Any]:
            return {name: getattr(self, name) for name in names if getattr(self, name) is not None}

        changes = given("prior_correction", "tau", "tau_normalization", "style")
        return run_evaluate(self.run_folder, changes, given("path", "images", "test", "test_images"))


@dataclasses.dataclass(frozen=True, kw_only=True)
class Report:
    """Write the report of a run folder again, with table, figures and history, from its saved numbers.

    You can do so while the run is in use: a training or demo does not read the report.
    """

    run_folder: Annotated[tyro.conf.Positional[Path], tyro.conf.arg(metavar="RUN")]
    """The folder that keras-apa train or keras-apa demo wrote."""
    backend: BackendOption = None
    debug: bool = False
    """Show the traceback of an error."""

    def run(self) -> int:
        """Runs the command and returns its exit code."""
        use_backend(self.backend)
        from training.cli.report import run_report

        return run_report(self.run_folder)


@dataclasses.dataclass(frozen=True, kw_only=True)
class List:
    """List models, weights, presets, recipes, losses, layers, metrics or backends. Without KIND, list everything."""

    kind: Annotated[tyro.conf.Positional[ListKind | None], tyro.conf.arg(metavar="[KIND]", help_behavior_hint="")] = (
        None
    )
    """Kind to list: models, weights, presets, recipes, losses, layers, metrics or backends. If not given: all."""
    pattern: Annotated[tyro.conf.Positional[str], tyro.conf.arg(metavar="[PATTERN]", help_behavior_hint="")] = "*"
    """List only names that match this pattern, such as 'se_*'."""
    debug: bool = False
    """Show the traceback of an error."""

    def run(self) -> int:
        """Runs the command and returns its exit code."""
        from training.cli.listing import print_list

        print_list(self.kind, self.pattern)
        return 0


COMMANDS: dict[str, Callable[..., Any]] = {
    "demo": Demo,
    "train": Train,
    "evaluate": Evaluate,
    "report": Report,
    "convert": Convert,
    "predict": Predict,
    "export": Export,
    "list": List,
}
