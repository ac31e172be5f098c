"""The check before a training and the training decode in one way; what fails in a training is named or skipped."""

import io

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image, features

from keras_apa.class_counts import ClassCounts
from training.data.classification.encoded import FileImages
from training.data.classification.naming import naming_unreadable
from training.data.classification.pipeline import evaluation_dataset, training_dataset
from training.data.classification.source import Source
from training.data.decoding import UnreadableImageError, decode_image, decoded, is_plain_jpeg, unreadable_images
from training.data.decoding import naming_unreadable as naming_python
from training.images import read_pixels
from training.recipes import get_recipe
from zoo import Preprocessing

pytestmark = pytest.mark.any_backend  # TensorFlow and Pillow decode on every backend


def smooth(seed=0, size=(41, 30)):
    small = np.random.default_rng(seed).integers(0, 256, (4, 5, 3), "uint8")
    return Image.fromarray(small).resize(size, Image.Resampling.BICUBIC)


def jpeg(seed=0, **options):
    file = io.BytesIO()
    smooth(seed).save(file, "JPEG", **options)
    return file.getvalue()


def with_bad_table():
    """A progressive JPEG whole in its segments, with a Huffman table between its scans that no decoder takes."""
    contents = jpeg(progressive=True)
    place = contents.index(b"\xff\xc4", contents.index(b"\xff\xda")) + 5
    return contents[:place] + b"\xfe" * 16 + contents[place + 16 :]


def in_training(images, index=0):
    """Pixels, or None where the training cannot decode them."""
    try:
        return images.load(tf.constant(index, "int64")).numpy()
    except (tf.errors.OpError, ValueError):  # in tf.data, and outside it
        return None


def stray(contents, segment):
    return contents[:-2] + segment + b"\xff\xd9"


@pytest.mark.parametrize("segment", [b"\xff\xe1", b"\xff\xfe\x00\x09ab", b"\xff\xd9junk", b"\xff\xff"])
@pytest.mark.parametrize("progressive", [False, True])
def test_a_stray_segment_behind_the_pixels_is_no_fault(tmp_path, segment, progressive):
    contents = jpeg(progressive=progressive)
    path = tmp_path / "photo.jpg"
    path.write_bytes(stray(contents, segment))
    pixels = in_training(FileImages([path], [0]))
    assert (pixels is None) == bool(unreadable_images([path]))
    if not progressive:  # the scans of a progressive one are read up to the end, by Pillow too
        np.testing.assert_array_equal(pixels, decode_image(contents, "photo.jpg"))


@pytest.mark.parametrize("options", [{}, {"progressive": True}, {"restart_marker_blocks": 2}], ids=str)
def test_the_check_finds_exactly_what_the_training_cannot_decode(tmp_path, options):
    generator, contents, paths = np.random.default_rng(0), jpeg(quality=95, **options), []
    assert is_plain_jpeg(contents)
    for number in range(90):
        damaged, place = bytearray(contents), int(generator.integers(150, len(contents) - 40))
        length = int(generator.integers(1, 30))
        if number % 3 == 0:
            damaged[place : place + length] = generator.integers(0, 256, length, dtype="uint8").tobytes()
        elif number % 3 == 1:
            del damaged[place : place + length]  # cut out of the middle: its end is there
        else:
            damaged[place:place] = bytes([255, int(generator.integers(1, 256))])
        paths.append(str(tmp_path / f"{number}.jpg"))
        (tmp_path / f"{number}.jpg").write_bytes(bytes(damaged))
    (tmp_path / "table.jpg").write_bytes(with_bad_table())
    paths.append(str(tmp_path / "table.jpg"))
    images = FileImages(paths, np.zeros(len(paths), int))
    found, used = unreadable_images(paths), [in_training(images, index) for index in range(len(paths))]
    assert [path for path, pixels in zip(paths, used, strict=True) if pixels is None] == list(found)
    assert 0 < len(found) < len(paths)
    for path, pixels in zip(paths, used, strict=True):
        if pixels is not None:
            np.testing.assert_array_equal(pixels, read_pixels(path))


def kinds():
    """Files that were left out before, by name."""
    image, deep = smooth(), Image.fromarray((np.arange(30 * 41).reshape(30, 41) * 53).astype("uint16"))
    turned = Image.Exif()
    turned[0x0112] = 6
    found = {
        "photo.jfif": (image, {"format": "JPEG", "quality": 100, "subsampling": 0}),
        "plain.tif": (image, {}),
        "packed.tiff": (image, {"compression": "tiff_lzw"}),
        "turned.tif": (image, {"exif": turned}),
        "deep.tif": (deep, {}),
        "pages.tif": (image, {"save_all": True, "append_images": [smooth(1)]}),
        "cmyk.tif": (image.convert("CMYK"), {}),
        "sign.ppm": (image, {}),
        "deep.pgm": (deep, {}),
    }
    if features.check("jpg_2000"):
        found["earth.jp2"] = (image, {"irreversible": False})
    if features.check("avif"):
        found["turned.avif"] = (image, {"exif": turned, "quality": 100, "subsampling": "4:4:4"})
    return found


@pytest.mark.parametrize("name", kinds())
def test_every_format_that_is_found_has_one_look_in_check_training_and_predict(tmp_path, name):
    image, options = kinds()[name]
    path = tmp_path / name
    image.save(path, **options)
    pixels = in_training(FileImages([path], [0]))
    np.testing.assert_array_equal(pixels, read_pixels(path))
    assert not unreadable_images([path])
    wanted = image.convert("RGB") if image.mode != "I;16" else np.asarray(image)[..., None] / 257.0
    wanted = np.rot90(wanted, -1) if "turned" in name else np.broadcast_to(wanted, pixels.shape)
    assert pixels.shape == wanted.shape
    lossy = 16 if name.endswith((".jfif", ".avif")) else 1
    assert np.abs(pixels.astype(float) - wanted).max() <= lossy


@pytest.mark.parametrize("kind", ["int32", "float32"])
def test_32_bits_are_refused_since_their_range_is_unknown(tmp_path, kind):
    Image.fromarray(np.ones((4, 4), kind)).save(tmp_path / "a.tif")
    assert (
        "bits a channel must be 8 or 16; given: 32" in unreadable_images([tmp_path / "a.tif"])[str(tmp_path / "a.tif")]
    )
    with pytest.raises(ValueError, match=r"a\.tif: cannot be read: bits a channel must be 8 or 16; given: 32"):
        read_pixels(tmp_path / "a.tif")


@pytest.fixture
def six(tmp_path):
    """Files filled with 0, 10, ..., 50, in turns of two classes."""
    paths = [str(tmp_path / f"{number}.png") for number in range(6)]
    for number, path in enumerate(paths):
        Image.new("RGB", (6, 4), (10 * number,) * 3).save(path)
    return paths


BROKEN = {"empty": b"", "text": b"no image", "cut": jpeg()[:200], "table": with_bad_table(), "gone": None}


@pytest.mark.parametrize("how", BROKEN)
def test_what_breaks_later_is_replaced_by_the_next_of_its_class_and_told_once(six, tmp_path, capfd, how):
    images = FileImages(six, [0, 1, 0, 1, 0, 1], on_corrupt="skip")
    broken = tmp_path / "2.png"
    broken.write_bytes(BROKEN[how]) if BROKEN[how] is not None else broken.unlink()
    dataset = tf.data.Dataset.range(12).map(lambda index: images.load(index % 6), num_parallel_calls=4)
    assert [int(image[0, 0, 0]) for image in dataset] == 2 * [0, 10, 40, 30, 40, 50]
    printed = [line for line in capfd.readouterr().err.splitlines() if "keras-apa" in line]
    assert len(printed) == 1
    assert f"{six[2]}: " in printed[0] and f"; skipped: {six[4]}, of the same class, is taken" in printed[0]
    assert list(images.failed) == [six[2]] == list(images.with_labels([1, 0, 1, 0, 1, 0]).failed)


def test_the_last_of_a_class_is_followed_by_its_first_and_a_subset_skips_too(six, tmp_path):
    images = FileImages(six, [0, 1, 0, 1, 0, 1], on_corrupt="skip").subset([1, 3, 4, 5])
    (tmp_path / "5.png").write_bytes(b"")
    assert int(in_training(images, 3)[0, 0, 0]) == 10
    (tmp_path / "4.png").write_bytes(b"")
    with pytest.raises(ValueError, match=r"4\.png: the file is empty; nor can any other image of its class"):
        images.load(tf.constant(2, "int64"))


def source_of(paths, **options):
    labels = np.arange(len(paths)) % 2
    train, test = FileImages(paths, labels, **options), FileImages(paths[:2], labels[:2], **options)
    return Source("six", train, test, class_counts=ClassCounts([3, 3]), preprocessing=Preprocessing(image_size=(4, 4)))


def test_a_training_with_skipped_images_is_the_same_each_time_and_from_each_step(six, tmp_path):
    (tmp_path / "3.png").write_bytes(b"")
    recipe = get_recipe("folder").replace(epochs=2, batch_size=2, data={"image_size": 4}, augment={"crop": "padded"})
    source = source_of(six, on_corrupt="skip")
    first, again = ([*training_dataset(recipe, source).as_numpy_iterator()] for _ in range(2))
    later = [*training_dataset(recipe, source, start_step=4).as_numpy_iterator()]
    assert len(first) == 6 and len(later) == 2
    for one, other in (*zip(first, again, strict=True), *zip(first[4:], later, strict=True)):
        for part, same in zip(one, other, strict=True):
            np.testing.assert_array_equal(part, same)
    assert list(source.failed) == [six[3]]


@pytest.mark.parametrize("how", ["cut", "table", "gone"])
def test_what_fails_in_a_training_is_named_with_what_to_do(six, tmp_path, how):
    broken = tmp_path / "1.png"
    broken.write_bytes(BROKEN[how]) if BROKEN[how] is not None else broken.unlink()
    source = source_of(six)
    with pytest.raises(UnreadableImageError, match=r"1\.png: .*; mend .* same command.*--data\.on-corrupt skip"):
        with naming_unreadable(source):
            list(evaluation_dataset(source.test, 2, num_classes=2, preprocessing=source.preprocessing))


def test_other_errors_of_tensorflow_stay_as_they_are(six):
    with pytest.raises(tf.errors.InvalidArgumentError, match="something else"):
        with naming_unreadable(source_of(six)):
            raise tf.errors.InvalidArgumentError(None, None, "something else")


def test_an_error_of_python_inside_a_dataset_is_what_it_said():
    def load(index):
        raise ValueError(f"{index}.png (id 5): cannot be read")

    dataset = tf.data.Dataset.range(1).map(lambda index: tf.numpy_function(load, [index], tf.int64))
    with pytest.raises(UnreadableImageError, match=r"^0\.png \(id 5\): cannot be read$"), naming_python():
        list(dataset)


def test_a_decoded_jpeg_has_the_pixels_of_pillow_whoever_decodes_it():
    np.testing.assert_array_equal(decoded(jpeg(), "a.jpg"), decode_image(jpeg(), "a.jpg"))
    with pytest.raises(ValueError, match=r"a\.jpg: cannot be read: the data of the JPEG are broken"):
        decoded(with_bad_table(), "a.jpg")
