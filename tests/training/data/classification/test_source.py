"""Images by index: pixels of every kind of file in tf.data, subsets, sources and their errors."""

import dataclasses
import io
import os

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from keras_apa.class_counts import ClassCounts
from training.data.classification import source as module
from training.data.classification.digits import digits10_lt
from training.data.classification.encoded import FileImages, RandomAccessImages
from training.data.classification.source import ArrayImages, Source, refuse_empty_classes
from training.data.decoding import decode_image, unreadable_images
from training.images import read_image
from zoo import Preprocessing

pytestmark = pytest.mark.any_backend  # no backend takes part in reading images


def loaded(images, indices=None):
    """The images as tf.data gives them, loaded in parallel."""
    indices = np.arange(len(images)) if indices is None else np.asarray(indices)
    dataset = tf.data.Dataset.from_tensor_slices(indices).map(images.load, num_parallel_calls=4)
    return [*dataset.as_numpy_iterator()]


def smooth(height=30, width=41, seed=0):
    """A coloured picture without noise, as JPEG likes it."""
    small = np.random.default_rng(seed).integers(0, 256, (4, 5, 3), "uint8")
    return Image.fromarray(small).resize((width, height), Image.Resampling.BICUBIC)


def with_orientation(number):
    exif = Image.Exif()
    exif[0x0112] = number
    return exif


def write_every_kind(folder):
    """Files by kind; True for those that TensorFlow decodes."""
    image = smooth()
    alpha = image.convert("RGBA")
    alpha.putalpha(Image.fromarray(np.tile(np.linspace(0, 255, 41, dtype="uint8"), (30, 1))))
    deep = Image.fromarray((np.arange(30 * 41).reshape(30, 41) * 53).astype("uint16"))
    kinds = {
        "plain.jpg": (image, {"quality": 90}, True),
        "full_colour.jpg": (image, {"quality": 95, "subsampling": 0}, True),
        "progressive.jpg": (image, {"progressive": True}, True),
        "grey.jpg": (image.convert("L"), {}, True),
        "without_ending": (image, {"format": "JPEG"}, True),
        "turned.jpg": (image, {"exif": with_orientation(6)}, False),
        "cmyk.jpg": (image.convert("CMYK"), {}, False),
        "plain.png": (image, {}, False),
        "palette.png": (image.convert("P"), {}, False),
        "transparent.png": (alpha, {}, False),
        "sixteen_bits.png": (deep, {}, False),
        "black_and_white.png": (image.convert("1"), {}, False),
        "lossy.webp": (image, {}, False),
        "picture.bmp": (image, {}, False),
        "moving.gif": (image, {"save_all": True, "append_images": [smooth(seed=1)]}, False),
        "jpeg_called.png": (image, {"format": "JPEG"}, True),
    }
    for name, (picture, options, _) in kinds.items():
        picture.save(folder / name, **options)
    return {name: plain for name, (_, _, plain) in kinds.items()}


def as_predicted(path):
    """The pixels that `keras-apa predict` sees, without its resizing."""
    with Image.open(path) as image:
        width, height = image.size
        if image.getexif().get(0x0112, 1) >= 5:
            width, height = height, width
    return read_image(path, Preprocessing(image_size=(height, width)))


def test_files_have_the_pixels_that_predict_sees(tmp_path):
    plain = write_every_kind(tmp_path)
    paths = [tmp_path / name for name in plain]
    images = FileImages(paths, np.zeros(len(paths), "int32"))
    for path, pixels in zip(paths, loaded(images), strict=True):
        np.testing.assert_array_equal(pixels, as_predicted(path), err_msg=path.name)
        assert pixels.dtype == np.uint8
    # Which way each went: TensorFlow's decoder, or Pillow's through Python.
    assert {path.name: bool(images._read(index)[1]) for index, path in enumerate(paths)} == plain


def test_channels_are_static_and_the_size_is_not(tmp_path):
    write_every_kind(tmp_path)
    images = FileImages([tmp_path / "plain.jpg"], [0])
    dataset = tf.data.Dataset.range(1).map(images.load)
    assert dataset.element_spec == tf.TensorSpec((None, None, 3), tf.uint8)
    assert images.image_shape == (None, None, 3) and images.dtype == "uint8"


@pytest.mark.parametrize("cut", [3, 40, 400])
def test_a_jpeg_that_is_cut_short_is_named(tmp_path, cut):
    path = tmp_path / "cut.jpg"
    smooth(200, 300).save(path)
    path.write_bytes(path.read_bytes()[:-cut])
    with pytest.raises(tf.errors.OpError, match=r"cut\.jpg: cannot be read"):
        loaded(FileImages([path], [0]))


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "the file is empty"),
        (b"not an image", "not an image"),
        (b"\xff\xd8\xff\xd9", "not an image|cannot be read"),
        (b"\xff\xd8\xff\xe0\x00", "not an image|cannot be read"),
    ],
)
def test_what_is_no_image_is_named(tmp_path, content, reason):
    path = tmp_path / "a.jpg"
    path.write_bytes(content)
    with pytest.raises(tf.errors.OpError, match=rf"a\.jpg: ({reason})"):
        loaded(FileImages([path], [0]))
    with pytest.raises(ValueError, match=rf"^a\.jpg: ({reason})"):
        decode_image(content, "a.jpg")


def test_a_missing_file_is_named_while_reading():
    with pytest.raises(tf.errors.OpError, match=r"none\.jpg: no such file or directory"):
        loaded(FileImages(["none.jpg"], [0]))


def test_a_jpeg_of_too_many_pixels_is_refused(tmp_path, monkeypatch):
    smooth(200, 300).save(tmp_path / "large.jpg")
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 59_999)
    with pytest.raises(tf.errors.OpError, match=r"large\.jpg: more pixels than the 59999"):
        loaded(FileImages([tmp_path / "large.jpg"], [0]))


def test_unreadable_images_are_all_found_with_their_reasons(tmp_path):
    names = [*write_every_kind(tmp_path)]
    (tmp_path / "empty.png").touch()
    (tmp_path / "cut.jpg").write_bytes((tmp_path / "plain.jpg").read_bytes()[:-50])
    paths = [str(tmp_path / name) for name in (*names, "empty.png", "cut.jpg", "none.png")]
    found = unreadable_images(paths)
    assert [os.path.basename(path) for path in found] == ["empty.png", "cut.jpg", "none.png"]
    assert found[paths[-3]] == "the file is empty"
    assert found[paths[-2]].startswith("cannot be read")
    assert found[paths[-1]] == "no such file or directory"


@pytest.fixture(params=["array", "file", "random access"])
def five(request, tmp_path):
    """Five images that are filled with 10, 20, ..., of the classes 0 to 4."""
    pictures = [Image.new("RGB", (6, 4), (value,) * 3) for value in (10, 20, 30, 40, 50)]
    labels = np.arange(5)
    if request.param == "array":
        return ArrayImages(np.stack([np.asarray(picture) for picture in pictures]), labels)
    paths = [tmp_path / f"{number}.png" for number in range(5)]
    for picture, path in zip(pictures, paths, strict=True):
        picture.save(path)
    if request.param == "file":
        return FileImages(paths, labels)
    return RandomAccessImages([{"image": path.read_bytes()} for path in paths], labels, name="five")


def test_images_come_in_the_order_of_the_indices(five):
    assert len(five) == 5
    assert five.labels.dtype == np.int32 and five.labels.tolist() == [0, 1, 2, 3, 4]
    assert [image[0, 0, 0] for image in loaded(five, [3, 0, 0])] == [40, 10, 10]


def test_a_subset_of_a_subset_has_its_images_and_labels(five):
    some = five.subset(np.array([4, 2, 1])).subset([2, 0])
    assert type(some) is type(five) and len(some) == 2
    assert some.labels.tolist() == [1, 4]
    assert [image[0, 0, 0] for image in loaded(some)] == [20, 50]
    assert len(five.subset([])) == 0
    assert len(five) == 5


def test_other_labels_leave_the_images_and_the_original_alone(five):
    other = five.with_labels([1, 1, 0, 0, 0])
    assert other.labels.tolist() == [1, 1, 0, 0, 0] and five.labels.tolist() == [0, 1, 2, 3, 4]
    assert [image[0, 0, 0] for image in loaded(other, [1])] == [20]


@pytest.mark.parametrize("indices", [[5], [-1], [0.5], [[0]]])
def test_bad_indices_are_named(five, indices):
    with pytest.raises(ValueError, match="indices must be"):
        five.subset(indices)


@pytest.mark.parametrize("labels", [[0], [[0]] * 5, [0.0] * 5, [0, 1, 2, 3, -1]])
def test_bad_labels_are_named(five, labels):
    with pytest.raises(ValueError, match="labels must "):
        five.with_labels(labels)


def test_arrays_keep_their_kind_of_numbers():
    images = np.random.default_rng(0).normal(size=(3, 5, 6, 1)).astype("float32")
    np.testing.assert_array_equal(np.stack(loaded(ArrayImages(images, [0, 1, 2]))), images)


@pytest.mark.parametrize("images", [np.zeros((2, 3, 3), "uint8"), np.zeros((2, 3, 3, 1), "float64")])
def test_other_arrays_are_refused(images):
    with pytest.raises(ValueError, match="images must be uint8 or float32 of shape"):
        ArrayImages(images, [0, 1])


def test_arrays_are_not_copied_into_the_graph():
    images = ArrayImages(np.zeros((300, 32, 32, 3), "uint8"), np.zeros(300, "int32"))
    graph = tf.function(images.load).get_concrete_function(tf.TensorSpec((), tf.int64)).graph.as_graph_def()
    assert graph.ByteSize() < 10_000


def test_another_number_of_labels_than_of_images_is_an_error():
    with pytest.raises(ValueError, match="one label for each of the 2 paths; given: 1"):
        FileImages(["a.png", "b.png"], [0])
    with pytest.raises(ValueError, match="one label for each of the 2 images; given: 1"):
        RandomAccessImages([{}, {}], [0])


def test_a_broken_image_of_a_sequence_is_named_by_its_place_there():
    file = io.BytesIO()
    smooth().save(file, "PNG")
    images = RandomAccessImages([{"image": file.getvalue()}, {"image": b"?"}], [0, 1], name="cats/train").subset([1])
    with pytest.raises(tf.errors.OpError, match="image 1 of cats/train: not an image"):
        loaded(images)


# Sources


def tiny(labels, **options):
    return ArrayImages(np.full((len(labels), 4, 4, 3), 7, "uint8"), labels)


def test_a_source_counts_its_classes_and_knows_its_shapes():
    source = Source("tiny", tiny([0, 1, 1]), tiny([0]))
    assert list(source.class_counts) == [1, 2] and source.num_classes == 2
    assert source.class_names == ("0", "1")
    assert source.image_shape == (4, 4, 3)
    assert source.validation is None and source.preprocessing is None and source.notes == ()
    with pytest.raises(dataclasses.FrozenInstanceError):
        source.name = "other"


def test_the_image_shape_of_files_is_what_they_are_prepared_to():
    images = FileImages(["a.png"], [0])
    assert Source("files", images, images).image_shape == (None, None, 3)
    assert Source("files", images, images, preprocessing=Preprocessing(image_size=(20, 24))).image_shape == (20, 24, 3)


@pytest.mark.parametrize("part", ["test", "validation"])
def test_labels_beyond_the_classes_are_an_error(part):
    parts = {"train": tiny([0, 1]), "test": tiny([0]), part: tiny([0, 2])}
    with pytest.raises(ValueError, match=f"labels of tiny must be from 0 to 1, for 2 classes; given: 2 in {part}"):
        Source("tiny", **parts)


def test_a_source_without_training_images_is_an_error():
    with pytest.raises(ValueError, match="tiny must have training images"):
        Source("tiny", tiny([]), tiny([0]))


def test_classes_without_images_are_named():
    refuse_empty_classes(ClassCounts([1, 2]), "here")
    with pytest.raises(
        ValueError,
        match=r"here must have an image of every class; given: none of class 1 \('b'\) and of 1 more classes",
    ):
        refuse_empty_classes(ClassCounts([1, 0, 0], names="a b c".split()), "here")


def test_relabelling_by_count_moves_labels_and_names_together():
    counts = ClassCounts([2, 3, 2, 4], names=["a", "b", "c", "d"])
    labels = np.repeat(np.arange(4), counts.counts)
    source = Source("tiny", tiny(labels), tiny([0, 1, 2, 3]), tiny([3, 2]), counts).relabelled_by_count()
    assert source.class_names == ("d", "b", "a", "c")  # equal counts stay in their order
    assert list(source.class_counts) == [4, 3, 2, 2] == np.bincount(source.train.labels).tolist()
    assert [source.class_names[label] for label in source.test.labels] == ["a", "b", "c", "d"]
    assert [source.class_names[label] for label in source.validation.labels] == ["d", "c"]
    names = np.array(source.class_names)[source.train.labels]
    np.testing.assert_array_equal(names, np.array(counts.names)[labels])


def test_the_embedded_digits_are_a_source_too():
    digits = digits10_lt(largest_class=20, imbalance_factor=4, test_images_per_class=2)
    assert isinstance(digits.train, ArrayImages) and digits.validation is None and digits.notes == ()
    assert digits.train is digits.train
    np.testing.assert_array_equal(digits.train.labels, digits.train_labels)
    np.testing.assert_array_equal(loaded(digits.test, [3])[0], digits.test_images[3])
    fields = {field.name for field in dataclasses.fields(Source)}
    assert all(hasattr(digits, name) for name in fields | {"class_names", "num_classes", "image_shape"})


def test_all_names_exist():
    assert all(hasattr(module, name) for name in module.__all__)
