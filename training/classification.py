"""Image classification: compile, fit and evaluate what a recipe describes."""

from __future__ import annotations

import inspect
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING

import keras
import numpy as np

import keras_apa
import keras_apa.losses
import zoo
from keras_apa.losses import attach_loss_state
from keras_apa.metrics import ShotAccuracy
from training.callbacks import ActivationParameters
from training.checks import nearest
from training.data import digits
from training.data.pipeline import evaluation_dataset, training_dataset
from training.optimization import build_optimizer
from training.outcome import GROUPS, Outcome
from training.recipe import DataOptions, EvaluationOptions, LossOptions, ModelOptions, Recipe

if TYPE_CHECKING:
    from training.data.digits import LongTailedImages

DATA_SOURCES = {"digits100_lt": digits.digits100_lt, "digits10_lt": digits.digits10_lt}


def train(
    recipe: Recipe,
    images: LongTailedImages | None = None,
    *,
    callbacks: Sequence[keras.callbacks.Callback] = (),
    verbose: int | str = 0,
    jit_compile: bool | str = "auto",
) -> tuple[keras.Model, Outcome]:
    """Trains the network of `recipe` with `model.fit` and evaluates it on the test images.

    Args:
        recipe: what to train.
        images: the data, where it is already loaded; made from `recipe.data` otherwise.
        callbacks: further Keras callbacks.
        verbose, jit_compile: as `fit` and `compile` take them.

    Returns:
        The trained, compiled model, which ends in logits, and the numbers.
    """
    started = time.perf_counter()
    keras.utils.set_random_seed(recipe.seed)
    images = load_images(recipe.data) if images is None else images
    model = build_model(recipe.model, images)
    train_set = training_dataset(
        images.train_images,
        images.train_labels,
        recipe.batch_size,
        seed=recipe.seed,
        augment=recipe.data.augment,
        num_classes=images.num_classes,
    )
    test_set = evaluation_dataset(
        images.test_images, images.test_labels, recipe.evaluation.batch_size, num_classes=images.num_classes
    )
    optimizer = build_optimizer(recipe.optimizer, epochs=recipe.epochs, steps_per_epoch=len(train_set))
    model.compile(
        optimizer=optimizer,
        # Losses that count or draw would start anew at every step on JAX.
        loss=attach_loss_state(model, build_loss(recipe.loss, images.class_counts)),
        metrics=[shot_accuracy(recipe.evaluation, images.class_counts)],
        jit_compile=jit_compile,
    )
    keras_apa.no_weight_decay(
        optimizer, model, norms=not recipe.optimizer.decay_norms, biases=not recipe.optimizer.decay_biases
    )
    parameters = ActivationParameters()
    history = model.fit(
        train_set,
        epochs=recipe.epochs,
        validation_data=test_set,
        shuffle=False,  # the dataset shuffles
        callbacks=[parameters, *callbacks],
        verbose=verbose,
    )
    accuracies, predictions = evaluate(model, images, recipe.evaluation)
    outcome = Outcome(
        recipe=recipe,
        backend=keras.config.backend(),
        seconds=time.perf_counter() - started,
        accuracies=accuracies,
        history={name: [float(value) for value in values] for name, values in history.history.items()},
        parameters=parameters.values,
        class_counts=[int(count) for count in images.class_counts],
        class_names=[str(name) for name in images.class_names],
        labels=[int(label) for label in images.test_labels],
        predictions=[int(label) for label in predictions],
    )
    return model, outcome


def evaluate(
    model: keras.Model, images: LongTailedImages, options: EvaluationOptions | None = None
) -> tuple[dict[str, float], np.ndarray]:
    """The accuracies many / medium / few / all on the test images, and the class predicted for each."""
    options = options or EvaluationOptions()
    test_set = evaluation_dataset(images.test_images, images.test_labels, options.batch_size)
    logits = model.predict(test_set, verbose=0)
    metric = shot_accuracy(options, images.class_counts)
    metric.update_state(images.test_labels, logits)
    result = metric.result()
    return {group: float(result[group]) for group in GROUPS}, np.argmax(logits, axis=-1)


def check(recipe: Recipe) -> None:
    """Raises the error of a wrong name or option now, instead of after some training.

    Raises:
        ValueError: the data, the network, one of its options or the loss is unknown.
    """
    if recipe.data.name not in DATA_SOURCES:
        raise ValueError(f"unknown data {recipe.data.name!r}; {nearest(recipe.data.name, DATA_SOURCES)}")
    classes = 100
    zoo.create_model(
        recipe.model.name,
        classes=classes,
        input_shape=(16, 16, 1),
        data_format="channels_last",
        **recipe.model.options,
    )
    build_loss(recipe.loss, [1] * classes)
    build_optimizer(recipe.optimizer, epochs=recipe.epochs, steps_per_epoch=1)


def load_images(options: DataOptions) -> LongTailedImages:
    """The images that `options` describe; an unknown name is an error that names the nearest ones."""
    if options.name not in DATA_SOURCES:
        raise ValueError(f"unknown data {options.name!r}; {nearest(options.name, DATA_SOURCES)}")
    return DATA_SOURCES[options.name](
        imbalance_factor=options.imbalance_factor,
        largest_class=options.largest_class,
        test_images_per_class=options.test_images_per_class,
        noise=options.noise,
        seed=options.seed,
    )


def build_model(options: ModelOptions, images: LongTailedImages) -> keras.Model:
    """The zoo's network, with as many classes as the data has, their names, and the images' shape as input."""
    model = zoo.create_model(
        options.name,
        classes=len(images.class_counts),
        input_shape=images.image_shape,
        # tf.data makes its images so, whatever Keras is configured to.
        data_format="channels_last",
        **options.options,
    )
    model.class_names = images.class_names
    model.preprocessing = images.preprocessing
    return model


def loss_classes() -> dict[str, type[keras.losses.Loss]]:
    """The losses that a recipe can name: those of `keras_apa.losses`, then those of Keras."""
    return {
        name: value
        for module in (keras.losses, keras_apa.losses)
        for name, value in vars(module).items()
        if inspect.isclass(value) and issubclass(value, keras.losses.Loss) and value is not keras.losses.Loss
    }


def build_loss(options: LossOptions, class_counts: Sequence[int]) -> keras.losses.Loss:
    """The loss that `options` name, told the class counts, their number, and that it gets logits."""
    classes = loss_classes()
    if options.name not in classes:
        raise ValueError(f"unknown loss {options.name!r}; {nearest(options.name, classes)}")
    loss = classes[options.name]
    accepted = [name for name in inspect.signature(loss.__init__).parameters if name != "self"]
    for name in options.options:
        if name not in accepted:
            raise ValueError(f"the loss {options.name} has no argument {name!r}; {nearest(name, accepted)}")
    known = {
        "class_counts": class_counts,
        "num_classes": len(class_counts),
        "from_logits": True,
        # Every image shows one class.
        "image_counts": class_counts,
        "num_images": int(np.sum(np.asarray(getattr(class_counts, "counts", class_counts)))),
    }
    return loss(**({name: value for name, value in known.items() if name in accepted} | dict(options.options)))


def shot_accuracy(options: EvaluationOptions, class_counts: Sequence[int]) -> ShotAccuracy:
    """The metric with the recipe's thresholds."""
    return ShotAccuracy(class_counts, many_threshold=options.many_threshold, few_threshold=options.few_threshold)
