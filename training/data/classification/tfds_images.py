"""ImageNet, ImageNet-LT, iNaturalist 2018 and Places365 as TensorFlow Datasets keeps them, read by index.

Both formats of TensorFlow Datasets' files are read: `array_record`, which is made for it, and `tfrecord`, the one that
it writes unless told otherwise, whose records are found by their stored lengths.
"""

from __future__ import annotations

import contextlib
import dataclasses
import os
import secrets
import struct
import sys
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import tensorflow_datasets as tfds

from keras_apa.class_counts import ClassCounts
from training.checks import check_flag
from training.data.classification.encoded import RandomAccessImages
from training.data.classification.source import Source, refuse_empty_classes
from zoo import Preprocessing
from zoo.download import download as fetch
from zoo.preprocessing import imagenet

__all__ = ["i_naturalist2018", "imagenet2012", "imagenet_lt", "places365_small", "prepared_builder"]

_IMAGENET_ARCHIVES = (
    "put ILSVRC2012_img_train.tar and ILSVRC2012_img_val.tar (138 and 6 GB, after registration at "
    "https://image-net.org/download-images) into {root}/downloads/manual, then "
)
# Not the command `tfds build`, which does not start without Apache Beam.
_BUILD = (
    'python -c "import tensorflow_datasets as tfds; '
    "tfds.builder('{name}', data_dir='{root}').download_and_prepare({format})\""
)
_CIFAR = "put {url} (170 MB) into {root}/downloads/manual, or leave the download to " + _BUILD


@dataclasses.dataclass(frozen=True)
class _DataSet:
    how_to_get: str
    embedded: str = "digits100_lt"
    test: str = "validation"
    validation: str | None = None
    file_format: str | None = "array_record"
    # What is downloaded here, for TensorFlow Datasets tries for minutes before it says that there is no network.
    url: str | None = None
    sha256: str | None = None


_DATA_SETS = {
    "cifar10": _DataSet(
        _CIFAR,
        embedded="digits10_lt",
        file_format=None,
        url="https://www.cs.toronto.edu/~kriz/cifar-10-binary.tar.gz",
        sha256="c4a38c50a1bc5f3a1c5537f2155ab9d68f9f25eb1ed8d9ddda3db29a59bca1dd",
    ),
    "cifar100": _DataSet(
        _CIFAR,
        file_format=None,
        url="https://www.cs.toronto.edu/~kriz/cifar-100-binary.tar.gz",
        sha256="58a81ae192c23a4be8b1804d68e518ed807d710a4eb253b1f2a199162a40d8ec",
    ),
    "imagenet2012": _DataSet(_IMAGENET_ARCHIVES + _BUILD),
    "imagenet_lt": _DataSet(_IMAGENET_ARCHIVES + _BUILD, test="test", validation="validation"),
    "i_naturalist2018": _DataSet(_BUILD + " (downloads train_val2018.tar.gz, 120 GB, and the test images)"),
    "places365_small": _DataSet(_BUILD + " (downloads 31 GB)"),
}


def imagenet2012(
    data_dir: str | None = None, *, download: bool = False, preprocessing: Preprocessing | None = None
) -> Source:
    """ImageNet-1K: 1,281,167 training images of 1,000 classes, in the order of their synsets.

    The 50,000 validation images are the test set, since the test images have no labels.

    The labels of all training images are read before the first epoch, which goes once through all files (ImageNet:
    144 GB); they are kept beside the data if that folder can be written. Not run on the real data.

    Args:
        data_dir: Where TensorFlow Datasets keeps its data sets; by default `~/tensorflow_datasets`, or what the
            environment variable `TFDS_DATA_DIR` says.
        download: Whether to build the data set where it is missing, from what it downloads or from the archives.
        preprocessing: How a test image is prepared; by default the centre 224 of 256 with ImageNet's mean.

    Raises:
        FileNotFoundError: The data are missing, and could not or should not be built; the message says how to get
            them.
        ValueError: A class without training images; a split or files that are not there, or not complete.

    >>> imagenet2012("/nowhere")
    Traceback (most recent call last):
    ...
    FileNotFoundError: imagenet2012 is not in /nowhere. To get it: put ILSVRC2012_img_train.tar and
    ILSVRC2012_img_val.tar (138 and 6 GB, after registration at https://image-net.org/download-images) into
    /nowhere/downloads/manual, then python -c "import tensorflow_datasets as tfds; tfds.builder('imagenet2012',
    data_dir='/nowhere').download_and_prepare(file_format='array_record')". Without it: digits100_lt, which is embedded
    """
    return _source("imagenet2012", data_dir, download, preprocessing)


def imagenet_lt(
    data_dir: str | None = None,
    *,
    download: bool = False,
    preprocessing: Preprocessing | None = None,
    relabel_by_count: bool = False,
) -> Source:
    """ImageNet-LT: 115,846 training images of ImageNet's 1,000 classes, from 1,280 to 5 a class.

    The test set is the 50,000 validation images of ImageNet, as in the papers. Its own 20,000 validation images are
    `validation`.

    Args and errors: as for `imagenet2012`; and
        relabel_by_count: Whether the classes are in the order of their training images, as in the code of Adaptive
            Parametric Activation; see `Source.relabelled_by_count` for what that means for published weights.

    Source: Large-Scale Long-Tailed Recognition in an Open World (CVPR 2019).
    """
    return _source("imagenet_lt", data_dir, download, preprocessing, relabel_by_count)


def i_naturalist2018(
    data_dir: str | None = None,
    *,
    download: bool = False,
    preprocessing: Preprocessing | None = None,
    relabel_by_count: bool = False,
) -> Source:
    """The 2018 data of iNaturalist: 437,513 training images of 8,142 species.

    The test set is the 24,426 validation images, 3 a class.

    TensorFlow Datasets numbers the classes by its own file of names;
    `training.data.classification.list_files.inaturalist_json` reads the competition's files and numbers them by
    `category_id`, as the authors do.

    Args and errors: as for `imagenet_lt`.

    Source: The iNaturalist Species Classification and Detection Dataset (CVPR 2018).
    """
    return _source("i_naturalist2018", data_dir, download, preprocessing, relabel_by_count)


def places365_small(
    data_dir: str | None = None, *, download: bool = False, preprocessing: Preprocessing | None = None
) -> Source:
    """Places365-Standard at 256x256: 1,803,460 training images of 365 classes; tested on the 36,500 validation images.

    Places-LT is not in TensorFlow Datasets: `training.data.classification.list_files.list_files` reads its lists.

    Args and errors: as for `imagenet2012`.

    Source: Places: A 10 million Image Database for Scene Recognition (TPAMI 2017).
    """
    return _source("places365_small", data_dir, download, preprocessing)


def prepared_builder(name: str, data_dir: str | None, *, download: bool) -> tfds.core.DatasetBuilder:
    """TensorFlow Datasets' builder of a data set whose files are there.

    Args: as for `imagenet2012`; `name` is one of its data sets, `cifar10` or `cifar100`.
    Raises: FileNotFoundError: as there.
    """
    check_flag("download", download)
    builder, data_set = tfds.builder(name, data_dir=data_dir), _DATA_SETS[name]
    if _is_there(builder):
        return builder
    root, failed = builder.data_path.parent.parent, ""
    if download:
        archives, new = root / "downloads" / "manual", not root.exists()
        try:
            if data_set.url:
                fetch(data_set.url, archives / os.path.basename(data_set.url), data_set.sha256)
            config = tfds.download.DownloadConfig(manual_dir=archives)
            builder.download_and_prepare(file_format=data_set.file_format, download_config=config)
            return builder
        except Exception as error:  # no network, no space, archives that are missing: of any type
            first_line = str(error).strip().partition("\n")[0]
            failed = f", and building it failed ({type(error).__name__}: {first_line})"
            if new:
                _remove_empty(root)
    file_format = f"file_format={data_set.file_format!r}" if data_set.file_format else ""
    how_to_get = data_set.how_to_get.format(name=name, root=root, url=data_set.url, format=file_format)
    raise FileNotFoundError(
        f"{name} is not in {root}{failed}. To get it: {how_to_get}. Without it: {data_set.embedded}, which is embedded"
    )


def _remove_empty(folder):
    """What a build that failed leaves where it has begun nothing."""
    for parent, _, _ in os.walk(folder, topdown=False):
        with contextlib.suppress(OSError):  # something is in it
            os.rmdir(parent)


def _is_there(builder):
    if builder.data_path.exists():
        return True
    try:
        # What `tfds.testing.mock_data` makes up can be read without any files.
        builder.as_dataset(split="train")
    except AssertionError:
        return False
    return True


def _source(name, data_dir, download, preprocessing, relabel_by_count=False):
    check_flag("relabel_by_count", relabel_by_count)
    builder, data_set = prepared_builder(name, data_dir, download=download), _DATA_SETS[name]
    parts = {"train": "train", "test": data_set.test, "validation": data_set.validation}
    images = {part: _images(builder, split) for part, split in parts.items() if split is not None}
    label = builder.info.features["label"]
    class_counts = ClassCounts.from_labels(images["train"].labels, names=label.names)
    refuse_empty_classes(class_counts, f"the training split of {name}")
    source = Source(name=name, class_counts=class_counts, preprocessing=preprocessing or imagenet(), **images)
    return source.relabelled_by_count() if relabel_by_count else source


def _images(builder, split):
    # An image as the bytes that are stored: it is decoded where the batches are made.
    decoders = {"image": tfds.decode.SkipDecoding()}
    if builder.info.splits and split not in builder.info.splits:
        raise ValueError(
            f"split must be one of {', '.join(builder.info.splits)}; given: {split!r}. {builder.name} in "
            f"{builder.data_dir} has no other."
        )
    try:
        sequence = builder.as_data_source(split=split, decoders=decoders)
    except NotImplementedError:  # no format with random access
        sequence = _TFRecords(builder, split, decoders)
    return RandomAccessImages(sequence, _labels(builder, split, sequence), name=f"{builder.name}/{split}")


class _TFRecords(Sequence):
    """The examples of a split in TFRecord files, by index: a record's length stands before it."""

    _LENGTH, _HEADER, _FOOTER = struct.Struct("<Q"), 12, 4  # a length with its checksum; the checksum of the record

    def __init__(self, builder, split, decoders):
        self._features, self._decoders = builder.info.features, decoders
        self._files: list[str] = []
        records_of_files = []
        for instruction in builder.info.splits[split].file_instructions:
            records = np.array([*self._find(instruction.filename)], dtype=np.int64).reshape(-1, 2)
            if len(records) != instruction.examples_in_shard:
                raise ValueError(
                    f"{instruction.filename} must have {instruction.examples_in_shard} examples; given: "
                    f"{len(records)}. The file was not written to its end: delete the data set and build it again."
                )
            chosen = records[instruction.skip : instruction.skip + instruction.take]
            records_of_files.append(np.insert(chosen, 0, len(self._files), axis=1))
            self._files.append(instruction.filename)
        # File, start and length of each record; numbers of Python would take a gigabyte for ImageNet.
        self._records = np.concatenate(records_of_files)

    def _find(self, filename):
        size = os.path.getsize(filename)
        with open(filename, "rb", buffering=0) as file:
            position = 0
            while position + self._HEADER <= size:
                length = self._LENGTH.unpack(os.pread(file.fileno(), self._LENGTH.size, position))[0]
                start, position = position + self._HEADER, position + self._HEADER + length + self._FOOTER
                if position <= size:
                    yield start, length

    def __len__(self):
        return len(self._records)

    def __getitem__(self, index: int) -> dict[str, Any]:  # type: ignore[override]  # nobody asks for a slice
        file_index, start, length = map(int, self._records[index])
        with open(self._files[file_index], "rb", buffering=0) as file:
            record = os.pread(file.fileno(), length, start)
        return self._features.deserialize_example_np(record, decoders=self._decoders)


def _labels(builder, split, sequence):
    """The labels of a split, which can only be had by reading all of it; kept beside it."""
    kept = builder.data_path / f"keras_apa_labels_{split}.npy"
    try:
        labels = np.load(os.fspath(kept))
        if labels.shape == (len(sequence),):
            return labels
    except (OSError, ValueError, EOFError):
        pass  # not there, or not written to its end
    print(f"Reading the labels of {builder.name}/{split}: once through its {len(sequence)} images", file=sys.stderr)

    def read(indices):
        return [int(sequence[int(index)]["label"]) for index in indices]

    with ThreadPoolExecutor(os.cpu_count()) as pool:
        chunks = np.array_split(np.arange(len(sequence)), max(len(sequence) // 1000, 1))
        labels = np.array([label for chunk in pool.map(read, chunks) for label in chunk], dtype=np.int32)
    if not builder.data_path.exists():  # TensorFlow Datasets' fake data
        return labels
    temporary = os.fspath(kept) + f".{secrets.token_hex(4)}.tmp"
    try:
        with open(temporary, "wb") as file:
            np.save(file, labels)
        os.replace(temporary, kept)
    except OSError:
        pass  # read-only: read again the next time
    return labels
