"""Shot and mean class accuracy against the authors' function, scikit-learn and brute-force counts."""

import keras
import numpy as np
import pytest
from backends import EXAMPLES
from hypothesis import given, settings
from hypothesis import strategies as st
from keras import ops
from reference import load
from sklearn.metrics import balanced_accuracy_score

from keras_apa.class_counts import ClassCounts
from keras_apa.metrics import MeanClassAccuracy, ShotAccuracy

BACKEND = keras.backend.backend()
REFERENCE = load("shot_acc.npz")
CASES = ["thresholds", "missing_test_class", "empty_groups", "custom_thr"]
# A ratio of sums and a mean of at most 40 numbers of size 1, in float32.
NOISE = 40 * 2.0**-24


def scores(predictions, num_classes):
    """Logits whose argmax are the predictions."""
    noise = np.random.default_rng(0).uniform(size=(len(predictions), num_classes))
    noise[np.arange(len(predictions)), predictions] += 2
    return noise.astype("float32")


def values(result):
    return {name: float(value) for name, value in result.items()}


def brute_force(predictions, labels, weights, counts, many=100, few=20):
    """The four numbers, sample by sample in float64; label -1 is left out."""
    correct, total = {}, {}
    for prediction, label, weight in zip(predictions, labels, weights, strict=True):
        if label != -1:
            total[label] = total.get(label, 0) + weight
            correct[label] = correct.get(label, 0) + weight * (prediction == label)
    seen = [c for c in total if total[c] > 0]

    def mean(classes):
        return np.mean([correct[c] / total[c] for c in classes]) if classes else np.nan

    return {
        "many": mean([c for c in seen if counts[c] > many]),
        "medium": mean([c for c in seen if few <= counts[c] <= many]),
        "few": mean([c for c in seen if counts[c] < few]),
        "all": sum(correct[c] for c in seen) / sum(total[c] for c in seen) if seen else np.nan,
    }


@pytest.mark.parametrize("batch", [pytest.param(1000, marks=pytest.mark.any_backend), 7])
@pytest.mark.parametrize("case", CASES)
@pytest.mark.smoke
def test_equals_authors_shot_acc(case, batch):
    predictions, labels, counts, groups, per_class, listed = (
        REFERENCE[f"{case}/{key}"]
        for key in ("preds", "labels", "train_counts", "many_median_low", "acc_per_class", "classes_listed")
    )
    thresholds = {"many_threshold": 5, "few_threshold": 5} if case == "custom_thr" else {}
    metric = ShotAccuracy(counts, **thresholds)
    for start in range(0, len(labels), batch):
        end = start + batch
        metric.update_state(labels[start:end], scores(predictions[start:end], len(counts)))
    got = values(metric.result())
    members = ClassCounts(counts).shot_groups(**thresholds)
    for group, expected in zip(("many", "medium", "few"), groups, strict=True):
        if np.isin(members[group], labels).any():
            assert got[group] == pytest.approx(expected, abs=NOISE)
        else:
            # The reference has 0 for a group that no test label belongs to.
            assert expected == 0 and np.isnan(got[group])
    assert got["all"] == pytest.approx((predictions == labels).mean(), abs=NOISE)
    accuracy = ops.convert_to_numpy(metric.per_class_accuracy())
    np.testing.assert_allclose(accuracy[listed], per_class, atol=NOISE)
    assert np.isnan(np.delete(accuracy, listed)).all()


CLASSES = 6
SAMPLES = st.lists(st.tuples(*[st.integers(0, CLASSES - 1)] * 2, st.integers(0, 3)), min_size=1, max_size=30)


@settings(max_examples=EXAMPLES, deadline=None)
@given(
    SAMPLES,
    st.lists(st.integers(0, 200), min_size=CLASSES, max_size=CLASSES),
    st.sampled_from(["labels", "column", "one-hot", "soft"]),
    st.booleans(),
)
def test_equals_brute_force_over_ragged_batches(samples, counts, layout, weighted):
    predictions, labels, weights = map(np.array, zip(*samples, strict=True))
    if layout in ("labels", "column"):
        labels = np.where(weights == 3, -1, labels)
    weights = weights / 4 if weighted else np.ones(len(weights))
    given_labels = {
        "labels": labels,
        "column": labels[:, None],
        "one-hot": np.eye(CLASSES, dtype=bool)[labels],
        "soft": 0.1 / CLASSES + 0.9 * np.eye(CLASSES, dtype="float32")[labels],
    }[layout]
    logits = scores(predictions, CLASSES)
    shot, mean = ShotAccuracy(counts), MeanClassAccuracy(CLASSES)
    for part in (slice(0, 12), slice(12, 24), slice(24, None)):
        if len(labels[part]):
            weight = weights[part].astype("float32") if weighted else None
            for metric in (shot, mean):
                metric.update_state(given_labels[part], logits[part], sample_weight=weight)
    expected = brute_force(predictions, labels, weights, counts)
    got = values(shot.result())
    assert got == pytest.approx(expected, abs=NOISE, nan_ok=True)
    used = (labels >= 0) & (weights > 0)
    if used.any():
        reference = balanced_accuracy_score(labels[used], predictions[used], sample_weight=weights[used])
        assert float(mean.result()) == pytest.approx(reference, abs=NOISE)
    else:
        assert np.isnan(float(mean.result()))


def test_labels_and_predictions_may_have_inner_axes():
    labels = np.array([[0, 1, -1], [2, 2, 1]])
    predictions = np.array([[0, 0, 0], [2, 1, 1]])
    weights = np.array([1.0, 3.0])
    logits = scores(predictions.ravel(), 3).reshape(2, 3, 3)
    metric = ShotAccuracy([500, 50, 5])
    metric.update_state(labels, logits, sample_weight=weights)
    expected = brute_force(predictions.ravel(), labels.ravel(), np.repeat(weights, 3), [500, 50, 5])
    assert values(metric.result()) == pytest.approx(expected, abs=NOISE)


@pytest.mark.smoke
def test_probabilities_and_logits_agree():
    labels, logits = np.array([0, 1, 2, 2]), scores([0, 1, 1, 2], 3)
    for predictions in (logits, ops.softmax(logits), ops.cast(logits, "bfloat16")):
        metric = MeanClassAccuracy(3)
        metric.update_state(ops.convert_to_tensor(labels), predictions)
        assert float(metric.result()) == pytest.approx(2.5 / 3, abs=NOISE)


def test_counts_stay_exact_beyond_float32():
    metric = MeanClassAccuracy(1)
    for _ in range(8):
        metric.update_state([0], [[1.0]], sample_weight=[2.0**22])
    other = MeanClassAccuracy(2)
    for _ in range(8):
        other.update_state([0], [[1.0, 0.0]], sample_weight=[2.0**22])
    for _ in range(50):
        # 2**25 + 1 is 2**25 in float32, so that a plain sum would never see these.
        other.update_state([0], [[0.0, 1.0]])
    assert float(metric.result()) == 1
    assert float(other.result()) == pytest.approx(1 / (1 + 50 / 2**25), abs=2 * 2.0**-24)


def test_reset_forgets_everything():
    metric = ShotAccuracy([500, 50, 5])
    metric.update_state([0, 1, 2], scores([0, 1, 1], 3))
    metric.reset_state()
    assert all(np.isnan(value) for value in values(metric.result()).values())
    metric.update_state([2], scores([2], 3))
    assert values(metric.result()) == pytest.approx(
        {"many": np.nan, "medium": np.nan, "few": 1.0, "all": 1.0}, nan_ok=True
    )


def model_that_outputs_its_input(num_classes, metric, run_eagerly=False):
    """Logits in, logits out; the learning rate is 0."""
    inputs = keras.Input((num_classes,))
    model = keras.Model(inputs, keras.layers.Dense(num_classes, kernel_initializer="identity")(inputs))
    model.compile(
        optimizer=keras.optimizers.SGD(0.0),
        loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True, ignore_class=-1),
        metrics=[] if run_eagerly else metric,
        weighted_metrics=metric if run_eagerly else None,
        run_eagerly=run_eagerly,
        # torch.compile takes a minute; torch is compiled with everything else together elsewhere.
        jit_compile=not run_eagerly and BACKEND != "torch",
    )
    return model


COUNTS = [500, 101, 60, 20, 19, 3]


@pytest.fixture
def samples():
    generator = np.random.default_rng(3)
    labels = generator.integers(-1, CLASSES, size=37).astype("int32")
    predictions = np.where(generator.uniform(size=37) < 0.6, labels, generator.integers(0, CLASSES, size=37))
    return labels, np.maximum(predictions, 0)


def test_compiled_fit_and_evaluate_log_four_numbers(samples):
    labels, predictions = samples
    logits = scores(predictions, CLASSES)
    model = model_that_outputs_its_input(CLASSES, [ShotAccuracy(COUNTS), MeanClassAccuracy(CLASSES)])
    history = model.fit(
        logits,
        labels,
        batch_size=8,
        epochs=2,
        verbose=0,
        shuffle=False,
        validation_data=(logits[:21], labels[:21]),
    ).history
    evaluated = model.evaluate(logits, labels, batch_size=10, verbose=0, return_dict=True)
    expected = brute_force(predictions, labels, np.ones(37), COUNTS)
    part = brute_force(predictions[:21], labels[:21], np.ones(21), COUNTS)
    for name in ("many", "medium", "few", "all"):
        assert history[name] == pytest.approx([expected[name]] * 2, abs=NOISE)
        assert history[f"val_{name}"] == pytest.approx([part[name]] * 2, abs=NOISE)
        assert evaluated[name] == pytest.approx(expected[name], abs=NOISE)
    used = labels >= 0
    balanced = balanced_accuracy_score(labels[used], predictions[used])
    assert history["mean_class_accuracy"][-1] == pytest.approx(balanced, abs=NOISE)
    assert {name for name in history if not name.startswith("val_")} == {
        "loss", "many", "medium", "few", "all", "mean_class_accuracy"
    }  # fmt: skip


def test_eager_fit_uses_sample_weight(samples):
    labels, predictions = np.maximum(samples, 0)
    weights = np.arange(37) % 4 / 2
    model = model_that_outputs_its_input(CLASSES, [ShotAccuracy(COUNTS, prefix="shot_")], run_eagerly=True)
    logs = model.evaluate(
        scores(predictions, CLASSES),
        labels,
        sample_weight=weights,
        batch_size=16,
        verbose=0,
        return_dict=True,
    )
    expected = brute_force(predictions, labels, weights, COUNTS)
    assert {name.removeprefix("shot_"): logs[name] for name in logs if name != "loss"} == pytest.approx(
        expected, abs=NOISE
    )


def test_unknown_label_in_fit_is_nan_where_compiled_and_an_error_where_not():
    metrics = [ShotAccuracy([500, 50, 5], ignore_class=None), MeanClassAccuracy(3)]
    model = model_that_outputs_its_input(3, metrics)
    arguments = (np.eye(3, dtype="float32"), np.array([0, 1, -1]))
    if BACKEND == "torch":
        # Keras runs a PyTorch step eagerly unless told otherwise, and these labels are in host memory.
        with pytest.raises(ValueError, match="y_true must be labels from 0 to 2; given: -1"):
            model.evaluate(*arguments, verbose=0)
        return
    logs = model.evaluate(*arguments, verbose=0, return_dict=True)
    assert all(np.isnan(logs[name]) for name in ("many", "medium", "few", "all"))
    # -1 is left out by the other metric, whose number stays as it is.
    assert logs["mean_class_accuracy"] == 1


def symbolic_update(metric, labels, logits):
    """The results after one update in which nothing can look at a value."""
    if BACKEND == "jax":
        import jax

        def step(variables, labels, logits):
            return metric.stateless_result(metric.stateless_update_state(variables, labels, logits))

        return jax.jit(step)([v.value for v in metric.variables], labels, logits)
    if BACKEND == "tensorflow":
        import tensorflow as tf

        @tf.function(jit_compile=True)
        def step(labels, logits):
            metric.update_state(labels, logits)
            return metric.result()

        return step(labels, logits)
    # On PyTorch, tensors of the "meta" device have no values: a look at one raises.
    with keras.device("meta"):
        metric = ShotAccuracy.from_config(metric.get_config())
        metric.update_state(ops.convert_to_tensor(labels), ops.convert_to_tensor(logits))
        return metric.result()


def test_update_and_result_wait_for_no_value():
    result = symbolic_update(ShotAccuracy([500, 50, 5]), np.array([0, 1, 7]), np.eye(3, dtype="float32"))
    assert set(result) == {"many", "medium", "few", "all"}
    for value in result.values():
        assert tuple(value.shape) == ()
        if BACKEND == "torch":
            assert value.is_meta
        else:
            assert np.isnan(float(value))


@pytest.mark.parametrize("convert", [np.array, ops.convert_to_tensor, list], ids=["numpy", "tensor", "list"])
@pytest.mark.parametrize("label", [3, -2, 0.5])
def test_unknown_label_is_an_error_where_it_can_be_seen(label, convert):
    for metric in (ShotAccuracy([500, 50, 5]), MeanClassAccuracy(3)):
        with pytest.raises(ValueError, match=rf"y_true must be labels from 0 to 2, or -1 .*given: {label:g}\."):
            metric.update_state(convert([0, label, -1]), np.eye(3, dtype="float32"))


def test_unknown_labels_hidden_by_a_cast_are_found():
    with pytest.raises(ValueError, match=r"given: 4.29497e\+09"):
        MeanClassAccuracy(3).update_state(np.array([2**32]), np.ones((1, 3), "float32"))


def test_one_hot_row_without_a_class_is_an_error():
    with pytest.raises(ValueError, match="an entry above 0 in every one-hot or soft row"):
        MeanClassAccuracy(3).update_state(np.zeros((2, 3)), np.eye(3, dtype="float32")[:2])


@pytest.mark.parametrize(
    "labels, logits, weights, message",
    [
        ([0, 1], (2, 4), None, r"y_pred must have shape \(..., 3\), one number a class; given: shape \(2, 4\)"),
        ([0, 1], (3, 3), None, r"y_true must be labels of shape \(3,\).*given: shape \(2,\)"),
        (np.ones((2, 4)), (2, 3), None, r"y_true must be labels of shape \(2,\) or one-hot.*given: shape \(2, 4\)"),
        ([[[0]], [[1]]], (2, 3), None, r"y_true must be labels"),
        ([0, 1], (2, 3), np.ones((2, 3)), r"sample_weight must broadcast.*\(2,\); given: shape \(2, 3\)"),
    ],
)
def test_shapes_that_do_not_fit_are_errors(labels, logits, weights, message):
    with pytest.raises(ValueError, match=message):
        MeanClassAccuracy(3).update_state(np.array(labels), np.ones(logits, "float32"), sample_weight=weights)


@pytest.mark.parametrize(
    "make, message",
    [
        (lambda: ShotAccuracy([5, -1]), "class_counts must not be negative; given: -1 for class 1"),
        (
            lambda: ShotAccuracy([5, 1], many_threshold=5, few_threshold=6),
            "many_threshold must be at least few_threshold, 6; given: 5",
        ),
        (lambda: ShotAccuracy([5, 1], ignore_class="x"), "ignore_class must be a whole number or None; given: 'x'"),
        (lambda: MeanClassAccuracy(0), "num_classes must be a whole number of at least 1; given: 0"),
        (lambda: MeanClassAccuracy(2.5), r"num_classes must be a whole number of at least 1; given: 2\.5"),
    ],
)
def test_bad_arguments_are_named(make, message):
    with pytest.raises(ValueError, match=message):
        make()


@pytest.mark.parametrize(
    "metric",
    [
        ShotAccuracy(ClassCounts([300, 50, 0], names=list("abc")), 200, 10, None, "test_", name="shots"),
        MeanClassAccuracy(3, ignore_class=255, name="balanced"),
    ],
    ids=lambda metric: metric.name,
)
def test_config_round_trip(metric):
    config = metric.get_config()
    copy = keras.saving.deserialize_keras_object(keras.saving.serialize_keras_object(metric))
    assert type(copy) is type(metric)
    assert copy.get_config() == config
    if "class_counts" in config:
        assert config["class_counts"] == [300, 50, 0]
    for each in (metric, copy):
        each.update_state([0, 1, 2, 1], scores([0, 1, 1, 2], 3))
    assert str(copy.result()) == str(metric.result())


def test_saved_model_keeps_its_metrics(tmp_path, samples):
    labels, predictions = samples
    logits = scores(predictions, CLASSES)
    model = model_that_outputs_its_input(CLASSES, [ShotAccuracy(COUNTS)])
    before = model.evaluate(logits, labels, verbose=0, return_dict=True)
    model.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras", safe_mode=True)
    assert loaded.evaluate(logits, labels, verbose=0, return_dict=True) == pytest.approx(before)


@pytest.mark.parametrize("column", [0, 1])
def test_a_row_with_nan_counts_as_wrong(column):
    logits = scores([0, 0, 1, 1], 2)
    logits[[1, 3], column] = np.nan
    shot, mean = ShotAccuracy([500, 5]), MeanClassAccuracy(2)
    for metric in (shot, mean):
        metric.update_state([0, 0, 1, 1], logits)
    assert values(shot.result()) == pytest.approx({"many": 0.5, "medium": np.nan, "few": 0.5, "all": 0.5}, nan_ok=True)
    assert float(mean.result()) == pytest.approx(0.5)


def test_class_names_are_an_error_that_names_y_true():
    for names in (["cat", "dog"], np.array(["cat", "dog"])):
        with pytest.raises(ValueError, match=r"y_true must be integer labels .*given: "):
            MeanClassAccuracy(2).update_state(names, [[1.0, 0.0], [0.0, 1.0]])
