"""The loss of the classes of regions: how many logits it needs, how it treats the background, what its scores are."""

import keras
from keras import initializers, ops

from keras_apa import losses
from keras_apa import ops as apa_ops
from keras_apa._checks import check_name
from zoo.detection.losses import binary_crossentropy
from zoo.resnet import UNIFORM_FAN_IN

NAMES = ("softmax", "sigmoid", "gumbel")


def softmax_crossentropy(labels, logits):
    """`-log softmax(z)_label`, one value a region, for labels `(N,)` and logits `(N, classes)`.

    >>> from zoo.detection.roi_losses import softmax_crossentropy
    >>> labels, logits = keras.ops.zeros((1,), "int32"), keras.ops.zeros((1, 2))
    >>> [round(float(x), 4) for x in softmax_crossentropy(labels, logits)]
    [0.6931]
    """
    log_probabilities = ops.log_softmax(logits, axis=-1)
    return -ops.take_along_axis(log_probabilities, ops.expand_dims(ops.cast(labels, "int32"), -1), axis=-1)[:, 0]


class RegionLoss:
    """What `roi_loss=` of a detector stands for.

    Softmax losses have a logit for the background, the last; a region of background has the label `num_classes`. The
    losses of one binary decision a class have none: such a region is negative for every class.

    Args:
        roi_loss: `"softmax"`, `"sigmoid"`, `"gumbel"`, or a loss of `keras_apa.losses`. Those with an argument
            `background` need it `True`; `BalancedSoftmaxCrossentropy` and `LDAM` need counts of `num_classes + 1`
            classes, the background last. `SeesawLoss(objectness=True)` has two more logits. Any other Keras loss takes
            labels and `num_classes + 1` logits.
        num_classes: Number of classes.

    Raises: ValueError: For an unknown name, something that is no loss, a loss without `background=True`, one that
        does not take integer labels, or counts of another number of classes.
    Source: `"gumbel"` starts with N(0, 0.001) and bias -2: Gumbel Optimized Loss (ECCV 2022), Sec. 5.

    >>> from zoo.detection.roi_losses import RegionLoss
    >>> RegionLoss("softmax", 80).logits, RegionLoss("gumbel", 80).logits
    (81, 80)
    """

    def __init__(self, roi_loss, num_classes):
        self.given, self.num_classes = roi_loss, num_classes
        if isinstance(roi_loss, str):
            self.link = check_name(roi_loss, NAMES, "roi_loss")
            self.loss = None
        elif isinstance(roi_loss, keras.losses.Loss):
            self.loss = roi_loss
            self.link = self._link_of(roi_loss)
            self._check_counts(roi_loss)
            self._check_call(roi_loss)
        else:
            raise ValueError(f"roi_loss must be one of {', '.join(NAMES)} or a keras loss; given: {roi_loss!r}.")
        self.logits = num_classes + {"softmax": 1, "seesaw": 2}.get(self.link, 0)

    @staticmethod
    def _link_of(loss):
        """`"softmax"`, `"sigmoid"` or `"gumbel"`: what turns logits into scores."""
        if isinstance(loss, losses.SeesawLoss) and loss.objectness:
            return "seesaw"
        if getattr(loss, "base", "softmax") != "softmax":
            raise ValueError(
                f"base of roi_loss must be 'softmax', which can tell regions of background; given: {loss.base!r}."
            )
        if not hasattr(loss, "background"):
            return "softmax"
        if not loss.background:
            raise ValueError(
                f"roi_loss must know regions of background; given: {type(loss).__name__} without background=True."
            )
        if isinstance(loss, losses.GumbelCrossentropy):
            return "gumbel"
        return getattr(loss, "activation", "sigmoid")

    def _check_counts(self, loss):
        wanted = self.num_classes + (self.link == "softmax")
        for name in ("class_counts", "image_counts"):
            counts = getattr(loss, name, None)
            given = getattr(counts, "num_classes", None)
            if given is not None and given != wanted:
                last = ", the background last" if self.link == "softmax" else ""
                raise ValueError(f"{name} of roi_loss must have {wanted} classes{last}; given: {given}.")
        given = getattr(loss, "num_classes", None)
        if given is not None and given != wanted:
            raise ValueError(f"num_classes of roi_loss must be {wanted}; given: {given}.")

    def _check_call(self, loss):
        """A loss of Keras or of the user's own is tried; those of `keras_apa` draw and count."""
        if type(loss).__module__.startswith("keras_apa."):
            return
        wanted = "whole labels (N,) and logits (N, classes), and give one value a row"
        given = type(loss).__name__
        try:
            shape = tuple(loss.call(ops.zeros((2,), "int32"), ops.zeros((2, self.num_classes + 1))).shape)
        except Exception as error:
            first = next(iter(str(error).splitlines()), "")
            failed = f"{type(error).__name__}: {first}"
            raise ValueError(f"roi_loss must take {wanted}; given: {given}, which failed with {failed}") from error
        if shape != (2,):
            raise ValueError(f"roi_loss must take {wanted}; given: {given}, which gives the shape {shape} for 2 rows.")

    @property
    def classifier_initializer(self):
        """Start of the linear classifier's kernel."""
        if self.link == "softmax":
            return initializers.get(UNIFORM_FAN_IN)
        return initializers.RandomNormal(stddev=0.001 if self.link == "gumbel" else 0.01)

    @property
    def classifier_bias(self):
        """Start of its bias: rare positives among many classes (GOL's code: -2 for Gumbel, -6.5 for sigmoid)."""
        return {"sigmoid": -6.5, "gumbel": -2.0}.get(self.link, 0.0)

    def values(self, labels, logits):
        """The loss of each region, `(N,)`, for labels `0..num_classes - 1`, `num_classes` for background."""
        if self.loss is None and self.link == "softmax":
            return softmax_crossentropy(labels, logits)
        if self.loss is None and self.link == "sigmoid":
            targets = ops.one_hot(labels, self.num_classes + 1, dtype=logits.dtype)[:, :-1]
            return ops.sum(binary_crossentropy(targets, logits), axis=-1)
        if self.loss is None:
            return losses.gumbel_crossentropy(labels, logits, background=True)
        return self.loss.call(labels, logits)

    def mean(self, labels, logits, valid):
        """Sum over the sampled regions, divided by their number; a scalar."""
        # Regions of padding count as ignored: -1 is what the losses of keras_apa leave out of their statistics too.
        ignored = getattr(self.loss, "ignore_class", None)
        labels = ops.where(valid, labels, 0 if ignored is None else ignored)
        each = ops.where(valid, self.values(labels, logits), 0.0)
        return ops.sum(each) / ops.maximum(ops.sum(ops.cast(valid, "float32")), 1.0)

    def scores(self, logits):
        """Probability of each class, `(..., num_classes)`."""
        logits = ops.cast(logits, "float32")
        if self.link == "softmax":
            return ops.softmax(logits, axis=-1)[..., : self.num_classes]
        if self.link == "seesaw":
            classes, objectness = logits[..., : self.num_classes], ops.softmax(logits[..., self.num_classes :], axis=-1)
            return ops.softmax(classes, axis=-1) * objectness[..., :1]
        return ops.sigmoid(logits) if self.link == "sigmoid" else apa_ops.gumbel(logits)
