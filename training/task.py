"""What the commands have to know of each kind of experiment: one `Task` a kind."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

from training.config.experiment import Experiment


@dataclasses.dataclass(frozen=True, kw_only=True)
class Task:
    """The functions that stand for a kind of experiment, and the classes of its recipes and outcomes."""

    recipe: type[Experiment]
    outcome: type
    check: Callable
    """`(recipe)`: raises the error of a wrong name or option."""
    resumed: Callable
    """`(recipe) -> recipe` without what a training needs only where it does not go on from a checkpoint of its own."""
    load: Callable
    """`(recipe) -> source`."""
    steps_per_epoch: Callable
    """`(recipe, source)`."""
    images_per_epoch: Callable
    """`(recipe, source)`: the largest batch."""
    suitable: Callable
    """`(recipe, source)`: settings that are chosen for these images, by option; the others are the recipe's."""
    fingerprint: Callable
    """`(recipe, source)`: what tells whether images of one's own have changed; empty for others."""
    train: Callable
    """`(recipe, source, callbacks=, jit_compile=, checkpoints=, checkpoint_steps=) -> (model, outcome)`."""
    save: Callable
    """`(folder, model, outcome)`."""
    evaluate: Callable
    """`(folder, path of the model, recipe, source, console)`: measures a saved model again; returns what it wrote."""
    describe_data: Callable
    """`(source, recipe, console)`."""
    dry_run: Callable
    """`(recipe, image_size=, given=, console=)`, `given` as `own_images.with_suitable` takes it."""
    table: Callable
    """`(outcomes)`: a table for the terminal."""
    write_report: Callable
    """`(folder, outcomes, title=, settings=) -> path`."""
    data_settings: Callable
    """`(recipe)`: lines of the report about data and network."""
