"""The Meta Sampler: its gradient is that of the two steps, it learns what helps, and a training goes on as it would."""

import keras
import numpy as np
import pytest
import tensorflow as tf

import zoo
from keras_apa import ClassCounts
from keras_apa.losses import BalancedSoftmaxCrossentropy
from training.classification.meta_sampler import (
    MetaSampledClassifier,
    SamplingRates,
    proposal,
    rate_gradient,
    without_sampler,
)
from training.classification.network import build_model
from training.classification.train import check, train
from training.config.classification import Recipe
from training.data.classification.batches import training_batches
from training.data.classification.registry import load_source
from training.engine.callbacks import StopOnNaN
from training.engine.checkpoints import Checkpoints
from training.engine.optimizers import TorchSGD
from training.recipes import get_recipe


def softmax(values):
    values = np.exp(values - values.max(axis=-1, keepdims=True))
    return values / values.sum(axis=-1, keepdims=True)


def log_sigmoid(values):
    return -np.log1p(np.exp(-values))


class Step:
    """A step in float64: images, a classifier, a meta batch, noise; `loss(a)` is the meta loss after the trial step."""

    def __init__(self, n=12, meta=9, classes=4, features=5, learning_rate=0.7):
        rng = np.random.default_rng(3)
        self.a = rng.normal(size=classes)
        self.labels = np.arange(n) % classes
        self.classes = np.eye(classes)[self.labels]
        self.correction = rng.normal(size=classes)
        self.noise = rng.gumbel(size=(n, n))
        self.features, self.meta_features = rng.normal(size=(n, features)), rng.normal(size=(meta, features))
        self.meta_classes = np.eye(classes)[np.arange(meta) % classes]
        self.kernel, self.bias = rng.normal(size=(features, classes)), rng.normal(size=classes)
        self.prior = rng.normal(size=classes)  # of the balanced softmax
        self.learning_rate = learning_rate
        self.soft = self.softmax(self.a)
        self.chosen = self.soft.argmax(axis=1)
        self.residuals = softmax(self.features @ self.kernel + self.bias + self.prior) - self.classes

    def softmax(self, a):
        return softmax((log_sigmoid(a) + self.correction)[self.labels] + self.noise)

    def loss(self, a):
        rows = np.arange(len(self.chosen))
        # Straight-through: 1 here, and changing as the softmax does.
        weights = 1 + (self.softmax(a) - self.soft)[rows, self.chosen]
        residuals = weights[:, None] * self.residuals[self.chosen] / len(rows)
        kernel = self.kernel - self.learning_rate * self.features[self.chosen].T @ residuals
        bias = self.bias - self.learning_rate * residuals.sum(axis=0)
        probabilities = softmax(self.meta_features @ kernel + bias)
        return -np.mean(np.log((probabilities * self.meta_classes).sum(axis=1)))


@pytest.mark.every_backend
def test_the_gradient_is_that_of_the_meta_loss_after_the_trial_step():
    step = Step()
    small = 1e-5
    expected = [(step.loss(step.a + e) - step.loss(step.a - e)) / (2 * small) for e in small * np.eye(len(step.a))]
    arrays = {
        name: keras.ops.convert_to_tensor(getattr(step, name).astype("float32"))
        for name in ("classes", "soft", "features", "residuals", "kernel", "bias", "meta_features", "meta_classes")
    }
    gradient = rate_gradient(
        logits=keras.ops.convert_to_tensor(step.a.astype("float32")),
        chosen=keras.ops.convert_to_tensor(step.chosen.astype("int32")),
        learning_rate=step.learning_rate,
        **arrays,
    )
    assert np.abs(expected).min() > 1e-4  # no class is out of it
    # 1e-7 is the step of float32 at 1, times the products of about ten terms each.
    np.testing.assert_allclose(keras.ops.convert_to_numpy(gradient), expected, rtol=1e-4, atol=1e-7)


def test_draws_follow_the_rates_whatever_the_batch_is_made_of():
    """Twice as many images of the second class as in the training set: the draw allows for it."""
    layer = SamplingRates([300, 100], proposal=[0.6, 0.4], initial_power=0.5, seed=1)
    layer.build((None, 2))
    labels = np.repeat([0, 1], [360, 240])
    classes = keras.ops.convert_to_tensor(np.eye(2, dtype="float32")[labels])
    chosen = np.concatenate([keras.ops.convert_to_numpy(layer.draw(classes)[0]) for _ in range(20)])
    share = np.mean(labels[chosen] == 1)
    # n times n ** -0.5; four standard deviations of 12,000 draws.
    assert layer.shares()[1] == pytest.approx(1 / (1 + np.sqrt(3)))
    assert abs(share - layer.shares()[1]) < 4 * np.sqrt(0.25 / 12_000)
    # Inside a class all images alike.
    assert np.bincount(chosen[labels[chosen] == 0], minlength=360).max() < 60


CLASSES, FEATURES = 10, 16
COUNTS = np.array([int(400 * 0.01 ** (label / 9)) for label in range(CLASSES)])


def synthetic_images(counts, centres, rng):
    labels = np.repeat(np.arange(CLASSES), counts)
    return (centres[labels] + rng.normal(size=(len(labels), FEATURES))).astype("float32"), labels.astype("int32")


def accuracy_and_shares(learning_rate):
    """A linear classifier of ten noisy points, cross entropy, images drawn as often as there are of their class."""
    rng = np.random.default_rng(0)
    centres = 0.8 * rng.normal(size=(CLASSES, FEATURES))
    images, labels = synthetic_images(COUNTS, centres, rng)
    test_images, test_labels = synthetic_images(np.full(CLASSES, 200), centres, rng)
    own = [np.flatnonzero(labels == label) for label in range(CLASSES)]
    order = [[rng.choice(own[label]) for label in rng.integers(0, CLASSES, 200)] for _ in range(300)]
    keras.utils.set_random_seed(0)
    inputs = keras.Input((FEATURES,))
    network = zoo.Classifier(inputs, keras.layers.Dense(CLASSES, name="classifier")(inputs))
    rates = SamplingRates(COUNTS, np.full(CLASSES, 0.1), learning_rate, name="sampling_rates")
    model = MetaSampledClassifier(network, rates, 100, learning_rate=0.5, prior=np.zeros(CLASSES))
    model.compile(TorchSGD(0.5, momentum=0.9), keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    batches = tf.data.Dataset.from_tensor_slices((images[np.array(order)], labels[np.array(order)]))
    model.fit(batches, shuffle=False, verbose=0)
    found = without_sampler(model).predict(test_images, verbose=0).argmax(axis=1)
    return np.mean(found == test_labels), rates.shares()


@pytest.mark.every_backend
def test_learned_rates_favour_the_tail_and_help():
    fixed, before = accuracy_and_shares(learning_rate=1e-9)
    learned, after = accuracy_and_shares(learning_rate=0.03)
    np.testing.assert_allclose(before, COUNTS / COUNTS.sum(), rtol=1e-5)
    assert before[5:].sum() < 0.08 and after[5:].sum() > 2 * before[5:].sum()
    assert learned > fixed + 0.02  # 0.72 and 0.75 on 2,000 test images


DATA = {"largest_class": 60, "imbalance_factor": 10.0, "test_images_per_class": 5, "sampler": "class_balanced"}


@pytest.fixture(scope="module")
def recipe(tmp_path_factory):
    """The second stage of a network whose backbone never learned anything: what counts here is how it is trained."""
    first = get_recipe("digits10_lt").replace(data=DATA, epochs=3, batch_size=64)
    path = tmp_path_factory.mktemp("first") / "first.keras"
    build_model(first, load_source(first.data)).save(path)
    return first.replace(
        start={"weights": str(path), "trainable": "classifier"},
        meta_sampler={"learned": True, "batch_size": 50, "learning_rate": 0.05},
    )


class Stop(keras.callbacks.Callback):
    """Breaks off after so many batches, with nothing saved."""

    def __init__(self, batches):
        super().__init__()
        self.left = batches

    def on_train_batch_end(self, batch, logs=None):
        self.left -= 1
        if not self.left:
            raise RuntimeError("broken off")


@pytest.mark.any_backend
def test_a_training_that_was_broken_off_draws_what_it_would_have_drawn(recipe, tmp_path):
    source = load_source(recipe.data)
    model, outcome = train(recipe, source)
    checkpoints = Checkpoints(tmp_path / "checkpoints")
    with pytest.raises(RuntimeError, match="broken off"):
        train(recipe, source, callbacks=[Stop(6)], checkpoints=checkpoints, checkpoint_steps=2)
    again, resumed = train(recipe, source, checkpoints=checkpoints, checkpoint_steps=2)
    for expected, got in zip(model.weights, again.weights, strict=True):
        arrays = [keras.ops.convert_to_numpy(variable) for variable in (expected, got)]
        np.testing.assert_allclose(arrays[1], arrays[0], rtol=0, atol=1e-6)
    for name in ("share_few", "share_medium", "loss"):
        np.testing.assert_allclose(resumed.history[name], outcome.history[name], rtol=1e-5)
    shares = [sum(each) for each in zip(outcome.history["share_few"], outcome.history["share_medium"], strict=True)]
    np.testing.assert_allclose(shares, 1.0, rtol=1e-6)
    assert len(set(outcome.history["share_few"])) == recipe.epochs  # they are learned
    assert [layer.name for layer in again.layers][-1] == "classifier"  # nothing of it is in the model


def test_batches_are_images_to_draw_from_and_images_that_judge(recipe):
    source = load_source(recipe.data)
    batches = [[part.numpy() for part in batch] for batch in training_batches(recipe, source)]
    assert len(batches) == int(training_batches(recipe, source).cardinality())
    assert {len(labels) for _, labels in batches[:-1]} <= {64 + 50, len(source.train) % 64 + 50}
    judges = np.concatenate([labels[-50:] for _, labels in batches])
    counts = np.bincount(judges, minlength=10)
    assert counts.max() < 1.5 * counts.min()  # of a data set with ten times as many images of one class as of another
    rest = [[part.numpy() for part in batch] for batch in training_batches(recipe, source, start_step=5)]
    for expected, got in zip(batches[5:], rest, strict=True):
        np.testing.assert_array_equal(got[0], expected[0])
        np.testing.assert_array_equal(got[1], expected[1])


def test_proposals_are_those_of_the_samplers():
    counts = ClassCounts([90, 10])
    assert proposal("random", counts).tolist() == [0.9, 0.1]
    assert proposal("square_root", counts).tolist() == [0.75, 0.25]
    assert proposal("class_aware", counts).tolist() == [0.5, 0.5]


@pytest.mark.parametrize(
    ("changes", "parts"),
    [
        ({"start": {"trainable": "all"}}, ["start.trainable must be 'classifier'", "'all'"]),
        ({"augment": {"mixup_alpha": 0.2}}, ["augment.mixup_alpha"]),
        ({"data": {"sampler": "upsampling"}}, ["data.sampler", "class_balanced", "'upsampling'"]),
        ({"loss": {"name": "LDAM"}}, ["loss.name must be BalancedSoftmaxCrossentropy", "LDAM"]),
        ({"loss": {"options": {"label_smoothing": 0.1}}}, ["no option but tau", "label_smoothing"]),
        ({"loss": {"class_weights": "inverse"}}, ["loss.class_weights", "'inverse'"]),
        ({"meta_sampler": {"batch_size": 0}}, ["meta_sampler.batch_size", "at least 1"]),
    ],
)
def test_what_it_cannot_do_is_an_error_when_the_recipe_is_made(recipe, changes, parts):
    with pytest.raises(ValueError) as error:
        recipe.replace(**changes)
    for part in parts:
        assert part in str(error.value)


def test_what_depends_on_network_and_data_is_an_error_before_training(recipe):
    with pytest.raises(ValueError, match="unless the classifier is linear; given: True with CosineDense"):
        check(recipe.replace(model={"classifier": "cosine"}))
    large = recipe.replace(meta_sampler={"batch_size": 500})
    source = load_source(large.data)
    with pytest.raises(ValueError, match=f"meta_sampler.batch_size must be at most the {len(source.train)} training"):
        training_batches(large, source)


def test_the_recipe_survives_json(recipe):
    assert Recipe.from_dict(recipe.to_dict()) == recipe


@pytest.mark.any_backend
def test_half_precision_trains_the_rates_too(recipe):
    short = recipe.replace(precision="mixed_float16", epochs=1)
    source = load_source(short.data)
    _, outcome = train(short, source, callbacks=[StopOnNaN()])
    plain = source.class_counts.counts[-5:].sum() / source.class_counts.total
    assert np.isfinite(outcome.history["loss"]).all() and outcome.history["share_few"][0] != pytest.approx(plain)


def test_the_loss_of_the_trial_step_has_the_prior_of_balanced_softmax():
    loss = BalancedSoftmaxCrossentropy([3, 1], tau=0.5)
    logits, small = np.array([0.3, -0.2], "float32"), 1e-2
    residual = softmax(logits + 0.5 * np.log([0.75, 0.25])) - [1, 0]
    slopes = [
        (float(loss([0], [list(logits + step)])) - float(loss([0], [list(logits - step)]))) / (2 * small)
        for step in small * np.eye(2)
    ]
    np.testing.assert_allclose(slopes, residual, atol=1e-4)
