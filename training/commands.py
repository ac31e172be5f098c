"""The sub-commands of `keras-apa`: a field is an option, `run` does the work and returns the exit code."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Annotated

import tyro

from training.cli import UsageError, usage


def _whole_number(at_least: int) -> tyro.constructors.PrimitiveConstructorSpec:
    """An integer option whose error says what is allowed instead of what `int` could not do."""

    def parse(words: list[str]) -> int:
        if not (words[0].isdecimal() and int(words[0]) >= at_least):
            raise ValueError(f"{words[0]!r} given; a whole number of at least {at_least} is needed")
        return int(words[0])

    return tyro.constructors.PrimitiveConstructorSpec(
        nargs=1,
        metavar="INT",
        instance_from_str=parse,
        is_instance=lambda value: isinstance(value, int),
        str_from_instance=lambda value: [str(value)],
    )


@dataclasses.dataclass(frozen=True, kw_only=True)
class Demo:
    """Train two networks on embedded long-tailed images and compare them.

    One is the plain network with cross entropy, the other has APA* gates, AGLU and Balanced Softmax.
    Nothing is downloaded. Writes both models, a report with figures, and the numbers.
    """

    model: str = "se_resnet8"
    """A network for small images; keras-apa list models names them."""
    backend: Annotated[str | None, tyro.conf.arg(metavar="NAME", help_behavior_hint="")] = None
    """tensorflow, jax or torch. If not given: KERAS_BACKEND, else the first of these that is installed."""
    data: str = "digits100_lt"
    """digits100_lt (100 classes, some minutes) or digits10_lt (10 classes, seconds)."""
    epochs: Annotated[int, _whole_number(1)] = 10
    """How often the training images are seen."""
    seed: Annotated[int, _whole_number(0)] = 0
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
        _use_backend(self.backend)
        _check_small_network(self.model)
        from training.demo import run_demo

        return run_demo(
            model=self.model,
            data=self.data,
            epochs=self.epochs,
            seed=self.seed,
            output=self.output,
            resume=self.resume,
            overwrite=self.overwrite,
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
    backend: Annotated[str | None, tyro.conf.arg(metavar="NAME", help_behavior_hint="")] = None
    """tensorflow, jax or torch. If not given: KERAS_BACKEND, else the first of these that is installed."""
    image_size: Annotated[tuple[int, int] | None, tyro.conf.arg(metavar="HEIGHT WIDTH", help_behavior_hint="")] = None
    """Size of the images of the Keras model. If not given: that of the data set the network is made for."""
    activation: Annotated[str | None, tyro.conf.arg(metavar="NAME", help_behavior_hint="")] = None
    """An activation without parameters cannot be told from a checkpoint. If not given: relu."""
    gate: Annotated[str | None, tyro.conf.arg(metavar="NAME", help_behavior_hint="")] = None
    """The channel gate, likewise. If not given: sigmoid, or apa where its parameters are there."""
    spatial_gate: Annotated[str | None, tyro.conf.arg(metavar="NAME", help_behavior_hint="")] = None
    """The spatial gate, likewise."""
    overwrite: bool = False
    """Replace OUT if it exists."""
    debug: bool = False
    """Show the traceback of an error."""

    def run(self) -> int:
        _use_backend(self.backend)
        from training.convert import run_convert

        return run_convert(
            self.source,
            self.target,
            image_size=self.image_size,
            activation=self.activation,
            gate=self.gate,
            spatial_gate=self.spatial_gate,
            overwrite=self.overwrite,
        )


@dataclasses.dataclass(frozen=True, kw_only=True)
class Predict:
    """Say what a model sees in image files.

    MODEL is a .keras file, a preset (name or folder) or a SavedModel (NAME or NAME/VERSION). A file that cannot be
    read is named and the rest goes on; the exit code is 1 then.
    """

    model: Annotated[tyro.conf.Positional[str], tyro.conf.arg(metavar="MODEL", help_behavior_hint="")]
    """A .keras file, a preset or a SavedModel."""
    images: Annotated[tyro.conf.Positional[tuple[str, ...]], tyro.conf.arg(metavar="IMAGE...", help_behavior_hint="")]
    """Files, folders (with all images below them) or patterns such as 'photos/*.jpg'."""
    backend: Annotated[str | None, tyro.conf.arg(metavar="NAME", help_behavior_hint="")] = None
    """tensorflow, jax or torch; a SavedModel runs on TensorFlow. If not given: KERAS_BACKEND, else the first that is
    installed."""
    top_k: Annotated[int, _whole_number(1)] = 5
    """How many classes an image gets, the most probable first."""
    json: bool = False
    """Print one JSON document instead of a table."""
    output: Annotated[Path | None, tyro.conf.arg(metavar="FILE", help_behavior_hint="")] = None
    """Write the JSON document to a file, too."""
    batch_size: Annotated[int, _whole_number(1)] = 16
    """How many images are in memory at a time."""
    class_names: Annotated[Path | None, tyro.conf.arg(metavar="FILE", help_behavior_hint="")] = None
    """Names of the classes, one a line, instead of the model's own."""
    image_size: Annotated[tuple[int, int] | None, tyro.conf.arg(metavar="HEIGHT WIDTH", help_behavior_hint="")] = None
    """Pixels to feed, instead of the model's own size."""
    debug: bool = False
    """Show the traceback of an error."""

    def run(self) -> int:
        from training.backend import choose_backend

        with usage():
            choose_backend(self.backend)  # and leave TensorFlow alone: only a SavedModel needs it
        from training.predict import run_predict

        return run_predict(
            self.model,
            self.images,
            top_k=self.top_k,
            as_json=self.json,
            output=self.output,
            batch_size=self.batch_size,
            class_names=self.class_names,
            image_size=self.image_size,
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
    backend: Annotated[str | None, tyro.conf.arg(metavar="NAME", help_behavior_hint="")] = None
    """tensorflow, jax or torch. If not given: KERAS_BACKEND, else the first of these that is installed."""
    format: Annotated[str, tyro.conf.arg(metavar="NAME")] = "tf_saved_model"
    """tf_saved_model, onnx or litert."""
    top_k: Annotated[int, _whole_number(1)] = 5
    """Classes that the signature serve_jpeg of a SavedModel gives."""
    activation: Annotated[str | None, tyro.conf.arg(metavar="NAME", help_behavior_hint="")] = None
    """softmax, sigmoid or gumbel. If not given: what the model ends in, else softmax."""
    quantization: Annotated[str | None, tyro.conf.arg(metavar="NAME", help_behavior_hint="")] = None
    """float16 or int8, for litert. If not given: float32."""
    images: Annotated[tuple[Path, ...], tyro.conf.arg(metavar="PATH...", help_behavior_hint="")] = ()
    """Files or folders of some 100 images that int8 takes its ranges from."""
    class_names: Annotated[Path | None, tyro.conf.arg(metavar="FILE", help_behavior_hint="")] = None
    """A text file with a name a line. If not given: the model's own, else 0, 1, ..."""
    debug: bool = False
    """Show the traceback of an error."""

    def run(self) -> int:
        _use_backend(self.backend)
        from training.export import run_export

        return run_export(
            self.model,
            self.folder,
            format=self.format,
            top_k=self.top_k,
            activation=self.activation,
            quantization=self.quantization,
            images=self.images,
            class_names=self.class_names,
        )


def _use_backend(name: str | None) -> None:
    """Chooses the backend before Keras is imported."""
    from training.backend import choose_backend, leave_accelerators_to

    with usage():
        backend = choose_backend(name)
    leave_accelerators_to(backend)


def _check_small_network(name: str) -> None:
    """The digits are too small for the other networks, whose error would be about an input that nobody gave."""
    from training.checks import nearest
    from zoo.cifar_resnet import CIFAR_RESNETS

    if name not in CIFAR_RESNETS:
        raise UsageError(f"--model is {name!r}; it must be a network for small images, {nearest(name, CIFAR_RESNETS)}")


@dataclasses.dataclass(frozen=True, kw_only=True)
class List:
    """List models, weights, presets, recipes, losses, layers, metrics or backends; everything without a kind."""

    kind: Annotated[tyro.conf.Positional[str | None], tyro.conf.arg(metavar="[KIND]", help_behavior_hint="")] = None
    """models, weights, presets, recipes, losses, layers, metrics or backends."""
    pattern: Annotated[tyro.conf.Positional[str], tyro.conf.arg(metavar="[PATTERN]", help_behavior_hint="")] = "*"
    """Only names that match, such as 'se_*'."""
    debug: bool = False
    """Show the traceback of an error."""

    def run(self) -> int:
        from training.listing import print_list

        print_list(self.kind, self.pattern)
        return 0


COMMANDS = {"demo": Demo, "convert": Convert, "predict": Predict, "export": Export, "list": List}
