"""`keras-apa train RECIPE --dry-run` with a detector: two steps are run on its own data."""

from __future__ import annotations

import numpy as np
from rich.console import Console

from training.checks import check_batch_size
from training.config.detection import DetectionRecipe
from training.data.decoding import naming_unreadable
from training.data.detection.pipeline import detection_steps_per_epoch, detection_training_dataset
from training.detection.describe import describe_detection_data
from training.detection.train import check_detection, compiled_detector, load_source_of
from training.engine.fit import try_steps
from training.errors import usage
from training.runtime.console import TextConsole, text_console
from training.runtime.output import escaped_output

STEPS, BATCH_SIZE = 2, 2


@escaped_output()
def run_detection_dry(
    recipe: DetectionRecipe, *, image_size: int = 0, console: Console | TextConsole | None = None
) -> int:
    """Runs two steps of a recipe on its own data; says what a real run would be.

    Args:
        recipe: What to try.
        image_size: Side of the images in pixels, instead of the recipe's.
    """
    console = text_console(console)
    with usage():
        if image_size:
            shorter = min(recipe.data.shorter_side, image_size)
            recipe = recipe.replace(data={"image_size": (image_size, image_size), "shorter_side": shorter})
        check_detection(recipe)
        source = load_source_of(recipe)
        check_batch_size(recipe.batch_size, len(source.train))
    describe_detection_data(source, recipe, console)
    steps = detection_steps_per_epoch(recipe, source)
    small = recipe.replace(batch_size=min(BATCH_SIZE, recipe.batch_size))
    model = compiled_detector(small, source, steps=detection_steps_per_epoch(small, source))
    arrays = (
        [{name: value.numpy() for name, value in part.items()} for part in batch]
        for batch in detection_training_dataset(small, source).take(STEPS)
    )
    with naming_unreadable():
        tried = try_steps(model, arrays, recipe.name)
    total = sum(int(np.prod(variable.shape)) for variable in model.weights)
    trained = sum(int(np.prod(variable.shape)) for variable in model.trainable_variables)
    height, width = recipe.data.image_size
    for line in (
        f"{recipe.model.name} on {recipe.model.backbone}: {total:,} parameters, {total - trained:,} of them not "
        "trained (or batch statistics)",
        f"{steps:,} steps an epoch of {recipe.batch_size} images of {height}x{width}, {recipe.epochs} epochs, "
        f"{steps * recipe.epochs:,} steps",
        f"{STEPS} steps with a batch of {small.batch_size}: {tried}",
    ):
        console.print(line, highlight=False)
    return 0
