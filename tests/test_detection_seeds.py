"""The table of benchmarks/detection_seeds.py, from numbers that are easy to check."""

import json

import demo_seeds
import detection_seeds
import pytest

pytestmark = pytest.mark.any_backend

RESULTS = {
    "runs": {
        f"{title} | {seed}": {
            **dict.fromkeys(detection_seeds.COLUMNS.values(), 10.0 * place + seed),
            "divergence": 0.5,
            "seconds": 1.0,
        }
        for place, title in enumerate(("softmax cross entropy", "GOL"), start=1)
        for seed in (0, 2, 4)
    },
    "epochs": 8,
    "model": "resnet8",
    "backend": "jax",
    "versions": {"jax": "0.10", "keras": "3.15"},
    "machine": "this",
    "date": "2026-11-25T00:00:00",
}


def test_table_has_mean_and_deviation_over_the_seeds():
    table = detection_seeds.table(RESULTS)
    assert "| softmax cross entropy | 12.0 ± 2.0 |" in table and "| GOL | 22.0 ± 2.0 |" in table
    assert "0.5000 ± 0.0000 |" in table and "over 3 seeds" in table


def test_table_stands_between_its_marks():
    page = f"before\n{detection_seeds.START}old{detection_seeds.END}\nafter"
    changed = detection_seeds.with_table(page, RESULTS)
    assert changed.startswith("before\n") and changed.endswith("\nafter") and "old" not in changed
    assert detection_seeds.with_table(changed, RESULTS) == changed
    with pytest.raises(ValueError, match="has no line"):
        detection_seeds.with_table("nothing", RESULTS)


def test_the_page_has_the_table_of_the_committed_measurement():
    page = detection_seeds.PAGE.read_text(encoding="utf-8")
    results = json.loads(detection_seeds.RESULTS.read_text(encoding="utf-8"))
    assert page == detection_seeds.with_table(page, results)


def test_the_option_docs_writes_into_the_page(tmp_path, monkeypatch, capsys):
    page = tmp_path / "detection.md"
    page.write_text(f"before\n{detection_seeds.START}old{detection_seeds.END}\nafter", encoding="utf-8")
    monkeypatch.setattr("sys.argv", ["detection_seeds.py", "--docs"])
    demo_seeds.command_line(
        "", [0], detection_seeds.RESULTS, None, None, detection_seeds.with_table, page=page, option="--docs"
    )
    assert "GOL" in page.read_text(encoding="utf-8") and f"Wrote {page}" in capsys.readouterr().out
