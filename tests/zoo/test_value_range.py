"""Images of another range than a model wants give one warning, and images of the right range none."""

import contextlib
import warnings

import keras
import numpy as np
import pytest

import zoo
from training.detection.metrics import detect
from zoo.preprocessing import Preprocessing, cifar, imagenet
from zoo.value_range import PIXELS, range_after, values_known, warn_of_range

RNG = np.random.default_rng(0)
UNIT = RNG.random((3, 32, 32, 3), "float32")
BYTES = RNG.integers(0, 256, (3, 32, 32, 3), "uint8")
NORMALISED = (UNIT - 0.5) / 0.25
DARK = RNG.integers(0, 2, (3, 32, 32, 3), "uint8")
DIVIDED = "images must be pixels from 0 to 255; given: float32 from .* to .* They look like pixels divided by 255"


class Owner:
    """What images are for."""


@contextlib.contextmanager
def refused(message):
    """The warning as an error, so that nothing is computed after it."""
    with warnings.catch_warnings(), pytest.raises(UserWarning, match=message):
        warnings.filterwarnings("error", "images must be")
        yield


@contextlib.contextmanager
def silent():
    with warnings.catch_warnings():
        warnings.filterwarnings("error", "images must be")
        yield


def classifier(preprocessing=None):
    inputs = keras.Input((32, 32, 3))
    outputs = keras.layers.Dense(2)(keras.layers.GlobalAveragePooling2D()(inputs))
    return zoo.classifier.Classifier(inputs, outputs, preprocessing=preprocessing)


def detector():
    backbone = zoo.create_model("resnet8", stem="imagenet", pyramid=True, input_shape=(None, None, 3))
    return zoo.FasterRCNN(
        backbone, 2, pyramid_filters=4, box_units=4, anchor_sizes=((8,), (16,), (32,), (64,)), proposals=8, seed=0
    )


WIDE = range_after(Preprocessing(image_size=(32, 32), mean=(0.0,) * 3, std=(1 / 255,) * 3))


@pytest.mark.any_backend
@pytest.mark.parametrize(
    "images, wanted, message",
    [
        (UNIT, PIXELS, r"float32 from .* They look like pixels divided by 255: multiply them by 255\."),
        (UNIT.astype("float64"), PIXELS, "float64 from"),
        (UNIT > 0.5, PIXELS, "bool from 0 to 1"),
        (UNIT[0], WIDE, "pixels from 0 to 255; given: float32"),
        (list(UNIT), PIXELS, "multiply them by 255"),
        (NORMALISED, PIXELS, "They look normalised already: give the pixels as they are"),
        (UNIT * 2 - 1, PIXELS, "They look normalised already"),
        (UNIT * 255 - 116, PIXELS, "They look like pixels less their mean"),  # preprocess_input of Keras's ResNet50
        (BYTES.astype("uint16") * 257, PIXELS, "uint16 from .* Scale them to that range"),
        (
            BYTES,
            range_after(imagenet()),
            r"values from -2.118 to 2.64; given: uint8 .* Call model.preprocessing on pix",
        ),
        (BYTES.astype("float32"), range_after(cifar()), "given: float32 from 0 to 255. Call model.preprocessing"),
        (BYTES, (0.0, 1.0), "with values from 0 to 1; given: uint8 from 0 to 255"),
        (UNIT * 2 - 1, (-0.0, 1.0), None),
        (np.clip(UNIT * 2.2 - 1.1, -1, 1), (0.0, 1.0), "given: float32 from -1 to 1. Call"),
        (UNIT, range_after(imagenet()), r"They look like pixels divided by 255\. Call model.preprocessing on pixels"),
        # A hundred images, of which few are looked at, and one too large to be looked at whole.
        (np.broadcast_to(UNIT[:1], (100, 32, 32, 3)), PIXELS, "multiply"),
        (np.broadcast_to(UNIT[:1, :1], (1, 2000, 32, 3)), PIXELS, "multiply"),
        # Right, or nothing can be said.
        (BYTES, PIXELS, None),
        (DARK, PIXELS, None),
        (list(DARK), PIXELS, None),
        (DARK, (0.0, 1.0), None),
        (DARK.astype("int64"), WIDE, None),
        (BYTES.astype("float32"), PIXELS, None),
        (UNIT, (0.0, 1.0), None),
        (NORMALISED, range_after(cifar()), None),
        (NORMALISED + RNG.normal(0, 1, NORMALISED.shape), range_after(imagenet()), None),
        # Of all its pixels none is dark: as bright as this can a photo be.
        (0.3 + 0.5 * UNIT, range_after(imagenet()), None),
        (BYTES - 3.5 + UNIT, PIXELS, None),
        (np.zeros((2, 8, 8, 3), "float32"), PIXELS, None),
        (np.full((2, 8, 8, 3), 0.5), PIXELS, None),
        (np.full((2, 8, 8, 3), np.nan), PIXELS, None),
        (UNIT[:0], PIXELS, None),
        (UNIT.reshape(3, -1), PIXELS, None),
        ([], PIXELS, None),
        (["a"], PIXELS, None),
        (np.array([["a"]]), PIXELS, None),
        (None, PIXELS, None),
    ],
)
def test_the_range_is_told_from_type_and_values(images, wanted, message):
    with silent() if message is None else refused(message):
        warn_of_range(Owner(), images, wanted)


@pytest.mark.any_backend
def test_the_darkest_of_several_images_is_not_taken_for_all():
    batch = UNIT * 255
    batch[0] /= 255
    with silent():
        warn_of_range(Owner(), batch)
        warn_of_range(Owner(), list(batch))
        with values_known(owner := Owner()):
            warn_of_range(owner, UNIT)
    with refused(DIVIDED):
        warn_of_range(owner, UNIT)


def test_tensors_are_looked_at_where_they_are_eager():
    with refused(DIVIDED):
        warn_of_range(Owner(), keras.ops.convert_to_tensor(UNIT))
    with refused("multiply them by 255"):
        warn_of_range(Owner(), keras.ops.cast(keras.ops.convert_to_tensor(UNIT), "bfloat16"))
    with silent():
        warn_of_range(Owner(), keras.KerasTensor((1, 8, 8, 3)))
    compiled = {"jax": "jit", "tensorflow": "function"}.get(keras.backend.backend())
    if compiled:
        backend = pytest.importorskip(keras.backend.backend())
        with silent():
            assert getattr(backend, compiled)(imagenet())(UNIT.astype("float32")).shape == UNIT.shape


def test_a_classifier_warns_once_of_images_that_were_not_prepared():
    model = classifier(cifar())
    model.compile("sgd", "mse")
    labels = np.zeros((3, 2), "float32")
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        model.predict(BYTES, verbose=0)
        model.predict(UNIT, verbose=0)
        model.fit(BYTES, labels, verbose=0)
    (warning,) = [each for each in caught if "images must be" in str(each.message)]
    assert warning.filename == __file__ and "given: uint8 from 0 to 255. Call model.preprocessing" in str(
        warning.message
    )
    # Another model has not been warned of, and prepared images are right in every method.
    prepared = keras.ops.convert_to_numpy(model.preprocessing(BYTES, "channels_last"))
    other = classifier(cifar())
    other.compile("sgd", "mse")
    with silent():
        other.fit(prepared, labels, validation_data=(prepared, labels), verbose=0)
        other.evaluate(prepared, labels, verbose=0)
        other(prepared)


def test_every_method_of_a_classifier_looks():
    model = classifier(imagenet())
    model.compile("sgd", "mse")
    labels = np.zeros((3, 2), "float32")
    prepared = keras.ops.convert_to_numpy(model.preprocessing(BYTES, "channels_last"))
    with silent(), refused("Call model.preprocessing"):
        model.fit(prepared, labels, validation_data=(BYTES, labels), verbose=0)
    for run in (
        lambda: model.fit(BYTES, labels),
        lambda: model.fit(x=BYTES, y=labels),
        lambda: model.fit(iter_batches(BYTES, labels), steps_per_epoch=1),
        lambda: model.evaluate(BYTES, labels),
        lambda: model.predict(BYTES),
        lambda: model.predict_on_batch(BYTES),
        lambda: model.train_on_batch(BYTES, labels),
        lambda: model.test_on_batch(BYTES, labels),
        lambda: model(BYTES),
        lambda: model(UNIT, training=True),
    ):
        del model.__dict__["_warned_of_range"]
        with refused("Call model.preprocessing"):
            run()


def iter_batches(images, labels):
    yield images, labels
    yield images + 1, labels


def test_a_generator_loses_no_batch():
    model = classifier(cifar())
    found = model.predict(((x,) for x in (NORMALISED[:1], NORMALISED[1:])), verbose=0)
    np.testing.assert_allclose(found, model.predict(NORMALISED, verbose=0), rtol=1e-5, atol=1e-6)


@pytest.mark.skipif(keras.backend.backend() != "tensorflow", reason="others cannot prepare images in tf.data")
def test_a_dataset_of_integers_is_told_from_its_type_and_may_hold_the_preprocessing(caplog, capfd):
    import tensorflow as tf

    labels = np.zeros((3, 2), "float32")
    dataset = tf.data.Dataset.from_tensor_slices((BYTES, labels)).batch(3)
    model = classifier(cifar())
    model.compile("sgd", "mse")
    with refused("given: a dataset of uint8. Call model.preprocessing"):
        model.fit(dataset)
    with silent():
        model.fit(dataset.map(lambda x, y: (model.preprocessing(x, "channels_last"), y)), verbose=0)
    assert "AutoGraph" not in caplog.text + "".join(capfd.readouterr())


@pytest.mark.any_backend
def test_a_model_without_preprocessing_has_no_opinion():
    model = classifier()
    with silent():
        for images in (BYTES, UNIT, NORMALISED):
            model(images)
            warn_of_range(model, images)
    model.preprocessing = cifar()
    with refused("Call model.preprocessing"):
        warn_of_range(model, BYTES)


@pytest.mark.any_backend
def test_every_method_of_a_detector_looks():
    model = detector()
    model.compile("sgd")
    targets = {"boxes": np.array([[[1, 1, 9, 9]]] * 3, "float32"), "labels": np.zeros((3, 1), "int32")}
    sizes = np.array([[32, 32]] * 3)
    for run in (
        lambda: model.fit(UNIT, targets),
        lambda: model.fit({"images": UNIT, "image_size": sizes}, targets),
        lambda: model.evaluate(UNIT, targets),
        lambda: model.predict(UNIT),
        lambda: model.predict_on_batch({"images": UNIT, "image_size": sizes}),
        lambda: model.train_on_batch(UNIT, targets),
        lambda: model(UNIT),
        lambda: list(detect(model, enumerate(UNIT), (32, 32))),
    ):
        with refused(DIVIDED):
            run()
        del model.__dict__["_warned_of_range"]
    with refused("They look normalised already"):
        model.predict(NORMALISED)


@pytest.mark.any_backend("torch")
def test_dark_images_of_bytes_are_detected_in_without_a_warning():
    """The network gets them as floats from 0 to 1."""
    model = detector()
    with silent():
        model.predict_images([DARK[0]], resize=False)
        list(detect(model, enumerate(DARK[:1]), (32, 32)))
        model.predict(DARK, verbose=0)


@pytest.mark.any_backend
def test_preprocessing_warns_once_and_is_equal_to_what_it_was():
    for preprocessing, call in (
        (imagenet(32, 32), lambda own: own(UNIT)),
        (imagenet(32, 32), lambda own: own(UNIT.tolist())),
        (zoo.detection.DetectionPreprocessing(), lambda own: own.batch(list(UNIT), resize=False)),
    ):
        with pytest.warns(UserWarning, match="pixels divided by 255") as caught:
            call(preprocessing)
            call(preprocessing)
        assert len(caught) == 1 and caught[0].filename == __file__
        again = type(preprocessing).from_config(preprocessing.get_config())
        assert again == preprocessing and hash(again) == hash(preprocessing)
        with refused("pixels divided by 255"):
            call(again)
    with silent():
        imagenet(32, 32)(DARK.tolist())
        imagenet(32, 32)(list(DARK))


def test_a_model_without_preprocessing_notes_what_it_is_trained_on(tmp_path):
    model = zoo.create_model("resnet8", classes=3, input_shape=(8, 8, 3))
    assert model.trained_range is None and "trained_range" not in model.get_config()
    model.compile("sgd", loss="mse")
    images = np.arange(384).reshape(2, 8, 8, 3) % 256
    for part in (images // 9, images):  # a dark batch first
        model.train_on_batch(part, np.zeros((2, 3)))
    model.predict(images * 9, verbose=0)  # is no training
    assert model.trained_range == (0.0, 255.0)
    model.save(tmp_path / "model.keras")
    zoo.save_preset(model, tmp_path / "preset")
    for other in (keras.saving.load_model(tmp_path / "model.keras"), zoo.from_preset(tmp_path / "preset")):
        assert other.trained_range == (0.0, 255.0)
