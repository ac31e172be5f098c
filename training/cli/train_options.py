"""The options of `keras-apa train RECIPE`: every value of the recipe, and the options of the run."""

from __future__ import annotations

import dataclasses
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Annotated, Any

import tyro

from training.cli.options import BackendOption, use_backend, whole_number
from training.config.classification import Recipe
from training.config.classifier_learning import Method, learn_classifier
from training.config.detection import DetectionRecipe
from training.errors import OptionError, usage
from training.recipes import get_recipe
from training.runs.published import titled


@dataclasses.dataclass(frozen=True, kw_only=True)
class Train:
    """Train a recipe: keras-apa train RECIPE. For its options: keras-apa train RECIPE --help.

    Writes to runs/RECIPE. If that is in use or holds another run, it writes to runs/RECIPE-2 and so on. Run the same
    command again to resume from the last checkpoint. At the end, the test images are evaluated. Every value of the
    recipe is an option, such as --optimizer.learning-rate 0.1.
    """

    recipe: Annotated[tyro.conf.Positional[str], tyro.conf.arg(metavar="RECIPE")]
    """keras-apa list recipes names them. For a folder of class folders, use folder --data.path DIR. For images with
    annotations in COCO's or LVIS's JSON, use detection --data.train FILE --data.images DIR."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class _TrainOptions:
    """Options of the run, for every task."""

    backend: BackendOption = None
    output: Annotated[Path | None, tyro.conf.arg(metavar="DIR", help_behavior_hint="")] = None
    """Run folder. If not given: runs/RECIPE, or runs/RECIPE-2, ... if that is in use or holds another run."""
    overwrite: bool = False
    """Replace the run in --output instead of resuming it. If --output is not given: the run of this command."""
    checkpoint_steps: Annotated[int, whole_number(0)] = 0
    """Save a checkpoint every so many steps, and at the end of every epoch; 0: only at the end of every epoch."""
    jit_compile: bool = False
    """Compile the step with XLA or torch.compile even if Keras would not (JAX always does)."""
    dry_run: bool = False
    """Check the recipe and stop: build everything, run two steps with a small batch, and say what a real run needs."""
    image_size: Annotated[int, whole_number(0)] = 0
    """Side of the images in pixels for --dry-run; 0: the recipe's."""
    debug: bool = False
    """Show the traceback of an error."""
    given: tyro.conf.Suppress[tuple[str, ...]] = ()
    """Names of the options of the recipe that the command line has."""

    def run(self) -> int:
        with usage():
            recipe = self.changed_recipe()
            if self.image_size and not self.dry_run:
                raise OptionError(
                    f"--image-size must be left out without --dry-run; given: {self.image_size}. A training takes "
                    "--data.image-size."
                )
        use_backend(self.backend)
        if self.dry_run:
            from training.cli.tasks import task_of

            return task_of(recipe).dry_run(recipe, image_size=self.image_size, given=self.given)
        from training.cli.train import run_train

        return run_train(
            recipe,
            output=self.output,
            overwrite=self.overwrite,
            checkpoint_steps=self.checkpoint_steps,
            jit_compile=self.jit_compile or "auto",
            command=["keras-apa", *(word for word in sys.argv[1:] if word != "--overwrite")],
            given=self.given,
        )

    def changed_recipe(self) -> Any:
        """The recipe as the other options change it."""
        return titled(self.recipe)  # type: ignore[attr-defined]  # a field of each subclass


@dataclasses.dataclass(frozen=True, kw_only=True)
class TrainRecipe(_TrainOptions):
    """One recipe of classification with its values, and the options of the run."""

    recipe: Annotated[Recipe, tyro.conf.arg(name="")]
    classifier_learning: Annotated[Method | None, tyro.conf.arg(help_behavior_hint="")] = None
    """How to learn the classifier (APA Table 4c). If not given: as the recipe says."""

    def changed_recipe(self) -> Recipe:
        """The recipe with another way to learn the classifier."""
        recipe = titled(self.recipe.with_used_lambda_gradient("model.lambda_gradient" in self.given))
        return recipe if self.classifier_learning is None else learn_classifier(recipe, self.classifier_learning)


@dataclasses.dataclass(frozen=True, kw_only=True)
class TrainDetection(_TrainOptions):
    """One recipe of detection with its values, and the options of the run."""

    recipe: Annotated[DetectionRecipe, tyro.conf.arg(name="")]


def train_options(arguments: Sequence[str], parse: Callable[..., Any]) -> _TrainOptions:
    """`RECIPE --options`: the options are the values of that recipe."""
    with usage():
        recipe = get_recipe(arguments[0])
        command = TrainDetection if isinstance(recipe, DetectionRecipe) else TrainRecipe
        options = [word for word in arguments[1:] if word.startswith("--")]
        given = tuple(option.partition("=")[0].removeprefix("--").replace("-", "_") for option in options)
        return parse(
            command,
            args=list(arguments[1:]),
            prog=f"keras-apa train {recipe.name}",
            default=command(recipe=recipe, given=given),
            description=f"Train {recipe.name}: {recipe.title}. {recipe.published}",
            config=(tyro.conf.FlagCreatePairsOff,),
        )
