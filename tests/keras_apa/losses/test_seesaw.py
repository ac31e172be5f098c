"""Seesaw loss: the authors' code, call by call."""

from pathlib import Path

import keras
import numpy as np
import pytest
from gradients import value_and_gradient

from keras_apa.losses import SeesawLoss, seesaw_loss

REFERENCE = np.load(Path(__file__).parents[2] / "data" / "losses.npz")
NOISE = 20 * 2.0**-24


@pytest.mark.parametrize(("name", "p", "q"), [("p0.8_q2", 0.8, 2), ("p0.8_q0", 0.8, 0), ("p0_q2", 0, 2)])
def test_class_term_is_the_authors(name, p, q):
    entry = f"seesaw/ce_{name}"
    loss = SeesawLoss(p=p, q=q, class_counts=REFERENCE["counts"], reduction=None)
    value, (gradient,) = value_and_gradient(
        lambda z: loss(REFERENCE["labels_fg"], z, sample_weight=REFERENCE["weights"]),
        REFERENCE[f"{entry}/logits"],
    )
    want = REFERENCE[f"{entry}/loss"]
    np.testing.assert_allclose(value, want, rtol=0, atol=NOISE * want.max())
    np.testing.assert_allclose(gradient, REFERENCE[f"{entry}/grad"], rtol=0, atol=NOISE * 2)


def test_two_calls_with_objectness_are_the_authors():
    loss = SeesawLoss(num_classes=12, objectness=True, reduction=None)
    for step in ("step1", "step2"):
        entry = f"seesaw/{step}"
        logits, labels = REFERENCE[f"{entry}/logits"], REFERENCE[f"{entry}/labels"]
        foreground = labels < 12
        counts = keras.ops.convert_to_numpy(loss.cumulative_counts.value)
        np.testing.assert_array_equal(counts, REFERENCE[f"{entry}/cum_before"][:12])
        value = keras.ops.convert_to_numpy(loss(labels, logits))
        counts = keras.ops.convert_to_numpy(loss.cumulative_counts.value)
        np.testing.assert_array_equal(counts, REFERENCE[f"{entry}/cum_after"][:12])

        # Theirs is the mean over foreground of the class term plus the mean over all of the objectness.
        two = logits[:, 12:].astype("float64")
        objectness = np.log(np.exp(two).sum(1)) - np.where(foreground, two[:, 0], two[:, 1])
        assert objectness.mean() == pytest.approx(float(REFERENCE[f"{entry}/objectness"]), rel=NOISE)
        assert (value - objectness)[foreground].mean() == pytest.approx(float(REFERENCE[f"{entry}/classes"]), rel=NOISE)
        np.testing.assert_allclose((value - objectness)[~foreground], 0, atol=NOISE * 10)

        def theirs(z, counts=counts, labels=labels, foreground=foreground):
            rows = seesaw_loss(labels, z, counts, objectness=True)
            objects = keras.ops.log_softmax(z[:, 12:], axis=-1)
            objects = -keras.ops.where(foreground, objects[:, 0], objects[:, 1])
            return keras.ops.sum(rows - objects) / foreground.sum() + keras.ops.mean(objects)

        total, (gradient,) = value_and_gradient(theirs, logits)
        assert total == pytest.approx(float(REFERENCE[f"{entry}/loss"]), rel=NOISE)
        np.testing.assert_allclose(gradient, REFERENCE[f"{entry}/grad"], rtol=0, atol=NOISE)


def test_without_exponents_it_is_cross_entropy():
    logits = REFERENCE["base"][:, :12]
    got = SeesawLoss(p=0, q=0, num_classes=12)(REFERENCE["labels_fg"], logits)
    want = keras.losses.SparseCategoricalCrossentropy(from_logits=True)(REFERENCE["labels_fg"], logits)
    assert float(got) == pytest.approx(float(want), rel=NOISE)


def test_ignored_samples_are_not_counted():
    loss = SeesawLoss(num_classes=3)
    loss([0, -1, 2, -1], np.zeros((4, 3), "float32"))
    assert keras.ops.convert_to_numpy(loss.cumulative_counts.value).tolist() == [1, 0, 1]


def test_one_hot_targets_and_labels_agree():
    logits = REFERENCE["base"]
    labels = REFERENCE["labels_bg"]
    one_hot = np.eye(13, dtype="float32")[labels][:, :12]
    counts = REFERENCE["counts"].astype("float32")
    got = keras.ops.convert_to_numpy(seesaw_loss(one_hot, logits, counts, objectness=True))
    want = keras.ops.convert_to_numpy(seesaw_loss(labels, logits, counts, objectness=True))
    np.testing.assert_array_equal(got, want)


def test_fixed_counts_have_no_state():
    loss = SeesawLoss(class_counts=[5, 3])
    assert loss.state == [] and loss.num_classes == 2


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({}, "num_classes"),
        ({"num_classes": 0}, "num_classes"),
        ({"num_classes": 3, "p": -1}, "p must"),
        ({"num_classes": 3, "q": float("nan")}, "q must"),
        ({"num_classes": 3, "eps": 0}, "eps"),
        ({"num_classes": 3, "objectness": 1}, "objectness"),
        ({"num_classes": 3, "class_counts": [1, 2]}, "class_counts"),
    ],
)
def test_bad_arguments_are_named(arguments, message):
    with pytest.raises(ValueError, match=message):
        SeesawLoss(**arguments)


def test_logits_without_the_object_channels_are_an_error():
    with pytest.raises(ValueError, match=r"y_pred.*5 channels"):
        SeesawLoss(num_classes=3, objectness=True)([0], [[0.0, 0.0, 0.0]])


def test_soft_targets_are_an_error():
    with pytest.raises(ValueError, match=r"y_true.*one 1"):
        SeesawLoss(num_classes=2)([[0.9, 0.1]], [[0.0, 0.0]])
