"""The cost of contributing at which equal shares lose half of what a cooperative can win."""

from __future__ import annotations

import pytest

from proxycoop.envs import scenario
from proxycoop.training.analysis import stakes as module
from proxycoop.training.analysis.stakes import stakes


@pytest.fixture(scope="module")
def found():
    return stakes(scenario.load("breast_cancer", principals=4, horizon=4), episodes=4)


def test_at_the_cost_equal_shares_reach_half_of_the_planners_welfare(found):
    small = scenario.load("breast_cancer", principals=4, horizon=4)
    planner, equal = (module._welfare(small, found.cost, agent, 4) for agent in ("measuring_planner", "best_reply"))
    assert found.is_dilemma
    assert equal / planner == pytest.approx(0.5, abs=0.12)
    assert min(found.tried) <= found.cost <= max(found.tried)


def test_it_is_the_same_each_time_and_begins_between_a_share_and_the_whole_of_a_lots_gain(found):
    small = scenario.load("breast_cancer", principals=4, horizon=4)
    told = []
    assert stakes(small, episodes=4, progress=told.append) == found
    gain = 1 / (4 * 0.5)  # all clean lots of a round gain N reward units; half of four lots each are clean
    assert told[0] == f"a cost of {gain / 2:g}"
    assert gain / 4 < next(iter(found.tried)) < gain


def test_where_the_half_is_not_crossed_it_says_so(monkeypatch):
    monkeypatch.setattr(module, "_welfare", lambda scenario, cost, agent, episodes: 10.0)
    free = stakes(scenario.load("breast_cancer"))
    assert not free.is_dilemma
    assert list(free.tried) == sorted(free.tried)
    assert free.cost == max(free.tried)
    monkeypatch.setattr(module, "_welfare", lambda scenario, cost, agent, episodes: -1.0)
    assert not stakes(scenario.load("breast_cancer")).is_dilemma


def test_between_two_costs_it_interpolates_over_the_logarithm(monkeypatch):
    monkeypatch.setattr(
        module, "_welfare", lambda scenario, cost, agent, episodes: 1.0 if agent != "best_reply" else 0.6 - (cost > 0.26) * 0.2
    )
    made = stakes(scenario.load("breast_cancer", principals=4))
    low, high = made.tried
    assert made.cost == pytest.approx((low * high) ** 0.5, rel=0.05)


def test_a_cooperative_in_which_only_some_take_part_is_refused():
    with pytest.raises(ValueError, match=r"best replies lose half needs all agents in every round, but 2 of 6 are present"):
        stakes(scenario.load("breast_cancer", participation={"sample": 2}))


def test_a_scale_of_ones_own_is_refused():
    with pytest.raises(ValueError, match=r"reward.scale=2.0: must be auto"):
        stakes(scenario.load("breast_cancer", **{"reward.scale": 2}))
