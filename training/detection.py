"""Detection: compile, fit and measure what a recipe describes."""

from __future__ import annotations

import dataclasses
import inspect
import time
from collections.abc import Mapping, Sequence
from typing import Any

import keras
import numpy as np
from keras import ops

import keras_apa
import keras_apa.losses
import zoo
from training.checkpoint import Checkpoints
from training.checks import check_arguments, nearest
from training.data.detection_pipeline import (
    detection_evaluation_images,
    detection_steps_per_epoch,
    detection_training_dataset,
)
from training.data.detection_registry import check_detection_data, load_detection_source
from training.data.detection_source import DetectionSource, frequency_groups
from training.detection_recipe import DetectionLossOptions, DetectionModelOptions, DetectionRecipe
from training.detection_start import check_start, load_start, without_start
from training.evaluation import DetectionEvaluation
from training.fitting import fit
from training.network import precision
from training.optimization import build_optimizer
from training.outcome import read_number
from zoo.detection import DetectionPreprocessing
from zoo.detection.backbone import as_backbone, set_batch_norm_epsilon, stages_of
from zoo.detection.options import make_options
from zoo.detection.roi_losses import NAMES as LINKS
from zoo.detection.roi_losses import RegionLoss

DETECTORS = {"mask_rcnn": zoo.MaskRCNN, "faster_rcnn": zoo.FasterRCNN}


@dataclasses.dataclass(frozen=True, kw_only=True)
class DetectionOutcome:
    """What a training of a detector gave, in plain numbers; `results` are the detections, in a file of their own.

    `metrics`, `by_class` and `by_class50` are those of `training.evaluation.DetectionMetrics`, the classes by label;
    `weight_norms` the length of each class's weights in the last layer of the box head.
    """

    recipe: DetectionRecipe
    backend: str
    seconds: float
    metrics: Mapping[str, float]
    by_class: Mapping[str, Sequence[float]]
    by_class50: Mapping[str, Sequence[float]]
    history: Mapping[str, Sequence[float]]
    parameters: Mapping[str, Mapping[str, Any]]
    image_counts: Sequence[int]
    num_images: int
    class_names: Sequence[str]
    weight_norms: Sequence[float]
    results: Sequence[Mapping[str, Any]] = ()

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON; `training.files.write_json` writes NaN as null."""
        values = {**vars(self), "recipe": self.recipe.to_dict()}
        del values["results"]
        return values

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> DetectionOutcome:
        """The outcome that was written, null read back as NaN."""
        read = {**values, "recipe": DetectionRecipe.from_dict(values["recipe"])}
        read["metrics"] = {name: read_number(value) for name, value in read["metrics"].items()}
        for key in ("by_class", "by_class50", "history"):
            read[key] = {name: [read_number(each) for each in numbers] for name, numbers in read[key].items()}
        return cls(**read)


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
        training.checkpoint.NotFiniteError: The loss is NaN or infinite, with `checkpoints`.
    """
    started = time.perf_counter()
    source = load_source_of(recipe) if source is None else source
    steps = detection_steps_per_epoch(recipe, source)
    goes_on = checkpoints is not None and checkpoints.newest_good() is not None
    model = compiled_detector(
        without_start(recipe) if goes_on else recipe, source, steps=steps, jit_compile=jit_compile
    )
    evaluation = detection_evaluation(recipe, source)
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


def check_masks(recipe: DetectionRecipe, source: DetectionSource) -> None:
    """Raises a ValueError where masks are to be trained and there are none."""
    if recipe.model.has_masks and not source.train.has_masks:
        raise ValueError(f"{source.name} has objects without masks; give model.name 'faster_rcnn', which needs none")


def measured(evaluation: DetectionEvaluation, source: DetectionSource) -> dict[str, Any]:
    """The last metrics as the fields of an outcome, by label instead of by category id."""
    metrics = evaluation.metrics
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


def build_detector(recipe: DetectionRecipe, source: DetectionSource) -> keras.Model:
    """The zoo's detector with as many classes as the data has, and their names.

    Raises: ValueError: An unknown network, option or loss, data without masks for Mask R-CNN, or weights to start from
        that do not fit.
    """
    options = recipe.model
    check_masks(recipe, source)
    with precision(recipe.precision):
        detector = DETECTORS[options.name](
            build_backbone(options),
            source.num_classes,
            roi_loss=build_region_loss(recipe, source.image_counts, source.num_images, source.frequency_threshold),
            classifier=options.classifier,
            frozen_stages=options.frozen_stages,
            preprocessing=DetectionPreprocessing(
                min_size=recipe.data.shorter_side or min(recipe.data.image_size), max_size=max(recipe.data.image_size)
            ),
            class_names=source.class_names,
            seed=recipe.seed,
            **layer_options(options),
            **detection_options(recipe),
        )
    load_start(options, detector)
    return detector


def layer_options(options: DetectionModelOptions) -> dict[str, Any]:
    """Arguments of the detector that decide the layers behind the network."""
    masks = {"mask_format": "box", "mask_filters": options.mask_filters} if options.has_masks else {}
    return {
        "pyramid_filters": options.pyramid_filters,
        "box_units": options.box_units,
        "anchor_sizes": tuple((size,) for size in options.anchor_sizes),
        **masks,
    }


def detection_options(recipe: DetectionRecipe) -> dict[str, Any]:
    """Fields of `zoo.detection.Options` that the recipe sets: LVIS measures 300 detections, whatever their score."""
    of_style = {"max_detections": 300, "score_threshold": 1e-4} if recipe.evaluation.style == "lvis" else {}
    return {**of_style, **recipe.model.options}


def build_backbone(options: DetectionModelOptions) -> keras.Model:
    """The network of the zoo, from random or given weights."""
    arguments = {"stem": "imagenet", **options.backbone_options}
    network = zoo.create_model(
        options.backbone,
        weights=options.backbone_weights or None,
        pyramid=True,
        input_shape=(None, None, 3),
        data_format="channels_last",
        frozen_batch_norm=options.frozen_batch_norm,
        **arguments,
    )
    if options.batch_norm_epsilon is not None:
        set_batch_norm_epsilon(network, options.batch_norm_epsilon)
    return network


def build_region_loss(
    recipe: DetectionRecipe, image_counts: Sequence[int], num_images: int, frequency_threshold: float
) -> str | keras.losses.Loss:
    """The loss of the classes of regions, told what is known of the classes.

    Raises: ValueError: An unknown loss or argument.
    """
    options: DetectionLossOptions = recipe.loss
    if options.name in LINKS:
        if options.options:
            raise ValueError(f"the loss {options.name} has no arguments, loss.options has {', '.join(options.options)}")
        return options.name
    losses = region_losses()
    if options.name not in losses:
        raise ValueError(f"unknown loss {options.name!r}; {nearest(options.name, [*LINKS, *losses])}")
    loss = losses[options.name]
    accepted = check_arguments(f"the loss {options.name}", loss, options.options)
    counts = [int(count) for count in image_counts]
    if "background" not in accepted:
        # A softmax has a class for the background, as many regions as the sampler draws beside the objects'.
        share = make_options("torchvision", recipe.model.options).roi_positive_fraction
        counts = [*counts, max(round(sum(counts) * (1 - share) / share), 1)]
    known: dict[str, Any] = {
        "image_counts": counts,
        "class_counts": counts,
        "num_classes": len(counts),
        "num_images": int(num_images),
        "frequency_threshold": float(frequency_threshold),
        "background": True,
        "seed": recipe.seed,
    }
    return loss(**({key: value for key, value in known.items() if key in accepted} | dict(options.options)))


def loss_notes(recipe: DetectionRecipe, source: DetectionSource) -> tuple[str, ...]:
    """What the loss cannot do with the counts of the source, a sentence each."""
    loss = region_losses().get(recipe.loss.name)
    known = () if loss is None else inspect.signature(loss).parameters
    if "frequency_threshold" not in known or "frequency_threshold" in recipe.loss.options:
        return ()
    groups = frequency_groups(source.image_counts)
    if 0 < len(groups["f"]) < source.num_classes:
        return ()
    which = "all classes are" if len(groups["f"]) else "no class is"
    return (
        f"{which} in more than 100 training images, so {recipe.loss.name} takes none for rare; "
        "--loss.options frequency_threshold VALUE, a share of the images, draws another line",
    )


def region_losses() -> dict[str, type[keras.losses.Loss]]:
    """The losses of `keras_apa.losses` by name."""
    return {
        name: value
        for name, value in vars(keras_apa.losses).items()
        if inspect.isclass(value) and issubclass(value, keras.losses.Loss)
    }


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
        raise ValueError(
            f"model.anchor_sizes must have {len(strides) + 1} sizes, one for each of the {len(strides)} stages of "
            f"{recipe.model.backbone} and one for the level above, not {list(sizes)}"
        )
    smallest = min(recipe.data.image_size)
    if smallest < strides[-1]:
        raise ValueError(f"data.image_size must be at least {strides[-1]}, the stride of {recipe.model.backbone}")
    if min(sizes) > smallest:
        raise ValueError(f"model.anchor_sizes must have one below the image, {smallest} pixels; given: {list(sizes)}")
    make_options("torchvision", recipe.model.options)
    if recipe.model.weights:
        detector = DETECTORS[recipe.model.name](backbone, 2, **layer_options(recipe.model), **detection_options(recipe))
        check_start(recipe.model, detector)
    RegionLoss(build_region_loss(recipe, [2, 2], 4, 0.1), 2)
    build_optimizer(recipe.optimizer, epochs=recipe.epochs, steps_per_epoch=max(recipe.optimizer.accumulation_steps, 1))


def classifier_weight_norms(model: keras.Model) -> list[float]:
    """The length of the weights of each class in the last layer of the box head (GOL, Fig. 1)."""
    kernel = ops.convert_to_numpy(model.box_head.classifier.kernel).astype("float64")
    return [float(norm) for norm in np.linalg.norm(kernel, axis=0)[: model.num_classes]]


def uncompiled(model: keras.Model) -> keras.Model:
    """The detector without its optimizer, which a file of one backend would bring to another that cannot use it."""
    fresh = type(model).from_config(model.get_config())
    fresh.set_weights(model.get_weights())
    return fresh
