"""Image classification: compile, fit and evaluate what a recipe describes."""

from __future__ import annotations

import time
from collections.abc import Sequence

import keras
import tensorflow as tf

import keras_apa
import keras_apa.losses
import zoo
from keras_apa.losses import attach_loss_state
from training.classification.evaluate import evaluate, evaluation_batches, shot_accuracy
from training.classification.losses import build_loss, sample_weights, try_loss, wants_one_hot
from training.classification.meta_sampler import ShareLog, linear_head, with_sampler, without_sampler
from training.classification.network import (
    CLASSIFIER,
    build_model,
    freeze,
    model_arguments,
    normalize_classifier,
    published_model,
)
from training.classification.outcome import Outcome
from training.classification.start import prepared_as_started
from training.config.classification import Recipe
from training.data.classification.batches import training_batches
from training.data.classification.naming import naming_unreadable
from training.data.classification.pipeline import PREFETCHED, steps_per_epoch
from training.data.classification.registry import check_data, load_source
from training.data.classification.source import Source
from training.engine.checkpoints import Checkpoints
from training.engine.fit import fit
from training.engine.optimizers import build_optimizer
from training.errors import OptionError


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
        training.engine.checkpoints.NotFiniteError: the loss is NaN or infinite, with `checkpoints`.
    """
    source = load_source(recipe.data) if source is None else source
    return train_prepared(
        recipe,
        prepared_as_started(recipe, source),
        callbacks=callbacks,
        verbose=verbose,
        jit_compile=jit_compile,
        checkpoints=checkpoints,
        checkpoint_steps=checkpoint_steps,
    )


def train_prepared(
    recipe: Recipe,
    source: Source,
    *,
    callbacks: Sequence[keras.callbacks.Callback] = (),
    verbose: int | str = 0,
    jit_compile: bool | str = "auto",
    checkpoints: Checkpoints | None = None,
    checkpoint_steps: int | None = None,
) -> tuple[keras.Model, Outcome]:
    """`train` on images that are already prepared as those that `start.weights` were trained on."""
    started = time.perf_counter()
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


def with_targets(recipe: Recipe, source: Source, batches: tf.data.Dataset) -> tf.data.Dataset:
    """Batches with one-hot targets where the loss takes no labels; those that are soft already stay as they are."""
    if not wants_one_hot(recipe):
        return batches

    def one_hot(images, targets, *weights):
        targets = tf.one_hot(targets, source.num_classes) if targets.shape.rank == 1 else targets
        return (images, targets, *weights)

    return batches.map(one_hot).prefetch(PREFETCHED)


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
        raise OptionError(
            "start.trainable must be another than 'class_scale' unless the classifier is linear; given: "
            f"{recipe.model.classifier!r}."
        )
    normalize_classifier(network, recipe.evaluation.tau_normalization)
    loss = build_loss(recipe, keras_apa.ClassCounts([2] * classes))
    if wants_one_hot(recipe):
        try_loss(loss, classes)
    build_optimizer(recipe.optimizer, epochs=recipe.epochs, steps_per_epoch=max(recipe.optimizer.accumulation_steps, 1))
