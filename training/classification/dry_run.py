"""`keras-apa train RECIPE --dry-run`: everything a training needs is made, and two steps are run."""

from __future__ import annotations

import math
from collections.abc import Collection

import keras
import numpy as np
from rich.console import Console

from keras_apa._keras_internals import is_decayed
from training.checks import check_batch_size
from training.classification.describe import describe_data
from training.classification.losses import sample_weights
from training.classification.meta_sampler import without_sampler
from training.classification.own_images import suitable
from training.classification.start import prepared_as_started
from training.classification.train import check, compiled_model, with_targets
from training.config.classification import Recipe
from training.data.classification.batches import training_batches
from training.data.classification.naming import naming_unreadable
from training.data.classification.pipeline import images_per_epoch, steps_per_epoch
from training.data.classification.registry import DATA_SETS, find_source
from training.engine.fit import try_steps
from training.errors import usage
from training.runs.choices import with_suitable
from training.runs.describe import describe_recipe
from training.runtime.console import TextConsole, text_console
from training.runtime.output import escaped_output

STEPS = 2
# So few images that the widest network fits; the batch norms of small images want more.
BATCH_SIZE, SMALL_BATCH_SIZE, SMALL = 2, 16, 64
GIGABYTE = 1e9


@escaped_output()
def run_dry(
    recipe: Recipe, *, image_size: int = 0, given: Collection[str] = (), console: Console | TextConsole | None = None
) -> int:
    """Runs two steps of a recipe, on its own data if it is there; says what a real run would need.

    Args:
        recipe: What to try.
        image_size: Side of the images in pixels, instead of the recipe's.
        given: Names of the options that the command line names, which no choice by the images changes.
    """
    console = text_console(console)
    with usage():
        if image_size:
            recipe = recipe.replace(data={"image_size": image_size, "test_image_size": image_size, "resize_size": 0})
        check(recipe)
        source, real = find_source(recipe)
        source = prepared_as_started(recipe, source)
        asked, recipe = recipe, with_suitable(recipe, suitable(recipe, source) if real else {}, given)
        if real:
            check_batch_size(recipe.batch_size, images_per_epoch(recipe, source))
    if real:
        describe_data(source, recipe, console)
        steps = steps_per_epoch(recipe, source)
    else:
        images = source.class_counts.total
        steps = math.ceil(images * recipe.data.repeats / recipe.batch_size)
        console.print(
            f"{recipe.data.name} ({images:,} training images, {source.num_classes} classes) is not here: "
            f"{STEPS} steps on random pixels of its shape, with {DATA_SETS[recipe.data.name].counts_are}.",
            highlight=False,
        )
    describe_recipe(asked, recipe, console)
    side = recipe.data.image_size or source.image_shape[0]
    few = SMALL_BATCH_SIZE if side < SMALL else BATCH_SIZE
    few = min(few, images_per_epoch(recipe, source), len(source.train))
    small = recipe.replace(batch_size=few, meta_sampler={"batch_size": few})
    model = compiled_model(small, source, steps=steps_per_epoch(small, source))
    weights = sample_weights(recipe.loss, source.class_counts)
    batches = with_targets(small, source, training_batches(small, source, class_weights=weights))
    arrays = ([part.numpy() for part in batch] for batch in batches.take(STEPS))
    with naming_unreadable(source):
        tried = try_steps(model, arrays, recipe.name)
    for line in summary(recipe, model, steps, side):
        console.print(line, highlight=False)
    console.print(f"{STEPS} steps with a batch of {small.batch_size}: {tried}", highlight=False)
    return 0


def summary(recipe: Recipe, model: keras.Model, steps: int, side: int) -> list[str]:
    """Parameters, memory, steps, what is frozen and what has no weight decay."""
    trained = model.trainable_variables
    optimizer = getattr(model.optimizer, "inner_optimizer", model.optimizer)
    exempt = [variable for variable in trained if not is_decayed(optimizer, variable)]
    names = sorted({variable.name for variable in exempt})
    frozen = sum(int(np.prod(v.shape)) for v in model.weights) - sum(int(np.prod(v.shape)) for v in trained)
    images, needed = images_of_a_step(recipe), memory(without_sampler(model), recipe, side)
    lines = [
        f"{model.name}: {model.count_params():,} parameters, {frozen:,} of them not trained (or batch statistics)",
        f"about {needed / GIGABYTE:.1f} GB for a batch of {images} at {side}x{side} "
        "(weights, gradients, momentum, and each layer's output once; kernels may need more)",
        f"{steps:,} steps an epoch, {recipe.epochs} epochs, {steps * recipe.epochs:,} steps",
    ]
    if recipe.start.trainable != "all":
        lines.append(f"trained is the {recipe.start.trainable.replace('_', ' ')} only: {len(trained)} tensors")
    decayed = "nothing is decayed" if not recipe.optimizer.weight_decay else (
        f"weight decay {recipe.optimizer.weight_decay:g} on all trained tensors but {len(exempt)}"
        + (f" ({', '.join(names)})" if names else "")
    )  # fmt: skip
    return [*lines, decayed]


def memory(model: keras.Model, recipe: Recipe, side: int) -> float:
    """Bytes of a training step: an estimate from the shapes of the network.

    Three copies of the trained weights (gradient, momentum), one of the others, and the output of each layer for the
    whole batch, in the compute precision.
    """
    trained = sum(int(np.prod(v.shape)) for v in model.trainable_variables)
    others = model.count_params() - trained
    width = 4 if recipe.precision == "float32" else 2
    shape = model.input_shape[1:3]
    if None in shape:
        model = model.__class__.from_config(_at_size(model.get_config(), side))
    values = 0
    for operation in model.operations:
        outputs = operation.output if isinstance(operation.output, list) else [operation.output]
        values += sum(int(np.prod([size for size in tensor.shape if size is not None])) for tensor in outputs)
    return 4 * (3 * trained + others) + width * values * images_of_a_step(recipe)


def _at_size(config, side):
    for layer in config["layers"]:
        if layer["class_name"] == "InputLayer":
            shape = layer["config"]["batch_shape"]
            layer["config"]["batch_shape"] = [shape[0], side, side, shape[3]]
    return config


def images_of_a_step(recipe: Recipe) -> int:
    """The batch, and the one that judges the rates where they are learned."""
    return recipe.batch_size + (recipe.meta_sampler.batch_size if recipe.meta_sampler.learned else 0)
