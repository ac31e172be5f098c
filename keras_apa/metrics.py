"""Accuracy that frequent classes do not dominate: by shot group, and as the mean over classes.

Both metrics add up, for each class, the weights of its samples and of its correctly classified samples. They average
only at the end, so ragged last batches and sample weights are exact. They read no number back from the device until
you ask for the result.
"""

from __future__ import annotations

import warnings
from typing import Any, Literal

import keras
import numpy as np
from keras import ops
from numpy.typing import NDArray

from keras_apa._checks import check_integer, check_name, check_targets_are_numbers
from keras_apa._keras_internals import has_stateless_scope, larger_is_better, metrics_of_calling_model
from keras_apa._kernels import is_hidden, is_on_cpu
from keras_apa._labels import nan_or_error, outside_message
from keras_apa._typing import ClassCountsLike, Tensor, TensorLike
from keras_apa.class_counts import as_class_counts

__all__ = ["MeanClassAccuracy", "ShotAccuracy"]

# Sums are kept as low + _CARRY * high: a float32 alone stops counting at 2**24, this at 2**36.
_CARRY = 4096.0
_GROUPS = ("many", "medium", "few", "all")


@larger_is_better
class _PerClassAccuracy(keras.metrics.Metric):
    """Weights of all and of the correct samples of each class, from which a subclass makes its result."""

    def __init__(self, num_classes: int, ignore_class: int | None, name: str, dtype: Any) -> None:
        super().__init__(name=name, dtype=dtype)
        self.num_classes = num_classes
        self.ignore_class = check_integer(ignore_class, "ignore_class", or_none=True)
        # Half precision cannot count.
        dtype = "float64" if self.dtype == "float64" else "float32"
        self._correct, self._total = (
            self.add_variable((2, num_classes), "zeros", dtype=dtype, name=name) for name in ("correct", "total")
        )

    def update_state(self, y_true: TensorLike, y_pred: TensorLike, sample_weight: TensorLike | None = None) -> None:
        """Adds a batch.

        Args:
            y_true: Integer labels of shape `(...)` or `(..., 1)`, or one-hot or soft labels `(..., num_classes)`,
                whose largest entry is the label.
            y_pred: Logits or probabilities `(..., num_classes)`. A row that contains NaN counts as wrong.
            sample_weight: Numbers that broadcast to the labels, or `None`.

        Raises:
            ValueError: If the shapes do not fit, or if a label is not a class. Labels are checked here only if they
                are in host memory and outside a compiled step. For compiled steps see
                `keras_apa.losses.trusted_labels`. Elsewhere, such a label makes every result NaN until the state is
                reset.
        """
        check_targets_are_numbers(y_true)
        dtype = self._total.dtype
        on_host = isinstance(y_true, np.ndarray | list | tuple)
        # At once: JAX would first cut an int64 label to its lower half, which may look like a class.
        y_true = ops.convert_to_tensor(y_true, dtype="float32") if on_host else ops.cast(y_true, "float32")
        y_pred = ops.convert_to_tensor(y_pred)
        y_true, is_labels = _read_shapes(y_true, y_pred, self.num_classes)
        if is_labels:
            labels = y_true
            known = ops.logical_and(labels >= 0, labels < self.num_classes)
            known = ops.logical_and(known, ops.equal(labels, ops.floor(labels)))
        else:
            labels = ops.cast(ops.argmax(y_true, axis=-1), "float32")
            known = ops.max(y_true, axis=-1) > 0
        weights = ops.ones_like(labels, dtype=dtype)
        if sample_weight is not None:
            weights = weights * _broadcast_weights(sample_weight, labels, dtype)
        wrong = ops.logical_not(known)
        if is_labels and self.ignore_class is not None:
            ignored = ops.equal(labels, self.ignore_class)
            wrong = ops.logical_and(wrong, ops.logical_not(ignored))
            known = ops.logical_and(known, ops.logical_not(ignored))
        nan = self._nan_or_error(on_host, y_true, y_pred, wrong, is_labels)

        # Weight 0 alone would not do: 0 * NaN or infinity of an ignored sample's weight is NaN.
        weights = ops.reshape(ops.where(known, weights, 0.0), (-1,))
        labels = ops.reshape(ops.cast(ops.where(known, labels, 0.0), "int32"), (-1,))
        predicted = ops.reshape(ops.cast(ops.argmax(y_pred, axis=-1), "int32"), (-1,))
        # argmax takes NaN for the largest, or for the first, and so would score a model that has diverged.
        broken = ops.reshape(ops.any(ops.isnan(y_pred), axis=-1), (-1,))
        right = ops.logical_and(ops.equal(predicted, labels), ops.logical_not(broken))
        hits = ops.where(right, weights, 0.0)
        poison = ops.cast(ops.where(ops.any(wrong), nan, 0.0), dtype)
        self._add(self._correct, self._sum_by_class(hits, labels))
        self._add(self._total, self._sum_by_class(weights, labels) + poison)

    def _sum_by_class(self, numbers: Tensor, labels: Tensor) -> Tensor:
        # Not ops.segment_sum: on PyTorch it waits for the device and returns to float32.
        here = ops.equal(ops.expand_dims(labels, -1), ops.arange(self.num_classes, dtype="int32"))
        return ops.sum(ops.where(here, ops.expand_dims(numbers, -1), 0.0), axis=0)

    def _add(self, variable: keras.Variable, numbers: Tensor) -> None:
        low = variable[0] + numbers
        carried = ops.floor(low / _CARRY)
        variable.assign(ops.stack([low - _CARRY * carried, variable[1] + carried]))

    def _nan_or_error(self, on_host: bool, y_true: Tensor, y_pred: Tensor, wrong: Tensor, is_labels: bool) -> Tensor:
        """A look at labels on an accelerator would wait for the device at every step, so it is left out there."""
        if not (on_host or is_hidden(wrong) or is_on_cpu(y_true)):
            return np.nan
        if not is_labels:
            return nan_or_error(
                ops.expand_dims(wrong, -1),
                y_true,
                y_pred,
                lambda bad: "y_true must have an entry above 0 in every one-hot or soft row; given: a row of none.",
            )
        return nan_or_error(
            wrong,
            y_true,
            y_pred,
            lambda bad: outside_message(bad, self.num_classes, ignore_class=self.ignore_class),
        )

    def _sums(self) -> tuple[Tensor, ...]:
        """Weight of the correct samples and of all samples of each class."""
        return tuple(v[0] + _CARRY * v[1] for v in (self._correct, self._total))

    def per_class_accuracy(self) -> Tensor:
        """Accuracy of each class, a tensor `(num_classes,)`. A class without samples so far is NaN."""
        correct, total = self._sums()
        seen = ops.not_equal(total, 0)
        return ops.where(seen, correct / ops.where(seen, total, 1.0), float("nan"))

    def _mean_over_seen(self, members: NDArray[Any]) -> Tensor:
        """Unweighted mean of the accuracies of those of `members` that have samples; NaN if none has."""
        correct, total = self._sums()
        # NaN is not equal to 0, so that the sum of an unknown label reaches every group.
        seen = ops.not_equal(total, 0)
        accuracy = ops.where(seen, correct / ops.where(seen, total, 1.0), 0.0)
        members = ops.convert_to_tensor(members, dtype=total.dtype)
        number = ops.sum(members * ops.cast(seen, total.dtype))
        mean = ops.sum(accuracy * members) / ops.maximum(number, 1.0)
        return ops.where(number > 0, mean, float("nan"))

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "ignore_class": self.ignore_class}


@keras.saving.register_keras_serializable(package="keras_apa")
class ShotAccuracy(_PerClassAccuracy):
    """Top-1 accuracy by how many training images a class has: `many`, `medium`, `few`, and `all`.

    `many` are the classes with more than `many_threshold` training images, `few` those with fewer than
    `few_threshold`. `medium` are the others, both thresholds included. The accuracy of a group is the unweighted mean
    of the accuracies of its classes. Only classes that the evaluated labels contain count, and a group without any is
    NaN (the authors' script prints 0 there).

    `all` is the accuracy over samples. On the balanced test sets of the papers, it is also the mean over classes. For
    other test sets, see `MeanClassAccuracy`.

    `result()` is a dictionary. `fit` and `evaluate` log each entry under its own name, such as `val_few`. If a model
    has two of these metrics, the names of their outputs are added, as in `val_species_few`, or their own names. The
    metric's own name is also added if another metric has the name of an entry but measures something else.

    Keras cannot tell whether an entry of a dictionary should rise. Pass the mode:
    `EarlyStopping("val_few", mode="max")`, and the same for `ModelCheckpoint` and `ReduceLROnPlateau`. For
    KerasTuner, which knows the direction of Keras's own metrics only, write
    `keras_tuner.Objective("val_few", "max")`.

    With `group="few"`, the metric is that one number, its name is `few`, and you need no mode. In a model with
    several outputs you still need it, because Keras finds no metric's direction there. A callback that monitors NaN
    never sees an improvement. A metric with a `group` warns if there were labels, but none of that group's classes.

    Args:
        class_counts: The number of training images of each class, as `ClassCounts`, a sequence or a mapping. 0 is
            allowed.
        many_threshold: Classes with more images are many-shot.
        few_threshold: Classes with fewer images are few-shot.
        ignore_class: Samples with this integer label are left out. `None` keeps all samples.
        prefix: Text to put before the names of the entries.
        name: The name of the metric. The default is `shot_accuracy`, or `prefix` and `group` if there is a group.
        dtype: As for every Keras metric.
        group: `"many"`, `"medium"`, `"few"` or `"all"`. The result is then this number instead of a dictionary.

    Raises:
        ValueError: If the counts are not valid, if `many_threshold` is below `few_threshold`, or if no class is in
            `group`. `update_state` raises it if shapes or labels do not fit.

    Source: Large-Scale Long-Tailed Recognition in an Open World (CVPR 2019), section 4, and its function `shot_acc`.

    >>> metric = ShotAccuracy(class_counts=[500, 60, 5])
    >>> metric.update_state([0, 0, 1, 2], [[9., 0, 0], [9, 0, 0], [0, 9, 0], [9, 0, 0]])
    >>> {name: float(value) for name, value in metric.result().items()}
    {'many': 1.0, 'medium': 1.0, 'few': 0.0, 'all': 0.75}
    >>> ShotAccuracy(class_counts=[500, 60, 5], group="few").name
    'few'
    """

    def __init__(
        self,
        class_counts: ClassCountsLike,
        many_threshold: float = 100,
        few_threshold: float = 20,
        ignore_class: int | None = -1,
        prefix: str = "",
        name: str | None = None,
        dtype: str | keras.DTypePolicy | None = None,
        group: Literal["many", "medium", "few", "all"] | None = None,
    ) -> None:
        class_counts = as_class_counts(class_counts, allow_zero=True)
        if group is not None:
            check_name(group, _GROUPS, "group")
        name = name or ("shot_accuracy" if group is None else f"{prefix}{group}")
        super().__init__(class_counts.num_classes, ignore_class, name, dtype)
        self.class_counts = class_counts
        self.many_threshold = many_threshold
        self.few_threshold = few_threshold
        self.prefix = prefix
        self.group = group
        self._members = {}
        for each, indices in class_counts.shot_groups(many_threshold, few_threshold).items():
            self._members[each] = np.isin(np.arange(self.num_classes), indices)
        if group in self._members and not self._members[group].any():
            raise ValueError(
                f"group must be one that has classes; given: {group!r}, with many_threshold {many_threshold} and "
                f"few_threshold {few_threshold}."
            )
        self._told = False

    def result(self) -> Tensor | dict[str, Tensor]:
        """A dict of scalar tensors, `many`, `medium`, `few` and `all`. With `group`, one scalar tensor."""
        if self.group in self._members:
            return self._mean_over_seen(self._members[self.group])
        correct, total = (ops.sum(sums) for sums in self._sums())
        mean = ops.where(ops.not_equal(total, 0), correct / total, float("nan"))
        if self.group == "all":
            return mean
        results = {group: self._mean_over_seen(members) for group, members in self._members.items()}
        results["all"] = mean
        prefix = f"{self._name_among(metrics_of_calling_model())}{self.prefix}"
        return {f"{prefix}{group}": value for group, value in results.items()}

    def _name_among(self, metrics: list[tuple[str | None, keras.metrics.Metric]]) -> str:
        """What sets this metric's entries apart from those of the model's others: its output, its name, or both."""
        rivals = [
            (output, metric)
            for output, metric in metrics
            if isinstance(metric, ShotAccuracy) and metric.group is None and metric.prefix == self.prefix
        ]
        places = [place for place, (_, metric) in enumerate(rivals) if metric is self]
        if not places:
            return ""
        if len(rivals) < 2:
            return f"{self.name}_" if self._would_overwrite(metrics) else ""
        both = [f"{output}_{metric.name}" if output else metric.name for output, metric in rivals]
        numbered = [f"{name}_{both[:place].count(name)}" for place, name in enumerate(both)]
        choices = ([output for output, _ in rivals], [metric.name for _, metric in rivals], both, numbered)
        names = next(each for each in choices if None not in each and len(set(each)) == len(rivals))
        return f"{names[places[0]]}_"

    def _would_overwrite(self, metrics: list[tuple[str | None, keras.metrics.Metric]]) -> bool:
        """Whether an entry has the name of another metric in the logs, but not its number."""
        entries = {f"{self.prefix}{group}": group for group in _GROUPS}
        others = {metric.name: metric for output, metric in metrics if output is None and metric is not self}
        shared = [(others[entry], group) for entry, group in entries.items() if entry in others]
        return any(not (isinstance(other, ShotAccuracy) and other._is_part_of(self, group)) for other, group in shared)

    def _is_part_of(self, whole: ShotAccuracy, group: str) -> bool:
        ours, theirs = ({**metric.get_config(), "prefix": "", "name": ""} for metric in (self, whole))
        return ours == {**theirs, "group": group}

    def reset_state(self) -> None:
        """Forgets all samples. Warns, once, if the result was NaN because no label was of a class in `group`."""
        if self.group in self._members and not self._told and not has_stateless_scope():
            try:
                total = ops.convert_to_numpy(self._sums()[1])
            except RuntimeError:
                # JAX: Keras has the values elsewhere meanwhile.
                total = np.zeros(self.num_classes)
            if total.any() and not total[self._members[self.group]].any():
                self._told = True
                warnings.warn(
                    f"{self.name} was NaN: no label was of one of the {self._members[self.group].sum()} classes of the "
                    f"group {self.group!r}. A callback that monitors it never sees an improvement.",
                    stacklevel=2,
                )
        super().reset_state()

    def get_config(self) -> dict[str, Any]:
        return {
            **super().get_config(),
            "class_counts": self.class_counts.counts.tolist(),
            "many_threshold": self.many_threshold,
            "few_threshold": self.few_threshold,
            "prefix": self.prefix,
            "group": self.group,
        }


@keras.saving.register_keras_serializable(package="keras_apa")
class MeanClassAccuracy(_PerClassAccuracy):
    """Unweighted mean of the classes' accuracies (balanced accuracy, macro recall).

    `1/K * sum over c of correct_c / total_c`, over the K classes that the evaluated labels contain. It equals
    scikit-learn's `balanced_accuracy_score`, also with `sample_weight`. Before the first sample it is NaN.

    Args:
        num_classes: The number of classes, which is the width of the predictions.
        ignore_class: Samples with this integer label are left out. `None` keeps all samples.
        name, dtype: As for every Keras metric.

    Raises:
        ValueError: If `num_classes` is not a positive integer. `update_state` raises it if shapes or labels do not
            fit.

    >>> metric = MeanClassAccuracy(num_classes=2)
    >>> metric.update_state([0, 0, 0, 1], [[9., 0], [9, 0], [9, 0], [9, 0]])
    >>> float(metric.result())
    0.5
    """

    def __init__(
        self,
        num_classes: int,
        ignore_class: int | None = -1,
        name: str = "mean_class_accuracy",
        dtype: str | keras.DTypePolicy | None = None,
    ) -> None:
        super().__init__(check_integer(num_classes, "num_classes", low=1), ignore_class, name, dtype)

    def result(self) -> Tensor:
        """A scalar tensor; NaN before the first sample."""
        return self._mean_over_seen(np.ones(self.num_classes))

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "num_classes": self.num_classes}


def _read_shapes(y_true: Tensor, y_pred: Tensor, num_classes: int) -> tuple[Tensor, bool]:
    """Labels without a last axis of 1, and whether they are labels (else one row a sample)."""
    true, pred = tuple(y_true.shape), tuple(y_pred.shape)
    if not pred or pred[-1] not in (num_classes, None):
        raise ValueError(f"y_pred must have shape (..., {num_classes}), one number a class; given: shape {pred}.")
    if len(true) == len(pred) and true[-1] == 1:
        y_true, true = ops.squeeze(y_true, axis=-1), true[:-1]
    is_labels = len(true) == len(pred) - 1
    fits = is_labels or (len(true) == len(pred) and true[-1] in (num_classes, None))
    for ours, theirs in zip(true, pred[:-1], strict=False):
        fits = fits and (ours is None or theirs is None or ours == theirs)
    if not fits:
        raise ValueError(
            f"y_true must be labels of shape {pred[:-1]} or one-hot labels of shape (..., {num_classes}) "
            f"to go with y_pred of shape {pred}; given: shape {true}."
        )
    return y_true, is_labels


def _broadcast_weights(sample_weight: TensorLike, labels: Tensor, dtype: str) -> Tensor:
    weights = ops.cast(ops.convert_to_tensor(sample_weight), dtype)
    rank = len(labels.shape)
    if len(weights.shape) == rank + 1 and weights.shape[-1] == 1:
        weights = ops.squeeze(weights, axis=-1)
    if len(weights.shape) > rank:
        raise ValueError(
            f"sample_weight must broadcast to the labels of shape {tuple(labels.shape)}; "
            f"given: shape {tuple(weights.shape)}."
        )
    while 0 < len(weights.shape) < rank:
        weights = ops.expand_dims(weights, -1)
    return weights
