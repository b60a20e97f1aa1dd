"""Rounds tried out pay what the engine then pays, and leave it as it is."""

from __future__ import annotations

from copy import copy

import pytest
import torch

from proxycoop import agents, credit
from proxycoop.agents import trial
from proxycoop.agents.trial import bare, reads_game_alone, remembers, try_out
from proxycoop.envs import Engine, scenario

STRICT = [{"holders": 1, "tolerances": {"missed_cancer": 0.05}}]
SMALL = {"principals": 3, "horizon": 4, "lots.per_principal": 2, "profiles": STRICT, "reward.scale": 100.0, "reward.public_share": 0.25}
RULES = (
    "equal",
    "data_size",
    "loo",
    "shapley",
    "shapley(budget=6)",
    "in_run",
    "data_shapley",
    "g_shapley",
    "veto_shapley",
    "normalised(rule='standalone')",
    "smoothed(rule='loo', decay=0.5)",
    "cgsv",
    "shapfed",
    "peer_ranking",
    "fael",
    "comfedsv",
    "aristocrat",
)
PLACES = {
    "participants": {"weights": "participants"},
    "a server that remembers": {"server": {"momentum": 0.9}},
    "a hidden layer and a guard": {"model": {"kind": "mlp"}, "screening": {"governance": "own", "guard": True, "harm": "measured"}},
    "limits under a guard that measures": {
        "profiles": [{"holders": 2, "limits": {"missed_cancer": 0.01}}],
        "screening": {"governance": "none", "guard": True, "harm": "measured"},
    },
    "projection": {"screening": {"filter": "project"}},
    "negotiation": {"screening": {"governance": "negotiate"}},
    "accuracy": {"utility": "accuracy"},
    "a virtual batch": {"substrate": {"kind": "traversal", "lr": 0.4, "batch": 6}},
    "settlements": {"settlement": {"reward": "settlement", "period": 2}},
    "settlements with a base": {
        "settlement": {"reward": "settlement", "revenue": {"kind": "level", "base": 1000}, "policy": {"decay": 0.5}}
    },
}


def choices_for(engine, seed, n):
    """n sets of choices in random environments: rows (n,), bool (n, N, K)."""
    generator = torch.Generator().manual_seed(seed)
    rows = torch.randint(engine.num_envs, (n,), generator=generator)
    return rows, torch.rand(n, engine.num_agents, engine.num_lots, generator=generator) < 0.6


def compare_with_playing(engine):
    """Every round is tried out in random rows, and played in a copy of the engine for each."""
    engine.reset(range(engine.num_envs))
    for t in range(engine.horizon):
        rows, choices = choices_for(engine, t, 7)
        tried = try_out(engine, rows, choices)
        for j, row in enumerate(rows.tolist()):
            played = copy(engine)
            result = played.step(choices[j].expand(engine.num_envs, -1, -1))
            torch.testing.assert_close(tried.rewards[j], result.rewards[row], rtol=1e-6, atol=2e-6)
            welfare = engine.reward_scale * result.gain[row] - result.cost[row].sum()
            torch.testing.assert_close(tried.welfare[j], welfare, rtol=1e-6, atol=2e-6)
        engine.step(choices_for(engine, 100 + t, engine.num_envs)[1])


@pytest.mark.parametrize("rule", RULES)
def test_what_is_tried_out_is_rewarded_as_it_is_when_played(rule):
    compare_with_playing(Engine(scenario.load("breast_cancer", **SMALL), rule, 3, dtype=torch.float64))


@pytest.mark.parametrize("changes", PLACES.values(), ids=PLACES)
def test_it_is_rewarded_so_in_every_kind_of_cooperative(changes):
    compare_with_playing(Engine(scenario.load("breast_cancer", **SMALL | changes), "standalone", 2, dtype=torch.float64))


@pytest.mark.parametrize("rule", ["shapley(budget=6)", "smoothed(rule='loo')", "fael", "peer_ranking"])
@pytest.mark.parametrize("money", [None, {"reward": "settlement", "period": 2}], ids=["credit", "settlements"])
def test_the_running_engine_its_rule_and_its_accounts_are_left_alone(rule, money):
    def played(looks):
        engine = Engine(scenario.load("breast_cancer", settlement=money, **SMALL), rule, 4)
        engine.reset(range(4))
        seen = []
        for t in range(engine.horizon):
            if looks:
                try_out(engine, *choices_for(engine, t, 9))
                agents.best_replies(engine)
            result = engine.step(choices_for(engine, 50 + t, 4)[1])
            seen += [result.rewards, result.credit, result.observations, engine.theta]
            seen += [] if result.payouts is None else [result.payouts]
        return seen

    for alone, looked_at in zip(played(False), played(True), strict=True):
        assert torch.equal(alone, looked_at)


def test_on_the_split_of_the_data_that_the_episode_is_played_on():
    engine = Engine(scenario.load("breast_cancer", **SMALL | {"data.splits": 2, "reward.scale": "auto"}), "loo", 2, dtype=torch.float64)
    scales = []
    for episode in (0, 1):
        engine.reset(range(2), episode=episode)
        _, choices = choices_for(engine, 0, 2)
        tried = try_out(engine, torch.arange(2), choices)
        torch.testing.assert_close(tried.rewards, copy(engine).step(choices).rewards, rtol=1e-9, atol=1e-9)
        scales.append(engine.reward_scale)
    assert scales[0] != scales[1]


def test_more_rows_than_fit_in_one_batch_and_none_at_all(monkeypatch):
    engine = Engine(scenario.load("breast_cancer", **SMALL), "loo", 3, dtype=torch.float64)
    engine.reset(range(3))
    rows, choices = choices_for(engine, 0, 11)
    whole = try_out(engine, rows, choices)
    monkeypatch.setattr(trial, "_AT_ONCE", 4)
    torch.testing.assert_close(try_out(engine, rows, choices).rewards, whole.rewards, rtol=1e-12, atol=1e-12)
    assert try_out(engine, rows[:0], choices[:0]).rewards.shape == (0, 3)
    remembering = Engine(engine.scenario, "cgsv", 3)
    remembering.reset(range(3))
    assert try_out(remembering, rows[:0], choices[:0]).welfare.shape == (0,)


def test_rounds_are_tried_out_in_an_episode_only():
    engine = Engine(scenario.load("breast_cancer", **SMALL), "loo")
    with pytest.raises(RuntimeError, match="before the first reset"):
        try_out(engine, torch.zeros(1, dtype=torch.int64), torch.ones(1, 3, 2, dtype=torch.bool))


def test_which_rules_remember_and_which_read_the_game_alone():
    assert [rule for rule in RULES if remembers(credit.make(rule))] == [
        "smoothed(rule='loo', decay=0.5)",
        "cgsv",
        "shapfed",
        "peer_ranking",
        "fael",
        "comfedsv",
        "aristocrat",
    ]
    assert remembers(credit.make("normalised", rule=credit.make("cgsv")))
    assert [rule for rule in RULES if reads_game_alone(credit.make(rule))] == ["equal", "loo", "shapley", "shapley(budget=6)"]
    assert reads_game_alone(None)
    assert not remembers(None)


def test_a_rule_that_is_only_watched_counts_as_itself():
    class Watched(credit.CreditRule):
        only_watches = True

        def __init__(self, rule):
            self.rule = rule

        def reset(self, num_envs, num_agents):
            self.rule.reset(num_envs, num_agents)

        def assign(self, round):
            return self.rule.assign(round)

    rule = credit.make("loo")
    assert bare(Watched(Watched(rule))) is rule
    engine = Engine(scenario.load("breast_cancer", **SMALL), Watched(rule), 2, dtype=torch.float64)
    compare_with_playing(engine)
