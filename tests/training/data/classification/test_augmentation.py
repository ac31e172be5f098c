"""Augmentation is a pure function of its seed, agrees with Pillow, and has the statistics of the published rules."""

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from training.config.classification import AugmentOptions
from training.data.classification.augmentation import augment, mix
from training.data.classification.auto_augment import INTERPOLATIONS, POLICIES
from training.data.classification.preparation import prepare
from training.images import read_image
from zoo.preprocessing import Preprocessing, cifar, imagenet

pytestmark = pytest.mark.any_backend  # tf.data only: the same on each backend

PLAIN = Preprocessing(image_size=(32, 32))
EVERYTHING = AugmentOptions(
    shift=2,
    flip=True,
    crop="resized",
    policy="autoaugment_imagenet",
    policy_fill=128,
    policy_interpolation="bilinear",
    cutout=8,
    color_jitter=0.4,
    erase_probability=0.5,
)


@pytest.fixture(scope="module")
def image():
    generator = np.random.default_rng(0)
    return generator.normal(130, 40, (40, 50, 3)).clip(0, 255).astype("uint8")


def many(image, options, count, image_size=32, preprocessing=PLAIN, *, parallel=2, epoch=0):
    """The image augmented with the seeds (epoch, 0), (epoch, 1), ..."""
    image = tf.constant(image)

    def one(position):
        seed = tf.stack([epoch, tf.cast(position, tf.int32)])
        return augment(image, seed, options, image_size, preprocessing)

    dataset = tf.data.Dataset.range(count).map(one, num_parallel_calls=parallel, deterministic=True)
    return np.stack(list(dataset.as_numpy_iterator()))


def boxes(mask):
    """Top, bottom, left, right of each True rectangle of `(N, height, width)`; zeros where there is none."""
    found = []
    for one in mask:
        rows, columns = np.flatnonzero(one.any(1)), np.flatnonzero(one.any(0))
        box = (rows[0], rows[-1] + 1, columns[0], columns[-1] + 1) if len(rows) else (0, 0, 0, 0)
        assert one.sum() == (box[1] - box[0]) * (box[3] - box[2])  # a rectangle
        found.append(box)
    return np.array(found)


@pytest.mark.parametrize("options", [EVERYTHING, AugmentOptions(crop="padded", policy="randaugment", flip=True)])
def test_a_seed_gives_the_same_image_whatever_runs_beside_it(image, options):
    one_by_one, parallel = (many(image, options, 24, parallel=calls) for calls in (1, 4))
    np.testing.assert_array_equal(one_by_one, parallel)
    # Other positions and other epochs give others.
    assert len({one.tobytes() for one in one_by_one}) == 24
    assert not np.array_equal(one_by_one, many(image, options, 24, epoch=1))


def test_an_image_is_the_same_on_its_own_in_an_eager_call(image):
    alone = augment(tf.constant(image), tf.constant([0, 3]), EVERYTHING, 32, PLAIN)
    np.testing.assert_array_equal(alone, many(image, EVERYTHING, 4)[3])


def test_an_option_leaves_the_draws_of_the_others(image):
    with_flip, without = (many(image, AugmentOptions(crop="resized", flip=flip), 16) for flip in (True, False))
    flipped = [np.array_equal(one, other[:, ::-1]) for one, other in zip(with_flip, without, strict=True)]
    same = [np.array_equal(one, other) for one, other in zip(with_flip, without, strict=True)]
    assert np.array_equal(flipped, np.logical_not(same)) and 0 < sum(flipped) < 16


def test_without_options_nothing_happens_but_the_normalisation(image):
    image = image[:32, :32]
    got = augment(tf.constant(image), tf.constant([0, 0]), AugmentOptions(), 32, cifar())
    expected = (image.astype("float32") / 255 - np.float32(cifar().mean)) / np.float32(cifar().std)
    np.testing.assert_allclose(got, expected, atol=1e-6)  # float32 of numbers below 3
    np.testing.assert_array_equal(got, prepare(tf.constant(image), cifar()))
    got = augment(tf.constant(image), tf.constant([0, 0]), AugmentOptions(), 32)
    np.testing.assert_array_equal(got, image.astype("float32") / np.float32(255))


@pytest.mark.parametrize("options", [EVERYTHING, AugmentOptions(), AugmentOptions(crop="padded")])
def test_shapes_are_static_for_images_of_unknown_size(options):
    function = tf.function(lambda image, seed: augment(image, seed, options, 32, PLAIN))
    signature = tf.TensorSpec((None, None, 3), "uint8"), tf.TensorSpec((2,), "int32")
    concrete = function.get_concrete_function(*signature)
    assert concrete.output_shapes == (32, 32, 3) and concrete.output_dtypes == tf.float32
    assert concrete(tf.zeros((50, 37, 3), tf.uint8), tf.constant([0, 1])).shape == (32, 32, 3)


def test_digits_are_shifted_with_a_mirrored_border():
    image = np.random.default_rng(0).normal(size=(16, 16, 1)).astype("float32")
    padded = np.pad(image, ((1, 1), (1, 1), (0, 0)), mode="symmetric")
    moves = {padded[row : row + 16, column : column + 16].tobytes() for row in range(3) for column in range(3)}
    preprocessing = Preprocessing(image_size=(16, 16), channels=1, mean=(0.0,), std=(1.0,))
    for given in (preprocessing, None):
        got = many(image, AugmentOptions(shift=1), 100, 16, given)
        assert {one.tobytes() for one in got} == moves
    np.testing.assert_array_equal(many(image, AugmentOptions(), 1, 16, preprocessing)[0], image)


def test_flips_and_padded_crops_are_even():
    """Each pixel of the image has a value of its own, so that a crop says where it was taken."""
    image = np.stack(np.meshgrid(range(1, 33), range(1, 33), [1], indexing="ij"), -1)[:, :, 0].astype("uint8")
    got = np.round(many(image, AugmentOptions(crop="padded", flip=True), 1500) * 255).astype(int)
    middle = got[:, 12:20, 12:20]
    flipped = middle[:, 0, 0, 1] > middle[:, 0, 1, 1]
    # Four standard deviations of 1500 tosses.
    assert abs(flipped.mean() - 0.5) < 4 * 0.5 / 1500**0.5
    upright = np.where(flipped[:, None, None, None], got[:, :, ::-1], got)
    rows, columns = upright[:, 16, 16, 0] - 17, upright[:, 16, 16, 1] - 17
    for offsets in (rows, columns):
        counts = np.bincount(offsets + 4, minlength=9)
        assert len(counts) == 9 and abs(counts - 1500 / 9).max() < 4 * (1500 / 9) ** 0.5
    padded = np.pad(image, ((4, 4), (4, 4), (0, 0)))
    for one, row, column in zip(upright, rows + 4, columns + 4, strict=True):
        np.testing.assert_array_equal(one, padded[row : row + 32, column : column + 32])


def test_resized_crops_have_the_published_areas_and_ratios():
    """A ramp says which columns and rows a crop spans: its value rises by 1 a pixel, before and after resizing."""
    rows, columns = np.meshgrid(np.arange(200.0), np.arange(300.0), indexing="ij")
    image = np.stack([rows, columns, rows], -1).astype("float32")
    preprocessing = Preprocessing(image_size=(64, 64))
    got = many(image, AugmentOptions(crop="resized"), 600, 64, preprocessing)
    # Between the centres of the first and the last pixel lie 62 / 64 of the crop (away from the edges' kernels).
    height, width = (np.round((got[:, 48, 48, axis] - got[:, 16, 16, axis]) * 2) for axis in (0, 1))
    area, ratio = height * width / (200 * 300), width / height
    assert 0.075 < area.min() < 0.12 and 0.8 < area.max() <= 1
    assert 0.74 < ratio.min() < 0.78 and 1.28 < ratio.max() < 1.35
    assert abs(np.log(ratio).mean()) < 4 * np.log(4 / 3) / 3**0.5 / 600**0.5 + 0.01
    # Large ones do not fit, so that the mean area is below 0.54.
    expected = torchvision_areas(200, 300, 4000)
    assert abs(area.mean() - expected.mean()) < 4 * expected.std() * (1 / 600 + 1 / 4000) ** 0.5
    assert abs(area.std() - expected.std()) < 0.03


def torchvision_areas(height, width, count):
    """Shares of the image that `RandomResizedCrop.get_params` of torchvision 0.16 gives, without its fallback."""
    generator, areas = np.random.default_rng(0), []
    while len(areas) < count:
        target = height * width * generator.uniform(0.08, 1.0)
        ratio = np.exp(generator.uniform(np.log(3 / 4), np.log(4 / 3)))
        crop_width, crop_height = round((target * ratio) ** 0.5), round((target / ratio) ** 0.5)
        if 0 < crop_width <= width and 0 < crop_height <= height:
            areas.append(crop_width * crop_height / (height * width))
    return np.array(areas)


def test_a_resized_crop_of_a_thin_image_is_its_centre():
    """No rectangle of the ten fits into 8 x 400: the fallback, as torchvision's, is 8 high and 11 wide."""
    image = np.tile(np.arange(400, dtype="float32")[None, :, None], (8, 1, 3))
    got = many(image, AugmentOptions(crop="resized"), 3, 8, Preprocessing(image_size=(8, 8)))
    # Columns 194 to 204, their centres about 199.
    np.testing.assert_allclose(got.mean(axis=(1, 2, 3)), 199.0, atol=1.0)
    assert 9 < got[0, 0, -1, 0] - got[0, 0, 0, 0] < 11


def test_a_resized_crop_equals_pillow_within_a_grey_level():
    generator = np.random.default_rng(0)
    image = generator.integers(0, 256, (90, 120, 3), dtype=np.uint8)
    # Values that say where the crop is, and noise that says how it was resized, in one crop of the same seed.
    rows, columns = np.meshgrid(np.arange(90.0), np.arange(120.0), indexing="ij")
    where = many(np.stack([rows, columns, rows], -1).astype("float32"), AugmentOptions(crop="resized"), 12)
    got = np.round(many(image, AugmentOptions(crop="resized"), 12) * 255).astype(int)
    checked = 0
    for one, ramp in zip(got, where, strict=True):
        sides = [np.round((ramp[20, 20, axis] - ramp[12, 12, axis]) * 4) for axis in (0, 1)]
        centre = [(ramp[15, 15, axis] + ramp[16, 16, axis]) / 2 + 0.5 for axis in (0, 1)]
        top, left = (int(np.round(middle - side / 2)) for middle, side in zip(centre, sides, strict=True))
        box = (left, top, left + int(sides[1]), top + int(sides[0]))
        expected = np.asarray(Image.fromarray(image).crop(box).resize((32, 32), Image.Resampling.BILINEAR)).astype(int)
        # Pillow rounds to grey levels after the rows too.
        assert np.abs(one - expected).max() <= 1
        checked += 1
    assert checked == 12


@pytest.mark.parametrize("interpolation", ["bilinear", "bicubic"])
@pytest.mark.parametrize("size", [(61, 47), (30, 90), (224, 224), (20, 24)])
def test_preparing_equals_reading_an_image_file(tmp_path, size, interpolation):
    """Within a grey level of Pillow, which rounds after the rows too, and cuts off there what bicubic interpolation
    overshoots: hence the noise of less contrast."""
    low, high = (0, 256) if interpolation == "bilinear" else (64, 192)
    pixels = np.random.default_rng(0).integers(low, high, (*size, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(tmp_path / "image.png")
    for resize in (40, 32, None):
        mean, std = (0.0,) * 3, (1.0,) * 3
        given = Preprocessing(image_size=(32, 32), resize_size=resize, mean=mean, std=std, interpolation=interpolation)
        ours = np.round(prepare(tf.constant(pixels), given).numpy() * 255)
        theirs = read_image(tmp_path / "image.png", given).astype(float)
        assert np.abs(ours - theirs).max() <= 1


def test_cutouts_are_squares_clipped_at_the_border():
    image = np.full((32, 32, 3), 200, "uint8")
    got = many(image, AugmentOptions(cutout=16), 1000, 32, cifar())
    mean, std = np.float32(cifar().mean), np.float32(cifar().std)
    # Grey level 0 before normalising: -mean / std after it.
    black = np.isclose(got, -mean / std).all(-1)
    np.testing.assert_allclose(got[~black], np.tile((200 / 255 - mean) / std, ((~black).sum(), 1)), rtol=1e-5)
    top, bottom, left, right = boxes(black).T
    for first, last in ((top, bottom), (left, right)):
        assert set(last - first) == set(range(8, 17))
        # The centre is even over 32 places: 17 of them leave the whole 16.
        assert abs(np.mean(last - first == 16) - 17 / 32) < 4 * 0.5 / 1000**0.5
    # Mean side (17 * 16 + 8 + ... + 15 + 15 + ... + 9) / 32 = 14.0, mean area its square: the axes are independent.
    assert abs(black.sum((1, 2)).mean() - 14.0**2) < 4 * 60 / 1000**0.5


def test_erased_rectangles_have_the_published_areas_and_ratios():
    image = np.full((100, 100, 3), 255, "uint8")
    preprocessing = Preprocessing(image_size=(100, 100), mean=(0.5,) * 3, std=(0.5,) * 3)
    got = many(image, AugmentOptions(erase_probability=0.25), 800, 100, preprocessing)
    erased = got == 0.0  # after normalising: white is 1 here, black would be -1
    assert (erased.all(-1) == erased.any(-1)).all() and (got[~erased] == 1.0).all()
    found = boxes(erased.all(-1))
    found = found[found[:, 1] > 0]
    assert abs(len(found) / 800 - 0.25) < 4 * (0.25 * 0.75 / 800) ** 0.5
    height, width = found[:, 1] - found[:, 0], found[:, 3] - found[:, 2]
    area, ratio = height * width / 1e4, height / width
    assert 0.018 < area.min() < 0.04 and 0.29 < area.max() < 0.335
    assert 0.28 < ratio.min() < 0.4 and 2.6 < ratio.max() < 3.45
    # Even between 0.02 and 0.33, less the few that do not fit.
    assert abs(area.mean() - 0.175) < 4 * 0.09 / len(found) ** 0.5 + 0.005
    assert not many(image, AugmentOptions(erase_probability=0.0), 3, 100, preprocessing)[..., 0].min() < 1
    assert (many(image, AugmentOptions(erase_probability=1.0), 50, 100, preprocessing) == 0).any((1, 2, 3)).all()


def test_colour_jitter_changes_brightness_contrast_and_saturation(image):
    image = image[:32, :32]
    got = many(image, AugmentOptions(color_jitter=0.4), 200) * 255
    means = got.mean((1, 2, 3)) / image.mean()
    assert 0.55 < means.min() < 0.75 and 1.2 < means.max() < 1.45
    assert len({one.tobytes() for one in got}) == 200
    # Without a strength of brightness, contrast would leave the mean and saturation the luminance.
    grey = np.full((32, 32, 3), 100, "uint8")
    evened = np.round(many(grey, AugmentOptions(color_jitter=0.4), 50) * 255)
    assert (evened == evened[:, :1, :1, :1]).all() and evened.min() >= 60 and evened.max() <= 140


@pytest.mark.parametrize("policy", POLICIES)
def test_policies_change_images_and_stay_grey_levels(image, policy):
    image = image[:32, :32]
    got = many(image, AugmentOptions(policy=policy), 60) * 255
    np.testing.assert_allclose(got, np.round(got), atol=1e-4)
    changed = np.mean([not np.array_equal(np.round(one), image) for one in got])
    # RandAugment: all but Identity twice and what changes nothing; AutoAugment: by its probabilities.
    assert changed > (0.85 if policy == "randaugment" else 0.6)


def test_the_policy_fill_enters_where_an_image_was_moved_away():
    white = np.full((32, 32, 3), 255, "uint8")
    options = AugmentOptions(policy="randaugment", policy_fill=128)
    got = np.round(many(white, options, 60) * 255)
    assert (got == 128).any()


# Mixing.


def batch(size=6, classes=4):
    images = np.random.default_rng(0).normal(size=(size, 8, 8, 3)).astype("float32")
    return tf.constant(images), tf.one_hot(np.arange(size) % classes, classes)


def mixed(options, count, size=6):
    images, labels = batch(size)
    function = tf.function(lambda seed: mix(images, labels, seed, options))
    return [function(tf.constant([7, number])) for number in range(count)]


def test_mixup_weights_image_and_label_alike():
    images, labels = batch()
    weights = []
    for got_images, got_labels in mixed(AugmentOptions(mixup_alpha=1.0), 20):
        weight = got_labels.numpy()[0, 0]  # labels 0 and 1 (of the last image) are no neighbours' but its own
        np.testing.assert_allclose(got_labels, weight * labels + (1 - weight) * np.roll(labels, 1, 0), atol=1e-6)
        np.testing.assert_allclose(got_images, weight * images + (1 - weight) * np.roll(images, 1, 0), atol=1e-5)
        weights.append(weight)
    assert len(set(weights)) == 20 and min(weights) < 0.5 < max(weights)  # no max(weight, 1 - weight)


@pytest.mark.parametrize("alpha", [0.2, 1.0, 8.0])
def test_weights_follow_the_beta_distribution(alpha):
    labels = tf.one_hot([0, 1], 2)

    @tf.function
    def weight(number):
        return mix(tf.zeros((2, 1, 1, 1)), labels, tf.stack([3, number]), AugmentOptions(mixup_alpha=alpha))[1][0, 0]

    weights = tf.map_fn(weight, tf.range(1500), fn_output_signature=tf.float32).numpy()
    variance = 1 / (4 * (2 * alpha + 1))
    assert abs(weights.mean() - 0.5) < 4 * (variance / 1500) ** 0.5
    # The variance of a squared deviation is below a quarter of the mean, as deviations are below a half.
    assert abs(weights.var() - variance) < 4 * (variance / 4 / 1500) ** 0.5


def test_a_tiny_alpha_gives_no_nan():
    """A gamma variable of 0.001 is 0 in float32 more often than not."""
    labels = [labels.numpy() for _, labels in mixed(AugmentOptions(mixup_alpha=1e-3), 50)]
    assert np.isfinite(labels).all()
    np.testing.assert_allclose(np.sum(labels, -1), 1, atol=1e-6)


def test_cutmix_weighs_labels_by_the_clipped_box():
    images, labels = batch()
    rolled, shares = np.roll(images, 1, 0), []
    for got_images, got_labels in mixed(AugmentOptions(cutmix_alpha=1.0), 60):
        from_neighbour = (got_images.numpy() == rolled).all(-1)
        assert (from_neighbour | (got_images.numpy() == images.numpy()).all(-1)).all()
        box = boxes(from_neighbour)
        assert (box == box[0]).all()
        share = from_neighbour[0].mean()
        np.testing.assert_allclose(got_labels, (1 - share) * labels + share * np.roll(labels, 1, 0), atol=1e-6)
        shares.append(share)
    assert min(shares) == 0 and max(shares) > 0.5


def test_with_both_each_batch_gets_one_of_them_with_equal_chances():
    images, _ = batch()
    options = AugmentOptions(mixup_alpha=1.0, cutmix_alpha=1.0)
    rolled, cut = np.roll(images, 1, 0), 0
    for got_images, got_labels in mixed(options, 400):
        got = got_images.numpy()
        cut += ((got == rolled) | (got == images.numpy())).mean() > 0.99
        np.testing.assert_allclose(tf.reduce_sum(got_labels, -1), 1, atol=1e-6)
    assert abs(cut / 400 - 0.5) < 4 * 0.5 / 400**0.5


def test_mixing_is_a_function_of_the_seed():
    options = AugmentOptions(mixup_alpha=0.2, cutmix_alpha=1.0, label_smoothing=0.1)
    for first, second in zip(mixed(options, 10), mixed(options, 10), strict=True):
        np.testing.assert_array_equal(first[0], second[0])
        np.testing.assert_array_equal(first[1], second[1])


def test_label_smoothing_acts_on_the_mixed_labels():
    images, labels = batch()
    got_images, got = mix(images, labels, tf.constant([0, 0]), AugmentOptions(label_smoothing=0.1))
    np.testing.assert_array_equal(got_images, images)
    np.testing.assert_allclose(got, 0.9 * labels + 0.1 / 4, atol=1e-7)
    seed = tf.constant([5, 5])
    plain = mix(images, labels, seed, AugmentOptions(mixup_alpha=0.2))[1]
    smoothed = mix(images, labels, seed, AugmentOptions(mixup_alpha=0.2, label_smoothing=0.1))[1]
    np.testing.assert_allclose(smoothed, 0.9 * plain + 0.1 / 4, atol=1e-6)


def test_nothing_to_mix_changes_nothing_and_a_short_batch_is_taken():
    images, labels = batch(1)
    for options in (AugmentOptions(), AugmentOptions(mixup_alpha=0.2, cutmix_alpha=1.0)):
        got_images, got_labels = mix(images, labels, tf.constant([0, 0]), options)
        np.testing.assert_allclose(got_images, images, atol=1e-6)
        np.testing.assert_allclose(got_labels, labels, atol=1e-6)
    function = tf.function(lambda images, labels: mix(images, labels, tf.constant([0, 0]), options))
    signature = tf.TensorSpec((None, 8, 8, 3)), tf.TensorSpec((None, 4))
    shapes = function.get_concrete_function(*signature).output_shapes
    assert [tuple(shape) for shape in shapes] == [(None, 8, 8, 3), (None, 4)]


# Bad input.


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"shift": -1}, "augment.shift must be a whole number of at least 0"),
        ({"flip": 1}, "augment.flip must be True or False"),
        ({"crop": "random"}, "augment.crop must be one of none, padded, resized"),
        ({"policy": "autoaugment"}, "augment.policy must be one of none, autoaugment_cifar"),
        ({"policy_fill": 256}, "augment.policy_fill must be a whole number of at least 0 and below 256"),
        ({"policy_interpolation": "cubic"}, "augment.policy_interpolation must be one of nearest, bilinear"),
        ({"cutout": 1.5}, "augment.cutout must be a whole number"),
        ({"color_jitter": -0.1}, "augment.color_jitter must be a finite number at least 0"),
        ({"erase_probability": 1.1}, "augment.erase_probability must be at most 1; given: 1.1"),
        ({"mixup_alpha": -1.0}, "augment.mixup_alpha must be a finite number at least 0"),
        ({"cutmix_alpha": float("nan")}, "augment.cutmix_alpha must be a finite number"),
        ({"label_smoothing": 1.0}, "augment.label_smoothing must be a finite number at least 0.0 and below 1.0"),
    ],
)
def test_bad_options_are_named(options, message):
    with pytest.raises(ValueError, match=message):
        AugmentOptions(**options)


def test_options_know_every_policy_and_interpolation():
    for policy in POLICIES:
        for interpolation in INTERPOLATIONS:
            options = AugmentOptions(policy=policy, policy_interpolation=interpolation)
            assert (options.policy, options.policy_interpolation) == (policy, interpolation)


@pytest.mark.parametrize(
    ("shape", "dtype", "options", "message"),
    [
        ((32, 32), "uint8", {}, "image must be .height, width, 1 or 3 channels.; given: uint8 .32, 32."),
        ((32, 32, 2), "uint8", {}, "image must be"),
        ((32, 32, 3), "int32", {}, "image must be uint8 or floats; given: int32"),
        ((32, 32, 1), "uint8", {}, "image must have the 3 channels of preprocessing; given: 1"),
        ((32, 32, 3), "float32", {"policy": "randaugment"}, "policy must have uint8 images"),
        ((32, 32, 3), "float32", {"color_jitter": 0.4}, "color_jitter must have uint8 images"),
        ((32, 32, 3), "uint8", {"shift": 32}, "shift must be below the height and width of the image, 32; given: 32"),
        ((32, 32, 3), "uint8", {"cutout": 64}, "cutout must be below 64"),
    ],
)
def test_images_that_do_not_fit_the_options_are_named(shape, dtype, options, message):
    with pytest.raises(ValueError, match=message):
        augment(tf.zeros(shape, dtype), tf.constant([0, 0]), AugmentOptions(**options), 32, PLAIN)


def test_bad_arguments_are_named():
    image, (images, labels) = tf.zeros((32, 32, 3), tf.uint8), batch()
    options, seed = AugmentOptions(mixup_alpha=0.2), tf.constant([0, 0])
    with pytest.raises(ValueError, match="seed must be two integers; given: int32 .3,."):
        augment(image, tf.constant([0, 0, 0]), options, 32, PLAIN)
    with pytest.raises(ValueError, match="seed must be two integers; given: float32"):
        mix(images, labels, tf.zeros(2), options)
    with pytest.raises(ValueError, match="image_size must be a whole number of at least 1"):
        augment(image, seed, options, 0, PLAIN)
    with pytest.raises(ValueError, match="images must be floats .batch, height, width, channels.; given: uint8"):
        mix(tf.cast(images, tf.uint8), labels, seed, options)
    with pytest.raises(ValueError, match="one_hot_labels must be .batch, classes.; given: int32 .6,."):
        mix(images, tf.range(6), seed, options)
    with pytest.raises(ValueError, match="3 channels of preprocessing; given: 1"):
        prepare(tf.zeros((300, 300, 1), tf.uint8), imagenet())
