"""The page on speed holds the tables of the committed measurement, and the measurement is whole."""

import datetime
import json

import inference
import pytest

pytestmark = pytest.mark.any_backend


def measured(batches=(1, 16), rounds=3):
    """A measurement of every contender that takes as long as its place in the list."""
    everyone = inference.contenders(inference.BACKENDS, batches, compile_torch=False)
    times = {contender: [place + 0.5] * rounds for place, contender in enumerate(everyone)}
    return {
        "machine": "Linux, 2 CPU cores",
        "device": "cpu",
        "threads": 2,
        "versions": {"python": "3.12", "keras": "3.15"},
        "date": "2026-01-02T03:04:05+00:00",
        "images": 224,
        "rounds": rounds,
        "largest_difference": 1e-5,
        "results": inference.summarize(times, {}),
    }


def check(results):
    """A measurement that may be committed: nothing is missing that the tables and their readers need."""
    rows = results["results"]
    assert {row["batch"] for row in rows} == {1, 16}
    assert {row["process"] for row in rows} == {inference.PLAIN, *inference.BACKENDS}
    for backend in inference.BACKENDS:
        for network in ("relu", "aglu", "applications"):
            found = [row for row in rows if (row["process"], row["network"]) == (backend, network)]
            assert {row["batch"] for row in found} == {1, 16}
            assert all(row["milliseconds"] > 0 and row["images_per_second"] > 0 for row in found)
    assert results["machine"] and results["images"] == 224 and results["rounds"] >= 3
    assert datetime.datetime.fromisoformat(results["date"]).year >= 2025


def test_the_page_holds_the_tables_of_the_committed_measurement():
    text = inference.PAGE.read_text(encoding="utf-8")
    assert text.count(inference.START) == text.count(inference.END) == 1
    if inference.RESULTS.exists():
        results = json.loads(inference.RESULTS.read_text(encoding="utf-8"))
        check(results)
        assert inference.section(results) in text
    else:
        assert inference.START + inference.END in text


def test_a_measurement_of_one_batch_or_of_two_backends_is_not_whole():
    check(measured())
    with pytest.raises(AssertionError):
        check(measured(batches=(1,)))
    results = measured()
    with pytest.raises(AssertionError):
        check({**results, "results": [row for row in results["results"] if row["process"] != "jax"]})


def test_docs_writes_the_tables_between_the_markers(tmp_path, monkeypatch, capsys):
    page, path = tmp_path / "speed.md", tmp_path / "inference.json"
    page.write_text(inference.PAGE.read_text(encoding="utf-8"), encoding="utf-8")
    path.write_text(json.dumps(measured()), encoding="utf-8")
    monkeypatch.setattr(inference, "PAGE", page)
    monkeypatch.setattr("sys.argv", ["inference.py", "--docs", "--results", str(path)])
    inference.main()
    first = page.read_text(encoding="utf-8")
    inference.main()
    assert page.read_text(encoding="utf-8") == first and f"Wrote {page}" in capsys.readouterr().out
    assert inference.section(measured()) in first and "Batch of 16:" in first and "2026-01-02." in first
    page.write_text("no markers\n")
    with pytest.raises(ValueError, match="between which the tables stand"):
        inference.main()
    assert page.read_text() == "no markers\n"


def test_each_round_is_given_back_so_that_a_cut_run_can_be_kept():
    class Process:
        def ask(self, command, *arguments):
            return 0.25

    everyone = inference.contenders(["jax"], [1], compile_torch=False)
    processes = {name: Process() for name in (inference.PLAIN, "jax")}
    rounds = [{c: len(seconds) for c, seconds in t.items()} for t in inference.measure(processes, everyone, 3, 0.1)]
    assert [set(counts.values()) for counts in rounds] == [{1}, {2}, {3}]
    assert set(rounds[0]) == set(everyone)
