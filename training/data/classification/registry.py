"""Every data set that a recipe can name, and how it is made from the recipe's options."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Callable
from typing import Any

import numpy as np

import zoo
from keras_apa.class_counts import exponential_profile
from training.checks import check_name
from training.config.classification import DataOptions, Recipe
from training.data.classification import cifar, digits, folder, list_files, tfds_images
from training.data.classification.published_counts import IMAGENET_LT, PLACES_LT, falling_profile
from training.data.classification.source import Source
from training.data.classification.synthetic import synthetic
from training.errors import OptionError
from zoo.preprocessing import cifar as cifar_preprocessing
from zoo.preprocessing import imagenet


@dataclasses.dataclass(frozen=True)
class DataSet:
    """How a data set is made, and what is known about it without having it."""

    make: Callable[[DataOptions, bool], Source]  # options, whether the network may be used
    classes: int | None = None
    preprocessing: zoo.Preprocessing | None = None
    largest_class: int | None = None  # of an exponential profile
    class_counts: np.ndarray | None = None
    counts_are: str = "its class counts"

    def published_counts(self, options: DataOptions) -> np.ndarray:
        """Training images of each class of the published data set; `counts_are` says how well they are known."""
        if self.largest_class is None:
            return self.class_counts  # type: ignore[return-value]  # a published data set has this or the largest class
        return exponential_profile(
            self.largest_class,
            self.classes,  # type: ignore[arg-type]  # known where the largest class is
            options.imbalance_factor,
        )


def _digits(make):
    return lambda options, download: make(
        imbalance_factor=options.imbalance_factor,
        largest_class=options.largest_class,
        test_images_per_class=options.test_images_per_class,
        noise=options.noise,
        seed=options.seed,
    )


def _cifar(make):
    return lambda options, download: make(options.imbalance_factor, options.path or None, download=download)


def _tfds(make, *, huge=False):
    """`huge`: 31 GB and more are not fetched without being asked for; the error says how to."""
    return lambda options, download: make(options.path or None, download=download and not huge)


_OLTR = "https://github.com/zhmiao/OpenLongTailRecognition-OLTR"
# Where the authors' lists and their images are.
_LISTS = {
    "imagenet_lt": f"ImageNet_LT_train.txt and ImageNet_LT_test.txt from {_OLTR}, images of ILSVRC2012 from "
    "https://image-net.org/download-images (144 GB, after registration)",
    "places_lt": f"Places_LT_train.txt and Places_LT_test.txt from {_OLTR}, images of Places365-Standard from "
    "http://places2.csail.mit.edu/download.html",
    "inaturalist2018": "train2018.json, val2018.json and train_val2018.tar.gz (120 GB) from "
    "https://github.com/visipedia/inat_comp/tree/master/2018",
}
_WHERE = (
    "Unpack the images, and give the folder that the paths in the lists start from with --data.path, the lists with "
    "--data.train-list and --data.test-list"
)
_EMBEDDED = "Without it: digits100_lt, which is embedded"


def _long_tailed(make, *, huge=False):
    """Lists if they are given, TFDS's form of the data set otherwise; for `huge` see `_tfds`."""

    def load(options, download):
        lists = f"{_LISTS[options.name]}. {_WHERE}"
        if options.train_list or options.test_list:
            try:
                return _listed(options, download)
            except FileNotFoundError as error:
                raise FileNotFoundError(f"{error}. {options.name} as lists: {lists}. {_EMBEDDED}") from error
        if make is None:
            raise FileNotFoundError(f"{options.name} is read from lists, which are not given: {lists}. {_EMBEDDED}")
        try:
            source = make(options.path or None, download=download and not huge)
        except FileNotFoundError as error:
            raise FileNotFoundError(f"{error}. Or as lists: {lists}") from error
        return source.relabelled_by_count() if options.relabel_by_count else source

    return load


_SHORT = 1_000_000  # bytes, some 20,000 lines: a minute


def _listed(options: DataOptions, download: bool) -> Source:
    missing = [name for name in ("train_list", "test_list", "path") if not getattr(options, name)]
    if missing:
        raise OptionError(
            f"data.{missing[0]} must be given: lists need data.train_list, data.test_list and data.path; given: ''."
        )
    classes = DATA_SETS[options.name].classes
    short = _is_short(options.train_list)
    common: dict[str, Any] = {
        "relabel_by_count": options.relabel_by_count,
        "check_images": short,
        "on_corrupt": options.on_corrupt,
        "name": options.name,
    }
    if options.train_list.endswith(".json"):
        source = list_files.inaturalist_json(options.train_list, options.test_list, options.path, **common)
        if classes not in (None, source.num_classes):
            raise ValueError(
                f"data.name must be 'list' for annotations of {source.num_classes} categories; given: "
                f"{options.name!r}, which has {classes}. The annotations are {options.train_list}."
            )
    else:
        source = list_files.list_files(
            options.train_list, options.test_list, options.path, num_classes=classes, **common
        )
    if short:
        return source
    then = "ends the training" if options.on_corrupt == "error" else "is replaced by another one of its class"
    note = (
        f"the lists are long, so their images are not checked before the training; one that cannot be decoded is named "
        f"and {then} (--data.on-corrupt error, skip)"
    )
    return dataclasses.replace(source, notes=(*source.notes, note))


def _is_short(path: str) -> bool:
    """Whether all images of a list can be decoded before a training without anybody waiting long for it."""
    try:
        return os.path.getsize(path) < _SHORT
    except OSError:
        return False  # said by what reads it


def _folder(options: DataOptions, download: bool) -> Source:
    if not options.path:
        raise OptionError("data.path must be the folder of class folders; given: ''.")
    return folder.folder(options.path, options.validation_fraction, options.on_corrupt, options.seed)


def _profile(classes, largest, smallest, total):
    return {
        "class_counts": falling_profile(classes, largest, smallest, total),
        "counts_are": "a made-up profile of class counts with the published total and extremes",
    }


DATA_SETS = {
    "digits100_lt": DataSet(_digits(digits.digits100_lt), 100),
    "digits10_lt": DataSet(_digits(digits.digits10_lt), 10),
    "cifar10_lt": DataSet(_cifar(cifar.cifar10_lt), 10, cifar_preprocessing(), largest_class=5000),
    "cifar100_lt": DataSet(_cifar(cifar.cifar100_lt), 100, cifar_preprocessing(), largest_class=500),
    "imagenet_lt": DataSet(_long_tailed(tfds_images.imagenet_lt), 1000, imagenet(), class_counts=IMAGENET_LT),
    "imagenet1k": DataSet(_tfds(tfds_images.imagenet2012), 1000, imagenet(), **_profile(1000, 1300, 732, 1_281_167)),
    "places_lt": DataSet(_long_tailed(None), 365, imagenet(), class_counts=PLACES_LT),
    "places365_small": DataSet(
        _tfds(tfds_images.places365_small, huge=True), 365, imagenet(), **_profile(365, 5000, 3068, 1_803_460)
    ),
    "inaturalist2018": DataSet(
        _long_tailed(tfds_images.i_naturalist2018, huge=True), 8142, imagenet(), **_profile(8142, 1000, 2, 437_513)
    ),
    "list": DataSet(_listed),
    "folder": DataSet(_folder),
}


def check_data(options: DataOptions) -> None:
    """Raises a ValueError that names the nearest data sets if there is none of that name."""
    check_name("data.name", options.name, DATA_SETS)


def load_source(options: DataOptions, *, download: bool = True) -> Source:
    """The images that `options` describe; fetched if they are not there, unless `download` is False.

    Raises:
        ValueError: An unknown name (with the nearest ones), or images that cannot be used.
        FileNotFoundError: The data set is not there; says what to fetch and where to put it.

    >>> load_source(DataOptions(name="digits10_lt")).num_classes
    10
    """
    check_data(options)
    return DATA_SETS[options.name].make(options, download)


def find_source(recipe: Recipe) -> tuple[Source, bool]:
    """The recipe's images if they are there, random pixels of the same shape otherwise; and which of the two.

    Raises:
        ValueError: As `load_source`, but not where a published data set is merely absent.
    """
    check_data(recipe.data)
    known = DATA_SETS[recipe.data.name]
    try:
        return load_source(recipe.data, download=False), True
    except FileNotFoundError:
        if known.preprocessing is None or recipe.data.path or recipe.data.train_list:
            raise  # a path that the user gave
    side = recipe.data.image_size or known.preprocessing.image_size[0]
    shape = (side, side, known.preprocessing.channels)
    return synthetic(recipe.data.name, known.published_counts(recipe.data), shape, known.preprocessing), False
