"""Which training images an epoch shows, and in which order.

A pure function of seed and epoch: nothing is kept between epochs, so that a run that was stopped goes on with the
order it would have had. The distributions are those of the papers' code; their streams of random numbers are not.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from training.checks import check_choice, check_whole
from training.config.classification import SAMPLERS

__all__ = ["SAMPLERS", "epoch_length", "epoch_order"]


# The epoch of RASampler is cut to a multiple of this, whatever the batch size is.
_REPEATED_MULTIPLE = 256


def epoch_order(
    name: str,
    labels: np.ndarray,
    num_classes: int,
    *,
    seed: int,
    epoch: int,
    epochs: int,
    repeats: int = 1,
    images_per_class: int = 4,
) -> np.ndarray:
    """The images of one epoch.

    With N images, of which class c of C has n_c:

    * `random`: every image once.
    * `class_balanced`: N draws with replacement, each class with probability 1/C, then each of its images alike.
    * `square_root`: the same with the probability of a class proportional to sqrt(n_c).
    * `progressively_balanced`: the same with `(1 - t) n_c / N + t / C`, t from 0 in the first epoch to 1 in the last.
    * `upsampling`: as many images of every class as the largest has, drawn with replacement only from classes
      that have fewer; shuffled. `downsampling`: as many as the smallest has, without replacement; shuffled.
    * `class_aware`: classes in random cycles, and of each `images_per_class` images in a row, which go in random
      cycles through the images of the class; N in all.
    * `repeated`: a random order with each image `repeats` times in a row, cut to a multiple of 256 that is at most N
      (to N where that is below 256): an epoch shows N / `repeats` of the images. On one device the copies are
      in one batch, and mixup by a rolled batch mixes an image with itself.

    Args:
        name: One of `SAMPLERS`.
        labels: Of the training images: integers `(N,)` from 0 to `num_classes - 1`.
        num_classes: Number of classes C.
        seed: Of the whole run.
        epoch: From 0.
        epochs: Of the whole run; only `progressively_balanced` depends on it.
        repeats: For `repeated` only; 1 elsewhere.
        images_per_class: For `class_aware` only.

    Returns: int64 `(epoch_length(...),)`, indices into the training images.
    Raises: ValueError: An unknown name, a number out of its range, labels beyond the classes, or a class without
        images where the sampler draws by class.
    Source: `repeated`: Training data-efficient image transformers (ICML 2021), as in the code of Adaptive Parametric
        Activation; `upsampling`, `downsampling`: catalyst's BalanceClassSampler, there too; `class_balanced`,
        `square_root`, `progressively_balanced`: Decoupling Representation and Classifier for Long-Tailed Recognition
        (ICLR 2020), section 4.1; `class_aware`: Relay Backpropagation (ECCV 2016), with the 4 images of the code of
        Balanced Meta-Softmax.

    >>> labels = np.array([0, 0, 0, 0, 1])
    >>> np.bincount(labels[epoch_order("upsampling", labels, 2, seed=0, epoch=0, epochs=1)]).tolist()
    [4, 4]
    """
    labels, counts = _check(name, labels, num_classes, repeats)
    check_whole("seed", seed, at_least=0)
    check_whole("epochs", epochs, at_least=1)
    check_whole("epoch", epoch, at_least=0, below=epochs)
    check_whole("images_per_class", images_per_class, at_least=1)
    generator = np.random.default_rng(np.random.SeedSequence([seed, epoch]))
    length = epoch_length(name, labels, num_classes, repeats=repeats)
    if name == "random":
        return generator.permutation(len(labels))
    if name == "repeated":
        return np.repeat(generator.permutation(len(labels)), repeats)[:length]
    images = _places_by_class(labels, counts)
    if name in ("upsampling", "downsampling"):
        each = length // num_classes
        drawn = [generator.choice(own, each, replace=len(own) < each) for own in images]
        return generator.permutation(np.concatenate(drawn))
    if name == "class_aware":
        return _class_aware(images, length, images_per_class, generator)
    classes = generator.choice(num_classes, length, p=_class_probabilities(name, counts, epoch, epochs))
    starts = np.cumsum(counts) - counts
    return np.concatenate(images)[starts[classes] + generator.integers(0, counts[classes])]


def epoch_length(name: str, labels: np.ndarray, num_classes: int, *, repeats: int = 1) -> int:
    """The number of images in an epoch, copies counted; the same for every epoch.

    Args and errors: as for `epoch_order`.

    >>> labels = np.array([0, 0, 0, 0, 1])
    >>> [epoch_length(name, labels, 2) for name in ("random", "upsampling", "downsampling")]
    [5, 8, 2]
    """
    labels, counts = _check(name, labels, num_classes, repeats)
    if name == "upsampling":
        return int(num_classes * counts.max())
    if name == "downsampling":
        return int(num_classes * counts.min())
    if name == "repeated" and len(labels) >= _REPEATED_MULTIPLE:
        return len(labels) // _REPEATED_MULTIPLE * _REPEATED_MULTIPLE
    return len(labels)


def _check(name, labels, num_classes, repeats):
    """The labels as an array, and how often each class occurs."""
    check_choice("the sampler", name, SAMPLERS)
    check_whole("num_classes", num_classes, at_least=1)
    check_whole("repeats", repeats, at_least=1)
    if repeats > 1 and name != "repeated":
        raise ValueError(f"repeats must be 1 where the sampler is not 'repeated'; given: {repeats} with {name!r}.")
    labels = np.asarray(labels)
    if labels.ndim != 1 or labels.dtype.kind not in "iu" or not labels.size:
        raise ValueError(f"labels must be integers of shape (N,), at least one; given: {labels.dtype} {labels.shape}.")
    if labels.min() < 0 or labels.max() >= num_classes:
        raise ValueError(f"labels must be from 0 to {num_classes - 1}; given: {labels.min()} to {labels.max()}.")
    counts = np.bincount(labels, minlength=num_classes)
    if name not in ("random", "repeated") and not counts.min():
        raise ValueError(
            f"labels must have each class for the sampler {name!r}; given: none of class {counts.argmin()}."
        )
    return labels, counts


def _places_by_class(labels, counts) -> list[np.ndarray]:
    """The places of each class."""
    return np.split(np.argsort(labels, kind="stable"), np.cumsum(counts)[:-1])


def _class_probabilities(name, counts, epoch, epochs):
    balanced = np.full(len(counts), 1 / len(counts))
    if name == "class_balanced":
        return balanced
    if name == "square_root":
        return np.sqrt(counts) / np.sqrt(counts).sum()
    # numpy.linspace(0, 1, epochs), which stays at 0 where there is one epoch only.
    t = epoch / max(epochs - 1, 1)
    return (1 - t) * counts / counts.sum() + t * balanced


def _class_aware(images, length, images_per_class, generator):
    classes = _cycles(len(images), -(-length // images_per_class), generator.permutation)
    order = np.empty((len(classes), images_per_class), dtype=np.int64)
    turns_by_class = _places_by_class(classes, np.bincount(classes, minlength=len(images)))
    for own, turns in zip(images, turns_by_class, strict=True):
        drawn = _cycles(len(own), len(turns) * images_per_class, generator.permutation)
        order[turns] = own[drawn].reshape(-1, images_per_class)
    return order.reshape(-1)[:length]


def _cycles(size: int, length: int, permutation: Callable[[int], np.ndarray]) -> np.ndarray:
    """Random orders of `range(size)`, one after another."""
    orders = [permutation(size) for _ in range(-(-length // size))]
    return np.concatenate(orders)[:length] if orders else np.empty(0, dtype=np.int64)
