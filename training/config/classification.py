"""Frozen dataclasses that describe one experiment: data, model, loss, optimiser, evaluation.

A recipe is plain data. It imports neither Keras nor TensorFlow, is checked when it is made, and turns into a
dictionary for JSON and back without loss. `training.classification.train.train` runs it.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any, Literal, Self, get_args

from training.checks import check_choice, check_flag, check_number, check_plain_mapping, check_text, check_whole
from training.config.experiment import Experiment, OptimizerOptions
from training.errors import OptionError

# Choices as types: tyro shows them in --help, a type checker sees them, and `__post_init__` checks them.
Sampler = Literal[
    "random",
    "class_balanced",
    "square_root",
    "progressively_balanced",
    "upsampling",
    "downsampling",
    "class_aware",
    "repeated",
]
OnCorrupt = Literal["error", "skip"]
Crop = Literal["none", "padded", "resized"]
Policy = Literal["none", "autoaugment_cifar", "autoaugment_imagenet", "randaugment"]
PolicyInterpolation = Literal["nearest", "bilinear"]
LambdaGradient = Literal["exact", "paper"]
ClassWeights = Literal["none", "inverse", "effective"]
Trainable = Literal["all", "classifier", "last_stage", "class_scale"]
PriorCorrectionVariant = Literal["none", "raw", "smooth", "rel", "normit", "gombit", "base2", "base10"]
SAMPLERS = get_args(Sampler)
# Images whose preparation nobody has published.
OWN_IMAGES = ("folder", "list")
META_SAMPLED = ("random", "class_balanced", "class_aware", "square_root")
META_LOSSES = ("BalancedSoftmaxCrossentropy", "SparseCategoricalCrossentropy")


@dataclasses.dataclass(frozen=True, kw_only=True)
class DataOptions:
    """The images, and how often each is drawn. A data set ignores the options that it has no use for."""

    name: str = "digits100_lt"
    """A data set (digits100_lt, cifar100_lt, imagenet_lt, ...), or folder or list for images of your own."""
    path: str = ""
    """Folder of the images: with a folder for each class, or the start of the paths in a list, or TFDS's data_dir."""
    train_list: str = ""
    """List of the training images: a file with a line `path label` for each, or iNaturalist's JSON."""
    test_list: str = ""
    """List of the test images, in the same form."""
    imbalance_factor: float = 100.0
    """Images of the largest class over those of the smallest. Only where the long tail is made here (digits, CIFAR)."""
    image_size: int = 0
    """Side of the training images in pixels; 0: the size of the data set."""
    test_image_size: int = 0
    """Side of the test images in pixels; 0: the same as image_size."""
    resize_size: int = 0
    """Shorter side of a test image in pixels, before its centre is cut out; 0: the proportion of the data set."""
    sampler: Sampler = "random"
    """How images are drawn; random: each once an epoch."""
    repeats: int = 1
    """Copies of each image in an epoch; each copy is augmented differently (sampler repeated)."""
    relabel_by_count: bool = False
    """Number the classes by their training images, the largest first, as the authors of APA do."""
    validation_fraction: float = 0.2
    """Share of each class to keep for testing if the folder has no test images of its own."""
    on_corrupt: OnCorrupt = "error"
    """What to do about images that cannot be decoded: stop with an error, or skip them."""
    largest_class: int = 500
    """Training images of the largest class (digits)."""
    test_images_per_class: int = 20
    """Test images of each class (digits)."""
    noise: float = 0.3
    """Standard deviation of the noise (digits)."""
    seed: int = 0
    """Seed of the images (digits) and of the split into training and validation images (folder)."""

    def __post_init__(self):
        check_text("data.name", self.name)
        for field in ("path", "train_list", "test_list"):
            if not isinstance(getattr(self, field), str):
                raise OptionError(f"data.{field} must be text; given: {getattr(self, field)!r}.")
        check_number("data.imbalance_factor", self.imbalance_factor, at_least=1.0)
        for field in ("image_size", "test_image_size", "resize_size", "seed"):
            check_whole(f"data.{field}", getattr(self, field), at_least=0)
        for field in ("repeats", "largest_class", "test_images_per_class"):
            check_whole(f"data.{field}", getattr(self, field), at_least=1)
        check_choice("data.sampler", self.sampler, get_args(Sampler))
        tested = self.test_image_size or self.image_size
        if 0 < self.resize_size < tested:
            raise OptionError(
                f"data.resize_size must be 0 or at least {tested}, the side of the test images (data.test_image_size, "
                f"else data.image_size); given: {self.resize_size}."
            )
        if self.repeats > 1 and self.sampler != "repeated":
            raise OptionError(
                f"data.repeats must be 1 where data.sampler is not 'repeated'; given: {self.repeats} with "
                f"{self.sampler!r}."
            )
        check_flag("data.relabel_by_count", self.relabel_by_count)
        check_number("data.validation_fraction", self.validation_fraction, above=0.0, below=1.0)
        check_choice("data.on_corrupt", self.on_corrupt, get_args(OnCorrupt))
        check_number("data.noise", self.noise, at_least=0.0)


@dataclasses.dataclass(frozen=True, kw_only=True)
class AugmentOptions:
    """Augmentation of each training image, in the order of these fields, and of a batch (mixup, cutmix, smoothing)."""

    shift: int = 0
    """Move the image by up to this many whole pixels. The mirrored border fills the gap."""
    crop: Crop = "none"
    """Random crop: none; padded (add 4 zeros on every side first); resized (take 8 to 100 % of the area, resize it)."""
    flip: bool = False
    """Mirror left to right with probability 0.5."""
    policy: Policy = "none"
    """A published policy, which draws operations for each image."""
    policy_fill: int = 0
    """Grey value, 0 to 255, of the areas that the policy moves in from outside the image."""
    policy_interpolation: PolicyInterpolation = "nearest"
    """Interpolation of the images that the policy shears, moves and rotates."""
    color_jitter: float = 0.0
    """Strength c: brightness, contrast and saturation change by a factor of 1 - c to 1 + c."""
    cutout: int = 0
    """Side in pixels of a square that is blanked before the image is normalised; 0: none."""
    erase_probability: float = 0.0
    """Probability that a random rectangle is blanked after the image is normalised."""
    mixup_alpha: float = 0.0
    """alpha of mixup: two images are blended with a weight from Beta(alpha, alpha), drawn once a batch; 0: no mixup."""
    cutmix_alpha: float = 0.0
    """alpha of CutMix: a rectangle of another image is pasted in; 0: no CutMix. With mixup too, each batch draws one
    of the two."""
    label_smoothing: float = 0.0
    """Label smoothing e: a target becomes (1 - e) * target + e / classes, after mixing."""

    def __post_init__(self):
        check_whole("augment.shift", self.shift, at_least=0)
        check_choice("augment.crop", self.crop, get_args(Crop))
        check_flag("augment.flip", self.flip)
        check_choice("augment.policy", self.policy, get_args(Policy))
        check_whole("augment.policy_fill", self.policy_fill, at_least=0, below=256)
        check_choice("augment.policy_interpolation", self.policy_interpolation, get_args(PolicyInterpolation))
        check_number("augment.color_jitter", self.color_jitter, at_least=0.0, below=1.0)
        check_whole("augment.cutout", self.cutout, at_least=0)
        check_number("augment.erase_probability", self.erase_probability, at_least=0.0)
        if self.erase_probability > 1:
            raise OptionError(f"augment.erase_probability must be at most 1; given: {self.erase_probability!r}.")
        check_number("augment.mixup_alpha", self.mixup_alpha, at_least=0.0)
        check_number("augment.cutmix_alpha", self.cutmix_alpha, at_least=0.0)
        check_number("augment.label_smoothing", self.label_smoothing, at_least=0.0, below=1.0)

    @property
    def mixes(self) -> bool:
        """Whether the targets are soft."""
        return self.mixup_alpha > 0 or self.cutmix_alpha > 0 or self.label_smoothing > 0


@dataclasses.dataclass(frozen=True, kw_only=True)
class ModelOptions:
    """A network of the zoo and its switches; None keeps the network's own setting."""

    name: str = "se_resnet8"
    """A network; keras-apa list models names them."""
    activation: str | None = None
    """Activation: relu, aglu, or any Keras activation."""
    gate: str | None = None
    """Channel gate: sigmoid, apa, gumbel, sigmoid_temperature, gumbel_temperature."""
    spatial_gate: str | None = None
    """Spatial gate: the same choices as for gate."""
    gate_normalization: bool | None = None
    """Put a LayerNorm into the channel gate."""
    gate_dropout: float | None = None
    """Rate of the dropout in the channel gate."""
    classifier: str | None = None
    """Classifier: linear, cosine, learned_cosine, normalized or wrapped_cauchy."""
    lambda_gradient: LambdaGradient = "exact"
    """Gradient of AGLU's lambda: exact, or paper (Eq. 8 of the APA paper, which its authors used to train the
    classification models). With another activation, the recipe's value is left out."""
    frozen_batch_norm: bool | None = None
    """Let batch norms use their moving statistics in training too."""
    stem: str | None = None
    """First layers of the network: imagenet or cifar."""
    options: Mapping[str, bool | int | float | str] = dataclasses.field(default_factory=dict)
    """Further arguments of zoo.create_model."""

    def __post_init__(self):
        check_text("model.name", self.name)
        check_choice("model.lambda_gradient", self.lambda_gradient, get_args(LambdaGradient))
        check_plain_mapping("model.options", self.options)
        for name in self.switches():
            if name in self.options:
                raise OptionError(
                    f"model.options must have other names than the options of model; given: {name!r}. Use "
                    f"--model.{name}."
                )

    def switches(self) -> dict[str, Any]:
        """The switches that are not None, as `zoo.create_model` takes them; lambda_gradient is not among them."""
        names = ("activation", "gate", "spatial_gate", "gate_normalization", "gate_dropout", "classifier")
        values = {name: getattr(self, name) for name in (*names, "frozen_batch_norm", "stem")}
        return {name: value for name, value in values.items() if value is not None}

    def with_used_lambda_gradient(self, given: bool = False) -> ModelOptions:
        """Without the lambda_gradient of a recipe whose activation was changed; an error if the user has given it.

        >>> ModelOptions(activation="relu", lambda_gradient="paper").with_used_lambda_gradient().lambda_gradient
        'exact'
        """
        activation = {**self.switches(), **self.options}.get("activation")
        if activation == "aglu":
            return self
        if given:
            raise ValueError(
                f"model.lambda_gradient must be left out beside model.activation {activation!r}, since only aglu has a "
                f"lambda; given: {self.lambda_gradient!r}."
            )
        return dataclasses.replace(self, lambda_gradient="exact")


@dataclasses.dataclass(frozen=True, kw_only=True)
class LossOptions:
    """A loss class of `keras_apa.losses` or `keras.losses`, with its arguments in `options`.

    `class_counts`, `num_classes` and `from_logits=True` are filled in where the class takes them.
    """

    name: str = "SparseCategoricalCrossentropy"
    """A loss; keras-apa list losses names them. You can also use the losses of Keras."""
    options: Mapping[str, bool | int | float | str] = dataclasses.field(default_factory=dict)
    """Arguments of the loss, such as tau."""
    class_weights: ClassWeights = "none"
    """Weights for a class of n images: none; inverse (1 / n, scaled to a mean of 1 over classes); effective
    ((1 - b) / (1 - b^n), the same scale). For a mixed image, each class's term of the loss gets the weight of that
    class."""
    class_weights_beta: float = 0.9999
    """b of the class weights effective."""
    class_weights_from_epoch: int = 0
    """Deferred re-weighting: the class weights are 1 before this epoch."""

    def __post_init__(self):
        check_text("loss.name", self.name)
        check_plain_mapping("loss.options", self.options)
        check_choice("loss.class_weights", self.class_weights, get_args(ClassWeights))
        check_number("loss.class_weights_beta", self.class_weights_beta, at_least=0.0, below=1.0)
        check_whole("loss.class_weights_from_epoch", self.class_weights_from_epoch, at_least=0)


@dataclasses.dataclass(frozen=True, kw_only=True)
class StartOptions:
    """The weights to start from and the layers to train, for the second stage of decoupled training."""

    weights: str = ""
    """Weights to start from: a run folder, a .keras file, a preset, a PyTorch checkpoint, or the name of published
    weights; none: random weights."""
    keep_classifier: bool = False
    """Keep the classifier of these weights; otherwise a new one is trained."""
    trainable: Trainable = "all"
    """Layers to train: all; classifier; last_stage (and the classifier); class_scale (LWS: one factor a class on the
    logits). The other layers keep their weights, but their batch norms still follow the batches, as in the authors'
    code."""
    redraw_activations: bool = False
    """Draw kappa and lambda of the last stage anew from U(0, 1) (Places-LT)."""
    redraw_classifier: bool = False
    """Draw the weights of a new classifier from Xavier's uniform distribution (Places-LT), not with its own
    initializer."""

    def __post_init__(self):
        if not isinstance(self.weights, str):
            raise OptionError(f"start.weights must be text; given: {self.weights!r}.")
        if self.weights == "none":  # what a command line can say
            object.__setattr__(self, "weights", "")
        check_flag("start.keep_classifier", self.keep_classifier)
        check_choice("start.trainable", self.trainable, get_args(Trainable))
        check_flag("start.redraw_activations", self.redraw_activations)
        check_flag("start.redraw_classifier", self.redraw_classifier)


@dataclasses.dataclass(frozen=True, kw_only=True)
class MetaSamplerOptions:
    """The Meta Sampler of Balanced Meta-Softmax, which learns how often images of each class are drawn.

    It draws from the batches of data.sampler and allows for the class probabilities of that sampler. Only the
    classifier is trained meanwhile (start.trainable classifier).
    """

    learned: bool = False
    """Learn how often images of each class are drawn; otherwise data.sampler alone decides."""
    learning_rate: float = 0.01
    """Learning rate of Adam, which learns the rates."""
    batch_size: int = 512
    """Images in the class-balanced batch that judges the rates, one such batch for each training batch."""
    initial_power: float = 0.0
    """Power p: the rate of a class of n images starts proportional to n ** -p; 0: all images alike."""

    def __post_init__(self):
        check_flag("meta_sampler.learned", self.learned)
        check_number("meta_sampler.learning_rate", self.learning_rate, above=0.0)
        check_whole("meta_sampler.batch_size", self.batch_size, at_least=1)
        check_number("meta_sampler.initial_power", self.initial_power, at_least=0.0)


@dataclasses.dataclass(frozen=True, kw_only=True)
class EvaluationOptions:
    """More than `many_threshold` training images are many-shot, fewer than `few_threshold` few-shot."""

    many_threshold: int = 100
    """A class with more training images than this is many-shot."""
    few_threshold: int = 20
    """A class with fewer training images than this is few-shot."""
    batch_size: int = 500
    """Images that are evaluated at a time; does not change the result."""
    prior_correction: PriorCorrectionVariant = "none"
    """Prior correction of the logits at inference; raw is PC-softmax."""
    tau: float = 1.0
    """Factor of the prior correction."""
    tau_normalization: float = 0.0
    """tau of tau-normalization: after training, the weights w of the classifier become w / |w|^tau, without the bias;
    0: no change."""

    def __post_init__(self):
        check_whole("evaluation.few_threshold", self.few_threshold, at_least=0)
        check_whole("evaluation.many_threshold", self.many_threshold, at_least=self.few_threshold)
        check_whole("evaluation.batch_size", self.batch_size, at_least=1)
        check_choice("evaluation.prior_correction", self.prior_correction, get_args(PriorCorrectionVariant))
        check_number("evaluation.tau", self.tau)
        check_number("evaluation.tau_normalization", self.tau_normalization, at_least=0.0)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Recipe(Experiment):
    """One experiment of classification.

    `title` is its name in tables and figures, `published` the row of a paper that it stands for, with its number;
    `seed` fixes start weights, order, augmentation and dropout.

    >>> recipe = Recipe(name="digits", epochs=2)
    >>> Recipe.from_dict(recipe.to_dict()) == recipe
    True
    >>> recipe.replace(epochs=2.5)
    Traceback (most recent call last):
        ...
    training.errors.OptionError: epochs must be a whole number of at least 1; given: 2.5.
    """

    data: DataOptions = DataOptions()
    augment: AugmentOptions = AugmentOptions()
    model: ModelOptions = ModelOptions()
    start: StartOptions = StartOptions()
    meta_sampler: MetaSamplerOptions = MetaSamplerOptions()
    loss: LossOptions = LossOptions()
    optimizer: OptimizerOptions = OptimizerOptions()
    evaluation: EvaluationOptions = EvaluationOptions()

    def __post_init__(self):
        super().__post_init__()
        if self.start.trainable != "all" and not self.start.weights:
            raise OptionError(f"start.trainable must be 'all' without start.weights; given: {self.start.trainable!r}.")
        if self.meta_sampler.learned:
            self._check_meta_sampler()

    def replace(self, **changes: Any) -> Self:
        """As that of every recipe; a lambda_gradient is of AGLU alone (see `ModelOptions`)."""
        recipe = super().replace(**changes)
        model = changes.get("model", {})
        given = "lambda_gradient" in model if isinstance(model, Mapping) else model.lambda_gradient != "exact"
        return recipe.with_used_lambda_gradient(given)

    def with_used_lambda_gradient(self, given: bool = False) -> Self:
        """Without a lambda_gradient that no AGLU uses; an error if the user has given it."""
        return dataclasses.replace(self, model=self.model.with_used_lambda_gradient(given))

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Self:
        """The recipe that `to_dict` wrote; earlier versions kept a lambda_gradient that no AGLU used."""
        model = dict(values.get("model", {}))
        lambda_gradient = model.pop("lambda_gradient", "exact")
        recipe = super().from_dict({**values, "model": model})
        options = dataclasses.replace(recipe.model, lambda_gradient=lambda_gradient)
        return dataclasses.replace(recipe, model=options.with_used_lambda_gradient())

    def _check_meta_sampler(self):
        """What the closed form of its gradient, and a known distribution to draw from, ask for."""
        why = "meta_sampler.learned needs it."
        if self.start.trainable != "classifier":
            raise OptionError(f"start.trainable must be 'classifier'; given: {self.start.trainable!r}. {why}")
        if self.augment.mixes:
            raise OptionError(
                "augment.mixup_alpha, augment.cutmix_alpha and augment.label_smoothing must be 0; given: "
                f"{self.augment.mixup_alpha:g}, {self.augment.cutmix_alpha:g} and {self.augment.label_smoothing:g}. "
                f"{why}"
            )
        if self.data.sampler not in META_SAMPLED:
            raise OptionError(
                f"data.sampler must be one of {', '.join(META_SAMPLED)}; given: {self.data.sampler!r}. {why}"
            )
        if self.loss.name not in META_LOSSES or set(self.loss.options) - {"tau", "name"}:
            given = f"{self.loss.name} with {dict(self.loss.options)}" if self.loss.options else self.loss.name
            raise OptionError(
                f"loss.name must be {' or '.join(META_LOSSES)}, with no option but tau; given: {given}. {why}"
            )
        if self.loss.class_weights != "none":
            raise OptionError(f"loss.class_weights must be 'none'; given: {self.loss.class_weights!r}. {why}")
