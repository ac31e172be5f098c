import json

import keras
import numpy as np
import pytest
from keras import ops

from keras_apa import no_weight_decay
from training.config.classification import Recipe
from training.config.experiment import OptimizerOptions
from training.engine.optimizers import EpochCosine, MultiStep, TorchSGD, WarmupCosine, build_optimizer

SHAPES = {"kernel": (5, 3), "bias": (3,), "kappa": ()}
EXCLUDED = ("kappa",)
STEPS = 12


def start_and_gradients(scale=1.0):
    generator = np.random.default_rng(0)
    start = {name: generator.normal(size=shape).astype("float32") for name, shape in SHAPES.items()}
    gradients = [
        {name: (scale * generator.normal(size=shape)).astype("float32") for name, shape in SHAPES.items()}
        for _ in range(STEPS)
    ]
    return start, gradients


def variables_of(start):
    return [keras.Variable(value, name=name) for name, value in start.items()]


def torch_rule(start, gradients, rates, momentum, nesterov, weight_decay):
    """PyTorch's rule in double precision, with the weights after each step."""
    weights = {name: value.astype("float64") for name, value in start.items()}
    buffers = {}
    for step, rate in zip(gradients, rates, strict=True):
        for name in weights:
            g = step[name].astype("float64") + (0.0 if name in EXCLUDED else weight_decay) * weights[name]
            if momentum:
                buffers[name] = momentum * buffers[name] + g if name in buffers else g
                g = g + momentum * buffers[name] if nesterov else buffers[name]
            weights[name] = weights[name] - rate * g
        yield dict(weights)


def apply(optimizer, gradients, variables):
    optimizer.apply([ops.convert_to_tensor(gradients[variable.name]) for variable in variables], variables)


def assert_weights(variables, expected, tolerance=2e-6):
    # Float32 against float64 over a dozen steps of weights around 1: some 1e-7 each.
    for variable in variables:
        np.testing.assert_allclose(
            ops.convert_to_numpy(variable.value), expected[variable.name], rtol=tolerance, atol=tolerance
        )


@pytest.mark.parametrize("momentum, nesterov", [(0.0, False), (0.9, False), (0.9, True)])
@pytest.mark.parametrize("weight_decay", [0.0, 0.05])
@pytest.mark.every_backend
@pytest.mark.smoke
def test_each_step_is_pytorchs_while_the_learning_rate_changes(momentum, nesterov, weight_decay):
    start, gradients = start_and_gradients()
    schedule = EpochCosine(0.3, epochs=6, steps_per_epoch=2, warmup_epochs=2)
    rates = [0.003, 0.003, 0.1515, 0.1515, *np.repeat(0.15 * (1 + np.cos(np.pi * np.arange(4) / 4)), 2)]
    variables = variables_of(start)
    optimizer = TorchSGD(schedule, momentum, nesterov, weight_decay)
    optimizer.exclude_from_weight_decay(var_names=list(EXCLUDED))
    expected = torch_rule(start, gradients, rates, momentum, nesterov, weight_decay)
    for step, weights in zip(gradients, expected, strict=True):
        apply(optimizer, step, variables)
        assert_weights(variables, weights)


@pytest.mark.skipif(keras.backend.backend() != "torch", reason="torch.optim needs the torch backend's tensors")
@pytest.mark.parametrize("momentum, nesterov", [(0.0, False), (0.9, False), (0.9, True)])
@pytest.mark.parametrize("clip_norm", [None, 1.0])
def test_each_step_is_that_of_torch_optim(momentum, nesterov, clip_norm):
    import torch

    start, gradients = start_and_gradients()
    rates = [0.3 / (1 + step) for step in range(STEPS)]
    tensors = {name: torch.nn.Parameter(torch.tensor(value)) for name, value in start.items()}
    reference = torch.optim.SGD(
        [
            {"params": [tensors[name] for name in SHAPES if name not in EXCLUDED], "weight_decay": 0.05},
            {"params": [tensors[name] for name in EXCLUDED], "weight_decay": 0.0},
        ],
        lr=1.0,
        momentum=momentum,
        nesterov=nesterov,
    )
    variables = variables_of(start)
    optimizer = TorchSGD(1.0, momentum, nesterov, 0.05, global_clipnorm=clip_norm)
    optimizer.exclude_from_weight_decay(var_list=[each for each in variables if each.name in EXCLUDED])
    for step, rate in zip(gradients, rates, strict=True):
        for name, tensor in tensors.items():
            tensor.grad = torch.tensor(step[name])
        if clip_norm:
            torch.nn.utils.clip_grad_norm_(tensors.values(), clip_norm)
        for group in reference.param_groups:
            group["lr"] = rate
        reference.step()
        optimizer.learning_rate = rate
        apply(optimizer, step, variables)
        # The clipping of PyTorch divides by the norm + 1e-6.
        assert_weights(variables, {name: tensor.detach().numpy() for name, tensor in tensors.items()}, 5e-6)


def test_the_gradient_is_clipped_before_weight_decay_is_added():
    start, gradients = start_and_gradients(scale=100.0)
    clipped = []
    for step in gradients:
        norm = np.sqrt(sum(np.sum(np.square(value, dtype="float64")) for value in step.values()))
        clipped.append({name: value * min(1.0, 2.0 / norm) for name, value in step.items()})
    variables = variables_of(start)
    optimizer = TorchSGD(0.1, 0.9, weight_decay=0.5, global_clipnorm=2.0)
    optimizer.exclude_from_weight_decay(var_names=list(EXCLUDED))
    for step, weights in zip(gradients, torch_rule(start, clipped, [0.1] * STEPS, 0.9, False, 0.5), strict=True):
        apply(optimizer, step, variables)
        assert_weights(variables, weights)


@pytest.mark.every_backend
def test_accumulated_batches_are_one_step_of_their_mean():
    start, gradients = start_and_gradients()
    schedule = MultiStep(0.3, milestones=(2,), steps_per_epoch=3)
    means = [
        {name: np.mean([each[name] for each in gradients[index : index + 3]], axis=0) for name in SHAPES}
        for index in range(0, STEPS, 3)
    ]
    expected = list(torch_rule(start, means, [0.3, 0.3, 0.03, 0.03], 0.9, False, 0.05))
    variables = variables_of(start)
    optimizer = TorchSGD(schedule, 0.9, weight_decay=0.05, gradient_accumulation_steps=3)
    optimizer.exclude_from_weight_decay(var_names=list(EXCLUDED))
    for index, step in enumerate(gradients):
        apply(optimizer, step, variables)
        assert_weights(variables, expected[(index + 1) // 3 - 1] if index >= 2 else start)


def test_schedules_count_batches_under_accumulation():
    options = OptimizerOptions(schedule="multistep", milestones=(1,), accumulation_steps=4)
    optimizer = build_optimizer(options, epochs=2, steps_per_epoch=8)
    variable = keras.Variable([1.0])
    rates = []
    for _ in range(16):
        rates.append(float(optimizer.learning_rate))
        optimizer.apply([ops.ones(1)], [variable])
    np.testing.assert_allclose(rates, [0.1] * 8 + [0.01] * 8, rtol=1e-6)


@pytest.mark.parametrize("name", ["sgd", "adamw"])
def test_average_of_the_weights_does_not_depend_on_accumulation(name):
    _, gradients = start_and_gradients()
    averages = []
    for repeats in (1, 2):
        options = OptimizerOptions(name=name, schedule="constant", ema_momentum=0.7, accumulation_steps=repeats)
        variable = keras.Variable(np.ones((5, 3), "float32"), name="kernel")
        optimizer = build_optimizer(options, epochs=1, steps_per_epoch=1)
        for step in gradients[:3]:
            for _ in range(repeats):
                apply(optimizer, step, [variable])
        # Keras moves the average at every batch, so that of an update is complete before the next update.
        for _ in range(repeats - 1):
            apply(optimizer, gradients[0], [variable])
        optimizer.finalize_variable_values([variable])
        averages.append(ops.convert_to_numpy(variable.value))
    np.testing.assert_allclose(averages[0], averages[1], rtol=2e-6)


def small_model(dtype=None):
    keras.utils.set_random_seed(3)
    model = keras.Sequential(
        [
            keras.Input((4,)),
            keras.layers.Dense(8, activation="tanh", dtype=dtype),
            keras.layers.BatchNormalization(dtype=dtype),
            keras.layers.Dense(1, dtype=dtype),
        ]
    )
    generator = np.random.default_rng(1)
    return model, generator.normal(size=(32, 4)).astype("float32"), generator.normal(size=(32, 1)).astype("float32")


def fit_weights(optimizer, exclude=False, dtype=None, epochs=2, **compile_options):
    model, x, y = small_model(dtype)
    model.compile(optimizer, "mse", **compile_options)
    if exclude:
        assert no_weight_decay(model.optimizer, model, norms=True, biases=True)
    model.fit(x, y, batch_size=8, epochs=epochs, shuffle=False, verbose=0)
    return model, np.concatenate([np.ravel(ops.convert_to_numpy(each.value)) for each in model.trainable_variables])


@pytest.mark.skipif(keras.backend.backend() == "torch", reason="PyTorch compiles for a minute")
@pytest.mark.every_backend
def test_compiled_and_eager_training_agree():
    weights = [
        fit_weights(TorchSGD(WarmupCosine(0.1, 4, 1), 0.9, weight_decay=0.1), epochs=1, **options)[1]
        for options in ({"jit_compile": True}, {"run_eagerly": True, "jit_compile": False})
    ]
    np.testing.assert_allclose(*weights, rtol=1e-5, atol=1e-6)


@pytest.mark.every_backend
def test_everything_at_once_trains_by_fit():
    optimizer = TorchSGD(
        EpochCosine(0.1, 2, 4), 0.9, True, 0.1, global_clipnorm=1.0, use_ema=True, gradient_accumulation_steps=2
    )
    model, weights = fit_weights(optimizer, exclude=True)
    assert np.all(np.isfinite(weights))
    assert int(ops.convert_to_numpy(optimizer.iterations)) == 4
    excluded = [each.name for each in model.trainable_variables if not optimizer._use_weight_decay(each)]
    assert excluded == ["bias", "gamma", "beta", "bias"]


def test_weight_decay_leaves_excluded_weights_alone():
    (_, without), (_, decayed) = (
        fit_weights(TorchSGD(0.01, weight_decay=decay), exclude=True) for decay in (None, 1e-9)
    )
    # A decay below rounding: the same arithmetic, so that only the bookkeeping is compared.
    np.testing.assert_allclose(without, decayed, rtol=1e-5, atol=1e-7)
    variable = keras.Variable([1.0], name="bias")
    optimizer = TorchSGD(0.1, 0.9, weight_decay=0.5)
    optimizer.exclude_from_weight_decay(var_list=[variable])
    optimizer.apply([ops.zeros(1)], [variable])
    assert float(ops.convert_to_numpy(variable.value)[0]) == 1.0


@pytest.mark.every_backend
def test_dynamic_loss_scale_changes_nothing_but_skips_overflow():
    start, gradients = start_and_gradients()
    variables = variables_of(start)
    inner = TorchSGD(0.1, 0.9, weight_decay=0.05)
    optimizer = keras.optimizers.LossScaleOptimizer(inner, initial_scale=1024.0)
    inner.exclude_from_weight_decay(var_names=list(EXCLUDED))
    expected = list(torch_rule(start, gradients, [0.1] * STEPS, 0.9, False, 0.05))
    optimizer.build(variables)
    if keras.backend.backend() == "jax":
        # What `fit` calls on JAX; LossScaleOptimizer.apply has no form for it outside.
        values, state = [each.value for each in variables], [each.value for each in optimizer.variables]
        for scale in (1024.0, np.inf, 512.0):
            step = gradients[0] if scale != 512.0 else gradients[1]
            scaled = [ops.convert_to_tensor(step[each.name] * np.float32(scale)) for each in variables]
            values, state = optimizer.stateless_apply(state, scaled, values)
        for variable, value in zip(variables, values, strict=True):
            variable.assign(value)
    else:
        for scale in (1024.0, np.inf, 512.0):
            step = gradients[0] if scale != 512.0 else gradients[1]
            apply(optimizer, {name: value * np.float32(scale) for name, value in step.items()}, variables)
    assert_weights(variables, expected[1])


@pytest.mark.every_backend
def test_mixed_float16_trains_by_fit():
    optimizer = TorchSGD(0.01, 0.9, weight_decay=0.1)
    model, weights = fit_weights(optimizer, exclude=True, dtype="mixed_float16")
    assert np.all(np.isfinite(weights))
    assert {each.dtype for each in model.trainable_variables} == {"float32"}


@pytest.mark.parametrize(
    "schedule",
    [
        0.2,
        WarmupCosine(0.1, 10, 2),
        EpochCosine(0.1, 5, 10, 2, 0.05),
        MultiStep(0.1, (2, 3), 10, 0.01, 3, 0.05),
    ],
    ids=["constant", "cosine", "epoch_cosine", "multistep"],
)
def test_optimizer_and_schedule_survive_their_config(schedule):
    optimizer = TorchSGD(schedule, 0.8, True, 0.01, use_ema=True, gradient_accumulation_steps=3, name="mine")
    config = json.loads(json.dumps(keras.optimizers.serialize(optimizer)))
    restored = keras.optimizers.deserialize(config)
    assert type(restored) is TorchSGD
    assert restored.get_config() == optimizer.get_config()
    assert (restored.momentum, restored.nesterov, restored.weight_decay) == (0.8, True, 0.01)


def test_model_with_optimizer_trains_on_from_its_file(tmp_path):
    model, _ = fit_weights(TorchSGD(MultiStep(0.1, (1,), 4), 0.9, weight_decay=0.1))
    model.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras")
    assert type(loaded.optimizer) is TorchSGD
    for one, other in zip(model.optimizer.variables, loaded.optimizer.variables, strict=True):
        np.testing.assert_array_equal(ops.convert_to_numpy(one.value), ops.convert_to_numpy(other.value))


@pytest.mark.parametrize(
    "settings, named",
    [
        ({"momentum": 1.0}, "momentum"),
        ({"momentum": -0.1}, "momentum"),
        ({"weight_decay": -1e-4}, "weight_decay"),
        ({"nesterov": True}, "nesterov must be False where momentum is 0"),
        ({"nesterov": 1}, "nesterov"),
        ({"dampening": 0.1}, "dampening"),
    ],
)
def test_bad_setting_of_the_optimizer_is_named(settings, named):
    with pytest.raises(ValueError, match=named):
        TorchSGD(0.1, **settings)


def test_step_cosine_is_the_formula_to_its_last_step():
    peak, total, warmup = 0.3, 50_000, 7
    schedule = WarmupCosine(peak, total, warmup)
    for step in (*range(10), 20_000, total - 2, total - 1, total, total + 3):
        if step < warmup:
            expected = peak * (step + 1) / warmup
        else:
            expected = peak * np.sin(np.pi / 2 * max(total - step, 0) / (total - warmup)) ** 2
        # Float32: 1e-7 of the value, not of the peak, also where it is 1e-10.
        assert float(schedule(step)) == pytest.approx(expected, rel=1e-6)


def test_epoch_cosine_is_that_of_the_authors():
    epochs, steps, warmup, peak = 500, 85, 5, 0.2
    schedule = EpochCosine(peak, epochs, steps, warmup)
    for epoch in (*range(8), 250, 498, 499):
        t = epoch - warmup
        if epoch < warmup:
            expected = peak * (0.01 + 0.99 * epoch / warmup)
        else:
            expected = peak * (1 + np.cos(np.pi * t / (epochs - warmup))) / 2
        for step in (epoch * steps, epoch * steps + steps - 1):
            assert float(schedule(step)) == pytest.approx(expected, rel=1e-6)
    # recipes/classification.md, section 2: lr 0.2, 500 epochs, no warm-up.
    assert float(EpochCosine(0.2, 500, 1)(499)) == pytest.approx(2.0e-6, rel=0.02)
    assert float(schedule(500 * steps + 1)) == float(schedule(500 * steps - 1))


def test_milestones_count_from_the_end_of_the_warmup():
    schedule = MultiStep(0.1, (200, 220), steps_per_epoch=2, gamma=0.01, warmup_epochs=3)
    by_epoch = [float(schedule(2 * epoch)) for epoch in range(230)]
    changes = [epoch for epoch in range(1, 230) if by_epoch[epoch] != by_epoch[epoch - 1]]
    assert changes == [1, 2, 3, 203, 223]
    np.testing.assert_allclose(by_epoch[:4], [0.001, 0.034, 0.067, 0.1], rtol=1e-6)
    np.testing.assert_allclose([by_epoch[203], by_epoch[223]], [1e-3, 1e-5], rtol=1e-6)


def test_warmup_has_to_be_shorter_than_the_training():
    with pytest.raises(ValueError, match="warmup_epochs must be less than epochs"):
        build_optimizer(OptimizerOptions(warmup_epochs=2), epochs=2, steps_per_epoch=5)
    with pytest.raises(ValueError, match="warmup_steps"):
        WarmupCosine(0.1, 10, 10)
    with pytest.raises(ValueError, match="warmup_epochs must be less"):
        EpochCosine(0.1, 3, 10, 3)


@pytest.mark.parametrize(
    "make, named",
    [
        (lambda: EpochCosine(0.1, 5, 10, 0.5), "warmup_epochs"),
        (lambda: EpochCosine(0.1, 5, 0), "steps_per_epoch"),
        (lambda: EpochCosine(0.0, 5, 10), "peak"),
        (lambda: EpochCosine(0.1, 5, 10, 2, 1.0), "warmup_start"),
        (lambda: MultiStep(0.1, (3, 2), 10), "milestones"),
        (lambda: MultiStep(0.1, (0,), 10), "milestones"),
        (lambda: MultiStep(0.1, (2,), 10, gamma=0.0), "gamma"),
        (lambda: WarmupCosine(0.1, 10, 0.5), "warmup_steps"),
        (lambda: OptimizerOptions(schedule="linear"), "optimizer.schedule"),
        (lambda: OptimizerOptions(schedule="epoch_cosine", warmup_epochs=0.5), "whole epochs"),
        (lambda: OptimizerOptions(schedule="multistep"), "milestones"),
        (lambda: OptimizerOptions(milestones=(3,)), "multistep"),
        (lambda: OptimizerOptions(schedule="multistep", milestones=(3, 3)), "milestones"),
        (lambda: OptimizerOptions(schedule="multistep", milestones=3), "milestones"),
        (lambda: OptimizerOptions(gamma=0.0), "gamma"),
        (lambda: OptimizerOptions(warmup_start=0.0), "warmup_start"),
        (lambda: OptimizerOptions(clip_norm=0.0), "clip_norm"),
        (lambda: OptimizerOptions(ema_momentum=1.0), "ema_momentum"),
        (lambda: OptimizerOptions(accumulation_steps=0), "accumulation_steps"),
        (lambda: OptimizerOptions(name="adamw", nesterov=True), "nesterov"),
        (lambda: OptimizerOptions(momentum=0.0, nesterov=True), "nesterov"),
    ],
)
def test_bad_schedule_is_named(make, named):
    with pytest.raises(ValueError, match=named):
        make()


@pytest.mark.parametrize("name, expected", [("sgd", TorchSGD), ("adamw", keras.optimizers.AdamW)])
def test_optimizer_has_the_settings(name, expected):
    options = OptimizerOptions(
        name=name,
        learning_rate=0.02,
        momentum=0.8,
        weight_decay=0.01,
        clip_norm=2.0,
        ema_momentum=0.81,
        accumulation_steps=2,
    )
    optimizer = build_optimizer(options, epochs=2, steps_per_epoch=5)
    assert isinstance(optimizer, expected)
    assert optimizer.weight_decay == 0.01
    assert (optimizer.momentum if name == "sgd" else optimizer.beta_1) == 0.8
    assert (optimizer.global_clipnorm, optimizer.gradient_accumulation_steps) == (2.0, 2)
    assert optimizer.ema_momentum == pytest.approx(0.9)
    assert float(optimizer.learning_rate) == pytest.approx(0.02, rel=1e-6)


@pytest.mark.parametrize(
    "options, expected",
    [
        (OptimizerOptions(warmup_epochs=0.5), WarmupCosine(0.1, 50, 5)),
        (OptimizerOptions(schedule="epoch_cosine", warmup_epochs=1.0), EpochCosine(0.1, 5, 10, 1)),
        (
            OptimizerOptions(schedule="multistep", milestones=(2,), gamma=0.5, warmup_epochs=1, warmup_start=0.2),
            MultiStep(0.1, (2,), 10, 0.5, 1, 0.2),
        ),
        (OptimizerOptions(schedule="constant", warmup_epochs=2), MultiStep(0.1, (), 10, 0.1, 2)),
    ],
)
def test_options_make_the_schedule(options, expected):
    schedule = build_optimizer(options, epochs=5, steps_per_epoch=10)._learning_rate
    assert type(schedule) is type(expected)
    assert schedule.get_config() == expected.get_config()


def test_constant_rate_without_warmup_can_be_set_by_a_callback():
    optimizer = build_optimizer(OptimizerOptions(schedule="constant"), epochs=5, steps_per_epoch=10)
    optimizer.learning_rate = 0.05
    assert float(optimizer.learning_rate) == pytest.approx(0.05)


def test_milestones_survive_json():
    recipe = Recipe(name="a", optimizer=OptimizerOptions(schedule="multistep", milestones=[2, 4]))
    assert recipe.optimizer.milestones == (2, 4)
    assert Recipe.from_dict(json.loads(json.dumps(recipe.to_dict()))) == recipe
