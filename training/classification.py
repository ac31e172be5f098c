"""Image classification: compile, fit and evaluate what a recipe describes."""

from __future__ import annotations

import dataclasses
import inspect
import time
from collections.abc import Mapping, Sequence
from typing import Any

import keras
import numpy as np
import tensorflow as tf

import keras_apa
import keras_apa.losses
import zoo
from keras_apa.losses import attach_loss_state
from keras_apa.metrics import ShotAccuracy
from training.checkpoint import Checkpoints
from training.checks import check_arguments, nearest
from training.data.naming import naming_unreadable
from training.data.pipeline import PREFETCHED, evaluation_dataset, steps_per_epoch
from training.data.registry import check_data, load_source
from training.data.source import Source
from training.fitting import fit
from training.meta_sampler import ShareLog, linear_head, training_batches, with_sampler, without_sampler
from training.network import CLASSIFIER, build_model, freeze, model_arguments, normalize_classifier, published_model
from training.optimization import build_optimizer
from training.outcome import GROUPS, Outcome
from training.recipe import EvaluationOptions, LossOptions, Recipe
from training.start import prepared_as_started

TOP_K = 5


def train(
    recipe: Recipe,
    source: Source | None = None,
    *,
    callbacks: Sequence[keras.callbacks.Callback] = (),
    verbose: int | str = 0,
    jit_compile: bool | str = "auto",
    checkpoints: Checkpoints | None = None,
    checkpoint_steps: int | None = None,
) -> tuple[keras.Model, Outcome]:
    """Trains the network of `recipe` with `model.fit` and evaluates it on the test images.

    Args:
        recipe: what to train.
        source: the images, where they are already loaded; made from `recipe.data` otherwise.
        callbacks: further Keras callbacks.
        verbose, jit_compile: as `fit` and `compile` take them.
        checkpoints: where to save at the end of every epoch, and where a training that was cut off goes on from.
        checkpoint_steps: steps between two checkpoints inside an epoch.

    Returns:
        The trained model as it is saved, which ends in logits, and the numbers.

    Raises:
        ValueError: what the recipe asks for does not fit the data; an image cannot be decoded.
        training.checkpoint.NotFiniteError: the loss is NaN or infinite, with `checkpoints`.
    """
    started = time.perf_counter()
    source = prepared_as_started(recipe, load_source(recipe.data) if source is None else source)
    steps = steps_per_epoch(recipe, source)
    model = compiled_model(recipe, source, steps=steps, jit_compile=jit_compile)
    weights, options = sample_weights(recipe.loss, source.class_counts), recipe.evaluation

    def batches(start):
        return with_targets(recipe, source, training_batches(recipe, source, start_step=start, class_weights=weights))

    with naming_unreadable(source):
        history, parameters = fit(
            model,
            batches,
            epochs=recipe.epochs,
            steps_per_epoch=steps,
            measuring=[ShareLog(source.class_counts.shot_groups(options.many_threshold, options.few_threshold))],
            callbacks=callbacks,
            checkpoints=checkpoints,
            checkpoint_steps=checkpoint_steps,
            validation_data=with_targets(recipe, source, evaluation_batches(model, source, options)),
            verbose=verbose,
        )
    model = published_model(without_sampler(model))
    normalize_classifier(model, recipe.evaluation.tau_normalization)
    result = evaluate(model, source, recipe.evaluation)
    outcome = Outcome(
        recipe=recipe,
        backend=keras.config.backend(),
        seconds=time.perf_counter() - started,
        history=history.values,
        parameters=parameters.values,
        class_counts=[int(count) for count in source.class_counts],
        class_names=[str(name) for name in source.class_names],
        **vars(result),
    )
    return model, outcome


def compiled_model(recipe: Recipe, source: Source, *, steps: int, jit_compile: bool | str = "auto") -> keras.Model:
    """The network of a recipe, compiled with its loss, optimiser and metric."""
    keras.utils.set_random_seed(recipe.seed)
    model = build_model(recipe, source)
    freeze(model, recipe.start.trainable)
    optimizer = build_optimizer(recipe.optimizer, epochs=recipe.epochs, steps_per_epoch=steps)
    loss = build_loss(recipe, source.class_counts)
    if recipe.meta_sampler.learned:
        model = with_sampler(model, recipe, source, optimizer, loss)
    model.compile(
        optimizer=optimizer,
        # Losses that count or draw would start anew at every step on JAX.
        loss=attach_loss_state(model, loss),
        metrics=[shot_accuracy(recipe.evaluation, source.class_counts)],
        jit_compile=jit_compile,
    )
    keras_apa.no_weight_decay(
        optimizer, model, norms=not recipe.optimizer.decay_norms, biases=not recipe.optimizer.decay_biases
    )
    return model


def evaluation_batches(model: keras.Model, source: Source, options: EvaluationOptions):
    """The test images in batches, as the model wants them."""
    return evaluation_dataset(
        source.test, options.batch_size, num_classes=source.num_classes, preprocessing=model.preprocessing
    )


def with_targets(recipe: Recipe, source: Source, batches: tf.data.Dataset) -> tf.data.Dataset:
    """Batches with one-hot targets where the loss takes no labels; those that are soft already stay as they are."""
    if not _wants_one_hot(recipe):
        return batches

    def one_hot(images, targets, *weights):
        targets = tf.one_hot(targets, source.num_classes) if targets.shape.rank == 1 else targets
        return (images, targets, *weights)

    return batches.map(one_hot).prefetch(PREFETCHED)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Evaluation:
    """Accuracies `many`, `medium`, `few`, `all` and `top5` (NaN for what cannot be), and what was seen.

    `uncorrected` are the accuracies without the model's prior correction, None where it has none.
    """

    accuracies: Mapping[str, float]
    uncorrected: Mapping[str, float] | None
    labels: Sequence[int]
    predictions: Sequence[int]


def evaluate(model: keras.Model, source: Source, options: EvaluationOptions | None = None) -> Evaluation:
    """Accuracies on the test images, with and without the prior correction that the model carries."""
    options = options or EvaluationOptions()
    batches = evaluation_batches(model, source, options)
    corrections = [layer for layer in model.layers if isinstance(layer, keras_apa.layers.PriorCorrection)]
    offset = sum(
        layer.tau * keras_apa.layers.prior_correction(layer.class_counts, layer.variant) for layer in corrections
    )
    labels, found = [], {"corrected": [], "uncorrected": []}
    with naming_unreadable(source):
        for images, targets in batches:
            # Batch by batch: the logits of all images times thousands of classes do not fit into memory.
            logits = np.asarray(keras.ops.convert_to_numpy(model.predict_on_batch(images.numpy())), "float64")
            labels.append(targets.numpy())
            found["corrected"].append(_highest(logits))
            if corrections:
                found["uncorrected"].append(_highest(logits - offset))
    labels = np.concatenate(labels)
    accuracies = {
        name: _accuracies(labels, np.concatenate(best), source.class_counts, options)
        for name, best in found.items()
        if best
    }
    return Evaluation(
        accuracies=accuracies["corrected"],
        uncorrected=accuracies.get("uncorrected"),
        labels=[int(label) for label in labels],
        predictions=[int(row[0]) for row in np.concatenate(found["corrected"])],
    )


def _highest(logits):
    """The `TOP_K` classes of each row, the highest first, the lower index first among equals."""
    return np.argsort(-logits, axis=-1, kind="stable")[:, :TOP_K]


def _accuracies(labels, best, class_counts, options):
    metric = shot_accuracy(options, class_counts)
    metric.update_state(labels, np.eye(len(class_counts), dtype="float32")[best[:, 0]])
    result = {group: float(value) for group, value in metric.result().items()}
    top5 = np.mean(np.any(best == labels[:, None], axis=1)) if len(class_counts) > TOP_K else float("nan")
    return {group: result[group] for group in GROUPS} | {"top5": float(top5)}


def check(recipe: Recipe) -> None:
    """Raises the error of a wrong name or option now, instead of after some training.

    Raises:
        ValueError: the data, the network, one of its options or the loss is unknown, or two options exclude each other.
    """
    check_data(recipe.data)
    classes = 100
    network = zoo.create_model(
        recipe.model.name,
        classes=classes,
        input_shape=(None, None, 3),
        data_format="channels_last",
        **model_arguments(recipe.model),
    )
    if recipe.meta_sampler.learned:
        linear_head(network)
    # What `train` does when all is trained.
    if recipe.start.trainable == "class_scale" and not isinstance(network.get_layer(CLASSIFIER), keras.layers.Dense):
        raise ValueError(f"start.trainable 'class_scale' needs a linear classifier, not {recipe.model.classifier!r}")
    normalize_classifier(network, recipe.evaluation.tau_normalization)
    loss = build_loss(recipe, keras_apa.ClassCounts([2] * classes))
    if _wants_one_hot(recipe):
        _try_loss(loss, classes)
    build_optimizer(recipe.optimizer, epochs=recipe.epochs, steps_per_epoch=max(recipe.optimizer.accumulation_steps, 1))


def _try_loss(loss, classes):
    """Not every loss of Keras is one for classes."""
    try:
        value = keras.ops.convert_to_numpy(loss(np.eye(2, classes, dtype="float32"), np.zeros((2, classes), "float32")))
    except Exception as error:  # each says in its own way, and with its own type, that it wants something else
        raise ValueError(
            f"the loss {type(loss).__name__} does not take one-hot targets and logits of shape (batch, classes): "
            f"{str(error).partition(chr(10))[0]}"
        ) from error
    if value.shape or not np.isfinite(value):
        raise ValueError(f"the loss {type(loss).__name__} gives {value!r} for logits of 0: it is no loss for classes")


def loss_classes() -> dict[str, type[keras.losses.Loss]]:
    """The losses that a recipe can name: those of `keras_apa.losses`, then those of Keras."""
    return {
        name: value
        for module in (keras.losses, keras_apa.losses)
        for name, value in vars(module).items()
        if inspect.isclass(value) and issubclass(value, keras.losses.Loss) and value is not keras.losses.Loss
    }


def _wants_one_hot(recipe):
    """Keras's own losses but one; those of keras_apa take both."""
    name = _loss_name(recipe)
    return not hasattr(keras_apa.losses, name) and name != "SparseCategoricalCrossentropy"


# Losses of keras_apa that need to know which class a sample is of.
_ONE_CLASS = ("LDAM", "SeesawLoss", "EqualizationLoss", "DropLoss", "GumbelOptimizedLoss")
_SOFT = {"SparseCategoricalCrossentropy": "CategoricalCrossentropy"}


def _loss_name(recipe):
    return _SOFT.get(recipe.loss.name, recipe.loss.name) if recipe.augment.mixes else recipe.loss.name


def build_loss(recipe: Recipe, class_counts: Sequence[int]) -> keras.losses.Loss:
    """The loss of a recipe, told the class counts, their number, and that it gets logits.

    Raises:
        ValueError: An unknown loss or argument, or one that cannot take the targets of mixup, cutmix or smoothing.
    """
    options, classes = recipe.loss, loss_classes()
    if options.name not in classes:
        raise ValueError(f"unknown loss {options.name!r}; {nearest(options.name, classes)}")
    name = options.name
    if recipe.augment.mixes:
        if name in _ONE_CLASS:
            raise ValueError(
                f"the loss {name} needs images of one class; turn off augment.mixup_alpha, augment.cutmix_alpha and "
                "augment.label_smoothing, or choose another loss"
            )
    name = _loss_name(recipe)
    loss = classes[name]
    accepted = check_arguments(f"the loss {name}", loss, options.options)
    known: dict[str, Any] = {
        "class_counts": class_counts,
        "num_classes": len(class_counts),
        "from_logits": True,
        # Every image shows one class.
        "image_counts": class_counts,
        "num_images": int(np.sum(np.asarray(getattr(class_counts, "counts", class_counts)))),
    }
    arguments = {key: value for key, value in known.items() if key in accepted} | dict(options.options)
    parameters = inspect.signature(loss).parameters.values()
    missing = [
        each.name for each in parameters if each.default is each.empty and each.kind is each.POSITIONAL_OR_KEYWORD
    ]
    if missing := [key for key in missing if key not in arguments]:
        raise ValueError(f"the loss {name} needs loss.options {missing[0]!r}: --loss.options {missing[0]} VALUE")
    return loss(**arguments)


def sample_weights(options: LossOptions, class_counts: keras_apa.ClassCounts) -> np.ndarray | None:
    """The weight of each class's samples, 1 on average over classes; None where all weigh the same."""
    if options.class_weights == "none":
        return None
    if options.class_weights == "effective":
        return np.asarray(class_counts.class_balanced_weights(options.class_weights_beta), "float32")
    inverse = 1.0 / np.asarray(class_counts.counts, "float64")
    return (inverse / inverse.mean()).astype("float32")


def shot_accuracy(options: EvaluationOptions, class_counts: Sequence[int]) -> ShotAccuracy:
    """The metric with the recipe's thresholds."""
    return ShotAccuracy(class_counts, many_threshold=options.many_threshold, few_threshold=options.few_threshold)
