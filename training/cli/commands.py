"""The sub-commands of `keras-apa` and their options: a dataclass a command, a field an option with its help below it.

To add an option, go through three files:

1. here, a field of the command's class; `run` hands it on. (`keras-apa train`: `train_options.py`; a value of a recipe
   is a field in `training/config/` and nothing else.)
2. `choices.py`, its words as a `Literal`, if it has a few, or `options.py`, how its words are read, if tyro cannot.
3. the command's module beside this one, such as `predict.py`: `run_predict` takes it and does the work.

To add a command, write its module, then its class here, and name it in `COMMANDS` at the end. The modules import Keras,
so `run` imports its own when it is called: `--help` must not wait for that.
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

    classification: the plain network with cross entropy, and the one with APA* gates, AGLU and Balanced Softmax.
    detection: a small Mask R-CNN with softmax cross entropy, GOL and Balanced Sigmoid, on scenes of digits.
    Nothing is downloaded. Writes the models, a report with figures, and the numbers.
    """

    task: Task = "classification"
    """What the networks learn."""
    model: str = "se_resnet8"
    """A network for small images; keras-apa list models names them. (classification)"""
    backend: BackendOption = None
    data: DemoData = "digits100_lt"
    """digits100_lt has 100 classes and takes some minutes, digits10_lt 10 classes and seconds. (classification)"""
    epochs: Annotated[int | None, whole_number(1), tyro.conf.arg(help_behavior_hint="")] = None
    """How often the training images are seen. If not given: 10, or 8 for detection."""
    seed: Annotated[int, whole_number(0)] = 0
    """Start weights, order, augmentation and dropout. The same seed and backend give the same table."""
    output: Annotated[Path | None, tyro.conf.arg(metavar="DIR", help_behavior_hint="")] = None
    """Folder to write to. If not given: keras-apa-demo here, or keras-apa-demo-2 if that is taken."""
    resume: bool = False
    """Go on with the run in --output (or in the last keras-apa-demo here), without what is finished."""
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

    The network is told from the checkpoint's tensors. The endings say which way it goes.
    """

    source: Annotated[tyro.conf.Positional[Path], tyro.conf.arg(metavar="IN")]
    """The file to read."""
    target: Annotated[tyro.conf.Positional[Path], tyro.conf.arg(metavar="OUT")]
    """The file to write."""
    backend: BackendOption = None
    image_size: Annotated[tuple[int, int] | None, sides(), tyro.conf.arg(help_behavior_hint="")] = None
    """Size of the images of the Keras model. If not given: that of the data set the network is made for."""
    activation: Annotated[str | None, tyro.conf.arg(metavar="NAME", help_behavior_hint="")] = None
    """An activation without parameters cannot be told from a checkpoint. If not given: relu."""
    gate: Annotated[str | None, tyro.conf.arg(metavar="NAME", help_behavior_hint="")] = None
    """The channel gate, likewise. If not given: sigmoid, or apa where its parameters are there."""
    spatial_gate: Annotated[str | None, tyro.conf.arg(metavar="NAME", help_behavior_hint="")] = None
    """The spatial gate, likewise."""
    preprocessing: Annotated[PreprocessingName | None, tyro.conf.arg(help_behavior_hint="")] = None
    """Mean and deviation of the images. If not given: what is usual for the network."""
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
    """Say what a model sees in image files: a classifier their classes, a detector the objects in them.

    MODEL is a .keras file, a preset (name or folder) or a SavedModel of a classifier (NAME or NAME/VERSION). A file
    that cannot be read is named and the rest goes on; the exit code is 1 then.
    """

    model: Annotated[tyro.conf.Positional[str], tyro.conf.arg(metavar="MODEL", help_behavior_hint="")]
    """A .keras file, a preset or a SavedModel, which runs on TensorFlow."""
    images: Annotated[tyro.conf.Positional[tuple[str, ...]], tyro.conf.arg(metavar="IMAGE...", help_behavior_hint="")]
    """Files, folders (with all images below them) or patterns such as 'photos/*.jpg'."""
    backend: BackendOption = None
    top_k: Annotated[int, whole_number(1)] = 5
    """Of a classifier: how many classes an image gets, the most probable first."""
    json: bool = False
    """Print one JSON document instead of a table."""
    output: Annotated[Path | None, tyro.conf.arg(metavar="FILE", help_behavior_hint="")] = None
    """Write the JSON document to a file, too."""
    batch_size: Annotated[int, whole_number(1)] = 16
    """Of a classifier: how many images are in memory at a time. A detector takes one after the other."""
    class_names: Annotated[Path | None, tyro.conf.arg(metavar="FILE", help_behavior_hint="")] = None
    """Names of the classes, one a line, instead of the model's own."""
    image_size: Annotated[tuple[int, int] | None, sides(), tyro.conf.arg(help_behavior_hint="")] = None
    """Pixels to feed, instead of the model's own size. Of a detector: the bounds of the shorter and the longer side."""
    min_score: Annotated[float | None, tyro.conf.arg(metavar="NUMBER", help_behavior_hint="")] = None
    """Of a detector: what scores higher is detected, instead of its own threshold. If not given: 0.5."""
    pictures: Annotated[Path | None, tyro.conf.arg(metavar="FOLDER", help_behavior_hint="")] = None
    """Of a detector: a new folder for the images with boxes and masks drawn."""
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

    Makes the next free version in FOLDER, or the one that FOLDER ends in, and prints its path.
    """

    model: Annotated[tyro.conf.Positional[str], tyro.conf.arg(metavar="MODEL")]
    """A .keras file or a preset."""
    folder: Annotated[tyro.conf.Positional[Path], tyro.conf.arg(metavar="FOLDER")]
    """NAME or NAME/VERSION, such as models/birds or models/birds/3."""
    backend: BackendOption = None
    format: ExportFormat = "tf_saved_model"
    """What is written: for TensorFlow Serving, ONNX Runtime or LiteRT."""
    top_k: Annotated[int, whole_number(1)] = 5
    """Classes that the signature serve_jpeg of a SavedModel gives."""
    activation: Annotated[ExportActivation | None, tyro.conf.arg(help_behavior_hint="")] = None
    """From logits to probabilities. If not given: what the model ends in, else softmax."""
    quantization: Annotated[Quantization | None, tyro.conf.arg(help_behavior_hint="")] = None
    """For litert. If not given: float32."""
    images: Annotated[tuple[Path, ...], tyro.conf.arg(metavar="PATH...", help_behavior_hint="")] = ()
    """Files or folders of some 100 images that int8 takes its ranges from."""
    class_names: Annotated[Path | None, tyro.conf.arg(metavar="FILE", help_behavior_hint="")] = None
    """A text file with a name a line. If not given: the model's own, else 0, 1, ..."""
    image_size: Annotated[tuple[int, int] | None, sides(), tyro.conf.arg(help_behavior_hint="")] = None
    """Of a detector: pixels that it is fed, padding included. If not given: a square that takes every image."""
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
    """The digits are too small for the other networks, whose error would be about an input that nobody gave."""
    from training.checks import check_name
    from zoo.cifar_resnet import CIFAR_RESNETS

    check_name("--model", name, CIFAR_RESNETS, "a network for small images")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Evaluate:
    """Measure the model of a run again, also with another prior correction, in another style or on other images."""

    run_folder: Annotated[tyro.conf.Positional[Path], tyro.conf.arg(metavar="RUN")]
    """The folder that keras-apa train wrote."""
    backend: BackendOption = None
    prior_correction: Annotated[
        PriorCorrectionVariant | None, tyro.conf.arg(name="evaluation.prior-correction", help_behavior_hint="")
    ] = None
    """What is added to the logits; raw is PC-softmax. If not given: the recipe's."""
    tau: Annotated[float | None, tyro.conf.arg(name="evaluation.tau", metavar="NUMBER", help_behavior_hint="")] = None
    """Factor of the correction."""
    tau_normalization: Annotated[
        float | None, tyro.conf.arg(name="evaluation.tau-normalization", metavar="NUMBER", help_behavior_hint="")
    ] = None
    """tau in w / |w|^tau for the weights of the classifier; 0: none."""
    path: Annotated[str | None, tyro.conf.arg(name="data.path", metavar="DIR", help_behavior_hint="")] = None
    """Where the images are now (classification)."""
    style: Annotated[Style | None, tyro.conf.arg(name="evaluation.style", help_behavior_hint="")] = None
    """How detections are measured. If not given: the recipe's."""
    images: Annotated[str | None, tyro.conf.arg(name="data.images", metavar="DIR", help_behavior_hint="")] = None
    """Where the images are now (detection)."""
    test: Annotated[str | None, tyro.conf.arg(name="data.test", metavar="FILE", help_behavior_hint="")] = None
    """JSON file of other test images, with the categories of the training (detection)."""
    test_images: Annotated[str | None, tyro.conf.arg(name="data.test-images", metavar="DIR", help_behavior_hint="")] = (
        None
    )
    """Folder of the test images (detection)."""
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
    """Write the report of a run folder again: table, figures and history, from its saved numbers.

    Also while the run is in use: a training or demo does not read what is written here.
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
    """List models, weights, presets, recipes, losses, layers, metrics or backends; everything without a kind."""

    kind: Annotated[tyro.conf.Positional[ListKind | None], tyro.conf.arg(metavar="[KIND]", help_behavior_hint="")] = (
        None
    )
    """models, weights, presets, recipes, losses, layers, metrics or backends."""
    pattern: Annotated[tyro.conf.Positional[str], tyro.conf.arg(metavar="[PATTERN]", help_behavior_hint="")] = "*"
    """Only names that match, such as 'se_*'."""
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
