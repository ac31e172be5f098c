"""What every recipe has, whatever its task: names, epochs, batch size, optimizer, precision."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from typing import Any, Literal, Self, get_args

from training.checks import check_choice, check_flag, check_known, check_number, check_text, check_whole
from training.errors import OptionError

Precision = Literal["float32", "mixed_float16", "mixed_bfloat16"]
OptimizerName = Literal["sgd", "adamw"]
Schedule = Literal["cosine", "epoch_cosine", "multistep", "constant"]


@dataclasses.dataclass(frozen=True, kw_only=True)
class OptimizerOptions:
    """Optimiser and learning rate.

    `sgd` is PyTorch's: weight decay is an L2 penalty in the gradient, the momentum buffer holds raw gradients.
    kappa and lambda are never decayed; norms and biases are, unless told otherwise.
    """

    name: OptimizerName = "sgd"
    """Optimiser."""
    learning_rate: float = 0.1
    """Highest learning rate of the schedule."""
    momentum: float = 0.9
    """Momentum of sgd, or beta_1 of adamw."""
    nesterov: bool = False
    """Use Nesterov momentum (sgd)."""
    weight_decay: float = 0.0
    """Weight decay: an L2 penalty in the gradient (sgd), or decoupled (adamw)."""
    decay_norms: bool = True
    """Decay the scale and offset of norms, too."""
    decay_biases: bool = True
    """Decay biases, too."""
    schedule: Schedule = "cosine"
    """How the learning rate falls: cosine (at every step), epoch_cosine (once an epoch, as the authors do), multistep
    or constant."""
    warmup_epochs: float = 0.0
    """Epochs at the start in which the learning rate rises."""
    warmup_start: float = 0.01
    """Share of the learning rate at which the warm-up starts; the schedule cosine ignores it."""
    milestones: tuple[int, ...] = ()
    """Epochs at which multistep multiplies the learning rate by gamma, counted from the end of the warm-up."""
    gamma: float = 0.1
    """Factor of the learning rate at each of the milestones."""
    clip_norm: float | None = None
    """Largest norm of the whole gradient, before weight decay; none: no limit."""
    ema_momentum: float | None = None
    """Momentum of an exponential moving average of the weights, which is evaluated and saved at the end; none: no
    average."""
    accumulation_steps: int = 1
    """Batches for one step; their gradients are averaged."""

    def __post_init__(self):
        check_choice("optimizer.name", self.name, get_args(OptimizerName))
        check_number("optimizer.learning_rate", self.learning_rate, above=0.0)
        check_number("optimizer.momentum", self.momentum, at_least=0.0, below=1.0)
        check_flag("optimizer.nesterov", self.nesterov)
        if self.nesterov and (self.name != "sgd" or not self.momentum):
            raise OptionError(
                "optimizer.nesterov must be False without optimizer.name 'sgd' and an optimizer.momentum above 0; "
                f"given: True with {self.name!r} and {self.momentum:g}."
            )
        check_number("optimizer.weight_decay", self.weight_decay, at_least=0.0)
        check_flag("optimizer.decay_norms", self.decay_norms)
        check_flag("optimizer.decay_biases", self.decay_biases)
        check_number("optimizer.warmup_epochs", self.warmup_epochs, at_least=0.0)
        check_number("optimizer.warmup_start", self.warmup_start, above=0.0, below=1.0)
        check_choice("optimizer.schedule", self.schedule, get_args(Schedule))
        if self.schedule != "cosine" and self.warmup_epochs != int(self.warmup_epochs):
            raise OptionError(
                f"optimizer.warmup_epochs must be whole epochs with optimizer.schedule {self.schedule!r}, whose "
                f"warm-up rises once an epoch; given: {self.warmup_epochs}. The schedule 'cosine' takes parts of an "
                "epoch."
            )
        if not isinstance(self.milestones, tuple | list):
            raise OptionError(f"optimizer.milestones must be a list of epochs; given: {self.milestones!r}.")
        # JSON has lists only, and a recipe that was read has to equal the one that was written.
        object.__setattr__(self, "milestones", tuple(self.milestones))
        for earlier, milestone in zip((0, *self.milestones), self.milestones, strict=False):
            check_whole("each of optimizer.milestones", milestone, at_least=earlier + 1)
        if bool(self.milestones) != (self.schedule == "multistep"):
            raise OptionError(
                "optimizer.milestones must be given with optimizer.schedule 'multistep', and with no other; given: "
                f"{list(self.milestones)} with {self.schedule!r}."
            )
        check_number("optimizer.gamma", self.gamma, above=0.0)
        if self.clip_norm is not None:
            check_number("optimizer.clip_norm", self.clip_norm, above=0.0)
        if self.ema_momentum is not None:
            check_number("optimizer.ema_momentum", self.ema_momentum, above=0.0, below=1.0)
        check_whole("optimizer.accumulation_steps", self.accumulation_steps, at_least=1)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Experiment:
    """What recipes of every task have; a subclass adds its parts, fields whose defaults are dataclasses."""

    name: str
    title: str = ""
    published: str = ""
    epochs: int = 10
    """Passes over the training images."""
    batch_size: int = 128
    """Training images in a batch."""
    precision: Precision = "float32"
    """Number format in which layers compute; weights stay float32."""
    seed: int = 0
    """Seed of start weights, order, augmentation and dropout."""

    def __post_init__(self):
        check_text("name", self.name)
        for field in ("title", "published"):
            if not isinstance(getattr(self, field), str):
                raise OptionError(f"{field} must be text; given: {getattr(self, field)!r}.")
        for part, expected in self.parts().items():
            if not isinstance(getattr(self, part), expected):
                raise OptionError(f"{part} must be {expected.__name__}; given: {getattr(self, part)!r}.")
        check_whole("epochs", self.epochs, at_least=1)
        check_whole("batch_size", self.batch_size, at_least=1)
        check_choice("precision", self.precision, get_args(Precision))
        # TensorFlow and JAX take seeds of 32 bits.
        check_whole("seed", self.seed, at_least=0, below=2**32)

    @classmethod
    def parts(cls) -> dict[str, type]:
        """The parts by name, with their classes."""
        return {
            field.name: type(field.default)
            for field in dataclasses.fields(cls)
            if dataclasses.is_dataclass(field.default)
        }

    def replace(self, **changes: Any) -> Self:
        """A copy with other values; a mapping changes only what it names: `replace(data={"noise": 0.0})`."""
        check_known("recipe", changes, (field.name for field in dataclasses.fields(self)))
        for part, expected in self.parts().items():
            if isinstance(changes.get(part), Mapping):
                check_known(part, changes[part], (field.name for field in dataclasses.fields(expected)))
                changes[part] = dataclasses.replace(getattr(self, part), **changes[part])
        return dataclasses.replace(self, **changes)

    def to_dict(self) -> dict[str, Any]:
        """Plain dictionaries, numbers and text, as JSON takes them."""
        return json.loads(json.dumps(dataclasses.asdict(self)))

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Self:
        """The recipe that `to_dict` wrote; an unknown key is an error that names the nearest valid ones."""
        if "name" not in values:
            raise ValueError(f"a recipe must have a name; given: {', '.join(values) or 'nothing'}.")
        return cls(name=values["name"]).replace(**values)


def differences(was: Any, now: Any, path: str = "") -> dict[str, tuple[Any, Any]]:
    """`PART.FIELD` -> (old, new) for every value in which two dictionaries of recipes differ.

    In two lists of recipes, the same setting of several of them is named once.

    >>> from training.config.classification import Recipe
    >>> recipe = Recipe(name="digits")
    >>> differences(recipe.to_dict(), recipe.replace(model={"gate": "apa"}).to_dict())
    {'model.gate': (None, 'apa')}
    """
    if isinstance(was, dict) and isinstance(now, dict):
        pairs = [(key, was.get(key), now.get(key)) for key in {**was, **now}]
    elif _are_recipes(was) and _are_recipes(now) and len(was) == len(now):
        pairs = [("", old, new) for old, new in zip(was, now, strict=True)]
    else:
        return {} if was == now else {path: (was, now)}
    found: dict[str, tuple[Any, Any]] = {}
    for key, old, new in pairs:
        found = differences(old, new, ".".join(part for part in (path, key) if part)) | found
    return found


def _are_recipes(value):
    return isinstance(value, list) and all(isinstance(each, dict) for each in value)
