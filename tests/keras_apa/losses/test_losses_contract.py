"""What every loss keeps: reductions, weights, ignored and impossible labels, dtypes, configuration."""

import keras
import numpy as np
import pytest
from backends import EXAMPLES
from gradients import value_and_gradient
from hypothesis import given, settings
from hypothesis import strategies as st
from keras import ops

import keras_apa.losses
from keras_apa import losses
from keras_apa.losses import (
    LDAM,
    BalancedSigmoidCrossentropy,
    BalancedSoftmaxCrossentropy,
    ClassBalancedCrossentropy,
    DropLoss,
    EqualizationLoss,
    FederatedLoss,
    GumbelCrossentropy,
    GumbelOptimizedLoss,
    SeesawLoss,
)

COUNTS = [60, 25, 10, 5]
IMAGES = dict(image_counts=COUNTS, num_images=100, frequency_threshold=0.2)
LOSSES = {
    "balanced_softmax": lambda **o: BalancedSoftmaxCrossentropy(COUNTS, tau=0.7, **o),
    "balanced_sigmoid": lambda **o: BalancedSigmoidCrossentropy(COUNTS, tau=0.7, **o),
    "gumbel": lambda **o: GumbelCrossentropy(logit_range=(-5, 9), **o),
    "drop": lambda **o: DropLoss(**IMAGES, seed=1, **o),
    "gol": lambda **o: GumbelOptimizedLoss(**IMAGES, seed=1, **o),
    "eql": lambda **o: EqualizationLoss(**IMAGES, **o),
    "eql_softmax": lambda **o: EqualizationLoss(**IMAGES, activation="softmax", gamma=0.5, seed=1, **o),
    "seesaw": lambda **o: SeesawLoss(num_classes=4, p=0.5, **o),
    "seesaw_fixed": lambda **o: SeesawLoss(class_counts=COUNTS, q=1.5, **o),
    "federated": lambda **o: FederatedLoss(COUNTS, 3, power=0.7, seed=1, **o),
    "class_balanced": lambda **o: ClassBalancedCrossentropy(COUNTS, 0.9, **o),
    "class_balanced_focal": lambda **o: ClassBalancedCrossentropy(COUNTS, 0.9, "focal", 1.5, **o),
    "ldam": lambda **o: LDAM(COUNTS, 0.3, 10.0, **o),
}
# Tests that call a loss with one number of each sample again need a loss whose values do not change by calls.
FIXED = {name: make for name, make in LOSSES.items() if not make().state}
EVERY = pytest.mark.parametrize("make", LOSSES.values(), ids=LOSSES.keys())
EVERY_FIXED = pytest.mark.parametrize("make", FIXED.values(), ids=FIXED.keys())
# What the losses inherit: some of each kind on each backend, all on one.
SOME = ("balanced_softmax", "gumbel", "drop", "seesaw_fixed", "federated")


def _some_on_each_backend(losses):
    marks = {name: [] if name in SOME else [pytest.mark.any_backend] for name in losses}
    cases = [pytest.param(make, id=name, marks=marks[name]) for name, make in losses.items()]
    return pytest.mark.parametrize("make", cases)


INHERITED = _some_on_each_backend(LOSSES)
INHERITED_FIXED = _some_on_each_backend(FIXED)

RNG = np.random.default_rng(0)
LOGITS = RNG.normal(0, 2, (6, 4)).astype("float32")
LABELS = np.array([0, 3, 1, 0, 2, 1])


def numbers(tensor):
    return ops.convert_to_numpy(tensor)


@INHERITED
@pytest.mark.smoke
def test_reductions_are_those_of_keras(make):
    rows = numbers(make(reduction=None)(LABELS, LOGITS))
    assert rows.shape == (6,)
    weight = np.array([1, 0, 2, 0.5, 3, 1], "float32")
    for reduction, weighed, want in (
        ("none", None, rows),
        ("sum", None, rows.sum()),
        ("sum_over_batch_size", None, rows.mean()),
        ("mean", None, rows.mean()),
        ("mean_with_sample_weight", None, rows.mean()),
        ("none", weight, rows * weight),
        ("sum", weight, (rows * weight).sum()),
        ("mean", weight, (rows * weight).sum() / 6),
        ("mean_with_sample_weight", weight, (rows * weight).sum() / weight.sum()),
    ):
        got = make(reduction=reduction)(LABELS, LOGITS, sample_weight=weighed)
        np.testing.assert_allclose(numbers(got), want, rtol=1e-5)


@EVERY
@pytest.mark.smoke
def test_ignored_samples_weigh_nothing_and_are_not_counted(make):
    labels = np.array([0, 3, -1, 0, -1, 1])
    valid = labels >= 0
    logits = np.where(valid[:, None], LOGITS, np.inf).astype("float32")
    for options in ({}, {"ignore_class": 255}):
        given = np.where(valid, labels, options.get("ignore_class", -1))
        rows = numbers(make(reduction=None, **options)(given, logits))
        assert np.all(rows[~valid] == 0)
        assert np.all(rows[valid] >= 0) and rows.sum() > 0
        for reduction in ("mean", "sum_over_batch_size", "mean_with_sample_weight"):
            loss = make(reduction=reduction, **options)
            np.testing.assert_allclose(float(loss(given, logits)), rows[valid].mean(), rtol=1e-5)
        np.testing.assert_allclose(float(make(reduction="sum", **options)(given, logits)), rows.sum(), rtol=1e-5)
        weight = np.arange(6, dtype="float32")
        np.testing.assert_allclose(
            float(make(**options)(given, logits, sample_weight=weight)),
            (rows * weight)[valid].sum() / 4,
            rtol=1e-5,
        )
    loss = make()
    _, (gradient,) = value_and_gradient(lambda z: loss(labels, z), logits)
    assert np.all(gradient[~valid] == 0) and np.all(np.isfinite(gradient))
    assert float(make()(np.full(6, -1), LOGITS)) == 0


@INHERITED_FIXED
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_sample_weights_stay_as_they_were_given(make, dtype):
    """Keras multiplies them by the mask of ignored samples in place, where the backend can."""
    labels, weight = np.array([0, 3, -1, 0, -1, 1]), np.array([1, 0.5, 2, 0.25, 3, 1], dtype)
    for reduction in ("sum_over_batch_size", "mean_with_sample_weight", "sum", None):
        loss = make(reduction=reduction, dtype=dtype)
        for made in (weight.copy(), ops.convert_to_tensor(weight)):
            first, second = (numbers(loss(labels, LOGITS, sample_weight=made)) for _ in range(2))
            np.testing.assert_array_equal(numbers(made), weight)
            np.testing.assert_array_equal(first, second)


@INHERITED_FIXED
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_a_gradient_reaches_the_sample_weights(make, dtype):
    labels, weight = np.array([0, 3, -1, 0, -1, 1]), np.array([1, 0.5, 2, 0.25, 3, 1], dtype)
    loss = make(dtype=dtype)
    _, (gradient,) = value_and_gradient(lambda w: loss(labels, LOGITS, sample_weight=w), weight)
    np.testing.assert_allclose(gradient, numbers(make(reduction=None, dtype=dtype)(labels, LOGITS)) / 4, rtol=1e-5)


@INHERITED_FIXED
def test_a_mask_of_the_logits_and_ignored_labels_count_together(make):
    layer = keras.layers.Masking()
    x = np.ones((1, 6, 4), "float32") * np.array([1, 1, 1, 0, 0, 1], "float32")[None, :, None]
    labels = np.array([[0, 3, -1, 0, -1, 1]])
    masked = layer(x)
    rows = numbers(make(reduction=None)(labels, x))[0]
    assert float(make()(labels, masked)) == pytest.approx(rows[[0, 1, 5]].mean(), rel=1e-5)


@INHERITED_FIXED
def test_label_layouts_agree(make):
    loss = make(reduction=None)
    want = numbers(loss(LABELS, LOGITS))
    one_hot = np.eye(4, dtype="float32")[LABELS]
    for targets, logits in (
        (LABELS[:, None], LOGITS),
        (LABELS.astype("uint8"), LOGITS),
        (LABELS.astype("float32"), LOGITS),
        (one_hot, LOGITS),
        (one_hot.astype("int32"), LOGITS),
        (LABELS.reshape(2, 3), LOGITS.reshape(2, 3, 4)),
        (LABELS.reshape(2, 3, 1), LOGITS.reshape(2, 3, 4)),
        (LABELS.tolist(), LOGITS.tolist()),
    ):
        np.testing.assert_allclose(numbers(loss(targets, logits)).reshape(-1), want, rtol=1e-6)


@INHERITED_FIXED
def test_half_precision_is_computed_in_float32(make):
    want = float(make()(LABELS, LOGITS.astype("float16")))
    for dtype in ("float16", "bfloat16", "mixed_float16", "mixed_bfloat16"):
        loss = make(dtype=dtype)
        value = loss(LABELS, ops.cast(ops.convert_to_tensor(LOGITS.astype("float16")), "float16"))
        assert keras.backend.standardize_dtype(value.dtype) == "float32"
        assert float(value) == pytest.approx(want, rel=1e-6)


def test_labels_survive_a_half_precision_dtype():
    # In bfloat16, 257 would be 256.
    logits = np.zeros((1, 300), "float32")
    logits[0, 257] = 5
    counts = [1] * 300
    want = float(BalancedSoftmaxCrossentropy(counts)([257], logits))
    assert float(BalancedSoftmaxCrossentropy(counts, dtype="bfloat16")([257], logits)) == pytest.approx(want)
    assert want < 2


@EVERY_FIXED
def test_float64_is_kept(make):
    value = make(dtype="float64", reduction=None)(LABELS, LOGITS.astype("float64"))
    if keras.backend.backend() != "jax":  # JAX has no float64 unless it is told to
        assert keras.backend.standardize_dtype(value.dtype) == "float64"
    np.testing.assert_allclose(numbers(value), numbers(make(reduction=None)(LABELS, LOGITS)), rtol=1e-5, atol=1e-6)


@EVERY
def test_config_goes_round(make):
    loss = make(reduction="sum", ignore_class=None, name="mine")
    config = loss.get_config()
    again = type(loss).from_config(config)
    assert again.get_config() == config
    restored = keras.losses.deserialize(keras.losses.serialize(loss))
    assert type(restored) is type(loss)
    assert restored.get_config() == config
    assert float(restored(LABELS, LOGITS)) == float(loss(LABELS, LOGITS))


def test_every_public_class_is_covered_here():
    public = {name for name in keras_apa.losses.__all__ if isinstance(getattr(keras_apa.losses, name), type)}
    assert public == {type(make()).__name__ for make in LOSSES.values()}


@EVERY
@pytest.mark.parametrize("label", [4.5, -2, 7, float("nan")])
def test_labels_that_do_not_exist_are_errors_in_eager_calls(make, label):
    labels = LABELS.astype("float32")
    labels[1] = label
    with pytest.raises(ValueError, match=r"y_true must be labels from 0 to 3.*; given: (4.5|-2|7|nan)\."):
        make()(labels, LOGITS)


@pytest.mark.slow if keras.backend.backend() == "torch" else (lambda test: test)
def test_labels_that_do_not_exist_are_nan_or_an_error_in_a_compiled_step():
    # All losses in one program: each torch compilation takes long, and of all of them minutes.
    some = ("balanced_softmax", "balanced_sigmoid", "gumbel", "seesaw")
    losses = [make() for name, make in LOSSES.items() if keras.backend.backend() != "torch" or name in some]
    assert len(losses) >= 4
    for loss in losses:
        # Losses with state refuse to be compiled without a model; here only their formula is of interest.
        loss.check_state = lambda: None
    step = compiled(lambda y, z: ops.stack([loss(y, z) for loss in losses]))
    labels = LABELS.copy()
    labels[1] = 7
    if keras.backend.backend() == "torch":
        with pytest.raises(RuntimeError, match="y_true must be labels from 0 to 3"):
            step(labels, LOGITS)
    elif keras.backend.backend() == "jax":
        with pytest.warns(UserWarning, match="y_true must be labels from 0 to 3.*given: 7.*NaN"):
            assert np.all(np.isnan(step(labels, LOGITS)))
    else:  # XLA on TensorFlow, with no function of Keras around
        assert np.all(np.isnan(step(labels, LOGITS)))
    fine = step(LABELS, LOGITS)
    assert np.all(np.isfinite(fine)) and np.all(fine > 0)


def compiled(fn):
    """`fn` traced without values, as in a compiled step."""
    backend = keras.backend.backend()
    if backend == "jax":
        import jax

        def traced(*tensors):
            with keras.StatelessScope():
                return fn(*tensors)

        program = jax.jit(traced)
    elif backend == "tensorflow":
        import tensorflow as tf

        program = tf.function(fn, jit_compile=True)
    else:
        import torch

        torch.compiler.reset()
        # The graph is captured but not turned into C++: that takes a minute.
        program = torch.compile(fn, backend="eager")
    return lambda *arrays: numbers(program(*[ops.convert_to_tensor(array) for array in arrays]))


@EVERY
def test_shapes_that_do_not_fit_are_errors(make):
    for y_true, y_pred, message in (
        (LABELS, LOGITS[:, :3], "y_pred"),
        (np.zeros((6, 3)), LOGITS, "y_true.*4 classes"),
        (np.zeros((6, 5)), LOGITS, "y_true"),
        (LABELS[:4], LOGITS, "y_true must hold the samples of y_pred"),
        (np.zeros((2, 3, 4)), LOGITS, "y_true"),
        (0, LOGITS, "y_true"),
    ):
        if isinstance(make(), GumbelCrossentropy) and message == "y_pred":
            continue  # it has no other source for the number of classes than the logits
        with pytest.raises(ValueError, match=message):
            make()(y_true, y_pred)


@pytest.mark.parametrize("as_given", [list, np.array, lambda names: np.array(names, "O")], ids=["list", "U", "O"])
def test_class_names_are_an_error_that_names_y_true(as_given):
    names = as_given(["cat", "dog", "emu", "cat", "dog", "owl"])
    with pytest.raises(ValueError, match=r"y_true must be integer labels .*given: (class names such as .cat.|dtype)"):
        losses.ldam(names, LOGITS, COUNTS)


@EVERY
def test_dense_targets_outside_0_and_1_are_errors(make):
    for bad in (-1.0, 2.0, float("nan")):
        targets = np.eye(4, dtype="float32")[LABELS]
        targets[2, 1] = bad
        with pytest.raises(ValueError, match="y_true"):
            make()(targets, LOGITS)


@pytest.mark.parametrize(
    "make",
    [make for name, make in LOSSES.items() if name in ("balanced_sigmoid", "gumbel", "eql", "federated")],
    ids=["balanced_sigmoid", "gumbel", "eql", "federated"],
)
def test_background_is_a_label_only_where_asked_for(make):
    with pytest.raises(ValueError, match="labels from 0 to 3"):
        make()([4, 0], LOGITS[:2])
    rows = numbers(make(background=True, reduction=None)([4, 0], LOGITS[:2]))
    assert np.all(rows > 0)
    multi_hot = np.array([[0, 0, 0, 0], [1, 0, 0, 0]], "float32")
    np.testing.assert_allclose(rows, numbers(make(background=True, reduction=None)(multi_hot, LOGITS[:2])))


@pytest.mark.parametrize(
    "name", ["balanced_softmax", "balanced_sigmoid", "gumbel", "class_balanced", "class_balanced_focal"]
)
def test_soft_targets_mix_and_label_smoothing_is_one_of_them(name):
    make = LOSSES[name]
    one_hot = np.eye(4, dtype="float32")[LABELS]
    if not name.startswith("class_balanced"):  # there the weight stays that of the hard label
        smooth = 0.9 * one_hot + 0.1 / 4
        np.testing.assert_allclose(
            float(make(label_smoothing=0.1)(LABELS, LOGITS)), float(make()(smooth, LOGITS)), rtol=1e-5
        )
        # Linear in the targets.
        mixed = make(reduction=None)(0.3 * one_hot + 0.7 * one_hot[::-1], LOGITS)
        parts = 0.3 * numbers(make(reduction=None)(one_hot, LOGITS))
        parts += 0.7 * numbers(make(reduction=None)(one_hot[::-1], LOGITS))
        np.testing.assert_allclose(numbers(mixed), parts, rtol=1e-5)
    else:
        assert float(make(label_smoothing=0.1)(LABELS, LOGITS)) != float(make()(LABELS, LOGITS))


@pytest.mark.parametrize("name", ["balanced_sigmoid", "gumbel", "drop", "gol", "eql", "federated"])
def test_per_class_losses_sum_over_classes_unless_told_otherwise(name):
    total = float(LOSSES[name]()(LABELS, LOGITS))
    assert float(LOSSES[name](class_reduction="mean")(LABELS, LOGITS)) == pytest.approx(total / 4, rel=1e-6)
    with pytest.raises(ValueError, match="class_reduction"):
        LOSSES[name](class_reduction="max")


@settings(max_examples=EXAMPLES, deadline=None)
@given(
    st.lists(st.sampled_from([0.0, 1.0, -3.0, 20.0, -20.0, 100.0, -100.0, 1e4, -1e4]), min_size=12, max_size=12),
    st.lists(st.integers(-1, 3), min_size=3, max_size=3),
    st.sampled_from(["float32", "float16", "bfloat16"]),
)
@EVERY
def test_extreme_logits_give_finite_losses_and_gradients(make, logits, labels, dtype):
    loss = make(reduction="sum")
    logits = np.array(logits, "float32").reshape(3, 4)
    value, (gradient,) = value_and_gradient(lambda z: loss(labels, ops.cast(z, dtype)), logits)
    assert np.isfinite(value) and value >= 0
    assert np.all(np.isfinite(gradient))


@EVERY
@pytest.mark.parametrize("rows", ["one", "all but the target"])
def test_a_class_ruled_out_by_a_logit_of_minus_infinity_is_the_limit(make, rows):
    """Detectors and masked classifiers write -inf; -1e4 underflows to the same probability."""
    target = np.eye(4, dtype=bool)[LABELS]
    out = ~target if rows != "one" else np.roll(target, 1, axis=-1)
    low, ruled_out = (np.where(out, logit, LOGITS).astype("float32") for logit in (-1e4, -np.inf))
    want, (limit,) = value_and_gradient(lambda z: make()(LABELS, z), low)
    value, (gradient,) = value_and_gradient(lambda z: make()(LABELS, z), ruled_out)
    assert np.isfinite(want) and np.all(np.isfinite(limit))
    np.testing.assert_allclose(value, want, rtol=1e-6)
    np.testing.assert_allclose(gradient, limit, rtol=1e-6, atol=1e-8)


def test_background_ruled_out_is_the_limit_with_objectness():
    logits = np.concatenate([LOGITS, np.tile([[0.5, -np.inf]], (6, 1))], axis=-1).astype("float32")
    loss = SeesawLoss(class_counts=COUNTS, objectness=True)
    value, (gradient,) = value_and_gradient(lambda z: loss(LABELS, z), logits)
    assert float(value) == pytest.approx(float(SeesawLoss(class_counts=COUNTS)(LABELS, LOGITS)), rel=1e-6)
    assert np.all(np.isfinite(gradient))


def test_a_target_ruled_out_costs_infinitely_much_and_not_nan():
    logits = np.where(np.eye(4, dtype=bool)[LABELS], -np.inf, LOGITS).astype("float32")
    for name in ("balanced_softmax", "balanced_sigmoid", "eql", "eql_softmax", "class_balanced", "ldam"):
        assert float(LOSSES[name]()(LABELS, logits)) == np.inf, name


@pytest.mark.parametrize("dtype", ["int8", "uint8", "int64", "float32"])
def test_seed_and_labels_of_any_dtype(dtype):
    first, second = LOSSES["drop"](), LOSSES["drop"]()
    labels = np.array([4, 0, 3, 4, 1, 2]).astype(dtype)
    for _ in range(3):
        assert float(first(labels, LOGITS)) == float(second(labels, LOGITS))


def test_unknown_reduction_is_an_error():
    with pytest.raises(ValueError, match="reduction"):
        LDAM(COUNTS, reduction="max")


COUNTED = ([0], [[0.0, 0.0]], [60, 40])


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: losses.drop_loss(*COUNTED, 100, 0.1, activation="gumble"), "activation must be one of"),
        (lambda: losses.equalization_loss(*COUNTED, 100, 0.1, activation="softmax"), "activation must be one of"),
        (lambda: losses.federated_loss(*COUNTED, activation="x"), "activation must be one of"),
        (lambda: losses.gumbel_crossentropy(*COUNTED[:2], logit_range=(10, -10)), "logit_range must be two finite"),
        (lambda: losses.gumbel_crossentropy(*COUNTED[:2], background=True, ignore_class=2), "ignore_class must not be"),
        (lambda: losses.balanced_softmax_crossentropy(*COUNTED, label_smoothing=2.0), "label_smoothing must be"),
    ],
)
def test_functions_check_their_arguments_as_the_classes_do(call, message):
    with pytest.raises(ValueError, match=message):
        call()
