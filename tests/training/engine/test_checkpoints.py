import errno
import json
import os
import pathlib
import resource
import shutil
import signal
import sys

import keras
import numpy as np
import pytest
from backends import CURRENT, environment
from keras import ops
from warm import run_warm

from keras_apa.losses import SeesawLoss, attach_loss_state
from training.engine import checkpoints as checkpoint
from training.engine.callbacks import StopOnNaN
from training.engine.checkpoints import Checkpoints, NotFiniteError
from training.engine.optimizers import TorchSGD
from training.engine.resume import CheckpointCallback, ContinueEpoch, saving_on_interrupt

SCRIPT = pathlib.Path(__file__).with_name("resumable.py")
STEPS = 4


def data(batches=STEPS):
    generator = np.random.default_rng(0)
    return generator.normal(size=(8 * batches, 3)).astype("float32"), generator.integers(0, 2, 8 * batches)


def small_model(units=4, extra_layer=False, optimizer=None, dtype=None):
    layers = [keras.Input((3,)), keras.layers.Dense(units, dtype=dtype), keras.layers.BatchNormalization()]
    layers += [keras.layers.Dropout(0.5), keras.layers.Dense(2)] + [keras.layers.Dense(2)] * extra_layer
    model = keras.Sequential(layers)
    loss = attach_loss_state(model, SeesawLoss(num_classes=2))
    model.compile(optimizer or TorchSGD(0.1, 0.9, use_ema=True, gradient_accumulation_steps=2), loss)
    return model


def fit(model, epochs=1, callbacks=(), **options):
    x, y = data()
    return model.fit(x, y, batch_size=8, epochs=epochs, shuffle=False, verbose=0, callbacks=list(callbacks), **options)


def state_of(model):
    return [
        np.asarray(ops.convert_to_numpy(each.value)).astype("float64")
        for each in (*model.variables, *model.optimizer.variables)
    ]


def assert_same_state(one, other):
    for a, b in zip(one, other, strict=True):
        np.testing.assert_array_equal(a, b)


def poison(model):
    kernel = model.trainable_variables[0]
    kernel.assign(ops.full(kernel.shape, np.inf))


@pytest.fixture(scope="module")
def trained():
    keras.utils.set_random_seed(1)
    model = small_model()
    fit(model)
    return model


def trained_elsewhere(*arguments, code=0):
    """Runs `resumable.py`; what it printed, and its errors."""
    env = environment(CURRENT, OMP_NUM_THREADS="1", PYTHONPATH=os.pathsep.join(filter(None, sys.path)))
    program = "import runpy, sys; runpy.run_path(sys.argv.pop(1), run_name='__main__')"
    result = run_warm(program, SCRIPT, *arguments, env=env)
    assert result.returncode == code, result.stderr
    return result.stdout, result.stderr


@pytest.mark.every_backend
def test_killed_training_goes_on_to_the_weights_of_the_one_never_killed(tmp_path):
    output, _ = trained_elsewhere(tmp_path / "whole", tmp_path / "killed", "--kill-at", 17, code=-signal.SIGKILL)
    assert output == "from step 0\n" * 2
    assert [path.name for path in Checkpoints(tmp_path / "killed" / "checkpoints").paths()] == [
        "step-0000000010.npz",
        "step-0000000014.npz",
    ]

    # The same once more with a newest checkpoint that is damaged.
    shutil.copytree(tmp_path / "killed", tmp_path / "damaged")
    newest = Checkpoints(tmp_path / "damaged" / "checkpoints").newest()
    newest.write_bytes(newest.read_bytes()[:-1000])
    output, errors = trained_elsewhere(tmp_path / "killed", tmp_path / "damaged")
    assert output == "from step 14\nfrom step 10\n"
    assert errors.count("is damaged") == 1
    assert f"{str(newest)!r} is damaged" in errors

    expected = np.load(tmp_path / "whole.npz")
    for name in ("killed", "damaged"):
        result = np.load(tmp_path / f"{name}.npz")
        assert set(result.files) == set(expected.files)
        for key in expected.files:
            # Bit for bit: on a CPU, all three backends compute the same step from the same state.
            np.testing.assert_array_equal(result[key], expected[key], err_msg=f"{name} {key}")
    history = json.loads(str(expected["history"]))
    assert [len(values) for values in history.values()] == [3] * 4


@pytest.mark.slow
@pytest.mark.any_backend
def test_training_killed_while_it_saves_goes_on_from_the_checkpoint_before(tmp_path):
    trained_elsewhere(tmp_path / "whole", tmp_path / "run", "--kill-while-saving", 20, code=-signal.SIGKILL)
    assert (tmp_path / "run" / "checkpoints" / ".step-0000000020.npz.partial").exists()
    output, errors = trained_elsewhere(tmp_path / "run")
    assert "from step 18" in output
    assert "damaged" not in errors
    expected, result = np.load(tmp_path / "whole.npz"), np.load(tmp_path / "run.npz")
    for key in expected.files:
        np.testing.assert_array_equal(result[key], expected[key], err_msg=key)
    assert not list((tmp_path / "run" / "checkpoints").glob(".*"))


@pytest.mark.every_backend
@pytest.mark.smoke
def test_everything_comes_back(trained, tmp_path):
    checkpoints = Checkpoints(tmp_path)
    extra = {"epoch": 1, "text": "ä", "nested": {"array": np.arange(3), "list": [1.5, None, float("inf"), np.ones(2)]}}
    checkpoints.save(trained, step=7, extra=extra)
    keras.utils.set_random_seed(2)
    model = small_model()
    state = checkpoints.load_latest(model)
    assert_same_state(state_of(model), state_of(trained))
    names = {each.path.rpartition("/")[2] for each in model.variables}
    assert {"seed_generator_state", "moving_mean"} <= names
    assert (state["step"], state["epoch"], state["text"]) == (7, 1, "ä")
    np.testing.assert_array_equal(state["nested"]["array"], np.arange(3))
    assert state["nested"]["list"][:3] == [1.5, None, np.inf]


@pytest.mark.every_backend
def test_loss_scale_and_small_float_types_come_back(tmp_path):
    models = []
    for seed in (1, 2):
        keras.utils.set_random_seed(seed)
        optimizer = keras.optimizers.LossScaleOptimizer(TorchSGD(0.1, 0.9), initial_scale=2.0**seed)
        models.append(small_model(optimizer=optimizer, dtype="bfloat16"))
    # TensorFlow's first step makes the optimizer's variables in a scope of the loss scale.
    fit(models[0])
    Checkpoints(tmp_path).save(models[0], step=4)
    Checkpoints(tmp_path).load_latest(models[1])
    assert_same_state(state_of(models[1]), state_of(models[0]))
    assert "bfloat16" in {each.dtype for each in models[1].variables}


def test_checkpoint_is_a_plain_npz(trained, tmp_path):
    path = Checkpoints(tmp_path).save(trained, step=1)
    with np.load(path) as stored:
        assert {"model/0", "optimizer/0", "description"} <= set(stored.files)


@pytest.mark.parametrize("damage", ["empty", "short", "first", "middle", "last"])
def test_damaged_checkpoint_is_named_and_the_one_before_is_used(damage, trained, tmp_path, capsys):
    checkpoints = Checkpoints(tmp_path)
    checkpoints.save(trained, step=1)
    path = checkpoints.save(trained, step=2)
    content = bytearray(path.read_bytes())
    if damage in ("empty", "short"):
        content = content[: 0 if damage == "empty" else len(content) // 2]
    else:
        content[{"first": 0, "middle": len(content) // 2, "last": -1}[damage]] ^= 1
    path.write_bytes(content)
    assert checkpoints.newest_good().name == "step-0000000001.npz"
    assert checkpoints.load_latest(small_model())["step"] == 1
    error = capsys.readouterr().err
    assert f"{str(path)!r} is damaged" in error and error.count("is damaged") == 1


def test_without_a_good_checkpoint_training_starts_anew_and_says_so(trained, tmp_path, capsys):
    checkpoints = Checkpoints(tmp_path)
    assert checkpoints.load_latest(trained) is None
    assert capsys.readouterr().err == ""
    checkpoints.save(trained, step=1).write_bytes(b"no checkpoint")
    before = state_of(trained)
    assert checkpoints.load_latest(trained) is None
    assert_same_state(before, state_of(trained))
    assert "training starts anew" in capsys.readouterr().err


def test_the_last_two_stay_and_later_ones_of_another_training_go(trained, tmp_path):
    checkpoints = Checkpoints(tmp_path)
    (tmp_path / ".step-0000000001.npz.partial").write_bytes(b"left by kill -9")
    (tmp_path / "notes.txt").write_text("mine")
    for step in (10, 20, 30):
        checkpoints.save(trained, step=step)
    assert [path.name for path in checkpoints.paths()] == ["step-0000000020.npz", "step-0000000030.npz"]
    checkpoints.save(trained, step=25)
    assert [path.name for path in checkpoints.paths()] == ["step-0000000020.npz", "step-0000000025.npz"]
    assert sorted(path.name for path in tmp_path.iterdir() if path not in checkpoints.paths()) == ["notes.txt"]
    with pytest.raises(ValueError, match="keep"):
        Checkpoints(tmp_path, keep=0)


@pytest.mark.parametrize("failure", ["write", "fsync", "replace"])
def test_full_disk_is_an_error_and_earlier_checkpoints_are_intact(failure, trained, tmp_path, monkeypatch):
    checkpoints = Checkpoints(tmp_path)
    earlier = checkpoints.save(trained, step=1)
    content = earlier.read_bytes()
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    try:
        if failure == "write":
            # The kernel refuses to write beyond this, as it does on a full disk.
            resource.setrlimit(resource.RLIMIT_FSIZE, (1000, limits[1]))
        else:

            def full(*arguments):
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

            monkeypatch.setattr(checkpoint.os, failure, full)
        with pytest.raises(OSError) as error:
            checkpoints.save(trained, step=2)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert error.value.errno == (errno.EFBIG if failure == "write" else errno.ENOSPC)
    assert str(earlier) in str(error.value)
    assert [path.name for path in tmp_path.iterdir()] == [earlier.name]
    assert earlier.read_bytes() == content


@pytest.mark.parametrize(
    "make, named",
    [
        (lambda: small_model(units=5), r"has 'sequential.*/dense.*/kernel' of shape \(3, 4\) where .* \(3, 5\)"),
        (lambda: small_model(extra_layer=True), "of another model: .*dense"),
        (lambda: small_model(optimizer=TorchSGD(0.1)), "of another optimizer: it has .* variables, this one has"),
        (lambda: small_model(optimizer=keras.optimizers.Adam(0.1)), "of another optimizer"),
    ],
)
def test_checkpoint_of_another_network_names_the_first_difference(make, named, trained, tmp_path):
    checkpoints = Checkpoints(tmp_path)
    checkpoints.save(trained, step=1)
    model = make()
    before = [ops.convert_to_numpy(each.value) for each in model.variables]
    with pytest.raises(ValueError, match=named):
        checkpoints.load_latest(model)
    assert_same_state(before, [ops.convert_to_numpy(each.value) for each in model.variables])


def test_model_has_to_be_compiled_and_built(tmp_path):
    with pytest.raises(ValueError, match="must be compiled; given: one without an optimizer"):
        Checkpoints(tmp_path).save(keras.Sequential([keras.Input((2,)), keras.layers.Dense(1)]), step=0)
    model = keras.Sequential([keras.layers.Dense(1)])
    model.compile("sgd", "mse")
    with pytest.raises(ValueError, match="must be built; given: one without weights"):
        Checkpoints(tmp_path).save(model, step=0)


@pytest.mark.parametrize("extra", [{"a": object()}, {"a": {1: 2}}, {"a": np.array([object()])}])
def test_what_cannot_be_stored_is_an_error(extra, trained, tmp_path):
    with pytest.raises(ValueError, match="extra"):
        Checkpoints(tmp_path).save(trained, step=0, extra=extra)


def test_names_that_the_checkpoint_has_itself_are_taken(tmp_path):
    save = CheckpointCallback(Checkpoints(tmp_path), steps_per_epoch=STEPS, extra=lambda: {"history": 1})
    with pytest.raises(ValueError, match="history"):
        fit(small_model(), callbacks=[save])


def test_history_and_extra_are_in_the_checkpoint(tmp_path):
    checkpoints = Checkpoints(tmp_path)
    save = CheckpointCallback(checkpoints, steps_per_epoch=STEPS, every_steps=3, extra=lambda: {"more": [1]})
    history = fit(small_model(), epochs=2, callbacks=[save]).history
    state = checkpoints.load_latest(small_model())
    assert state["history"] == save.history == {name: list(map(float, each)) for name, each in history.items()}
    assert (state["epoch"], state["step_in_epoch"], state["step"], state["more"]) == (2, 0, 8, [1])


@pytest.mark.every_backend
def test_state_that_is_not_finite_is_not_saved(tmp_path):
    class Poison(keras.callbacks.Callback):
        def on_train_batch_end(self, batch, logs=None):
            if batch == 2:
                if hasattr(self.model, "jax_state_sync"):
                    self.model.jax_state_sync()
                poison(self.model)

    checkpoints = Checkpoints(tmp_path)
    save = CheckpointCallback(checkpoints, steps_per_epoch=STEPS, every_steps=1)
    # The loss of the step is still a number; only the weights tell.
    with pytest.raises(NotFiniteError, match=r"kernel' is not finite at step 3 .*step-0000000002.npz"):
        fit(small_model(), callbacks=[Poison(), save])
    assert [path.name for path in checkpoints.paths()] == ["step-0000000001.npz", "step-0000000002.npz"]


@pytest.mark.parametrize(
    ("value", "guard_first"),
    [pytest.param(np.nan, True, marks=pytest.mark.every_backend), (np.nan, False), (np.inf, True), (np.inf, False)],
)
def test_bad_loss_stops_and_names_epoch_step_and_the_last_good_checkpoint(value, guard_first, tmp_path):
    checkpoints = Checkpoints(tmp_path)
    x, y = data()
    x[-8:] = value  # the last batch
    guard = StopOnNaN(checkpoints, {"step_in_epoch": 1})
    save = CheckpointCallback(checkpoints, steps_per_epoch=STEPS, every_steps=1)
    with pytest.raises(FloatingPointError) as error:
        small_model().fit(
            x,
            y,
            batch_size=8,
            shuffle=False,
            verbose=0,
            callbacks=[guard, save] if guard_first else [save, guard],
        )
    assert "in epoch 1 at batch 5;" in str(error.value)
    assert "step-0000000003.npz'" in str(error.value)
    assert checkpoints.newest().name == "step-0000000003.npz"


@pytest.mark.every_backend
def test_ctrl_c_saves_after_the_batch(tmp_path, capsys):
    class Press(keras.callbacks.Callback):
        def on_train_batch_begin(self, batch, logs=None):
            if batch == 1:
                signal.raise_signal(signal.SIGINT)

    checkpoints = Checkpoints(tmp_path)
    before = signal.getsignal(signal.SIGINT)
    save = CheckpointCallback(checkpoints, steps_per_epoch=STEPS)
    with pytest.raises(KeyboardInterrupt), saving_on_interrupt(save):
        fit(small_model(), callbacks=[Press(), save])
    assert signal.getsignal(signal.SIGINT) is before
    assert "saving after this batch" in capsys.readouterr().err
    state = checkpoints.load_latest(small_model())
    assert (state["epoch"], state["step_in_epoch"]) == (0, 2)
    with pytest.raises(KeyboardInterrupt), saving_on_interrupt(save):
        signal.raise_signal(signal.SIGINT)


def test_resumed_epoch_is_the_rest_of_the_interrupted_one(tmp_path):
    class Batches(keras.callbacks.Callback):
        def on_train_begin(self, logs=None):
            self.counts = []

        def on_epoch_begin(self, epoch, logs=None):
            self.counts.append(0)

        def on_train_batch_end(self, batch, logs=None):
            self.counts[-1] += 1

    # Without the average: Keras on JAX cannot `fit` a second time after it has taken the place of the weights.
    model, batches = small_model(optimizer=TorchSGD(0.1, 0.9)), Batches()
    x, y = data(1 + 2 * STEPS)
    callbacks = [ContinueEpoch(STEPS, {"epoch": 2, "step_in_epoch": 3}), batches]
    model.fit(x, y, 8, initial_epoch=2, epochs=5, steps_per_epoch=STEPS, shuffle=False, verbose=0, callbacks=callbacks)
    assert batches.counts == [1, 4, 4]

    class Stop(keras.callbacks.Callback):
        def on_epoch_end(self, epoch, logs=None):
            self.model.stop_training = True

    callbacks = [ContinueEpoch(STEPS, {"epoch": 2, "step_in_epoch": 3}), batches, Stop()]
    model.fit(x, y, 8, initial_epoch=2, epochs=5, steps_per_epoch=STEPS, shuffle=False, verbose=0, callbacks=callbacks)
    assert batches.counts == [1]


def test_checkpoint_of_longer_epochs_is_refused():
    with pytest.raises(ValueError, match="after 7 batches of an epoch; given: 4"):
        ContinueEpoch(4, {"step_in_epoch": 7})


def test_finished_training_started_again_ends_with_the_same_weights(tmp_path):
    checkpoints = Checkpoints(tmp_path)
    model = small_model()
    fit(model, callbacks=[CheckpointCallback(checkpoints, steps_per_epoch=STEPS)])
    again = small_model()
    state = checkpoints.load_latest(again)
    fit(again, epochs=1, initial_epoch=state["epoch"], callbacks=[ContinueEpoch(STEPS, state)])
    # The average of the weights has taken the place of the weights in both.
    assert_same_state(state_of(again), state_of(model))
