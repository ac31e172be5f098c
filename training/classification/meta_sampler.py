"""The Meta Sampler of Balanced Meta-Softmax: how often images of each class are drawn is learned with the classifier.

Every class c has a rate sigmoid(a_c), and an image is drawn with a probability proportional to the rate of its class.
A step of the training does three things:

1. It draws a batch, with replacement: each of its images is the largest of log(rate) + Gumbel noise over all images.
2. Inner and outer step: the classifier makes one step of gradient descent on that batch, on trial, and its cross
   entropy on a second, class-balanced batch says whether the draw was a good one. The gradient of that loss with
   respect to a goes through the trial step, and through the draw as if it had been the softmax in place of the largest
   (straight-through Gumbel-softmax). Adam moves a.
3. The classifier makes its real step on the batch that was drawn.

The backbone is frozen, so the classifier is linear, the gradient of the trial step is known in closed form and so is
the outer gradient (`rate_gradient`). No backend's automatic differentiation is asked for it, and the same few products
of matrices run in `fit` on TensorFlow, JAX and PyTorch.

Where this differs from the authors' code: they draw from all images of the data set; here a step draws from the images
that the input pipeline has put into its batch. Which those are is a function of (seed, epoch, position) as always,
and the draw allows for the pipeline's own sampler (`proposal`). Rates, Adam's moments and the state of the noise are
variables of the model: they are in every checkpoint, and a training that goes on draws what it would have drawn. The
trial step has the learning rate of the moment, but neither momentum nor weight decay. The frozen batch norms, which
go on normalising by the batch, see both batches at once.

Source: Balanced Meta-Softmax for Long-Tailed Visual Recognition (NeurIPS 2020), and the facts of its code.
"""

from __future__ import annotations

import keras
import numpy as np
from keras import ops

import zoo
from keras_apa.class_counts import ClassCounts
from keras_apa.losses import BalancedSoftmaxCrossentropy
from training.classification.network import CLASSIFIER
from training.config.classification import Recipe
from training.data.classification.source import Source
from training.errors import OptionError

__all__ = ["MetaSampledClassifier", "SamplingRates", "ShareLog", "rate_gradient", "without_sampler"]

_LAYER = "sampling_rates"


def proposal(sampler: str, class_counts: ClassCounts) -> np.ndarray:
    """With which probability the pipeline's sampler gives an image of each class."""
    counts = np.asarray(class_counts.counts, "float64")
    weights = {"random": counts, "square_root": np.sqrt(counts)}.get(sampler, np.ones_like(counts))
    return weights / weights.sum()


def rate_gradient(
    logits, classes, chosen, soft, features, residuals, kernel, bias, meta_features, meta_classes, learning_rate
):
    """The gradient of the meta loss after a trial step, with respect to the logits `a` of the rates.

    n images are there to be drawn from, b are drawn, of C classes and with d features. The trial step descends
    `1/b sum_k w_k loss(image k)`, in which the weight `w_k` of what was drawn is 1, and changes with `a` as the softmax
    of the draw does at the image that was chosen.

    Args:
        logits: `a`, `(C,)`.
        classes: One-hot classes of the images, `(n, C)`.
        chosen: Indices of the images that were drawn, `(b,)`.
        soft: The softmax of log rate + noise over the images, `(b, n)`.
        features, residuals: What goes into the classifier, `(n, d)`, and the gradient of each image's loss with
            respect to its logits, `(n, C)`.
        kernel, bias: Of the classifier before the step, `(d, C)` and `(C,)`.
        meta_features, meta_classes: The batch that judges, `(m, d)` and one-hot `(m, C)`.
        learning_rate: Of the trial step.

    Returns: `(C,)`.

    >>> one, two = ops.ones((1, 2)), ops.ones((2, 2))  # two images of two classes; the first one is drawn
    >>> gradient = rate_gradient(
    ...     logits=ops.zeros(2), classes=ops.eye(2), chosen=[0], soft=0.5 * one, features=two,
    ...     residuals=ops.array([[-0.5, 0.5], [0.5, -0.5]]), kernel=ops.zeros((2, 2)), bias=ops.zeros(2),
    ...     meta_features=one, meta_classes=ops.array([[0.0, 1.0]]), learning_rate=0.1)
    >>> [round(float(value), 4) for value in gradient]  # what the meta batch has none of is drawn less
    [0.0215, -0.0215]
    """
    draws = ops.cast(ops.shape(soft)[0], "float32")
    drawn = ops.one_hot(chosen, ops.shape(soft)[1], dtype="float32")  # (b, n)
    weighted = (ops.sum(drawn, axis=0) / draws)[:, None] * residuals
    kernel = kernel - learning_rate * ops.matmul(ops.transpose(features), weighted)
    bias = bias - learning_rate * ops.sum(weighted, axis=0)
    predicted = ops.softmax(ops.matmul(meta_features, kernel) + bias, axis=-1)
    error = (predicted - meta_classes) / ops.cast(ops.shape(meta_classes)[0], "float32")
    # What the meta loss loses or gains with the weight of each image in the trial step.
    through = ops.matmul(features, ops.matmul(ops.transpose(meta_features), error)) + ops.sum(error, axis=0)
    effect = -learning_rate / draws * ops.sum(through * residuals, axis=-1)  # (n,)
    strength = ops.sum(drawn * soft * effect, axis=1, keepdims=True)
    # d softmax: the class of the image that was chosen, less the share of each class.
    per_class = ops.sum(strength * (ops.matmul(drawn, classes) - ops.matmul(soft, classes)), axis=0)
    return per_class * (1.0 - ops.sigmoid(logits))  # d log sigmoid(a)


@keras.saving.register_keras_serializable(package="keras_apa")
class SamplingRates(keras.layers.Layer):
    """Rates of drawing, one a class, with all that their learning needs. Passes on its inputs, the logits.

    Args:
        class_counts: Training images of each class.
        proposal: The probability of each class in the batches that it draws from; by default as in the training set.
        learning_rate: Of Adam, for the rates.
        initial_power: p; a rate begins proportional to `n_c ** -p`, the smallest and the largest sum to 1.
        seed: Of the noise.

    Input shape: `(batch, classes)`.
    Output shape: the same.
    Raises: ValueError: A class without images.

    >>> layer = SamplingRates([90, 10], initial_power=1.0)
    >>> layer(keras.ops.zeros((1, 2))).shape == (1, 2)
    True
    >>> layer.rates().round(3).tolist(), layer.shares().round(3).tolist()
    ([0.1, 0.9], [0.5, 0.5])
    """

    def __init__(self, class_counts, proposal=None, learning_rate=0.01, initial_power=0.0, seed=0, **kwargs):
        kwargs.setdefault("dtype", "float32")
        super().__init__(**kwargs)
        self.class_counts = ClassCounts(getattr(class_counts, "counts", class_counts))
        self.prior = np.asarray(self.class_counts.prior, "float64")
        self.proposal = self.prior if proposal is None else np.asarray(proposal, "float64")
        if not np.all(self.prior > 0):
            raise ValueError(
                f"class_counts must be above 0; given: 0 for {self.class_counts.describe(int(self.prior.argmin()))}."
            )
        self.learning_rate = learning_rate
        self.initial_power = initial_power
        self.seed = seed
        self.seed_generator = keras.random.SeedGenerator(seed)

    def build(self, input_shape):
        start = self.prior**-self.initial_power
        start = start / (start.min() + start.max())
        start = np.log(start) - np.log1p(-start)
        self.rate_logits = self.add_weight(
            name="rate_logits", shape=self.prior.shape, initializer=keras.initializers.Constant(start), trainable=False
        )
        self.optimizer = keras.optimizers.Adam(self.learning_rate)
        self.optimizer.build([self.rate_logits])
        # Its variables belong to the layer, so that JAX carries them and checkpoints have them.
        self.optimizer_variables = list(self.optimizer.variables)
        super().build(input_shape)

    def call(self, inputs):
        return inputs

    def compute_output_shape(self, input_shape):
        return input_shape

    @property
    def steps(self) -> keras.Variable:
        """How often the rates were moved."""
        return self.optimizer.iterations

    def draw(self, classes):
        """Draws as many images as there are, with replacement.

        Args:
            classes: Their classes, one-hot `(n, C)`.

        Returns: The indices of what was drawn, `(n,)`, and the softmax that stands for the draw, `(n, n)`.
        """
        n = ops.shape(classes)[0]
        correction = ops.convert_to_tensor((np.log(self.prior) - np.log(self.proposal)).astype("float32"))
        log_rates = ops.log_sigmoid(ops.convert_to_tensor(self.rate_logits)) + correction
        # Not 0 and not 1, of which the noise would be infinite.
        uniform = keras.random.uniform(
            (n, n), minval=1e-7, maxval=1.0 - 1e-6, dtype="float32", seed=self.seed_generator
        )
        noise = -ops.log(-ops.log(uniform))
        scores = ops.matmul(classes, log_rates[:, None])[:, 0] + noise
        return ops.argmax(scores, axis=-1), ops.softmax(scores, axis=-1)

    def move(self, gradient) -> None:
        """One step of Adam."""
        self.optimizer.apply([gradient], [self.rate_logits])

    def rates(self) -> np.ndarray:
        """The rate of each class, between 0 and 1."""
        return 1.0 / (1.0 + np.exp(-ops.convert_to_numpy(self.rate_logits).astype("float64")))

    def shares(self) -> np.ndarray:
        """The part of each class in what is drawn: `n_c` times its rate, divided by the sum over classes."""
        weights = self.prior * self.rates()
        return weights / weights.sum()

    def get_config(self):
        return {
            **super().get_config(),
            "class_counts": self.class_counts.counts.tolist(),
            "proposal": self.proposal.tolist(),
            "learning_rate": self.learning_rate,
            "initial_power": self.initial_power,
            "seed": self.seed,
        }


class MetaSampledClassifier(keras.Model):
    """A network whose classifier is trained on batches that its own sampling rates draw. For training only.

    Its batches are those of `training_batches`: images to draw from, then `meta_batch_size` images that judge. Loss and
    accuracies of the training are those of what was drawn and of all images of the batch, in this order.

    Args:
        network: A functional classifier whose layer `classifier` is a `Dense` and all that is trained.
        rates: A `SamplingRates`.
        meta_batch_size: Images of a batch that judge, at its end.
        learning_rate: Of the trial step: a number, or the schedule of the optimizer.
        prior: What the loss adds to the logits, `(classes,)`: tau times the log of the class prior, or 0.

    Raises: ValueError: The network has another classifier than a linear one.
    """

    def __init__(self, network, rates: SamplingRates, meta_batch_size: int, learning_rate, prior: np.ndarray):
        head = linear_head(network)
        outputs = {"logits": rates(network.output), "features": head.input}
        super().__init__(network.input, outputs, name=network.name)
        self.meta_batch_size = meta_batch_size
        self.learning_rate = learning_rate
        self.loss_prior = np.asarray(prior, "float32")
        self.preprocessing = network.preprocessing
        self.class_names = network.class_names

    @property
    def rates(self) -> SamplingRates:
        """The layer with the rates."""
        return self.get_layer(_LAYER)

    def compute_loss(self, x=None, y=None, y_pred=None, sample_weight=None, training=True):
        """The loss of the images that are drawn; in training, the rates are moved on the way."""
        if not training:
            return super().compute_loss(x, y, y_pred["logits"], sample_weight, training)
        judged = -self.meta_batch_size
        counts = self._sample(y, y_pred, judged)
        return super().compute_loss(x, y[:judged], y_pred["logits"][:judged], counts, training)

    def compute_metrics(self, x, y, y_pred, sample_weight=None):
        return super().compute_metrics(x, y, y_pred["logits"], sample_weight)

    def _sample(self, labels, y_pred, judged):
        """How often each image is drawn; the rates are moved."""
        head, rates = self.get_layer(CLASSIFIER), self.rates
        logits, features = (ops.stop_gradient(ops.cast(y_pred[key], "float32")) for key in ("logits", "features"))
        classes = ops.one_hot(ops.cast(labels, "int32"), len(self.loss_prior), dtype="float32")
        chosen, soft = rates.draw(classes[:judged])
        learning_rate = self.learning_rate
        if callable(learning_rate):
            learning_rate = learning_rate(ops.convert_to_tensor(rates.steps))
        kernel = ops.stop_gradient(ops.convert_to_tensor(head.kernel))
        bias = (
            ops.zeros(kernel.shape[-1:]) if head.bias is None else ops.stop_gradient(ops.convert_to_tensor(head.bias))
        )
        gradient = rate_gradient(
            ops.convert_to_tensor(rates.rate_logits),
            classes[:judged],
            chosen,
            soft,
            features[:judged],
            ops.softmax(logits[:judged] + ops.convert_to_tensor(self.loss_prior), axis=-1) - classes[:judged],
            kernel,
            bias,
            features[judged:],
            classes[judged:],
            ops.cast(learning_rate, "float32"),
        )
        rates.move(ops.stop_gradient(gradient))
        return ops.sum(ops.one_hot(chosen, ops.shape(soft)[1], dtype="float32"), axis=0)


def linear_head(network: keras.Model) -> keras.layers.Dense:
    """The classifier, for which the gradient of a step is known in closed form.

    Raises: ValueError: It is not linear.
    """
    head = network.get_layer(CLASSIFIER)
    if not isinstance(head, keras.layers.Dense) or head.activation is not keras.activations.linear:
        raise OptionError(
            "meta_sampler.learned must be False unless the classifier is linear; given: True with "
            f"{type(head).__name__}."
        )
    return head


def with_sampler(network, recipe: Recipe, source: Source, optimizer, loss) -> MetaSampledClassifier:
    """The network with learned rates, as the recipe says. `optimizer` and `loss` are those it is compiled with."""
    options = recipe.meta_sampler
    rates = SamplingRates(
        source.class_counts,
        proposal(recipe.data.sampler, source.class_counts),
        options.learning_rate,
        options.initial_power,
        seed=recipe.seed,
        name=_LAYER,
    )
    schedule = optimizer.get_config()["learning_rate"]
    if isinstance(schedule, dict):
        schedule = keras.optimizers.schedules.deserialize(schedule)
    counts = np.asarray(source.class_counts.counts, "float64")
    strength = loss.tau if isinstance(loss, BalancedSoftmaxCrossentropy) else 0.0
    return MetaSampledClassifier(network, rates, options.batch_size, schedule, strength * np.log(counts / counts.sum()))


def without_sampler(model: keras.Model) -> keras.Model:
    """The network inside a `MetaSampledClassifier`; any other model as it is."""
    if not isinstance(model, MetaSampledClassifier):
        return model
    return zoo.Classifier(
        model.input,
        model.rates.input,
        name=model.name,
        preprocessing=model.preprocessing,
        class_names=model.class_names,
    )


class ShareLog(keras.callbacks.Callback):
    """Logs how much of what is drawn is of many-, medium- and few-shot classes: `share_many`, ... after each epoch.

    Put it before what records. `groups` maps names to indices of classes; a model without rates logs nothing.
    """

    def __init__(self, groups: dict[str, np.ndarray]):
        super().__init__()
        self.groups = groups

    def on_epoch_end(self, epoch, logs=None):
        if isinstance(self.model, MetaSampledClassifier) and logs is not None:
            shares = self.model.rates.shares()
            logs.update({f"share_{name}": float(shares[classes].sum()) for name, classes in self.groups.items()})
