"""What the metrics are called in the logs, and that Keras's callbacks can tell that they rise."""

import warnings

import keras
import numpy as np
import pytest

from keras_apa.metrics import MeanClassAccuracy, ShotAccuracy

X = np.random.default_rng(0).normal(size=(60, 4)).astype("float32")
SPECIES, COLOUR = np.arange(60) % 3, np.arange(60) % 2
GROUPS = ("all", "few", "many", "medium")


def one_output(*metrics):
    model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(3)])
    model.compile("sgd", keras.losses.SparseCategoricalCrossentropy(from_logits=True), metrics=list(metrics))
    return model


def logs_of_two_outputs(**metrics):
    inputs = keras.Input((4,))
    outputs = {name: keras.layers.Dense(n, name=name)(inputs) for name, n in (("species", 3), ("colour", 2))}
    model = keras.Model(inputs, outputs)
    loss = {name: keras.losses.SparseCategoricalCrossentropy(from_logits=True) for name in outputs}
    model.compile("sgd", loss, metrics=metrics)
    targets = {"species": SPECIES, "colour": COLOUR}
    logs = model.evaluate(X, targets, verbose=0, return_dict=True)
    return {name for name in logs if "loss" not in name}


def test_the_entries_of_two_outputs_have_their_names():
    found = logs_of_two_outputs(species=[ShotAccuracy([200, 50, 5])], colour=[ShotAccuracy([200, 5])])
    assert found == {f"{output}_{group}" for output in ("species", "colour") for group in GROUPS}


@pytest.mark.any_backend
def test_the_entries_of_one_metric_are_called_as_ever_and_those_with_a_prefix_too():
    assert logs_of_two_outputs(species=[ShotAccuracy([200, 50, 5]), "accuracy"]) == {*GROUPS, "species_accuracy"}
    found = logs_of_two_outputs(species=[ShotAccuracy([200, 50, 5], prefix="a_")], colour=[ShotAccuracy([200, 5])])
    assert found == {f"{prefix}{group}" for prefix in ("a_", "") for group in GROUPS}


@pytest.mark.any_backend
def test_two_metrics_of_one_output_are_told_apart_by_name_or_number():
    strict = ShotAccuracy([200, 50, 5], many_threshold=150, name="strict")
    for second, names in ((strict, ("shot_accuracy", "strict")), (ShotAccuracy([9, 5, 200]), "01")):
        model = one_output(ShotAccuracy([200, 50, 5]), second)
        logs = model.evaluate(X, SPECIES, verbose=0, return_dict=True)
        prefixes = names if second is strict else [f"shot_accuracy_{number}" for number in names]
        assert set(logs) - {"loss"} == {f"{prefix}_{group}" for prefix in prefixes for group in GROUPS}


@pytest.mark.any_backend
def test_the_number_of_a_group_is_not_overwritten_by_the_entry_of_another_metric():
    counts = [200, 50, 30]
    for one in (ShotAccuracy(counts, few_threshold=40, group="few"), keras.metrics.SparseCategoricalAccuracy("all")):
        whole = ShotAccuracy([200, 50, 5])
        for metrics in ((whole, one), (one, whole)):
            logs = one_output(*metrics).evaluate(X, SPECIES, verbose=0, return_dict=True)
            assert set(logs) == {"loss", one.name, *(f"shot_accuracy_{group}" for group in GROUPS)}
            assert logs[one.name] == float(one.result())
    counts = [200, 50, 5]
    logs = one_output(ShotAccuracy(counts), ShotAccuracy(counts, group="few")).evaluate(
        X, SPECIES, verbose=0, return_dict=True
    )
    assert set(logs) == {"loss", *GROUPS}  # it is the same number


@pytest.mark.any_backend
def test_keras_callbacks_can_tell_that_the_metrics_rise(tmp_path):
    monitored = ("val_few", "val_a_medium", "val_mean_class_accuracy", "val_rare")
    callbacks = [
        make(monitor)
        for monitor in monitored
        for make in (
            keras.callbacks.EarlyStopping,
            keras.callbacks.ReduceLROnPlateau,
            lambda monitor: keras.callbacks.ModelCheckpoint(tmp_path / "best.keras", monitor, save_best_only=True),
        )
    ]
    counts = [200, 50, 5]
    model = one_output(
        ShotAccuracy(counts, group="few"),
        ShotAccuracy(counts, group="medium", prefix="a_"),
        MeanClassAccuracy(3),
        ShotAccuracy(counts, group="few", name="rare"),
    )
    history = model.fit(X, SPECIES, validation_data=(X, SPECIES), verbose=0, callbacks=callbacks).history
    assert set(monitored) < set(history)
    assert all(callback.monitor_op is keras.ops.greater for callback in callbacks)
    assert keras.models.load_model(tmp_path / "best.keras").evaluate(X, SPECIES, verbose=0, return_dict=True)


@pytest.mark.parametrize("group", GROUPS)
def test_a_metric_of_one_group_is_the_entry_of_the_dictionary(group):
    logits = np.random.default_rng(1).normal(size=(60, 3)).astype("float32")
    whole, one = ShotAccuracy([200, 50, 5]), ShotAccuracy([200, 50, 5], group=group)
    for metric in (whole, one):
        metric.update_state(SPECIES, logits)
    assert float(one.result()) == float(whole.result()[group])
    again = ShotAccuracy.from_config(one.get_config())
    assert again.get_config() == one.get_config() and again.name == group


@pytest.mark.any_backend
def test_a_group_that_is_none_or_has_no_class_is_an_error():
    with pytest.raises(ValueError, match="group must be one of many, medium, few, all; given: 'fwe'. Nearest: few"):
        ShotAccuracy([200, 50, 5], group="fwe")
    with pytest.raises(ValueError, match="group must be one that has classes; given: 'few'"):
        ShotAccuracy([200, 50, 30], group="few")


def test_validation_data_without_the_group_is_told_once():
    model = one_output(ShotAccuracy([200, 50, 5], group="few"))
    some = SPECIES < 2
    with pytest.warns(UserWarning, match="few was NaN: no label was of one of the 1 classes") as told:
        logs = model.fit(X, SPECIES, validation_data=(X[some], SPECIES[some]), epochs=2, verbose=0).history
        model.reset_metrics()
    assert sum("was NaN" in str(each.message) for each in told) == 1
    assert np.isnan(logs["val_few"]).all() and np.isfinite(logs["few"]).all()
    with warnings.catch_warnings():
        warnings.filterwarnings("error", message=".*was NaN")
        metric = ShotAccuracy([200, 50, 5], group="few")
        metric.update_state([0, 2], np.ones((2, 3), "float32"))
        metric.reset_state()
