"""Data sets of TFDS by index: its own fake data, and small data sets that it wrote itself in both of its formats."""

import io
import stat

import numpy as np
import pytest
import tensorflow as tf
import tensorflow_datasets as tfds
from PIL import Image

from training.data.classification import tfds_images
from training.data.classification.tfds_images import i_naturalist2018, imagenet2012, imagenet_lt, places365_small
from zoo import Preprocessing

pytestmark = pytest.mark.any_backend  # no backend takes part in reading data sets

ALL = [imagenet2012, imagenet_lt, i_naturalist2018, places365_small]
CLASSES = {"imagenet2012": 1000, "imagenet_lt": 1000, "i_naturalist2018": 8142, "places365_small": 365}
SPLITS = {
    "imagenet2012": ["train", "validation"],
    "imagenet_lt": ["test", "train", "validation"],
    "i_naturalist2018": ["train", "validation"],
    "places365_small": ["train", "validation"],
}


def jpeg(number, size=(8, 8)):
    """An image that shows a number below 4,096, in steps of 16 that JPEG does not blur."""
    file = io.BytesIO()
    Image.new("RGB", size, tuple(number // place % 16 * 16 for place in (1, 16, 256))).save(
        file, "JPEG", quality=95, subsampling=0
    )
    return file.getvalue()


def shown(image):
    digits = np.round(image[4, 4] / 16).astype(int)
    return int(digits @ [1, 16, 256])


def load(images, index):
    return images.load(tf.constant(index, "int64")).numpy()


def fake(asked=None):
    """TFDS's fake data, with an image or two of each class instead of random labels."""

    def as_data_source(self, split, decoders=None, **options):
        if asked is not None:
            asked.append(split)
        assert isinstance(decoders["image"], tfds.decode.SkipDecoding)
        classes = self.info.features["label"].num_classes
        labels = [*range(classes), *range(0, classes, 2)] if split == "train" else range(classes)
        one = jpeg(7)
        return [{"image": one, "label": np.int64(label)} for label in labels]

    return tfds.testing.mock_data(as_data_source_fn=as_data_source)


@pytest.mark.parametrize("make", ALL)
def test_with_the_fake_data_of_tfds(make):
    asked = []
    with fake(asked):
        source = make()
    classes = CLASSES[make.__name__]
    assert source.name == make.__name__ and source.num_classes == classes
    assert sorted(asked) == SPLITS[make.__name__]
    assert list(source.class_counts) == [2 - label % 2 for label in range(classes)]
    assert source.test.labels.tolist() == list(range(classes))
    assert (source.validation is not None) == (make is imagenet_lt)
    assert source.class_names[0] == {"imagenet2012": "n01440764", "imagenet_lt": "n01440764"}.get(
        make.__name__, source.class_names[0]
    )
    assert source.image_shape == (224, 224, 3)
    assert shown(load(source.train, 3)) == 7


def test_random_examples_of_tfds_are_loaded_through_its_own_decoders():
    with tfds.testing.mock_data(num_examples=9):
        builder = tfds_images.prepared_builder("i_naturalist2018", None, download=False)
        images = tfds_images._images(builder, "train")
        assert len(images) == 9 and images.labels.max() > 100
        image = load(images, 4)
    assert image.dtype == np.uint8 and image.ndim == 3 and image.shape[2] == 3


def test_a_class_without_training_images_is_an_error():
    with (
        tfds.testing.mock_data(num_examples=9),
        pytest.raises(ValueError, match="training split of imagenet_lt must have an image of every class"),
    ):
        imagenet_lt()


def test_classes_are_relabelled_by_count_where_asked():
    with fake():
        source = imagenet_lt(relabel_by_count=True, preprocessing=Preprocessing(image_size=(96, 96)))
    assert list(source.class_counts) == [2] * 500 + [1] * 500
    assert source.test.labels.tolist()[:4] == [0, 500, 1, 501]
    assert source.image_shape == (96, 96, 3)


# Data sets that TFDS has written

TRAIN = [*range(1000), *range(0, 1000, 7)]
REST = [*range(0, 1000, 50)]


@pytest.fixture(params=["tfrecord", "array_record"])
def written(request, tmp_path, monkeypatch):
    """The folder of a small ImageNet-LT: image number i of a split shows i, its label stands in TRAIN or REST."""
    builder_class = tfds.builder_cls("imagenet_lt")

    def examples(labels):
        for number, label in enumerate(labels):
            name = f"{number:05d}.JPEG"
            yield name, {"file_name": name, "image": io.BytesIO(jpeg(number)), "label": label}

    def split_generators(self, manager):
        return {"train": examples(TRAIN), "validation": examples(REST), "test": examples(REST)}

    monkeypatch.setattr(builder_class, "_split_generators", split_generators)
    monkeypatch.setattr(tfds.core.DatasetBuilder, "_make_download_manager", lambda self, **options: Downloads())
    builder = tfds.builder("imagenet_lt", data_dir=str(tmp_path))
    config = tfds.download.DownloadConfig(num_shards=3)
    builder.download_and_prepare(file_format=request.param, download_config=config)
    assert builder.info.splits["train"].num_shards == 3
    return tmp_path


class Downloads:
    downloaded_size = 0


def data_folder(root):
    return root / "imagenet_lt" / "1.0.0"


def check_images(images, labels):
    numbers = [shown(load(images, index)) for index in range(0, len(images), 37)]
    assert [labels[number] for number in numbers] == images.labels[::37].tolist()
    assert len(set(numbers)) == len(numbers)


def test_both_formats_are_read_by_index(written):
    source = imagenet_lt(str(written))
    assert len(source.train) == len(TRAIN)
    assert list(source.class_counts) == np.bincount(TRAIN).tolist()
    # TFDS shuffles: the images do not come in the order in which they were written.
    assert source.train.labels.tolist() != TRAIN
    for images, labels in ((source.train, TRAIN), (source.test, REST), (source.validation, REST)):
        check_images(images, labels)
    check_images(source.train.subset(np.arange(200, 400)), TRAIN)


def test_images_are_loaded_in_parallel(written):
    images = imagenet_lt(str(written)).test
    dataset = tf.data.Dataset.range(len(images)).map(images.load, num_parallel_calls=8)
    labels = [REST[shown(image)] for image in dataset.as_numpy_iterator()]
    assert labels == images.labels.tolist()


def test_labels_are_kept_beside_the_data_and_read_once(written, capsys, monkeypatch):
    first = imagenet_lt(str(written))
    assert "Reading the labels of imagenet_lt/train: once through its 1143 images" in capsys.readouterr().err
    kept = sorted(path.name for path in data_folder(written).glob("keras_apa*"))
    assert kept == [f"keras_apa_labels_{split}.npy" for split in ("test", "train", "validation")]
    again = imagenet_lt(str(written))
    assert capsys.readouterr().err == ""
    np.testing.assert_array_equal(first.train.labels, again.train.labels)
    # One that was cut, or belongs to other data, is read anew.
    (data_folder(written) / "keras_apa_labels_train.npy").write_bytes(b"\x93NUMPY")
    np.save(data_folder(written) / "keras_apa_labels_test.npy", np.zeros(3, "int32"))
    third = imagenet_lt(str(written))
    np.testing.assert_array_equal(first.train.labels, third.train.labels)
    np.testing.assert_array_equal(first.test.labels, third.test.labels)


def test_a_folder_that_cannot_be_written_is_no_error(written, monkeypatch):
    def refuse(*arguments):
        raise PermissionError("read-only")

    monkeypatch.setattr(tfds_images.os, "replace", refuse)
    assert len(imagenet_lt(str(written)).train) == len(TRAIN)


def test_a_file_that_is_cut_is_an_error(written):
    files = sorted(data_folder(written).glob("*train.tfrecord*"))
    if not files:  # array_record has a checksum of its own
        return
    files[1].chmod(files[1].stat().st_mode | stat.S_IWUSR)
    files[1].write_bytes(files[1].read_bytes()[:-10])
    with pytest.raises(ValueError, match=r"00001-of-00003 must have 381 examples; given: 380"):
        imagenet_lt(str(written))


def test_a_split_that_was_not_built_is_named(written):
    builder = tfds_images.prepared_builder("imagenet_lt", str(written), download=False)
    with pytest.raises(ValueError, match="split must be one of t.*; given: 'half'"):
        tfds_images._images(builder, "half")


@pytest.mark.parametrize("make", ALL)
def test_missing_data_say_how_to_get_them_and_what_works_without(tmp_path, make):
    with pytest.raises(FileNotFoundError) as error:
        make(str(tmp_path))
    message, name = str(error.value), make.__name__
    assert message.startswith(f"{name} is not in {tmp_path}. To get it: ")
    command = f"tfds.builder('{name}', data_dir='{tmp_path}').download_and_prepare(file_format='array_record')"
    assert command in message
    assert ("ILSVRC2012_img_train.tar" in message) == ("imagenet" in name)
    assert "digits100_lt, which is embedded" in message


def test_a_build_that_fails_says_why(tmp_path, monkeypatch):
    monkeypatch.setattr(tfds.core.DatasetBuilder, "_make_download_manager", lambda self, **options: 1 / 0)
    with pytest.raises(FileNotFoundError, match=r"building it failed \(ZeroDivisionError: division by zero\)"):
        imagenet2012(str(tmp_path), download=True)


def test_a_build_that_fails_leaves_no_empty_folder_behind(tmp_path):
    with pytest.raises(FileNotFoundError, match="building it failed .*ILSVRC2012"):
        imagenet2012(str(tmp_path / "new"), download=True)
    assert not any(tmp_path.iterdir())


@pytest.mark.parametrize("options", [{"download": 1}, {"relabel_by_count": "yes"}])
def test_bad_arguments_are_named(options):
    with pytest.raises(ValueError, match=f"{next(iter(options))} must be True or False"):
        imagenet_lt("/nowhere", **options)
