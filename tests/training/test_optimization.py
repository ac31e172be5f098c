import keras
import numpy as np
import pytest

from training.optimization import WarmupCosine, build_optimizer
from training.recipe import OptimizerOptions


def test_schedule_is_the_formula():
    peak, total, warmup = 0.3, 50, 7
    schedule = WarmupCosine(peak, total, warmup)
    for step in range(total + 3):
        if step < warmup:
            expected = peak * (step + 1) / warmup
        else:
            expected = peak / 2 * (1 + np.cos(np.pi * min(step - warmup, total - warmup) / (total - warmup)))
        # float32 cosine of an argument up to pi: some 1e-7 of the peak.
        assert float(schedule(step)) == pytest.approx(expected, abs=1e-6 * peak)


def test_schedule_survives_its_config():
    schedule = WarmupCosine(0.1, 10, 2)
    restored = keras.optimizers.schedules.deserialize(keras.optimizers.schedules.serialize(schedule))
    assert restored.get_config() == schedule.get_config()


def test_warmup_has_to_be_shorter_than_the_training():
    with pytest.raises(ValueError, match="warmup_epochs must be less than epochs"):
        build_optimizer(OptimizerOptions(warmup_epochs=2), epochs=2, steps_per_epoch=5)
    with pytest.raises(ValueError, match="warmup_steps"):
        WarmupCosine(0.1, 10, 10)


@pytest.mark.parametrize("name, expected", [("sgd", keras.optimizers.SGD), ("adamw", keras.optimizers.AdamW)])
def test_optimizer_has_the_settings(name, expected):
    options = OptimizerOptions(name=name, learning_rate=0.02, momentum=0.8, weight_decay=0.01)
    optimizer = build_optimizer(options, epochs=2, steps_per_epoch=5)
    assert isinstance(optimizer, expected)
    assert optimizer.weight_decay == 0.01
    assert (optimizer.momentum if name == "sgd" else optimizer.beta_1) == 0.8
    assert float(optimizer.learning_rate) == pytest.approx(0.02, rel=1e-6)
