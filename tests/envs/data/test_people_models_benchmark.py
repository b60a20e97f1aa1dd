"""The benchmark of models that people use: rows that are kept, what is missing, and tables of what is there."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch


@pytest.fixture(scope="module")
def script(benchmark_script):
    return benchmark_script("people/people_models")


def row(script, what: str, seed: int, **measures: object) -> dict[str, object]:
    return {"scenario": "digits", "what": what, "seed": seed, "steps": 0, **measures}


def test_rows_are_kept_in_order_and_what_is_there_is_not_missing(script, tmp_path):
    kept = script.Rows(tmp_path / "new" / "rows.csv", script.ABOUT, script.MEASURES)
    tasks = [script.Task("digits", what, seed, 0) for seed in (0, 1) for what in ("start", "all")]
    assert kept.missing(tasks) == tasks
    kept.add(row(script, "start", 1, accuracy=0.25))
    kept.add(row(script, "all", 0, accuracy=0.5))
    assert [(one["what"], one["accuracy"]) for one in kept.read()] == [("all", "0.5"), ("start", "0.25")]
    assert kept.missing(tasks) == [tasks[0], tasks[3]]


def test_a_task_is_measured_in_a_process_and_its_row_kept(script, tmp_path):
    kept = script.Rows(tmp_path / "rows.csv", script.ABOUT, script.MEASURES)
    task = SimpleNamespace(scenario="digits", what="start", seed=0, steps=0)
    kept.measure([task], vars, 1, float("inf"))  # a function that processes find
    assert [one["what"] for one in kept.read()] == ["start"]
    kept.measure([task], vars, 1, float("inf"))
    assert len(kept.read()) == 1


def test_central_training_beats_the_start_and_clean_lots_beat_all(script):
    torch.set_num_threads(1)
    found = {what: script.measured(script.Task("digits", what, 0, 0)) for what in script.REFERENCES}
    assert found["central"]["accuracy"] > 0.9
    assert found["all"]["log_loss"] > found["clean"]["log_loss"]
    assert found["clean"]["accuracy"] > found["start"]["accuracy"]


def test_tables_and_a_picture_show_what_is_there_alone(script):
    rows = [
        dict.fromkeys(script.MEASURES, "") | {key: str(value) for key, value in one.items()}
        for one in (
            *(row(script, "start", seed, accuracy=0.5 + seed / 10, log_loss=1.0) for seed in (0, 1)),
            row(script, "loo", 0, accuracy=0.7, log_loss=0.9, welfare=12.34, clean_share=0.5, corrupt_share=0.0, cpu_seconds=99.6),
        )
    ]
    text = script.table(rows, "digits")
    assert "| the start | 55.0\u00a0±\u00a063.5 | 1.00" in text
    assert "| proxies under `loo` | 70.0 | 0.90 | 1 |" in text
    assert "| `loo` | 12.3 | 0.50 | 0.00 |" in text
    assert "shapley" not in text
    assert "proxies under loo: 0.700" in script.picture(rows, "digits").alt


def test_a_rule_of_a_network_is_estimated_within_a_budget(script):
    assert script.Task("digits", "shapley", 0, 0).rule == "shapley"
    assert script.Task("digits", "loo", 0, 0).rule == "loo"
