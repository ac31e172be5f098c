import io
import json
import os
import re
from types import SimpleNamespace

import keras
import numpy as np
import pytest
from rich.console import Console

import zoo
from keras_apa import losses
from training.cli.train import run_train
from training.data.decoding import UnreadableImageError
from training.data.detection.digit_scenes import digit_scenes_lt
from training.data.detection.pipeline import detection_steps_per_epoch
from training.detection.losses import build_region_loss, loss_notes
from training.detection.network import build_detector, classifier_weight_norms, uncompiled
from training.detection.outcome import DetectionOutcome
from training.detection.start import start_notes
from training.detection.train import check_detection, compiled_detector, train_detector
from training.engine.checkpoints import Checkpoints, NotFiniteError
from training.errors import UsageError
from training.files import write_json
from training.recipes import get_recipe
from zoo.checkpoint_files import write_state_dict
from zoo.detection import DetectionPreprocessing
from zoo.detection.roi_losses import RegionLoss

SMALL = get_recipe("digit_scenes_lt").replace(
    data={"num_train": 24, "num_test": 4, "image_size": (64, 64)},
    model={"pyramid_filters": 8, "box_units": 16, "mask_filters": 8},
    batch_size=4,
    epochs=2,
)
COUNTS = [50, 8, 3]


def small_source():
    return digit_scenes_lt(num_train=24, num_test=4, image_size=(64, 64))


@pytest.mark.parametrize(
    ("name", "logits"),
    [
        ("softmax", 4),
        ("sigmoid", 3),
        ("gumbel", 3),
        ("GumbelCrossentropy", 3),
        ("GumbelOptimizedLoss", 3),
        ("DropLoss", 3),
        ("EqualizationLoss", 3),
        ("FederatedLoss", 3),
        ("BalancedSigmoidCrossentropy", 3),
        ("BalancedSoftmaxCrossentropy", 4),
        ("LDAM", 4),
        ("SeesawLoss", 4),
    ],
)
def test_every_loss_of_the_library_is_told_what_it_needs(name, logits):
    loss = build_region_loss(SMALL.replace(loss={"name": name}), COUNTS, 60, 0.15)
    region = RegionLoss(loss, 3)
    assert region.logits == logits
    values = region.values(np.array([0, 1, 2, 3]), keras.ops.zeros((4, logits)))
    assert np.isfinite(keras.ops.convert_to_numpy(values)).all()


def test_gol_has_the_threshold_of_the_data_unless_it_is_given():
    loss = build_region_loss(SMALL, COUNTS, 60, 0.15)
    assert isinstance(loss, losses.GumbelOptimizedLoss)
    assert loss.rare_classes.tolist() == [1, 2] and loss.num_images == 60
    given = SMALL.replace(loss={"options": {"frequency_threshold": 0.1}})
    assert build_region_loss(given, COUNTS, 60, 0.15).rare_classes.tolist() == [2]


@pytest.mark.any_backend
def test_that_a_loss_finds_no_rare_class_is_told():
    def notes(counts, **loss):
        source = SimpleNamespace(image_counts=np.array(counts), num_classes=3)
        return loss_notes(SMALL.replace(loss=loss), source)

    assert notes([300, 100, 5]) == ()
    (note,) = notes([60, 30, 5])
    assert note.startswith("no class is in more than 100 training images, so GumbelOptimizedLoss takes none for rare")
    (note,) = notes([600, 300, 101], name="DropLoss")
    assert note.startswith("all classes are in more than 100 training images, so DropLoss takes none for rare")
    assert notes([60, 30, 5], options={"frequency_threshold": 0.1}) == notes([60, 30, 5], name="softmax") == ()


def test_the_background_of_a_softmax_counts_as_often_as_it_is_drawn():
    recipe = SMALL.replace(loss={"name": "BalancedSoftmaxCrossentropy"})
    assert build_region_loss(recipe, COUNTS, 60, 0.15).class_counts.counts.tolist() == [50, 8, 3, 3 * 61]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            {"data": {"name": "digit_scene_lt"}},
            "data.name must be a known name; given: 'digit_scene_lt'. Nearest: digit_scenes_lt",
        ),
        ({"model": {"backbone": "resnet9"}}, "resnet9"),
        ({"model": {"backbone": "resnet18"}}, "model.anchor_sizes must have 5 sizes"),
        ({"model": {"anchor_sizes": (100, 200, 300, 400)}}, "one below the image, 64 pixels"),
        ({"model": {"options": {"max_detection": 3}}}, "max_detection"),
        ({"loss": {"name": "GumbelLoss"}}, "loss.name must be a known name; given: 'GumbelLoss'. Nearest: gumbel"),
        ({"loss": {"options": {"tau": 1.0}}}, "loss.options must be arguments of GumbelOptimizedLoss; given: 'tau'"),
        ({"loss": {"name": "softmax", "options": {"tau": 1.0}}}, "loss.options must be empty with the loss softmax"),
        ({"optimizer": {"warmup_epochs": 2.0}}, "optimizer.warmup_epochs must be less than epochs"),
    ],
)
def test_a_wrong_name_or_option_is_found_before_training(change, message):
    with pytest.raises(ValueError, match=message):
        check_detection(SMALL.replace(**change))


def with_checkpoint(folder, **changes):
    """A detector of the recipe with softmax, and the recipe with GOL that starts from its checkpoint."""
    softmax = SMALL.replace(loss={"name": "softmax", "options": {}})
    made = build_detector(softmax.replace(seed=1), small_source())
    state = {**zoo.detection.to_torchvision(made), **changes}
    path = folder / "detector.safetensors"
    write_state_dict({key: value for key, value in state.items() if value is not None}, path)
    return made, SMALL.replace(model={"weights": str(path)})


@pytest.mark.any_backend
def test_a_training_starts_from_a_detector_but_for_the_layers_of_the_classes(tmp_path):
    made, recipe = with_checkpoint(tmp_path)
    check_detection(recipe)
    detector, fresh = (compiled_detector(each, small_source(), steps=1) for each in (recipe, SMALL))
    (note,) = start_notes(recipe)
    assert note.startswith(f"start weights: those of the detector in {recipe.model.weights}, but for")
    of_classes = 0
    for first, mine, own in zip(made.weights, detector.weights, fresh.weights, strict=False):
        classes = any(name in mine.path for name in ("classifier", "regressor", "mask_head/predictor"))
        of_classes += classes
        expected = own if classes else first
        if "seed" not in mine.path:
            np.testing.assert_array_equal(*map(keras.ops.convert_to_numpy, (mine, expected)), err_msg=mine.path)
    assert of_classes == 6
    boxes = recipe.replace(model={"name": "faster_rcnn"})
    check_detection(boxes)
    build_detector(boxes, small_source())
    detector.save(tmp_path / "gol.keras")
    again = SMALL.replace(model={"weights": str(tmp_path / "gol.keras")}, loss={"name": "softmax"})
    check_detection(again)
    loaded = build_detector(again, small_source())
    np.testing.assert_array_equal(*(keras.ops.convert_to_numpy(x.box_head.dense2.kernel) for x in (loaded, made)))


@pytest.mark.any_backend
@pytest.mark.parametrize(
    ("changes", "model", "message"),
    [
        ({}, {"box_units": 24}, "model.box_units must be 16, the channels of model.weights"),
        ({}, {"backbone": "resnet14"}, "model.weights must be of a resnet14"),
        ({}, {"options": {"anchor_ratios": [1.0]}}, "rpn.head.cls_logits.weight: (3, 8, 1, 1) given, (1, 8, 1, 1) in"),
        ({"roi_heads.box_head.fc7.bias": None}, {}, "nothing was loaded.\nmissing: roi_heads.box_head.fc7.bias"),
        (
            {"roi_heads.mask_head.0.0.weight": None},
            {},
            "model.weights must be a Mask R-CNN of torchvision's layout; given: ",
        ),
        (
            {"roi_heads.box_head.fc7.bias": np.full(16, np.nan, "float32")},
            {},
            "16 of the 16 numbers of roi_heads.box_head",
        ),
        ({"roi_heads.box_head.fc7.bias": np.full(16, 1e300)}, {}, "16 of the 16 numbers of roi_heads.box"),
        ({"backbone.body.bn1.running_var": -np.ones(16, "float32")}, {}, "backbone.body.bn1.running_var are negative"),
        ({}, {"weights": "nowhere.pth"}, "source must be a file that is there; given: 'nowhere.pth'"),
        ({}, {"weights": "nowhere.keras"}, "the model must be a file that is there; given: 'nowhere.keras'"),
        ({}, {"weights": "resnet50"}, "a PyTorch checkpoint must end in"),
    ],
)
def test_a_start_that_does_not_fit_is_found_before_training(tmp_path, changes, model, message):
    _, recipe = with_checkpoint(tmp_path, **changes)
    with pytest.raises(ValueError, match=re.escape(message)):
        check_detection(recipe.replace(model=model))


@pytest.mark.any_backend
def test_a_detector_that_computes_something_else_is_no_start(tmp_path):
    path = str(tmp_path / "made.keras")
    recipe = SMALL.replace(model={"weights": path})

    def save(preprocessing=None, **model):
        made = build_detector(SMALL.replace(model=model), small_source())
        made.preprocessing = preprocessing or made.preprocessing
        made.save(path)

    save(batch_norm_epsilon=0.0)
    with pytest.raises(ValueError, match=r"made.keras': epsilon of .* 0.0, here 1e-05 \(model.b"):
        check_detection(recipe)
    check_detection(recipe.replace(model={"batch_norm_epsilon": 0.0}))
    save(backbone_options={"activation": "gelu"})
    with pytest.raises(ValueError, match=r"activation of its layer stem_activation is 'gelu', here 'relu' \(model.b"):
        check_detection(recipe)
    save(options={**SMALL.model.options, "roi_aligned": True})
    with pytest.raises(ValueError, match=r"its roi_aligned is True, here False \(model.options\)"):
        check_detection(recipe)
    save(DetectionPreprocessing(mean=(0, 0, 0)))
    with pytest.raises(ValueError, match=r"its images have the mean \(0.0, 0.0, 0.0\), here \(0.485"):
        check_detection(recipe)


@pytest.mark.any_backend
def test_a_training_that_goes_on_needs_no_start(tmp_path):
    _, recipe = with_checkpoint(tmp_path)
    console = Console(file=io.StringIO())
    run = {"output": tmp_path / "run", "command": ["keras-apa"], "console": console}
    short = recipe.replace(data={"num_train": 12, "num_test": 2}, epochs=1)
    assert run_train(short, **run) == 0
    os.unlink(recipe.model.weights)
    assert run_train(short, **run) == 0 and "This training is finished" in console.file.getvalue()
    (tmp_path / "run" / f"{recipe.name}.json").unlink()
    assert run_train(short, **run) == 0 and "Going on from step 3 of 3" in console.file.getvalue()
    with pytest.raises(
        UsageError,
        match=r"model.weights must be the weights of a detector; given: .* source must be a file that is there",
    ):
        run_train(short, **{**run, "output": tmp_path / "other"})
    assert not (tmp_path / "other").exists()
    (tmp_path / "run" / f"{recipe.name}.json").unlink()
    for checkpoint in (tmp_path / "run" / "checkpoints").glob("*.npz"):
        checkpoint.write_bytes(b"damaged")
    with pytest.raises(
        UsageError,
        match=r"model.weights must be the weights of a detector; given: .* source must be a file that is there",
    ):
        run_train(short, **run)


def test_mask_rcnn_on_boxes_alone_is_an_error():
    source = small_source()
    source.train.has_masks = False
    with pytest.raises(ValueError, match="model.name must be 'faster_rcnn', .* objects without masks"):
        build_detector(SMALL, source)


def test_detector_is_what_the_recipe_says():
    source = small_source()
    model = build_detector(SMALL.replace(precision="mixed_bfloat16"), source)
    assert isinstance(model, zoo.MaskRCNN) and model.mask_format == "box"
    assert model.options.max_detections == 50  # the recipe's own, not LVIS's 300
    assert model.compute_dtype == "bfloat16"
    assert (model.preprocessing.min_size, model.preprocessing.max_size) == (64, 64)
    assert model.class_names == source.class_names
    assert len(classifier_weight_norms(model)) == 10
    faster = build_detector(SMALL.replace(model={"name": "faster_rcnn", "options": {}}), source)
    assert not faster.has_masks and (faster.options.max_detections, faster.options.score_threshold) == (300, 1e-4)


def test_uncompiled_detector_has_the_weights_and_no_optimizer():
    source = small_source()
    recipe = SMALL.replace(precision="mixed_float16")
    model = compiled_detector(recipe, source, steps=detection_steps_per_epoch(recipe, source))
    # Gradients of float16 need a scale that keeps them from vanishing.
    assert isinstance(model.optimizer, keras.optimizers.LossScaleOptimizer)
    plain = uncompiled(model)
    assert model.compiled and not plain.compiled and plain.box_head.compute_dtype == "float16"
    for one, other in zip(model.weights, plain.weights, strict=True):
        np.testing.assert_array_equal(keras.ops.convert_to_numpy(one), keras.ops.convert_to_numpy(other))


def test_outcome_survives_json(tmp_path):
    outcome = DetectionOutcome(
        recipe=SMALL,
        backend="jax",
        seconds=1.5,
        metrics={"box_AP": 0.25, "box_APr": float("nan")},
        by_class={"box": [0.5, float("nan")]},
        by_class50={"box": [0.75, float("nan")]},
        history={"loss": [2.0, 1.0], "val_box_AP": [float("nan"), 0.25]},
        parameters={},
        image_counts=[5, 2],
        num_images=6,
        class_names=["a", "b"],
        weight_norms=[1.0, 0.5],
        results=[{"image_id": 1}],
    )
    write_json(tmp_path / "outcome.json", outcome.to_dict())
    read = DetectionOutcome.from_dict(json.loads((tmp_path / "outcome.json").read_text()))
    assert read.recipe == SMALL and read.results == ()
    assert repr(read.to_dict()) == repr(outcome.to_dict())


class _StopAt(keras.callbacks.Callback):
    """What is left of a training that is killed after so many steps."""

    def __init__(self, step):
        super().__init__()
        self.step, self.seen = step, 0

    def on_train_batch_end(self, batch, logs=None):
        self.seen += 1
        if self.seen == self.step:
            raise KeyboardInterrupt


@pytest.mark.slow
@pytest.mark.every_backend
def test_a_training_that_was_cut_off_ends_like_one_that_was_not(tmp_path):
    """Six steps an epoch, a checkpoint every two, cut off after nine: the rest is redone from step 8."""
    source = small_source()
    whole, outcome = train_detector(SMALL, source, checkpoints=Checkpoints(tmp_path / "whole"))
    checkpoints = Checkpoints(tmp_path / "cut")
    with pytest.raises(KeyboardInterrupt):
        train_detector(SMALL, source, checkpoints=checkpoints, checkpoint_steps=2, callbacks=[_StopAt(9)])
    assert checkpoints.newest().name == "step-0000000008.npz"
    again, resumed = train_detector(SMALL, source, checkpoints=checkpoints, checkpoint_steps=2)
    for one, other in zip(whole.weights, again.weights, strict=True):
        values = [keras.ops.convert_to_numpy(each) for each in (one, other)]
        np.testing.assert_allclose(*values, rtol=1e-4, atol=1e-5, err_msg=one.path)
    np.testing.assert_allclose(resumed.history["loss"], outcome.history["loss"], rtol=1e-4)
    assert len(outcome.history["val_box_AP"]) == len(outcome.history["val_mask_AP50r"]) == 2
    assert whole.predict_images([source.test.image(0)])[0]["masks"].shape[1:] == (64, 64)


@pytest.mark.slow
def test_a_loss_that_is_not_finite_stops_the_training(tmp_path):
    recipe = SMALL.replace(optimizer={"name": "sgd", "learning_rate": 1e12, "clip_norm": None, "momentum": 0.0})
    with pytest.raises(NotFiniteError, match="in epoch 1 at batch"):
        train_detector(recipe, small_source(), checkpoints=Checkpoints(tmp_path))


def test_an_image_that_breaks_off_while_training_is_named(monkeypatch):
    source = small_source()

    def broken(self, index):
        raise ValueError("5.png (id 5): cannot be read")

    monkeypatch.setattr(type(source.train), "image", broken)
    with pytest.raises(UnreadableImageError, match=r"^5.png \(id 5\): cannot be read$"):
        train_detector(SMALL, source)
