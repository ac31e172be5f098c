"""Published weights by name, and files by path. The files are stand-ins in the layout of the published ones."""

import argparse
import dataclasses
import functools
import re
import warnings

import keras
import numpy as np
import pytest

import keras_apa
import zoo
from keras_apa import ClassCounts
from keras_apa.layers import AGLU, PriorCorrection
from zoo import weights as module
from zoo.checkpoint_files import write_state_dict
from zoo.download import DownloadError
from zoo.weight_files import SUFFIXES
from zoo.weight_files import load_weights as load
from zoo.weights import IMAGENET_LT_COUNTS, WEIGHTS, WeightSet, create_with_weights, get_weights, list_weights

pytestmark = pytest.mark.any_backend  # tables, files and messages; each backend loads one of each kind

APA = {"activation": "aglu", "gate": "apa", "classifier": "cosine"}
APA_LAYER = keras_apa.layers.APA()
NORMALIZED = keras_apa.layers.NormalizedDense(3, temperature=20.0, unused_bias=True)
COUNTS = (40, 20, 10, 5)
SET = WeightSet(
    model="se_resnet8",
    name="digits_lt",
    url="https://example.org/model_199.pth",
    classes=4,
    options=APA,
    assumed=("classifier",),
    preprocessing=zoo.preprocessing.cifar(),
    top1=50.0,
    source="a table",
    class_order="digits",
    repository="nobody/nothing",
    correction="raw",
    class_counts=COUNTS,
)


def create(name, weights, **options):
    """What `zoo.create_model(name, weights=weights, **options)` does."""
    return create_with_weights(name, functools.partial(zoo.create_model, name), weights, options)


def outputs(model, x, training=False):
    return keras.ops.convert_to_numpy(model(x, training=training))


def images(shape=(32, 32, 3)):
    return np.random.default_rng(0).standard_normal((2, *shape)).astype("float32")


def values(model, without=()):
    return [w for layer in model.layers if layer.name not in without for w in layer.get_weights()]


def same(first, second):
    return len(first) == len(second) and all(np.array_equal(a, b) for a, b in zip(first, second, strict=True))


@pytest.fixture
def published(monkeypatch, tmp_path):
    """A published set whose file is in the cache already, and the network that it was written from."""
    torch = pytest.importorskip("torch", reason="the published files are PyTorch's")
    monkeypatch.setenv("KERAS_APA_CACHE", str(tmp_path))
    monkeypatch.setenv("KERAS_APA_OFFLINE", "1")
    monkeypatch.setitem(module._BY_NAME, (SET.model, SET.name), SET)
    model = zoo.create_model("se_resnet8", classes=4, **APA)
    state = {key: torch.from_numpy(value.copy()) for key, value in zoo.to_torch_state_dict(model).items()}
    SET.path.parent.mkdir(parents=True)
    torch.save({"model": state, "epoch": 199, "args": argparse.Namespace(model="se_resnet8")}, SET.path)
    return model


def test_the_table_names_networks_of_the_zoo_and_every_file_once():
    assert len(list_weights()) == len(WEIGHTS) == len({s.url for s in WEIGHTS}) == len({s.path for s in WEIGHTS}) == 18
    assert {s.model for s in WEIGHTS} <= set(zoo.list_models())
    for weight_set in WEIGHTS:
        assert re.fullmatch(r"https://(drive\.google\.com/uc\?id=[\w-]{33}|[\w./-]+\.pth(\?dl=1)?)", weight_set.url)
        assert set(weight_set.assumed) <= set(weight_set.options)
        assert (weight_set.correction is None) == (weight_set.class_counts is None)


# Every file of the list of weights in the notes on the papers (recipes/classification.md, section 7), without the logs.
PUBLISHED_FILES = """
    1xl6yPojp1rCQ-XOaW36SQoCa53Yiz5aK 1tCy9g1pt-HguKHBDqJldoCAa979kivwk 1MwMpCXKfKHoq8ZUBlZR_2rtzN9GDE_TE
    1FGs8bIvjYcMa8fqNcyjxQ-GvC8QIrBLU 1sPrONipvrumno8kZ6EwRfcc1v6sWA7cg 1wrcme0S6rt7KKgZA_1HHm3uf2m0T9UwB
    1laY5ce0-sw3HrHBQZ2Gseo9acbG2CavK 17AsyPy5mXavxXJvLiGzWIjgIyoukFSRQ 1VztEqUdA_RCzg0oXk3rebv5EPAF5B6es
    1CK0mDg8tpPAxnh5ZEx4-6eX3sEdQoXGi s/63q8cf7i62aveo6/model_final.pth 1Dyutyp7InoaQdePJXZDSrvhSts7y2Z6-
    144mXXEP58hWS1y9RlNo0ThbpdThxT191 1Qc4-F1qFu6ebVEeZSJMdnE_DnMh_siit 1QWoj418KRhW5JhnTk-Mu_a5ram0V9X9V
    1v6G1xGkku5px4tombqtR8xJI-Qj1F0dI
    dl.fbaipublicfiles.com/classifier-balancing/Places_LT/models/resnet152_uniform.pth
    1hPW6CrXmBpvinU1rhmp2TpnkUNl9NUf0
""".split()


def test_every_published_file_is_in_the_table():
    urls = [weight_set.url for weight_set in WEIGHTS]
    assert [file for file in PUBLISHED_FILES if sum(file in url for url in urls) != 1] == []
    assert len(PUBLISHED_FILES) == len(urls)


def test_the_small_network_of_balanced_meta_softmax_has_the_labels_of_the_lists():
    found = {s.name: s for s in WEIGHTS if s.model == "resnet10"}
    assert {name: s.top1 for name, s in found.items()} == {"imagenet_lt": 34.8, "imagenet_lt_balms": 41.6}
    for weight_set in found.values():
        assert "lists ImageNet_LT_train.txt" in weight_set.class_order and "assumed" in weight_set.notes
        assert weight_set.classes == 1000 and weight_set.correction is None


def test_published_numbers_of_the_authors():
    numbers = {f"{s.model}/{s.name}": s.top1 for s in WEIGHTS if s.repository == "kostas1515/AGLU"}
    assert numbers == {
        "se_resnet50/imagenet_lt": 57.9,
        "se_resnext50_32x4d/imagenet_lt": 59.1,
        "se_resnet50/imagenet": 78.7,
        "cb_resnet50/imagenet": 78.9,
        "se_resnet101/imagenet": 80.3,
        "se_resnet152/imagenet": 80.8,
    }


def test_counts_of_imagenet_lt_are_the_published_ones():
    counts = ClassCounts(IMAGENET_LT_COUNTS)
    assert (counts.num_classes, counts.total) == (1000, 115_846)
    assert (IMAGENET_LT_COUNTS[0], IMAGENET_LT_COUNTS[-1]) == (1280, 5)
    assert {name: len(classes) for name, classes in counts.shot_groups().items()} == {
        "many": 385,
        "medium": 479,
        "few": 136,
    }
    assert list(IMAGENET_LT_COUNTS) == sorted(IMAGENET_LT_COUNTS, reverse=True)


@pytest.mark.parametrize(
    ("name", "weights", "parts"),
    [
        ("se_resnet50", "imagenet_tl", ["or a path", "given: 'imagenet_tl'. Pub", "Nearest: se_resnet50/imagenet_lt"]),
        ("se_resnet8", "imagenet", ["no published weights of se_resnet8", "Nearest", "weights must be"]),
        ("se_resnet8", "folder/net.onnx", ["weights must be a path that ends in .weights.h5"]),
        ("se_resnet8", "missing.weights.h5", ["must be a file that is there; given: 'missing.weights.h5'"]),
    ],
)
def test_unknown_weights_are_clear_errors(name, weights, parts):
    with pytest.raises(ValueError) as error:
        create(name, weights)
    for part in parts:
        assert part in str(error.value)


def test_the_options_of_the_weights_are_the_defaults(published):
    model = create("se_resnet8", "digits_lt")
    assert same(values(model), values(published))
    assert model.output_shape == (None, 4)
    assert model.preprocessing == SET.preprocessing


def test_the_prior_correction_of_the_published_number_stands_behind_the_logits(published):
    model, x = create("se_resnet8", "digits_lt"), images()
    logits, prior = outputs(published, x), np.log(sum(COUNTS) / np.array(COUNTS))
    np.testing.assert_allclose(outputs(model, x), logits + prior, rtol=1e-6, atol=1e-6)
    layer = model.get_layer("prior_correction")
    np.testing.assert_array_equal(outputs(layer, logits, training=True), logits)


def test_the_prior_correction_stands_before_the_activation(published):
    model = create("se_resnet8", "digits_lt", classifier_activation="softmax")
    logits = outputs(published, images()) + np.log(sum(COUNTS) / np.array(COUNTS))
    expected = np.exp(logits) / np.exp(logits).sum(-1, keepdims=True)
    np.testing.assert_allclose(outputs(model, images()), expected, rtol=1e-5)


def test_a_contradicting_option_is_an_error_before_anything_is_fetched(monkeypatch, tmp_path):
    monkeypatch.setenv("KERAS_APA_CACHE", str(tmp_path))
    with pytest.raises(
        ValueError, match="activation must be 'aglu' for .* 'imagenet_lt' of se_resnet50; given: 'relu'"
    ):
        create("se_resnet50", "imagenet_lt", activation="relu")
    assert list(tmp_path.iterdir()) == []


def test_an_own_layer_and_none_do_not_contradict(published):
    model = create("se_resnet8", "digits_lt", activation=AGLU(lambda_gradient="paper"), gate=None)
    assert same(values(model), values(published))


@pytest.mark.parametrize(
    "options", [{"activation": keras.layers.Activation("silu")}, {"gate": AGLU()}, {"activation": APA_LAYER}], ids=str
)
def test_a_layer_of_another_kind_contradicts(options, published):
    with pytest.raises(ValueError, match="must be .* for the weights 'digits_lt' of se_resnet8"):
        create("se_resnet8", "digits_lt", **options)


def test_an_assumed_option_may_be_given_and_the_file_decides(published):
    with pytest.raises(ValueError, match=r"nothing was loaded.\nmissing: linear.scale"):
        create("se_resnet8", "digits_lt", classifier="learned_cosine")


@pytest.mark.every_backend
def test_another_number_of_classes_makes_a_new_head_and_says_so(published):
    with pytest.warns(UserWarning, match="se_resnet8: a new classifier for 7 classes, since 'digits_lt' has 4") as seen:
        model = create("se_resnet8", "digits_lt", classes=7)
    assert len(seen) == 1 and "\n" not in str(seen[0].message)
    assert model.output_shape == (None, 7)
    assert not any(isinstance(layer, PriorCorrection) for layer in model.layers)
    assert same(values(model, without=("classifier",)), values(published, without=("classifier",)))


@pytest.mark.parametrize("classifier", ["linear", "learned_cosine"])
def test_a_new_head_may_be_of_another_kind(classifier, monkeypatch, published):
    monkeypatch.setitem(module._BY_NAME, (SET.model, SET.name), dataclasses.replace(SET, assumed=()))
    with pytest.raises(ValueError, match="classifier must be 'cosine'"):
        create("se_resnet8", "digits_lt", classifier=classifier)
    with pytest.warns(UserWarning, match="a new classifier for 7 classes"):
        model = create("se_resnet8", "digits_lt", classes=7, classifier=classifier)
    assert same(values(model, without=("classifier",)), values(published, without=("classifier",)))


@pytest.mark.parametrize("options", [{"pooling": "avg"}, {"pyramid": True}], ids=str)
def test_without_the_top_the_backbone_is_loaded(published, options):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        model = create("se_resnet8", "digits_lt", include_top=False, **options)
    assert same(values(model), values(published, without=("classifier",)))


def test_preprocessing_follows_the_image_size_that_is_chosen(published):
    assert create("se_resnet8", "digits_lt", input_shape=(48, 40, 3)).preprocessing.image_size == (48, 40)
    assert create("se_resnet8", "digits_lt", input_shape=(None, None, 3)).preprocessing == SET.preprocessing
    imagenet = get_weights("se_resnet50", "imagenet").preprocessing
    small = zoo.create_model("resnet8", input_shape=(112, 112, 3))
    assert module._fitted(imagenet, small).resize_size == 116


@pytest.mark.every_backend
def test_preprocess_input_takes_pixels_from_0_to_255():
    weight_set = get_weights("se_resnet50", "imagenet_lt")
    pixels = np.full((1, 2, 2, 3), 255, "uint8")
    expected = (1 - np.array([0.485, 0.456, 0.406])) / np.array([0.229, 0.224, 0.225])
    result = keras.ops.convert_to_numpy(weight_set.preprocess_input(pixels, data_format="channels_last"))
    np.testing.assert_allclose(result[0, 0, 0], expected, rtol=1e-6)


def test_preprocess_input_takes_what_that_of_keras_applications_takes():
    preprocess_input = get_weights("se_resnet50", "imagenet_lt").preprocess_input
    pixels = np.random.default_rng(0).integers(0, 256, (2, 4, 5, 3), "uint8")
    expected = keras.ops.convert_to_numpy(preprocess_input(pixels, "channels_last"))
    reference = (pixels / 255 - np.array([0.485, 0.456, 0.406])) / np.array([0.229, 0.224, 0.225])
    np.testing.assert_allclose(expected, reference, atol=1e-6)
    first = np.moveaxis(expected, -1, 1)
    for images, data_format, wanted in (
        (np.moveaxis(pixels, -1, 1), "channels_first", first),
        (pixels, "channels_first", first),
        (pixels[0], "channels_last", expected[0]),
        (np.moveaxis(pixels[0], -1, 0), "channels_first", first[0]),
        (pixels.tolist(), "channels_last", expected),
        (list(pixels), "channels_last", expected),
        (pixels, None, expected),
        (keras.ops.convert_to_tensor(pixels), None, expected),
    ):
        found = keras.ops.convert_to_numpy(preprocess_input(images, data_format))
        np.testing.assert_array_equal(found, wanted)


@pytest.mark.parametrize(
    ("images", "data_format", "message"),
    [
        (np.zeros((1, 4, 4, 3)), "channel_first", "given: 'channel_first'. Nearest: channels_first"),
        (np.zeros((1, 3, 4, 4)), "channels_last", "must have 3 channels on the last axis"),
        (np.zeros((1, 4, 4, 1)), "channels_first", "must have 3 channels on the third axis from the end"),
        (np.zeros((4, 3)), "channels_last", "must have 3 axes, or 4 with the batch; given: (4, 3)"),
        ([np.zeros((4, 4, 3)), np.zeros((5, 4, 3))], "channels_last", "must be numbers, and all of one size"),
        (["a.jpg"], "channels_last", "must be numbers"),
    ],
)
def test_pixels_that_cannot_be_prepared_are_clear_errors(images, data_format, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        zoo.preprocessing.imagenet()(images, data_format)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"image_size": 8}, "image_size must be a tuple of numbers; given: 8"),
        ({"image_size": (8, 8), "mean": 0.5}, "mean must be a tuple of numbers; given: 0.5"),
        ({"image_size": (8, 8), "mean": (0.5, float("nan"), 0.5)}, "mean must hold finite numbers"),
        ({"image_size": (8, 8), "std": (1, float("inf"), 1)}, "std must hold finite numbers"),
        ({"image_size": (8, 8), "std": ("a", "b", "c")}, "std must hold finite numbers"),
        ({"image_size": (8, 8), "std": (1, 0, 1)}, "std must be above 0"),
    ],
    ids=str,
)
def test_preprocessing_that_cannot_be_is_a_clear_error(options, message):
    with pytest.raises(ValueError, match=message):
        zoo.Preprocessing(**options)


def test_offline_the_link_and_the_place_are_named(monkeypatch, tmp_path):
    monkeypatch.setenv("KERAS_APA_CACHE", str(tmp_path))
    monkeypatch.setenv("KERAS_APA_OFFLINE", "1")
    weight_set = get_weights("resnet32", "cifar10_lt_balms")
    with pytest.raises(DownloadError) as error:
        create("resnet32", "cifar10_lt_balms")
    assert weight_set.url in str(error.value)
    assert str(tmp_path / "weights" / "resnet32-cifar10_lt_balms.pth") in str(error.value)


def test_a_file_of_balanced_meta_softmax_loads(monkeypatch, tmp_path):
    torch = pytest.importorskip("torch")
    monkeypatch.setenv("KERAS_APA_CACHE", str(tmp_path))
    model = zoo.create_model("resnet32", classes=10)
    state = {key: torch.from_numpy(value.copy()) for key, value in zoo.to_torch_state_dict(model).items()}
    head = {f"module.fc.{name}": state.pop(f"linear.{name}") for name in ("weight", "bias")}
    best = {"feat_model": {f"module.{key}": value for key, value in state.items()}, "classifier": head}
    path = get_weights("resnet32", "cifar10_lt_balms").path
    path.parent.mkdir()
    torch.save({"epoch": 9, "best_epoch": 8, "state_dict_best": best, "best_acc": 0.8, "centroids": None}, path)
    loaded = create("resnet32", "cifar10_lt_balms")
    assert same(values(loaded), values(model))
    assert loaded.preprocessing == zoo.preprocessing.cifar()


@pytest.mark.parametrize(
    "ending", [pytest.param(".weights.h5", marks=pytest.mark.every_backend), ".keras", ".pth", ".safetensors"]
)
def test_a_file_of_every_kind_loads_whole_or_its_backbone(ending, tmp_path):
    path, model = tmp_path / f"net{ending}", zoo.create_model("se_resnet8", classes=3, **APA)
    if ending == ".weights.h5":
        model.compile("adam", "mse")
        model.optimizer.build(model.trainable_variables)
        model.save_weights(path)
    elif ending == ".keras":
        model.save(path)
    else:
        write_state_dict(zoo.to_torch_state_dict(model), path)
    assert same(values(create("se_resnet8", path, classes=3, **APA)), values(model))
    backbone = create("se_resnet8", str(path), include_top=False, activation="aglu", gate="apa")
    assert same(values(backbone), values(model, without=("classifier",)))


def save(model, path):
    """Write the weights of a model in the way that the ending names."""
    if path.name.endswith(".weights.h5"):
        model.save_weights(path)
    elif path.suffix == ".keras":
        model.save(path)
    else:
        write_state_dict(zoo.to_torch_state_dict(model), path)


@pytest.mark.parametrize("classifier", ["cosine", "learned_cosine", "normalized"])
@pytest.mark.parametrize("ending", SUFFIXES)
def test_a_file_with_other_classes_loads_under_a_new_classifier_and_says_so(ending, classifier, tmp_path):
    options = {**APA, "classifier": classifier}
    path, model = tmp_path / f"net{ending}", zoo.create_model("se_resnet8", classes=64, **options)
    save(model, path)
    message = f"se_resnet8: a new classifier for 5 classes, since '{path.name}' has 64; all other weights are loaded"
    with pytest.warns(UserWarning, match=re.escape(message)) as seen:
        loaded = zoo.create_model("se_resnet8", weights=path, classes=5, name="mine", **options)
    said = [str(warning.message) for warning in seen if warning.category is UserWarning]
    assert len(said) == 1 and "\n" not in said[0]
    assert loaded.output_shape == (None, 5) and loaded.name == "mine"
    assert same(values(loaded, without=("classifier",)), values(model, without=("classifier",)))


@pytest.mark.parametrize("ending", SUFFIXES)
def test_the_file_of_a_backbone_loads_under_a_new_classifier_and_says_so(ending, tmp_path):
    path, model = tmp_path / f"net{ending}", zoo.create_model("se_resnet8", include_top=False)
    save(model, path)
    with pytest.warns(UserWarning, match="a new classifier for 5 classes, since .* has none"):
        loaded = create("se_resnet8", path, classes=5)
    assert same(values(loaded, without=("classifier",)), values(model))


@pytest.mark.parametrize("ending", SUFFIXES)
@pytest.mark.parametrize("other", [{"activation": "relu"}, {"classifier": "learned_cosine", "classes": 3}], ids=str)
def test_where_more_than_the_classes_differs_there_is_no_new_classifier(ending, other, tmp_path):
    path = tmp_path / f"net{ending}"
    save(zoo.create_model("se_resnet8", classes=3, **APA), path)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with pytest.raises(ValueError, match="does not fit 'se_resnet8'; nothing was loaded"):
            create("se_resnet8", path, **{"classes": 5, **APA, **other})


@pytest.mark.parametrize("ending", [".weights.h5", ".keras", ".safetensors"])
@pytest.mark.parametrize("other", [{"activation": "relu"}, {"classes": 5}, {"classifier": "learned_cosine"}], ids=str)
def test_a_file_that_does_not_fit_changes_nothing(ending, other, tmp_path):
    path, model = tmp_path / f"net{ending}", zoo.create_model("se_resnet8", **{"classes": 3, **APA})
    if ending == ".weights.h5":
        model.save_weights(path)
    elif ending == ".keras":
        model.save(path)
    else:
        write_state_dict(zoo.to_torch_state_dict(model), path)
    target = zoo.create_model("se_resnet8", **{"classes": 3, **APA, **other})
    before = values(target)
    with pytest.raises(ValueError, match="does not fit 'se_resnet8'; nothing was loaded"):
        load(target, path)
    assert same(values(target), before)


@pytest.mark.parametrize(
    ("name", "options", "other", "said"),
    [
        ("resnet8", {}, {"activation": "silu"}, "stem_activation: activation='relu' in the file, activation='silu'"),
        ("se_resnet8", {}, {"gate": "gumbel"}, "stage1_block1_gate: gate="),
        ("resnet8", {"activation": AGLU()}, {"activation": APA_LAYER}, "stem_activation: AGLU in the file, APA in the"),
        ("resnet8", {"classifier": "normalized"}, {"classifier": NORMALIZED}, "classifier: temperature=1.0 in the"),
    ],
    ids=["activation", "gate", "class", "classifier"],
)
def test_a_keras_file_whose_layers_compute_something_else_is_refused(name, options, other, said, tmp_path):
    path = tmp_path / "net.keras"
    zoo.create_model(name, classes=3, **options).save(path)
    target = zoo.create_model(name, classes=3, **{**options, **other})
    before = values(target)
    with pytest.raises(ValueError, match="does not fit .*; nothing was loaded") as error:
        load(target, path)
    assert said in str(error.value) and "Give the options that the file was made with" in str(error.value)
    assert same(values(target), before)


def test_what_matters_in_training_alone_may_differ_from_the_file(tmp_path):
    path, x = tmp_path / "net.keras", images()
    model = zoo.create_model("se_resnet8", classes=3, activation="aglu", gate="apa")
    model.save(path)
    own = {"activation": AGLU(lambda_gradient="paper"), "gate": APA_LAYER, "gate_dropout": 0.3}
    loaded = zoo.create_model("se_resnet8", weights=path, frozen_batch_norm=True, **own)
    np.testing.assert_allclose(outputs(loaded, x), outputs(model, x), atol=1e-6)


def test_a_layer_that_the_file_alone_has_is_not_dropped_in_silence(tmp_path):
    path = tmp_path / "net.keras"
    inputs = keras.Input((32, 32, 3))
    scaled = keras.layers.Rescaling(1 / 255, name="to_unit")(inputs)
    zoo.create_model("resnet8", classes=3, input_tensor=scaled).save(path)
    with pytest.raises(ValueError, match="to_unit: Rescaling in the file only"):
        zoo.create_model("resnet8", weights=path)


@pytest.mark.parametrize("ending", SUFFIXES)
def test_the_number_of_classes_is_that_of_the_file_unless_another_is_given(ending, tmp_path):
    path, model = tmp_path / f"net{ending}", zoo.create_model("se_resnet8", classes=7)
    save(model, path)
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        loaded = zoo.create_model("se_resnet8", weights=path)
    assert loaded.output_shape == (None, 7) and same(values(loaded), values(model))


@pytest.mark.parametrize("activation", [None, "softmax"])
def test_what_a_keras_file_knows_comes_along(activation, tmp_path):
    path, x = tmp_path / "net.keras", images()
    model = zoo.create_model("resnet8", classes=4)
    correction = PriorCorrection(COUNTS, "smooth", tau=0.5, name="prior")
    names, cifar = ("a", "b", "c", "d"), zoo.preprocessing.cifar()
    model = zoo.Classifier(
        model.input, correction(model.output), name="resnet8", class_names=names, preprocessing=cifar
    )
    model.save(path)
    loaded = zoo.create_model("resnet8", weights=path, classifier_activation=activation)
    expected = outputs(model, x)
    if activation:
        expected = keras.ops.convert_to_numpy(keras.ops.softmax(expected))
    np.testing.assert_allclose(outputs(loaded, x), expected, rtol=1e-5, atol=1e-6)
    assert loaded.class_names == names and loaded.preprocessing == cifar
    larger = zoo.create_model("resnet8", weights=path, input_shape=(48, 48, 3))
    assert larger.preprocessing.image_size == (48, 48)
    with pytest.warns(UserWarning, match="a new classifier for 5 classes"):
        other = zoo.create_model("resnet8", weights=path, classes=5)
    assert other.class_names is None and other.preprocessing == cifar
    assert not any(isinstance(layer, PriorCorrection) for layer in other.layers)
    assert zoo.create_model("resnet8", weights=path, include_top=False).preprocessing == cifar


def test_capital_letters_in_the_ending_of_a_checkpoint(tmp_path):
    model = zoo.create_model("resnet8", classes=3)
    write_state_dict(zoo.to_torch_state_dict(model), tmp_path / "NET.SAFETENSORS")
    assert same(values(zoo.create_model("resnet8", weights=tmp_path / "NET.SAFETENSORS")), values(model))


def test_weights_of_another_depth_are_refused(tmp_path):
    zoo.create_model("resnet14").save_weights(tmp_path / "net.weights.h5")
    with pytest.raises(ValueError, match="unexpected"):
        create("resnet8", tmp_path / "net.weights.h5")


@pytest.mark.parametrize("ending", SUFFIXES)
def test_a_file_that_cannot_be_read_is_named(ending, tmp_path):
    path = tmp_path / f"net{ending}"
    path.write_bytes(b"<html>not the file</html>")
    with pytest.raises(ValueError, match=re.escape(path.name)):
        create("resnet8", path)


# Parameters of the authors' networks, from the reference data.
PARAMETERS = {
    "se_resnet50/imagenet_lt": 28_101_314,
    "se_resnext50_32x4d/imagenet_lt": 27_573_186,
    "se_resnet50/imagenet": 28_102_314,
    "cb_resnet50/imagenet": 28_119_994,
    "se_resnet101/imagenet": 49_357_618,
    "se_resnet152/imagenet": 66_867_130,
}


@pytest.mark.any_backend("torch")
@pytest.mark.slow
@pytest.mark.parametrize("name", PARAMETERS)
def test_the_options_make_the_authors_network(name):
    weight_set = get_weights(*name.split("/"))
    model = zoo.create_model(weight_set.model, classes=weight_set.classes, **weight_set.options)
    assert sum(int(np.prod(w.shape)) for w in model.trainable_weights) == PARAMETERS[name]


@pytest.mark.any_backend
@pytest.mark.slow
def test_an_imagenet_lt_file_loads_with_its_correction(monkeypatch, tmp_path):
    torch = pytest.importorskip("torch")
    monkeypatch.setenv("KERAS_APA_CACHE", str(tmp_path))
    weight_set = get_weights("se_resnet50", "imagenet_lt")
    model = zoo.create_model("se_resnet50", input_shape=(64, 64, 3), **weight_set.options)
    weight_set.path.parent.mkdir()
    state = {key: torch.from_numpy(value.copy()) for key, value in zoo.to_torch_state_dict(model).items()}
    torch.save({"model": state, "args": argparse.Namespace(iif="raw")}, weight_set.path)
    loaded = create("se_resnet50", "imagenet_lt", input_shape=(64, 64, 3))
    x = images((64, 64, 3))
    prior = np.log(sum(IMAGENET_LT_COUNTS) / np.array(IMAGENET_LT_COUNTS))
    np.testing.assert_allclose(outputs(loaded, x) - prior, outputs(model, x), atol=2e-5)
