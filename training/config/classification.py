"""Frozen dataclasses that describe one experiment: data, model, loss, optimiser, evaluation.

A recipe is plain data. It imports neither Keras nor TensorFlow, is checked when it is made, and turns into a
dictionary for JSON and back without loss. `training.classification.train.train` is what runs it.
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
    """Which images, and which of them come how often. An option that a source has no use for is left alone."""

    name: str = "digits100_lt"
    """A data set (digits100_lt, cifar100_lt, imagenet_lt, ...), or folder or list for images of your own."""
    path: str = ""
    """Where the images are: folder of class folders, folder that a list's paths start from, or TFDS's data_dir."""
    train_list: str = ""
    """File with a line `path label` for each training image, or iNaturalist's JSON."""
    test_list: str = ""
    """The same for the test images."""
    imbalance_factor: float = 100.0
    """Largest class count over the smallest one, where the source makes the long tail itself (digits, CIFAR)."""
    image_size: int = 0
    """Side of the training images in pixels; 0 is the source's own."""
    test_image_size: int = 0
    """Side of the test images in pixels; 0 is image_size."""
    resize_size: int = 0
    """Length of the shorter side before the test image is cut from the centre; 0 keeps the source's proportion."""
    sampler: Sampler = "random"
    """How images are drawn: random is each once an epoch."""
    repeats: int = 1
    """Copies of each image in an epoch, each augmented in another way (sampler repeated)."""
    relabel_by_count: bool = False
    """Number the classes by falling count of training images, as the authors of APA do."""
    validation_fraction: float = 0.2
    """Share of a class that is kept for testing where a folder has no test images of its own."""
    on_corrupt: OnCorrupt = "error"
    """What is done about images that do not decode."""
    largest_class: int = 500
    """Training images of the largest class (digits)."""
    test_images_per_class: int = 20
    """Test images of each class (digits)."""
    noise: float = 0.3
    """Standard deviation of the noise (digits)."""
    seed: int = 0
    """What the images are drawn from (digits), and the split into training and validation images (folder)."""

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
    """What happens to a training image, in the order of these fields, and to a batch (mixup, cutmix, smoothing)."""

    shift: int = 0
    """Move by up to so many whole pixels; what enters is the mirrored border."""
    crop: Crop = "none"
    """none; padded (4 zeros on every side, then a random cut); resized (8 to 100 % of the area, resized)."""
    flip: bool = False
    """Mirror left to right, every second time."""
    policy: Policy = "none"
    """A published policy: operations drawn for each image."""
    policy_fill: int = 0
    """Grey value, 0 to 255, of what the policy moves in from outside."""
    policy_interpolation: PolicyInterpolation = "nearest"
    """Of what the policy shears, moves and rotates."""
    color_jitter: float = 0.0
    """Brightness, contrast and saturation change by a factor of 1 - c to 1 + c."""
    cutout: int = 0
    """Side of a square that is blanked, before the image is normalised."""
    erase_probability: float = 0.0
    """How often a random rectangle is blanked, after the image was normalised."""
    mixup_alpha: float = 0.0
    """Two images are blended with a weight from Beta(alpha, alpha), one a batch."""
    cutmix_alpha: float = 0.0
    """A rectangle of another image is pasted in. With mixup too, one of the two is drawn for each batch."""
    label_smoothing: float = 0.0
    """e in (1 - e) * target + e / classes, after mixing."""

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
    """Which network of the zoo, with its switches; None leaves a switch as the network has it."""

    name: str = "se_resnet8"
    """A network; keras-apa list models names them."""
    activation: str | None = None
    """relu, aglu, or any Keras activation."""
    gate: str | None = None
    """Channel gate: sigmoid, apa, gumbel, sigmoid_temperature, gumbel_temperature."""
    spatial_gate: str | None = None
    """Spatial gate, the same choice."""
    gate_normalization: bool | None = None
    """LayerNorm in the channel gate."""
    gate_dropout: float | None = None
    """Rate of the dropout in the channel gate."""
    classifier: str | None = None
    """linear, cosine, learned_cosine, normalized or wrapped_cauchy."""
    lambda_gradient: LambdaGradient = "exact"
    """Of AGLU: exact, or paper (Eq. 8 of the APA paper, with which its classification models were trained). With
    another activation that of a recipe is left out."""
    frozen_batch_norm: bool | None = None
    """Batch norms use their moving statistics in training too."""
    stem: str | None = None
    """imagenet or cifar."""
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
    """A loss; keras-apa list losses names them. Keras's own are known too."""
    options: Mapping[str, bool | int | float | str] = dataclasses.field(default_factory=dict)
    """Arguments of the loss, such as tau."""
    class_weights: ClassWeights = "none"
    """none; inverse (1 / n, scaled to a mean of 1 over classes); effective ((1 - b) / (1 - b^n), the same scale).
    Of a mixed image each class's term of the loss has the weight of that class."""
    class_weights_beta: float = 0.9999
    """b of effective."""
    class_weights_from_epoch: int = 0
    """Deferred re-weighting: the weights are 1 before this epoch."""

    def __post_init__(self):
        check_text("loss.name", self.name)
        check_plain_mapping("loss.options", self.options)
        check_choice("loss.class_weights", self.class_weights, get_args(ClassWeights))
        check_number("loss.class_weights_beta", self.class_weights_beta, at_least=0.0, below=1.0)
        check_whole("loss.class_weights_from_epoch", self.class_weights_from_epoch, at_least=0)


@dataclasses.dataclass(frozen=True, kw_only=True)
class StartOptions:
    """What the training starts from and what of it is trained: the second stage of decoupled training."""

    weights: str = ""
    """A run folder, a .keras file, a preset, a PyTorch checkpoint, or the name of published weights; none: none."""
    keep_classifier: bool = False
    """Go on from the classifier that is there; otherwise it starts anew."""
    trainable: Trainable = "all"
    """all; classifier; last_stage (and the classifier); class_scale (LWS: one factor a class on the logits).
    What is not trained keeps its weights, but its batch norms go on following the batches, as in the authors' code."""
    redraw_activations: bool = False
    """Draw kappa and lambda of the last stage anew from U(0, 1) (Places-LT)."""
    redraw_classifier: bool = False
    """Draw the weights of a new classifier from Xavier's uniform distribution (Places-LT), not from its own."""

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

    It draws from the batches of data.sampler, whose own class probabilities it allows for, while the classifier alone
    is trained (start.trainable classifier).
    """

    learned: bool = False
    """Learn the rates; otherwise images come as data.sampler draws them."""
    learning_rate: float = 0.01
    """Of Adam, for the rates."""
    batch_size: int = 512
    """Images of the class-balanced batch that judges the rates, beside each training batch."""
    initial_power: float = 0.0
    """p: rates begin proportional to n ** -p for a class of n images; 0: every image alike."""

    def __post_init__(self):
        check_flag("meta_sampler.learned", self.learned)
        check_number("meta_sampler.learning_rate", self.learning_rate, above=0.0)
        check_whole("meta_sampler.batch_size", self.batch_size, at_least=1)
        check_number("meta_sampler.initial_power", self.initial_power, at_least=0.0)


@dataclasses.dataclass(frozen=True, kw_only=True)
class EvaluationOptions:
    """More than `many_threshold` training images are many-shot, fewer than `few_threshold` few-shot."""

    many_threshold: int = 100
    """See above."""
    few_threshold: int = 20
    """See above."""
    batch_size: int = 500
    """Images at a time; does not change the result."""
    prior_correction: PriorCorrectionVariant = "none"
    """What is added to the logits at inference; raw is PC-softmax."""
    tau: float = 1.0
    """Factor of the correction."""
    tau_normalization: float = 0.0
    """tau in w / |w|^tau, the weights of the classifier after training; its bias is left out. 0: none."""

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
