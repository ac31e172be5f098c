"""CIFAR-LT: the authors' choice of images, on labels of CIFAR's layout and on a small CIFAR that TFDS shuffles."""

import dataclasses
import hashlib
import importlib.resources.abc
import os
import pathlib
import sys
import tarfile

import numpy as np
import pytest
import tensorflow as tf
import tensorflow_datasets as tfds

from training.data.classification import tfds_images
from training.data.classification.cifar import cifar10_lt, cifar100_lt, long_tailed_indices
from zoo.download import DownloadError

pytestmark = pytest.mark.any_backend  # no backend takes part in reading data sets

# First five ranks inside the class, as the authors' imbalanced_dataset.py chose them (numpy 2.4.6).
RANKS = {
    (100, 0): [90, 254, 283, 445, 461],
    (100, 99): [348, 153, 363, 361, 299],
    (10, 0): [398, 3833, 4836, 4572, 636],
    (10, 9): [2204, 3816, 2206, 2507, 1926],
}
TOTALS = {
    100: {10: 19_573, 50: 12_608, 100: 10_847, 200: 9_502},
    10: {10: 20_431, 50: 13_996, 100: 12_406, 200: 11_203},
}


def cifar_labels(num_classes):
    """50,000 labels in a random order, equally many of each class, as in CIFAR."""
    return np.random.default_rng(1).permutation(np.repeat(np.arange(num_classes), 50_000 // num_classes))


@pytest.mark.parametrize(("num_classes", "label"), RANKS)
def test_the_first_images_of_a_class_are_the_authors(num_classes, label):
    labels = cifar_labels(num_classes)
    # At an imbalance of 100 the smallest class has 5 images of CIFAR-100 and 50 of CIFAR-10.
    chosen = long_tailed_indices(labels, num_classes, 100)
    own = chosen[labels[chosen] == label][:5]
    assert np.searchsorted(np.flatnonzero(labels == label), own).tolist() == RANKS[num_classes, label]


@pytest.mark.parametrize("num_classes", TOTALS)
def test_totals_and_smallest_classes_are_the_authors(num_classes):
    labels = cifar_labels(num_classes)
    for imbalance_factor, total in TOTALS[num_classes].items():
        chosen = long_tailed_indices(labels, num_classes, imbalance_factor)
        assert len(chosen) == len(np.unique(chosen)) == total
        counts = np.bincount(labels[chosen])
        assert (np.diff(counts) <= 0).all() and counts[0] == 50_000 // num_classes
        assert counts[-1] == int(50_000 / num_classes / imbalance_factor)
        # Grouped by class, as the authors store them.
        assert (np.diff(labels[chosen]) >= 0).all()


def test_another_imbalance_takes_the_same_images_first():
    labels = cifar_labels(100)
    more, fewer = long_tailed_indices(labels, 100, 10), long_tailed_indices(labels, 100, 200)
    assert set(fewer) < set(more)


def test_the_global_random_state_is_left_alone():
    np.random.seed(7)
    expected = np.random.random()
    np.random.seed(7)
    long_tailed_indices(cifar_labels(10), 10, 100)
    assert np.random.random() == expected


@pytest.mark.parametrize(("imbalance", "message"), [(0.5, "at least 1"), (501, "at most 500.*given: 501")])
def test_impossible_imbalances_are_named(imbalance, message):
    with pytest.raises(ValueError, match=f"imbalance_factor must be .*{message}"):
        long_tailed_indices(cifar_labels(100), 100, imbalance)


# A small CIFAR, in the binary files that TFDS downloads: image number i of a split is filled with i % 256 and i // 256.


def write_binary_cifar(folder, num_classes, train_size, test_size):
    """Labels of training and test images in the order of the files."""
    folder.mkdir(parents=True)
    generator = np.random.default_rng(0)
    labels = {}
    for split, size in (("train", train_size), ("test", test_size)):
        labels[split] = generator.permutation(np.arange(size) % num_classes)
        pixels = np.zeros((size, 3072), "uint8")
        pixels[:, :1024], pixels[:, 1024:2048] = np.arange(size)[:, None] % 256, np.arange(size)[:, None] // 256
        columns = [labels[split][:, None].astype("uint8"), pixels]
        if num_classes == 100:
            columns.insert(0, (labels[split][:, None] % 20).astype("uint8"))
        records = np.concatenate(columns, axis=1)
        if num_classes == 100:
            records.tofile(folder / f"{split}.bin")
        elif split == "test":
            records.tofile(folder / "test_batch.bin")
        else:
            for number, part in enumerate(np.array_split(records, 5), start=1):
                part.tofile(folder / f"data_batch_{number}.bin")
    names = [f"name{label}" for label in range(num_classes)]
    for file in ("batches.meta.txt", "fine_label_names.txt"):
        (folder / file).write_text("\n".join(names))
    (folder / "coarse_label_names.txt").write_text("\n".join(f"coarse{label}" for label in range(20)))
    return labels


class Archive:
    """Stands for TFDS's download manager: what it downloads is already there."""

    downloaded_size = 0

    def __init__(self, folder):
        self.folder = folder

    def download_and_extract(self, url):
        return str(self.folder)


@pytest.fixture
def no_network(monkeypatch):
    """Fetches nothing, and notes what it was asked for."""
    asked = []
    monkeypatch.setattr(tfds_images, "fetch", lambda *arguments: asked.append(arguments))
    return asked


@pytest.fixture
def archive(tmp_path, monkeypatch, no_network):
    monkeypatch.setattr(
        tfds.core.DatasetBuilder, "_make_download_manager", lambda self, **options: Archive(tmp_path / "archive")
    )
    return tmp_path / "archive"


def numbers(images):
    """Which image of its split each one is."""
    return images.images[:, 0, 0, 0].astype(int) + 256 * images.images[:, 0, 0, 1].astype(int)


def authors_choice(labels, num_classes, imbalance_factor):
    """imbalanced_dataset.py, with its global random state."""
    state = np.random.get_state()
    np.random.seed(0)
    chosen = []
    for label in range(num_classes):
        largest = len(labels) / num_classes
        count = int(largest * (1 / imbalance_factor) ** (label / (num_classes - 1.0)))
        own = np.where(labels == label)[0]
        np.random.shuffle(own)
        chosen.extend(own[:count])
    np.random.set_state(state)
    return chosen


@pytest.mark.parametrize(
    ("make", "num_classes", "prefix"),
    [(cifar10_lt, 10, "cifar-10-batches-bin"), (cifar100_lt, 100, "cifar-100-binary")],
)
def test_the_very_images_are_chosen_from_what_tfds_shuffled(tmp_path, archive, make, num_classes, prefix):
    labels = write_binary_cifar(archive / prefix, num_classes, 800, 300)
    source = make(8, data_dir=str(tmp_path / "data"))
    # TFDS has shuffled: otherwise this would show nothing.
    builder = tfds.builder(f"cifar{num_classes}", data_dir=str(tmp_path / "data"))
    stored = [example["id"] for example in tfds.as_numpy(builder.as_dataset(split="train"))]
    assert stored != sorted(stored) and len(stored) == 800

    expected = authors_choice(labels["train"], num_classes, 8)
    assert numbers(source.train).tolist() == expected
    np.testing.assert_array_equal(source.train.labels, labels["train"][expected])
    assert numbers(source.test).tolist() == list(range(300))
    np.testing.assert_array_equal(source.test.labels, labels["test"])
    assert source.class_names[7] == "name7"
    assert list(source.class_counts) == np.bincount(source.train.labels).tolist()
    assert source.image_shape == (32, 32, 3) and source.train.dtype == "uint8"
    assert source.preprocessing.mean == (0.4914, 0.4822, 0.4465)
    # Now that it is there, nothing is downloaded.
    assert len(make(8, data_dir=str(tmp_path / "data"), download=False).train) == len(source.train)


def test_the_other_format_of_tfds_is_read_too(tmp_path, archive):
    labels = write_binary_cifar(archive / "cifar-10-batches-bin", 10, 200, 50)
    tfds.builder("cifar10", data_dir=str(tmp_path / "data")).download_and_prepare(file_format="array_record")
    source = cifar10_lt(4, data_dir=str(tmp_path / "data"), download=False)
    assert numbers(source.train).tolist() == authors_choice(labels["train"], 10, 4)


def fake(ids):
    """Reads as TFDS does, with these ids and made-up images."""

    def as_dataset(self, split, **options):
        count = len(ids)
        return tf.data.Dataset.from_tensor_slices(
            {
                "id": [f"{split}_{number:05d}" for number in ids],
                "image": np.zeros((count, 32, 32, 3), "uint8"),
                "label": np.arange(count, dtype="int64") % 10,
            }
        )

    return tfds.testing.mock_data(as_dataset_fn=as_dataset)


def test_with_the_fake_data_of_tfds():
    with fake(np.random.default_rng(0).permutation(200)):
        source = cifar10_lt(imbalance_factor=5)
    assert source.name == "cifar10_lt"
    assert list(source.class_counts) == np.bincount(source.train.labels).tolist()
    assert source.class_counts.counts[0] == 20 and source.class_counts.counts[-1] == 4
    assert len(source.test) == 200


@pytest.mark.parametrize("ids", [[*range(199), 250], [0, *range(199)]])
def test_an_incomplete_numbering_is_an_error(ids):
    with (
        fake(ids),
        pytest.raises(
            ValueError,
            match="must have the ids train_00000 to train_0019.* for its train images; given: an incomplete numbering",
        ),
    ):
        cifar10_lt(imbalance_factor=5)


@pytest.mark.parametrize(("make", "classes"), [(cifar10_lt, 10), (cifar100_lt, 100)])
def test_missing_data_say_what_to_download_where_to_and_what_works_without(tmp_path, make, classes):
    with pytest.raises(FileNotFoundError) as error:
        make(data_dir=str(tmp_path), download=False)
    message = str(error.value)
    assert (
        f"cifar{classes} is not in {tmp_path}. To get it: put https://www.cs.toronto.edu/~kriz/cifar-{classes}-bin"
        in message
    )
    assert f"into {tmp_path}/downloads/manual" in message
    assert f"tfds.builder('cifar{classes}', data_dir='{tmp_path}').download_and_prepare(" in message
    assert f"digits{classes}_lt, which is embedded" in message
    assert not any(tmp_path.iterdir())


def test_a_download_that_fails_says_why(tmp_path, monkeypatch):
    def unreachable(*arguments):
        raise DownloadError("no route to www.cs.toronto.edu\nand more lines")

    monkeypatch.setattr(tfds_images, "fetch", unreachable)
    with pytest.raises(
        FileNotFoundError, match=r"building it failed \(DownloadError: no route to www.cs.toronto.edu\)"
    ):
        cifar100_lt(data_dir=str(tmp_path))


@pytest.mark.parametrize("make", [cifar10_lt, cifar100_lt])
def test_the_archive_is_the_one_of_tfds(tmp_path, archive, no_network, make):
    name = make.__name__.removesuffix("_lt")
    with pytest.raises(FileNotFoundError, match="FileNotFoundError"):  # there is nothing in the archive
        make(data_dir=str(tmp_path / "data"))
    ((url, path, sha256),) = no_network
    assert str(path) == f"{tmp_path}/data/downloads/manual/{os.path.basename(url)}"
    checksums = pathlib.Path(tfds.__file__).parent / "url_checksums" / f"{name}.txt"
    assert checksums.read_text().split("\t")[::2][:2] == [url, sha256]


def test_tfds_reads_the_archive_from_where_it_was_put(tmp_path, monkeypatch):
    """Its own download manager, with the checksum of a small CIFAR."""
    # TFDS 4.9.10 imports this backport of importlib.resources without requiring it.
    monkeypatch.setitem(sys.modules, "importlib_resources", importlib.resources)
    labels = write_binary_cifar(tmp_path / "made" / "cifar-10-batches-bin", 10, 400, 50)
    path = tmp_path / "data" / "downloads" / "manual" / "cifar-10-binary.tar.gz"
    path.parent.mkdir(parents=True)
    with tarfile.open(path, "w:gz") as tar:
        tar.add(tmp_path / "made" / "cifar-10-batches-bin", "cifar-10-batches-bin")
    sha256 = hashlib.sha256(path.read_bytes()).hexdigest()
    info = tfds.core.download.checksums.UrlInfo(path.stat().st_size, sha256, path.name)
    archive = dataclasses.replace(tfds_images._DATA_SETS["cifar10"], sha256=sha256)
    monkeypatch.setitem(tfds_images._DATA_SETS, "cifar10", archive)
    monkeypatch.setattr(tfds.builder_cls("cifar10"), "url_infos", {archive.url: info})
    source = cifar10_lt(4, data_dir=str(tmp_path / "data"))
    assert numbers(source.train).tolist() == authors_choice(labels["train"], 10, 4)


def test_bad_arguments_are_named_before_anything_is_read(tmp_path):
    with pytest.raises(ValueError, match="imbalance_factor must be a finite number at least 1; given: 0"):
        cifar10_lt(0, data_dir=str(tmp_path))
    with pytest.raises(ValueError, match="download must be True or False; given: 1"):
        cifar10_lt(data_dir=str(tmp_path), download=1)
