"""Detectors as Keras models, small ones: training, options, losses, files, images of any size, bad input."""

import json

import keras
import numpy as np
import pytest
from backends import CURRENT

import zoo
from keras_apa import losses
from zoo.detection import FasterRCNN, MaskRCNN, Options, matching

SMALL = {
    "pyramid_filters": 8,
    "box_units": 16,
    "rpn_candidates_training": 50,
    "rpn_candidates": 40,
    "proposals_training": 60,
    "proposals": 30,
    "rpn_samples": 32,
    "roi_samples": 16,
    "max_detections": 5,
    "anchor_sizes": ((8,), (16,), (32,), (48,)),
    "score_threshold": 0.0,
    "seed": 1,
}


def backbone(**options):
    """Three stages with strides 4, 8 and 16: a network for small images behind the stem for large ones."""
    return backbone_of("resnet8", **options)


def backbone_of(name, **options):
    options = {"frozen_batch_norm": True, "input_shape": (None, None, 3), **options}
    return zoo.create_model(name, pyramid=True, stem="imagenet", **options)


def faster(num_classes=3, **options):
    return FasterRCNN(backbone(), num_classes, **{**SMALL, **options})


def masked(num_classes=3, **options):
    return MaskRCNN(backbone(), num_classes, mask_filters=8, **{**SMALL, **options})


def scenes(number=4, masks=True, size=(48, 64)):
    """Bright rectangles on noise; the class is the channel that is bright; the last image is empty."""
    random = np.random.default_rng(0)
    images = random.integers(0, 60, (number, *size, 3)).astype("uint8")
    boxes, labels = np.zeros((number, 3, 4), "float32"), np.full((number, 3), -1, "int32")
    bitmaps = np.zeros((number, 3, *size), "uint8")
    for i in range(number - 1):
        for j in range(2):
            x, y, w, h = 4 + 30 * j, random.integers(2, 16), random.integers(12, 24), random.integers(12, 24)
            labels[i, j] = random.integers(0, 3)
            boxes[i, j] = x, y, x + w, y + h
            images[i, y : y + h, x : x + w, labels[i, j]] = 250
            bitmaps[i, j, y : y + h, x : x + w] = 1
    return images, {"boxes": boxes, "labels": labels, **({"masks": bitmaps} if masks else {})}


def compile_for(detector, **options):
    # Compiled on JAX, as it stands elsewhere: the compiled steps of the others are in the slow part.
    detector.compile(keras.optimizers.Adam(2e-3), jit_compile=CURRENT == "jax", **options)
    return detector


def settings(detector):
    """The configuration as a file keeps it, in which tuples are lists."""
    return json.loads(json.dumps(detector.get_config()))


@pytest.fixture(scope="module")
def trained():
    """A Mask R-CNN after some epochs, and what `fit` logged."""
    keras.utils.set_random_seed(0)
    detector = compile_for(masked())
    images, targets = scenes()
    history = detector.fit(images, targets, batch_size=4, epochs=8, verbose=0, validation_data=(images, targets))
    return detector, history.history


def test_every_loss_is_logged_and_falls(trained):
    _, history = trained
    names = ("objectness_loss", "proposal_box_loss", "classifier_loss", "box_loss", "mask_loss")
    assert set(history) == {"loss", "val_loss", *names, *(f"val_{name}" for name in names)}
    assert all(np.isfinite(values).all() for values in history.values())
    total = sum(history[name][-1] for name in names)
    np.testing.assert_allclose(history["loss"][-1], total, rtol=1e-4)
    assert history["val_loss"][-1] < 0.8 * history["val_loss"][0]


@pytest.mark.any_backend
def test_evaluation_is_repeatable(trained):
    detector, _ = trained
    images, targets = scenes()
    first, second = (detector.evaluate(images, targets, verbose=0, return_dict=True) for _ in range(2))
    assert first == second


def test_saved_and_loaded_it_detects_the_same(trained, tmp_path):
    detector, _ = trained
    images, _ = scenes()
    detector.save(tmp_path / "detector.keras")
    loaded = keras.models.load_model(tmp_path / "detector.keras")
    assert settings(loaded) == settings(detector)
    expected, found = detector.predict(images, verbose=0), loaded.predict(images, verbose=0)
    assert set(found) == {"boxes", "scores", "labels", "masks"}
    assert found["boxes"].shape == (4, 5, 4) and found["masks"].shape == (4, 5, 28, 28)
    for key, value in expected.items():
        np.testing.assert_allclose(found[key], value, rtol=1e-5, atol=1e-5)
    assert (np.diff(found["scores"], axis=1) <= 0).all()


@pytest.mark.any_backend
def test_images_of_any_size(trained):
    detector, _ = trained
    random = np.random.default_rng(1)
    images = [random.integers(0, 256, size, dtype="uint8") for size in ((40, 90, 3), (5, 7, 3))]
    for resize in ((48, 64), False):
        for image, found in zip(images, detector.predict_images(images, resize=resize), strict=True):
            height, width = image.shape[:2]
            number = len(found["labels"])
            assert found["masks"].shape == (number, height, width) and found["masks"].dtype == bool
            assert (found["boxes"] >= 0).all() and (found["boxes"] <= [width, height, width, height]).all()


@pytest.mark.skipif(CURRENT != "torch", reason="six steps to compile: JAX does so by itself, TensorFlow's are below")
def test_one_model_takes_batches_of_several_sizes():
    detector = compile_for(faster())
    seen = {name: [] for name in ("fit", "evaluate", "predict", "train_on_batch")}
    for size in ((48, 64), (64, 80), (48, 64)):
        images, targets = scenes(masks=False, size=size)
        seen["predict"].append(detector.predict(images[:3], batch_size=2, verbose=0)["boxes"].shape)
        seen["evaluate"].append(np.isfinite(detector.evaluate(images, targets, verbose=0)).all())
        seen["train_on_batch"].append(np.isfinite(detector.train_on_batch(images, targets)).all())
        seen["fit"].append(np.isfinite(detector.fit(images, targets, verbose=0).history["loss"]).all())
    assert seen.pop("predict") == [(3, 5, 4)] * 3
    assert all(all(finite) for finite in seen.values())


@pytest.mark.slow  # six steps to compile
@pytest.mark.skipif(CURRENT != "tensorflow", reason="only TensorFlow compiles for sizes that it does not know")
def test_one_iterator_gives_batches_of_several_sizes():
    batches = [scenes(masks=False, size=size) for size in ((48, 64), (64, 80), (48, 64))]

    class Batches(keras.utils.PyDataset):
        def __len__(self):
            return len(batches)

        def __getitem__(self, index):
            return batches[index]

    detector = faster()
    detector.compile(keras.optimizers.SGD(0.001), steps_per_execution=2)
    history = detector.fit(Batches(), epochs=2, verbose=0).history
    assert detector.optimizer.iterations == 6 and np.isfinite(history["loss"]).all()
    together = detector.evaluate(Batches(), verbose=0, return_dict=True)
    alone = [detector.evaluate(*batch, batch_size=4, verbose=0, return_dict=True)["loss"] for batch in batches]
    np.testing.assert_allclose(together["loss"], np.mean(alone), rtol=1e-5)
    found = detector.predict(Batches(), verbose=0)["scores"]
    expected = np.concatenate([detector.predict(images, verbose=0)["scores"] for images, _ in batches])
    np.testing.assert_allclose(found, expected, atol=1e-6)


@pytest.mark.skipif(CURRENT != "tensorflow", reason="only TensorFlow compiles for sizes that it does not know")
def test_an_unknown_number_of_objects_is_an_error():
    import tensorflow as tf

    images, targets = scenes(masks=False)
    dataset = tf.data.Dataset.from_generator(
        lambda: iter([(images, targets)]),
        output_signature=(
            tf.TensorSpec((None, 48, 64, 3), "uint8"),
            {"boxes": tf.TensorSpec((None, None, 4), "float32"), "labels": tf.TensorSpec((None, None), "int32")},
        ),
    )
    with pytest.raises(ValueError, match=r"boxes must have a known number of objects N, .* given: \(None, None, 4\)"):
        compile_for(faster()).fit(dataset, verbose=0)


@pytest.mark.any_backend
def test_padding_beyond_the_image_size_does_not_matter(trained):
    detector, _ = trained
    images, _ = scenes()
    padded = np.zeros((4, 64, 64, 3), "float32")
    padded[:, :48] = images
    other = padded.copy()
    other[:, 48:] = 200.0
    size = np.tile([[48, 64]], (4, 1))
    first, second = (detector.predict({"images": x, "image_size": size}, verbose=0) for x in (padded, other))
    np.testing.assert_array_equal(first["boxes"], second["boxes"])
    assert first["boxes"][..., [1, 3]].max() <= 48


@pytest.mark.any_backend
def test_padding_is_told_by_the_targets_too():
    detector = faster()
    detector.compile(keras.optimizers.SGD(1e-3), run_eagerly=True)
    images, targets = scenes(masks=False)
    targets = {**targets, "image_size": np.tile([[48, 64]], (4, 1))}
    losses_of = []
    for fill in (0, 200):
        padded = np.full((4, 64, 64, 3), fill, "float32")
        padded[:, :48] = images
        losses_of.append(detector.evaluate(padded, targets, verbose=0, return_dict=True))
    assert losses_of[0] == losses_of[1]
    with pytest.raises(ValueError, match=r"given: \[48, 65\] for image 0"):
        detector.fit(padded, {**targets, "image_size": np.tile([[48, 65]], (4, 1))}, verbose=0)


COUNTS, SEEN = [30, 10, 2], {"image_counts": [30, 10, 2], "num_images": 100, "frequency_threshold": 0.05}
REGION_LOSSES = {
    "sigmoid": lambda: "sigmoid",
    "gumbel": lambda: "gumbel",
    "gol": lambda: losses.GumbelOptimizedLoss(**SEEN, seed=0),
    "droploss": lambda: losses.DropLoss(**SEEN, seed=0),
    "balanced_sigmoid": lambda: losses.BalancedSigmoidCrossentropy(COUNTS, background=True),
    "balanced_softmax": lambda: losses.BalancedSoftmaxCrossentropy([*COUNTS, 500]),
    "seesaw": lambda: losses.SeesawLoss(3, objectness=True),
    "equalization": lambda: losses.EqualizationLoss(**SEEN, background=True, seed=0),
    "federated": lambda: losses.FederatedLoss(COUNTS, 2, background=True, seed=0),
    "keras": lambda: keras.losses.SparseCategoricalCrossentropy(from_logits=True),
}
# Each makes, trains, writes and reads a detector, for a minute where it is compiled: GOL, which draws, on each backend.
_ELSEWHERE = [
    pytest.mark.slow,
    pytest.mark.skipif(CURRENT != "torch", reason="the values are compared on each backend"),
]
ELSEWHERE = [name for name in REGION_LOSSES if name not in ("gol", "balanced_sigmoid")]


@pytest.mark.parametrize(
    "name",
    [
        "gol",
        pytest.param("balanced_sigmoid", marks=pytest.mark.any_backend),
        *(pytest.param(name, marks=_ELSEWHERE) for name in ELSEWHERE),
    ],
)
def test_region_losses_train_and_survive_a_file(name, tmp_path):
    keras.utils.set_random_seed(0)
    # TensorFlow's step is traced by `trained`, for half a minute.
    detector = compile_for(faster(roi_loss=REGION_LOSSES[name]()), run_eagerly=CURRENT == "tensorflow")
    images, targets = scenes(masks=False)
    history = detector.fit(images, targets, batch_size=4, epochs=3, verbose=0).history
    assert np.isfinite(history["loss"]).all()
    state = [keras.ops.convert_to_numpy(v) for v in getattr(detector.roi_loss, "state", [])]
    detector.save(tmp_path / "detector.keras")
    loaded = keras.models.load_model(tmp_path / "detector.keras")
    assert settings(loaded) == settings(detector)
    assert loaded.box_head.logits == {"balanced_softmax": 4, "seesaw": 5, "keras": 4}.get(name, 3)
    for before, after in zip(state, getattr(loaded.roi_loss, "state", []), strict=True):
        np.testing.assert_array_equal(keras.ops.convert_to_numpy(after), before)
    scores = loaded.predict(images, verbose=0)["scores"]
    assert (scores >= 0).all() and (scores <= 1).all()
    if name == "gol":
        assert len(state) == 1 and not np.array_equal(state[0], [0, 0])


def test_scores_of_each_link():
    from zoo.detection.roi_losses import RegionLoss

    logits = keras.ops.convert_to_tensor([[0.0, 1.0, -1.0, 2.0, 0.5]])
    z = np.array([0.0, 1.0, -1.0])
    softmax = np.exp([0.0, 1.0, -1.0, 2.0])
    expected = {
        "softmax": softmax[:3] / softmax.sum(),
        "sigmoid": 1 / (1 + np.exp(-z)),
        "gumbel": np.exp(-np.exp(-z)),
    }
    for name, value in expected.items():
        region = RegionLoss(name, 3)
        np.testing.assert_allclose(region.scores(logits[:, : region.logits])[0], value, rtol=1e-5)
    seesaw = RegionLoss(losses.SeesawLoss(3, objectness=True), 3)
    value = np.exp(z) / np.exp(z).sum() * np.exp(2.0) / (np.exp(2.0) + np.exp(0.5))
    np.testing.assert_allclose(seesaw.scores(logits)[0], value, rtol=1e-5)


@pytest.mark.parametrize("name", ["gumbel", "sigmoid"])
def test_a_named_loss_is_that_of_keras_apa(name):
    """Regions of background are negative for every class; those of padding weigh nothing."""
    from zoo.detection.roi_losses import RegionLoss

    region = RegionLoss(name, 3)
    logits = keras.ops.convert_to_tensor(np.random.default_rng(0).normal(size=(4, 3)).astype("float32"))
    labels = keras.ops.convert_to_tensor([0, 3, 2, 1])
    valid = keras.ops.convert_to_tensor([True, True, True, False])
    if name == "gumbel":
        values = losses.gumbel_crossentropy(labels, logits, background=True)
    else:
        values = losses.balanced_sigmoid_crossentropy(labels, logits, [5, 5, 5], tau=0.0, background=True)
    expected = np.asarray(keras.ops.convert_to_numpy(values))[:3].mean()
    np.testing.assert_allclose(float(region.mean(labels, logits, valid)), expected, rtol=1e-6)
    assert float(region.mean(labels, logits, keras.ops.zeros((4,), "bool"))) == 0.0


@pytest.mark.any_backend
def test_masks_of_boxes_train():
    images, targets = scenes()
    cropped = [zoo.detection.crop_masks(m, b, 28) for m, b in zip(targets["masks"], targets["boxes"], strict=True)]
    detector = compile_for(masked(mask_format="box"))
    values = detector.evaluate(images, {**targets, "masks": np.stack(cropped)}, verbose=0, return_dict=True)
    other = compile_for(masked(seed=1))
    other.set_weights(detector.get_weights())
    expected = other.evaluate(images, targets, verbose=0, return_dict=True)
    np.testing.assert_allclose(values["mask_loss"], expected["mask_loss"], rtol=0.02)
    assert values["box_loss"] == pytest.approx(expected["box_loss"], rel=1e-5)


@pytest.mark.any_backend
def test_ignored_regions_are_no_negatives():
    """With all of the image ignored and nothing else in it, there is nothing to learn."""
    images, _ = scenes(masks=False)
    boxes = np.zeros((4, 1, 4), "float32")
    boxes[:, 0, 2:] = 64, 48
    targets = {"boxes": boxes, "labels": np.full((4, 1), -1), "ignored": np.ones((4, 1), bool)}
    detector = compile_for(faster())
    values = detector.evaluate(images, targets, verbose=0, return_dict=True)
    nothing = detector.evaluate(images, {**targets, "ignored": np.zeros((4, 1), bool)}, verbose=0, return_dict=True)
    assert values["classifier_loss"] < 1e-6 < nothing["classifier_loss"]
    assert values["objectness_loss"] < nothing["objectness_loss"]


@pytest.mark.any_backend
def test_images_without_any_object():
    images, _ = scenes()
    targets = {
        "boxes": np.zeros((4, 0, 4), "float32"),
        "labels": np.zeros((4, 0), "int32"),
        "masks": np.zeros((4, 0, 48, 64), "uint8"),
    }
    values = compile_for(masked()).evaluate(images, targets, verbose=0, return_dict=True)
    assert np.isfinite(list(values.values())).all()
    assert values["box_loss"] == values["mask_loss"] == values["proposal_box_loss"] == 0


def test_frozen_stages_and_norms_stay():
    detector = faster(frozen_stages=1)
    paths = {v.path for v in detector.trainable_variables}
    assert not any("stem_" in path or "stage1_" in path for path in paths)
    assert any("stage2_" in path for path in paths)
    assert not any(path.endswith(("gamma", "beta")) for path in paths)
    stem = faster(frozen_stages=0)
    assert any("stage1_" in v.path for v in stem.trainable_variables)
    assert not any("stem_" in v.path for v in stem.trainable_variables)
    assert FasterRCNN.from_config(detector.get_config()).frozen_stages == 1


@pytest.mark.any_backend
def test_what_is_frozen_stays_so_in_a_file_and_nothing_else(tmp_path):
    def paths(detector):
        return {variable.path for variable in detector.trainable_variables}

    def loaded(detector):
        detector.save(tmp_path / "detector.keras")
        return keras.models.load_model(tmp_path / "detector.keras")

    detector = masked(frozen_stages=1)
    assert not {"trainable", "trainable_parts"} & set(detector.get_config())
    detector.fpn.trainable = detector.box_head.dense1.trainable = detector.mask_head.convs[0].trainable = False
    detector.backbone.get_layer("stage1_block1_conv1").trainable = True  # one of the frozen stage
    detector.backbone.get_layer("stage2_block1_conv1").trainable = False
    assert 20 < len(paths(detector)) == len(detector.trainable_variables)
    again = loaded(loaded(detector))
    assert paths(again) == paths(detector) and again.get_config().keys() == detector.get_config().keys()
    detector.trainable = False
    detector.mask_head.predictor.trainable = True
    again = loaded(detector)
    assert {variable.name for variable in again.variables if variable.trainable} == {"kernel", "bias"}
    assert not again.trainable and again.trainable_variables == []
    again.trainable = True
    assert any("fpn" in path for path in paths(again))


@pytest.mark.any_backend
def test_dropout_is_off_in_frozen_stages_only():
    from zoo.detection.backbone import as_backbone, freeze, run_stages

    keras.utils.set_random_seed(0)
    network = as_backbone(backbone_of("se_resnet8", gate="apa", gate_dropout=0.5))
    images = keras.ops.convert_to_tensor(scenes()[0].astype("float32") / 255)

    def maps(training):
        found = run_stages(network, images, training)
        return {name: keras.ops.convert_to_numpy(x) for name, x in found.items()}

    freeze(network, 1)
    first, second, still = maps(True), maps(True), maps(False)
    np.testing.assert_array_equal(first["stage1"], second["stage1"])
    np.testing.assert_array_equal(first["stage1"], still["stage1"])
    assert np.abs(first["stage2"] - second["stage2"]).max() > 1e-3


@pytest.mark.parametrize("options", [{}, {"frozen_batch_norm": False}, {"gate": "apa"}])
@pytest.mark.smoke
def test_stages_are_those_of_calling_the_network(options):
    """With frozen norms in the kernels before them, and with those that are trained."""
    name = "se_resnet8" if "gate" in options else "resnet8"
    network = backbone_of(name, **options)
    random = np.random.default_rng(0)
    for variable in network.variables:
        if variable.path.endswith(("moving_variance", "gamma")):
            variable.assign(random.uniform(0.5, 1.5, variable.shape).astype("float32"))
        elif variable.path.endswith(("moving_mean", "beta")):
            variable.assign(random.normal(0, 0.3, variable.shape).astype("float32"))
    from zoo.detection.backbone import run_stages

    images = keras.ops.convert_to_tensor(scenes()[0].astype("float32") / 255)
    expected, found = network(images), run_stages(network, images)
    assert list(found) == list(expected)
    for stage, value in expected.items():
        value = keras.ops.convert_to_numpy(value)
        actual = keras.ops.convert_to_numpy(found[stage])
        np.testing.assert_allclose(actual, value, rtol=0, atol=2e-6 * np.abs(value).max(), err_msg=stage)


@pytest.mark.any_backend
@pytest.mark.smoke
def test_options_are_checked_by_name():
    for options, text in (
        ({"roi_sample": 3}, "Nearest: roi_samples"),
        ({"roi_samples": 0}, "roi_samples must be a whole number of at least 1; given: 0"),
        ({"nms_threshold": 2.0}, "nms_threshold must be a number from 0 to 1; given: 2.0"),
        ({"rpn_low_threshold": 0.9}, "rpn_low_threshold must not be above"),
        ({"anchor_sizes": ((8,),)}, "anchor_sizes must have 4 entries"),
        ({"anchor_sizes": ((8,), (8, 9), (8,), (8,))}, "the same number on every level"),
        ({"roi_loss": "focal"}, "roi_loss must be one of .*; given: 'focal'"),
        ({"roi_loss": losses.GumbelCrossentropy()}, "background=True"),
        ({"roi_loss": losses.GumbelOptimizedLoss([1, 2], 9, 0.1)}, "image_counts of roi_loss must have 3 classes"),
        ({"classifier": "cubic"}, "classifier must be one of .*; given: 'cubic'"),
        ({"frozen_stages": 9}, r"frozen_stages must be None or 0\.\.3; given: 9"),
        ({"class_names": ["cat"]}, "class_names must have 3 names"),
        ({"conventions": "mmdet3"}, "conventions must be 'torchvision'; given: 'mmdet3'"),
        ({"pyramid_filters": 0}, "pyramid_filters must be a positive integer; given: 0"),
        ({"box_units": "a"}, "box_units must be a positive integer; given: 'a'"),
        (
            {"roi_loss": keras.losses.CategoricalCrossentropy()},
            "roi_loss must take .*; given: CategoricalCrossentropy, which",
        ),
        ({"roi_loss": keras.losses.BinaryCrossentropy()}, "roi_loss must take .*; given: BinaryCrossentropy, which"),
    ):
        with pytest.raises(ValueError, match=text):
            faster(**options)
    with pytest.raises(ValueError, match="backbone must be a model of the zoo with pyramid=True"):
        FasterRCNN(zoo.create_model("resnet8"), 3)
    with pytest.raises(ValueError, match="any height and width"):
        FasterRCNN(zoo.create_model("resnet8", pyramid=True), 3)
    with pytest.raises(ValueError, match="num_classes must be a positive integer; given: 0"):
        faster(0)
    with pytest.raises(ValueError, match="mask_format must be one of .*; given: 'polygon'"):
        masked(mask_format="polygon")
    with pytest.raises(ValueError, match="mask_filters must be a positive integer; given: -1"):
        MaskRCNN(backbone(), 3, mask_filters=-1)
    assert Options(anchor_sizes=[[8], [16]]).anchor_sizes == ((8,), (16,))


@pytest.mark.any_backend
def test_bad_targets_are_named_before_training():
    images, targets = scenes()
    detector = compile_for(masked())
    boxes, labels = targets["boxes"], targets["labels"]

    def changed(array, value):
        array = array.copy()
        array[1, 0] = value
        return array

    for wrong, text in (
        ({"boxes": changed(boxes, [0, 0, np.nan, 4])}, "boxes must be finite numbers; given: .* in image 1"),
        ({"boxes": changed(boxes, [5, 5, 5, 9])}, "x2 > x1 and y2 > y1; given: .* in image 1. Its width is 0"),
        ({"boxes": changed(boxes, [30, 30, 8, 9])}, r"It looks like \(x, y, width, height\)"),
        (
            {"boxes": boxes / [64, 48, 64, 48]},
            r"boxes must be in pixels; given: \d+ boxes that all look like shares of the image",
        ),
        ({"boxes": changed(boxes, [70, 0, 90, 9])}, "in image 1, which is 48 pixels high and 64 wide"),
        ({"labels": changed(labels, 3)}, r"labels must be 0\.\.2, or -1 for padding; given: 3 in image 1"),
        ({"labels": labels[:, :2]}, "labels must have the shape"),
        ({"labels": np.where(labels < 0, "", "cat")}, "labels must be numbers; given: <U3 such as 'cat'"),
        ({"labels": np.zeros((4, 0), object)}, "labels must be numbers; given: object"),
        ({"boxes": boxes.tolist()}, "boxes must be one array, padded to as many objects in each image; given: a list"),
        ({"boxes": np.array([None, *boxes[:3]], object)}, "boxes must be numbers; given: object such as None"),
        ({"masks": targets["masks"][..., :9]}, "masks must have the size of the images"),
        ({"masks": targets["masks"][:, :1]}, "masks must have the shape"),
        ({"masks": targets["masks"] * 255}, "masks must be 0 or 1; given: values from 0 to 255"),
    ):
        with pytest.raises(ValueError, match=text):
            detector.fit(images, {**targets, **wrong}, verbose=0)
        with pytest.raises(ValueError, match=text):
            detector.fit(images, targets, validation_data=(images, {**targets, **wrong}), verbose=0)
    assert detector.optimizer.iterations == 0
    with pytest.raises(ValueError, match="class_weight must be None for detectors; given: .* Give roi_loss"):
        detector.fit(images, targets, class_weight={0: 1.0}, verbose=0)
    with pytest.raises(ValueError, match="images must be one array"):
        detector.fit(list(images), targets, verbose=0)
    for argument, value in (("loss", "mse"), ("metrics", ["accuracy"])):
        for method in (detector.fit, detector.evaluate):
            detector.compile("sgd", **{argument: value})
            with pytest.raises(ValueError, match=f"{argument} of compile must be left out for detectors; given: "):
                method(images, targets, verbose=0)
    compile_for(detector)
    assert np.isfinite(detector.evaluate(images, targets, verbose=0, return_dict=True)["loss"])
    with pytest.raises(ValueError, match="must have the key 'masks'"):
        detector.fit(images, {"boxes": boxes, "labels": labels}, verbose=0)
    with pytest.raises(ValueError, match="at least 16 pixels"):
        detector.predict(np.zeros((1, 8, 64, 3), "uint8"), verbose=0)
    with pytest.raises(ValueError, match="must have the shape"):
        detector.predict(np.zeros((1, 64, 64, 1), "uint8"), verbose=0)
    for size, text in (([[48, 64]], "must have the shape"), ([[48, 64], [48, 65]], r"given: \[48, 65\] for image 1")):
        with pytest.raises(ValueError, match=text):
            detector.predict({"images": images[:2], "image_size": np.array(size)}, verbose=0)
    with pytest.raises(ValueError, match=r"resize must be True, False or \(min_size, max_size\); given: 800"):
        detector.predict_images([images[0]], resize=800)
    with pytest.raises(ValueError, match="Write"):
        detector.predict_images(np.zeros((9, 9, 3), "uint8"))
    with pytest.raises(ValueError, match="given: shape .* for image 0"):
        detector.predict_images([np.zeros((9, 9), "uint8")])


def test_more_objects_than_places_keeps_the_largest():
    boxes = np.array([[0, 0, 2, 2], [0, 0, 9, 9], [0, 0, 5, 5]])
    targets, dropped = zoo.detection.pad_targets(boxes, [0, 1, 2], 2, ignored=[True, False, False])
    assert targets["labels"].tolist() == [1, 2] and dropped == 1 and targets["ignored"].tolist() == [False, False]
    targets, _ = zoo.detection.pad_targets(boxes, [0, 1, 2], 2, ignored=[False, True, False])
    assert targets["labels"].tolist() == [0, 2], "a crowd takes no object's place"
    targets, dropped = zoo.detection.pad_targets(boxes, [0, 1, 2], 4, masks=np.ones((3, 9, 9)))
    assert targets["labels"].tolist() == [0, 1, 2, -1] and dropped == 0 and targets["masks"].shape == (4, 9, 9)
    with pytest.raises(ValueError, match="number must be at least 1"):
        zoo.detection.pad_targets(boxes, [0, 1, 2], 0)


@pytest.mark.any_backend
def test_checkpoints_go_there_and_back():
    made = MaskRCNN(
        zoo.create_model("resnet18", pyramid=True, frozen_batch_norm=True, input_shape=(None, None, 3)),
        2,
        pyramid_filters=8,
        box_units=16,
        mask_filters=4,
    )
    state = zoo.detection.to_torchvision(made)
    old = {}
    for key, value in state.items():
        key = key.replace("rpn.head.conv.0.0.", "rpn.head.conv.")
        for i in range(4):
            key = key.replace(f"roi_heads.mask_head.{i}.0.", f"roi_heads.mask_head.mask_fcn{i + 1}.")
            key = key.replace(f"_blocks.{i}.0.", f"_blocks.{i}.")
        old[key] = value
    assert set(old) != set(state)
    loaded = MaskRCNN.from_torch(old, batch_norm_epsilon=0.0)
    assert loaded.backbone.get_layer("stem_norm").epsilon == 0.0 and loaded.frozen_stages == 1
    for key, value in zoo.detection.to_torchvision(loaded).items():
        np.testing.assert_array_equal(value, state[key])
    report = zoo.load_torch_checkpoint(loaded, zoo.to_torch_state_dict(made))
    assert report == {"missing": [], "unexpected": [], "misshapen": []}
    with pytest.raises(ValueError, match="is not torchvision's"):
        FasterRCNN.from_torch({"fc.weight": np.zeros((2, 2))})
    for key in ("backbone.fpn.inner_blocks.0.0.weight", "roi_heads.mask_head.0.0.weight"):
        with pytest.raises(ValueError, match=f"it has no {key}"):
            MaskRCNN.from_torch({name: value for name, value in state.items() if name != key})
    with pytest.raises(ValueError, match=r"cls_score.weight has the shape \(\)"):
        MaskRCNN.from_torch({**state, "roi_heads.box_predictor.cls_score.weight": np.float32(0)})
    key = "roi_heads.box_head.fc7.bias"
    with pytest.raises(ValueError, match=f"1 of the 16 numbers of {key} are NaN or infinite; nothing was loaded"):
        MaskRCNN.from_torch({**state, key: np.where(np.arange(16) == 3, np.nan, state[key])})
    with pytest.raises(ValueError, match=f"{key}: dtype <U1 given, a real number is needed"):
        MaskRCNN.from_torch({**state, key: np.full(16, "x")})
    with pytest.raises(ValueError, match="num_classes must be left out, .*; given: "):
        MaskRCNN.from_torch(state, num_classes=5)
    for epsilon in (-1, "x"):
        with pytest.raises(ValueError, match="batch_norm_epsilon must be at least 0 and below 1"):
            MaskRCNN.from_torch(state, batch_norm_epsilon=epsilon)
    with pytest.raises(ValueError, match="roi_loss='sigmoid'"):
        zoo.detection.to_torchvision(faster(roi_loss="sigmoid"))


@pytest.mark.slow
@pytest.mark.any_backend
@pytest.mark.parametrize("policy", ["mixed_float16", "mixed_bfloat16"])
def test_mixed_precision(policy, tmp_path):
    previous = keras.config.dtype_policy()
    keras.config.set_dtype_policy(policy)
    try:
        detector = compile_for(masked())
        images, targets = scenes()
        history = detector.fit(images, targets, batch_size=4, epochs=3, verbose=0).history
        assert np.isfinite(history["loss"]).all()
        expected = detector.predict(images, verbose=0)
        assert np.isfinite(expected["boxes"]).all()
        detector.save(tmp_path / "detector.keras")
    finally:
        keras.config.set_dtype_policy(previous)
    loaded = keras.models.load_model(tmp_path / "detector.keras")
    assert loaded.box_head.compute_dtype == policy.removeprefix("mixed_")
    np.testing.assert_allclose(loaded.predict(images, verbose=0)["scores"], expected["scores"], atol=1e-2)


@pytest.mark.slow
@pytest.mark.skipif(
    CURRENT != "tensorflow",
    reason="minutes; PyTorch's blocks are compiled one by one, and JAX's compiled losses compared with torchvision's",
)
def test_a_compiled_step_gives_the_losses_of_an_eager_one(monkeypatch):
    """With the first candidates drawn: TensorFlow's random numbers are others when XLA compiles."""
    monkeypatch.setattr(matching, "random_order", lambda seed: matching.index_order)
    images, targets = scenes()
    values = []
    for options in ({"jit_compile": True}, {"run_eagerly": True}):
        keras.utils.set_random_seed(0)
        detector = masked()
        detector.compile(keras.optimizers.SGD(1e-3), **options)
        values.append(detector.evaluate(images, targets, verbose=0, return_dict=True))
        detector.fit(images, targets, batch_size=4, verbose=0)
    for name in values[0]:
        np.testing.assert_allclose(values[0][name], values[1][name], rtol=1e-4, err_msg=name)


@pytest.mark.slow
@pytest.mark.skipif(CURRENT != "torch", reason="traced or compiled for minutes; its networks are compared alone")
def test_any_network_of_the_zoo_is_a_backbone():
    options = {"activation": "aglu", "gate": "apa", "frozen_batch_norm": True, "input_shape": (None, None, 3)}
    network = zoo.create_model("se_resnet50", pyramid=True, **options)
    detector = compile_for(FasterRCNN(network, 3, **{**SMALL, "anchor_sizes": ((8,), (16,), (32,), (48,), (64,))}))
    images, targets = scenes(masks=False)
    assert np.isfinite(detector.fit(images, targets, batch_size=4, verbose=0).history["loss"]).all()
    loaded = FasterRCNN.from_torch(zoo.detection.to_torchvision(detector))
    assert loaded.backbone.name == "se_resnet50"
