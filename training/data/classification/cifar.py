"""CIFAR-10-LT and CIFAR-100-LT: the authors' long-tailed choice of the images of CIFAR, from TensorFlow Datasets."""

from __future__ import annotations

import numpy as np
import tensorflow_datasets as tfds

from keras_apa.class_counts import ClassCounts, exponential_profile
from training.checks import check_flag, check_number
from training.data.classification.source import ArrayImages, Source
from training.data.classification.tfds_images import prepared_builder
from zoo.preprocessing import cifar

__all__ = ["cifar10_lt", "cifar100_lt", "long_tailed_indices"]


def cifar10_lt(imbalance_factor: float = 100.0, data_dir: str | None = None, *, download: bool = True) -> Source:
    """CIFAR-10 with exponentially falling class counts, airplane the largest class; all 10,000 test images.

    12,406 training images by default, from 5,000 to 50 a class; 20,431 / 13,996 / 11,203 at an imbalance of
    10 / 50 / 200. uint8 images `(32, 32, 3)`, grouped by class.

    The very same images as in the authors' code: they number the images as CIFAR's files do, whereas TensorFlow
    Datasets shuffles, so that the images are first put back in the order of their `id`. What was checked is the
    authors' numbers within each class, on labels of CIFAR's layout, and the order on a small CIFAR that was
    written, shuffled and read by TensorFlow Datasets; no real CIFAR was at hand. That its "binary" files, which
    TensorFlow Datasets reads, have the order of its "python" files, which the authors read, is taken on trust.

    Args:
        imbalance_factor: Training images of the largest class over those of the smallest, at least 1.
        data_dir: Where TensorFlow Datasets keeps its data sets; by default `~/tensorflow_datasets`, or what the
            environment variable `TFDS_DATA_DIR` says.
        download: Whether to build the data set where it is missing, from 170 MB that are downloaded, or from the
            archive where that lies in `DATA_DIR/downloads/manual`.

    Raises:
        ValueError: An imbalance below 1 or one that leaves classes without images.
        FileNotFoundError: The data are missing, and could not or should not be downloaded; the message says how to
            get them.
    Source: Learning Imbalanced Datasets with Label-Distribution-Aware Margin Loss (NeurIPS 2019), its code, which
        Adaptive Parametric Activation and Balanced Meta-Softmax use.

    >>> cifar10_lt(data_dir="/nowhere", download=False)
    Traceback (most recent call last):
    ...
    FileNotFoundError: cifar10 is not in /nowhere. To get it: put
    https://www.cs.toronto.edu/~kriz/cifar-10-binary.tar.gz (170 MB) into /nowhere/downloads/manual, or leave the
    download to python -c "import tensorflow_datasets as tfds; tfds.builder('cifar10',
    data_dir='/nowhere').download_and_prepare()". Without it: digits10_lt, which is embedded
    """
    return _cifar_lt("cifar10", 10, imbalance_factor, data_dir, download)


def cifar100_lt(imbalance_factor: float = 100.0, data_dir: str | None = None, *, download: bool = True) -> Source:
    """CIFAR-100 with exponentially falling class counts, apple the largest class; all 10,000 test images.

    10,847 training images by default, from 500 to 5 a class; 19,573 / 12,608 / 9,502 at an imbalance of
    10 / 50 / 200.

    Args, errors, source and what was checked: as for `cifar10_lt`.
    """
    return _cifar_lt("cifar100", 100, imbalance_factor, data_dir, download)


def long_tailed_indices(labels: np.ndarray, num_classes: int, imbalance_factor: float) -> np.ndarray:
    """The authors' choice of training images.

    Class c keeps `int(N / C * imbalance_factor ** (-c / (C - 1)))` of its images: the first ones of a random order of
    them, which is drawn class by class from one stream of `numpy.random.RandomState(0)`.

    Args:
        labels: Integers `(N,)`, in the order of CIFAR's files.
        num_classes: Number of classes C.
        imbalance_factor: Largest count over smallest, at least 1.

    Returns: int64 indices, grouped by class, in the order in which they were drawn.
    Raises: ValueError: An imbalance below 1 or one that leaves classes without images.

    >>> long_tailed_indices(np.arange(5000) // 500, 10, 100)[:5].tolist()
    [90, 254, 283, 445, 461]
    """
    check_number("imbalance_factor", imbalance_factor, at_least=1)
    labels = np.asarray(labels)
    kept = exponential_profile(len(labels) // num_classes, num_classes, imbalance_factor)
    if not kept[-1]:
        raise ValueError(
            f"imbalance_factor must be at most {kept[0]}, the images of the largest class, or classes are left "
            f"without training images; given: {imbalance_factor:g}."
        )
    generator = np.random.RandomState(0)
    chosen = []
    for label, count in enumerate(kept):
        own = np.flatnonzero(labels == label)
        generator.shuffle(own)
        chosen.append(own[:count])
    return np.concatenate(chosen)


def _cifar_lt(dataset, num_classes, imbalance_factor, data_dir, download):
    check_number("imbalance_factor", imbalance_factor, at_least=1)
    check_flag("download", download)
    builder = prepared_builder(dataset, data_dir, download=download)
    images, labels = _in_file_order(builder, "train")
    test_images, test_labels = _in_file_order(builder, "test")
    chosen = long_tailed_indices(labels, num_classes, imbalance_factor)
    return Source(
        name=f"{dataset}_lt",
        train=ArrayImages(images[chosen], labels[chosen]),
        test=ArrayImages(test_images, test_labels),
        class_counts=ClassCounts.from_labels(labels[chosen], names=builder.info.features["label"].names),
        preprocessing=cifar(),
    )


def _in_file_order(builder, split):
    """Images and labels of a split in the order of CIFAR's files, which the `id` of an image states: `train_00042`."""
    try:
        batches = [*tfds.as_numpy(builder.as_dataset(split=split, batch_size=1000))]
    except NotImplementedError:  # in the format array_record, which is read by index
        examples = [*builder.as_data_source(split=split)]
        batches = [{key: [example[key] for example in examples] for key in ("id", "image", "label")}]
    ids, images, labels = (np.concatenate([batch[key] for batch in batches]) for key in ("id", "image", "label"))
    ids = ids.astype(bytes)
    order = np.argsort(ids)
    expected = [f"{split}_{index:05d}".encode() for index in range(len(ids))]
    if ids[order].tolist() != expected:
        raise ValueError(
            f"{builder.name} in {builder.data_dir} must have the ids {expected[0].decode()} to "
            f"{expected[-1].decode()} for its {split} images; given: an incomplete numbering. Delete the folder and "
            "build it again."
        )
    return images[order], labels[order]
