"""What the benchmark of incentives and information makes of its measurements."""

from __future__ import annotations

import pytest
import torch


@pytest.fixture
def information(benchmark_script):
    return benchmark_script("training/information")


@pytest.fixture
def results():
    """Two seeds on three splits: the planner reaches 50, best replies 20, informed proxies 16 and blind ones 6."""

    def measured(welfare, n_seeds, noise=0.0):
        shape = n_seeds, 3
        wobble = noise * torch.tensor([[1.0, -1.0, 0.0], [-1.0, 0.0, 1.0]], dtype=torch.float64)[:n_seeds]
        shares = {"clean_share": torch.full(shape, welfare / 100.0), "corrupt_share": torch.zeros(shape)}
        return {"welfare": torch.full(shape, welfare, dtype=torch.float64) + wobble} | shares

    def of(noise):
        return {
            "best_reply": measured(20.0, 1),
            "planner": measured(50.0, 1),
            "informed": measured(16.0, 2, noise),
            "blind": measured(6.0, 2),
        }

    return of


def test_gaps_are_paired_and_sum_up(information, results):
    said = information.findings({("digits", "equal"): results(0.1)})
    assert "best replies end 30.0 ± 0.0 reward units of welfare below the planner" in said
    assert "Blind proxies learn to end 14.0 ± 0.0 below best replies" in said
    assert "information accounts for 10.0 ± 0.1, and learning for 4.0 ± 0.1" in said


def test_what_cannot_be_told_from_none_is_said(information, results):
    assert "(not told from none)" in information.findings({("digits", "equal"): results(300.0)})


def test_the_table_has_a_row_for_each_kind_of_proxy(information, results):
    rows = information.table({("digits", "equal"): results(0.0)}).splitlines()[2:]
    assert [row.split(" | ")[2] for row in rows] == ["best reply", "learned, informed", "learned, blind", "(planner)"]
    assert rows[2].startswith("| digits | equal | learned, blind | 6.0 ± 0.0 | 14.0 ± 0.0 | 6.0 ± 0.0 |")
    assert " | – | " in rows[0]


def test_blind_and_informed_cooperatives_differ_in_what_is_seen_alone(information):
    blind, informed = (information.cooperative("digits", sight, 3) for sight in information.SIGHTS)
    assert informed.to_dict() == blind.to_dict() | {"observations": {"marginal_gains": True}}
    assert blind.data.split_seed == 3


def test_agents_and_policies_are_measured_on_each_split(information, monkeypatch):
    monkeypatch.setattr(information, "EPISODES", 2)
    means = information.played("breast_cancer", "equal", "none", None, [1_000_000, 1_000_001])
    assert means == {"welfare": [0.0, 0.0], "clean_share": [0.0, 0.0], "corrupt_share": [0.0, 0.0]}
    assert information.stacked([means, means])["welfare"].shape == (2, 2)
