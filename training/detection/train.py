"""Detection: compile, fit and measure what a recipe describes."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Sequence
from typing import Any

import keras

import keras_apa
import keras_apa.losses
from training.config.detection import DetectionRecipe
from training.data.decoding import naming_unreadable
from training.data.detection.pipeline import (
    detection_evaluation_images,
    detection_steps_per_epoch,
    detection_training_dataset,
)
from training.data.detection.registry import check_detection_data, load_detection_source
from training.data.detection.source import DetectionSource
from training.detection.losses import build_region_loss
from training.detection.metrics import DetectionEvaluation
from training.detection.network import (
    DETECTORS,
    build_backbone,
    build_detector,
    check_masks,
    classifier_weight_norms,
    detection_options,
    layer_options,
    uncompiled,
)
from training.detection.outcome import DetectionOutcome
from training.detection.start import check_start, without_start
from training.engine.checkpoints import Checkpoints
from training.engine.fit import fit
from training.engine.optimizers import build_optimizer
from training.errors import OptionError
from zoo.detection.backbone import as_backbone, stages_of
from zoo.detection.options import make_options
from zoo.detection.roi_losses import RegionLoss


def train_detector(
    recipe: DetectionRecipe,
    source: DetectionSource | None = None,
    *,
    callbacks: Sequence[keras.callbacks.Callback] = (),
    verbose: int | str = 0,
    jit_compile: bool | str = "auto",
    checkpoints: Checkpoints | None = None,
    checkpoint_steps: int | None = None,
) -> tuple[keras.Model, DetectionOutcome]:
    """Trains the detector of `recipe` with `model.fit` and measures its detections in the test images.

    Args:
        recipe: What to train.
        source: The annotated images, where they are already loaded; made from `recipe.data` otherwise.
        callbacks: Further Keras callbacks; the logs that they see have the metrics.
        verbose, jit_compile: As `fit` and `compile` take them.
        checkpoints: Where to save at the end of every epoch, and where a training that was cut off goes on from.
        checkpoint_steps: Steps between two checkpoints inside an epoch.

    Returns: The trained detector, not compiled, and the numbers.

    Raises:
        ValueError: What the recipe asks for does not fit the data.
        training.data.decoding.UnreadableImageError: An image cannot be decoded.
        training.engine.checkpoints.NotFiniteError: The loss is NaN or infinite, with `checkpoints`.
    """
    started = time.perf_counter()
    source = load_source_of(recipe) if source is None else source
    steps = detection_steps_per_epoch(recipe, source)
    goes_on = checkpoints is not None and checkpoints.newest_good() is not None
    model = compiled_detector(
        without_start(recipe) if goes_on else recipe, source, steps=steps, jit_compile=jit_compile
    )
    evaluation = detection_evaluation(recipe, source)
    with naming_unreadable():
        history, parameters = fit(
            model,
            lambda start: detection_training_dataset(recipe, source, start_step=start),
            epochs=recipe.epochs,
            steps_per_epoch=steps,
            measuring=[evaluation],
            callbacks=callbacks,
            checkpoints=checkpoints,
            checkpoint_steps=checkpoint_steps,
            verbose=verbose,
        )
    if evaluation.metrics is None or recipe.optimizer.ema_momentum is not None:
        # The averaged weights are in place only now; a training that went on at its end has measured nothing.
        evaluation.measure(model)
    outcome = DetectionOutcome(
        recipe=recipe,
        backend=keras.config.backend(),
        seconds=time.perf_counter() - started,
        **measured(evaluation, source),
        history=history.values,
        parameters=parameters.values,
        image_counts=[int(count) for count in source.image_counts],
        num_images=int(source.num_images),
        class_names=[str(name) for name in source.class_names],
        weight_norms=classifier_weight_norms(model),
        results=evaluation.results,
    )
    return uncompiled(model), outcome


def load_source_of(recipe: DetectionRecipe) -> DetectionSource:
    """The annotated images of a recipe, without masks where none are trained.

    Raises: ValueError: The data cannot be used, or have no masks for Mask R-CNN.
    """
    source = load_detection_source(recipe.data, masks=recipe.model.has_masks)
    check_masks(recipe, source)
    return source


def measured(evaluation: DetectionEvaluation, source: DetectionSource) -> dict[str, Any]:
    """The last metrics as the fields of an outcome, by label instead of by category id."""
    metrics = evaluation.metrics
    assert metrics is not None  # `train_detector` has measured
    place = {category: index for index, category in enumerate(metrics.category_ids)}
    order = [place[int(category)] for category in source.category_ids]
    return {
        "metrics": dict(metrics.summary),
        "by_class": {kind: [values[index] for index in order] for kind, values in metrics.by_class.items()},
        "by_class50": {kind: [values[index] for index in order] for kind, values in metrics.by_class50.items()},
    }


def detection_evaluation(recipe: DetectionRecipe, source: DetectionSource) -> DetectionEvaluation:
    """The callback that measures the detections in the test images as the recipe says."""
    options = recipe.evaluation
    return DetectionEvaluation(
        lambda: detection_evaluation_images(source),
        source.test_annotations,
        source.category_ids,
        recipe.data.image_size,
        batch_size=options.batch_size,
        shorter_side=recipe.data.shorter_side,
        style=options.style,
        every_epochs=options.every_epochs,
    )


def compiled_detector(
    recipe: DetectionRecipe, source: DetectionSource, *, steps: int, jit_compile: bool | str = "auto"
) -> keras.Model:
    """The detector of a recipe, compiled with its optimiser; its losses are its own."""
    keras.utils.set_random_seed(recipe.seed)
    model = build_detector(recipe, source)
    optimizer = build_optimizer(recipe.optimizer, epochs=recipe.epochs, steps_per_epoch=steps)
    model.compile(optimizer=optimizer, jit_compile=jit_compile)
    keras_apa.no_weight_decay(
        optimizer, model, norms=not recipe.optimizer.decay_norms, biases=not recipe.optimizer.decay_biases
    )
    return model


def check_detection(recipe: DetectionRecipe) -> None:
    """Raises the error of a wrong name or option now, instead of after some training.

    Raises: ValueError: The data, the network, one of its options or the loss is unknown, or sizes or the weights to
        start from do not fit.
    """
    check_detection_data(recipe.data)
    backbone = as_backbone(build_backbone(dataclasses.replace(recipe.model, backbone_weights="")))
    strides, _ = stages_of(backbone)
    sizes = recipe.model.anchor_sizes
    if len(sizes) != len(strides) + 1:
        raise OptionError(
            f"model.anchor_sizes must have {len(strides) + 1} sizes, one for each of the {len(strides)} stages of "
            f"{recipe.model.backbone} and one for the level above; given: {list(sizes)}."
        )
    smallest = min(recipe.data.image_size)
    if smallest < strides[-1]:
        raise OptionError(
            f"data.image_size must be at least {strides[-1]}, the stride of {recipe.model.backbone}; given: "
            f"{list(recipe.data.image_size)}."
        )
    if min(sizes) > smallest:
        raise OptionError(f"model.anchor_sizes must have one below the image, {smallest} pixels; given: {list(sizes)}.")
    make_options("torchvision", recipe.model.options)
    if recipe.model.weights:
        detector = DETECTORS[recipe.model.name](backbone, 2, **layer_options(recipe.model), **detection_options(recipe))
        check_start(recipe.model, detector)
    RegionLoss(build_region_loss(recipe, [2, 2], 4, 0.1), 2)
    build_optimizer(recipe.optimizer, epochs=recipe.epochs, steps_per_epoch=max(recipe.optimizer.accumulation_steps, 1))
