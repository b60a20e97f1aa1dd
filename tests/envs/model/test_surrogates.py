"""The surrogates of rounds: what they are near to, what they cost, and where there is none."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from proxycoop import credit
from proxycoop.credit.games.surrogate import chances
from proxycoop.envs import Engine, scenario
from proxycoop.envs.model.models import ModuleModel

LINEAR = {"kind": "module", "factory": "tests.envs.model.test_surrogates:linear"}
MLP = {"kind": "mlp", "hidden": [8]}


def linear(n_features: int, n_classes: int) -> torch.nn.Module:
    """Softmax regression as any module."""
    return torch.nn.Linear(n_features, n_classes)


def played(n_rounds: int = 3, num_envs: int = 2, name: str = "digits", dtype: torch.dtype = torch.float64, **changes: Any) -> Engine:
    engine = Engine(scenario.load(name, **{"principals": 5, "reward.scale": 1.0, **changes}), None, num_envs, dtype=dtype)
    engine.reset(range(num_envs))
    generator = torch.Generator().manual_seed(1)
    for _ in range(n_rounds):
        engine.step(torch.rand(8, 5, engine.num_lots, generator=generator)[:num_envs] < 0.6)
    return engine


STEEP = {"substrate.local_lr": 2.0, "screening.governance": "none", "screening.guard": False}
SERVERS = [{}, {"server.momentum": 0.5, "server.lr": 0.7}]


@pytest.mark.parametrize("weights", ["fixed", "participants"])
@pytest.mark.parametrize("server", SERVERS)
@pytest.mark.parametrize("model", [{"kind": "softmax"}, MLP], ids=["softmax", "mlp"])
def test_the_expansion_is_the_utility_s_of_second_order(weights, server, model):
    """By automatic differentiation along every coalition's step."""
    engine = played(weights=weights, model=model, **server)
    game, step = engine.round.game, engine.round.game._surrogate.args[0].round_step
    near = game.surrogate(0)
    assert near.name == "quadratic expansion"
    assert near.evaluations == 0
    coalitions = torch.rand(6, 5, generator=torch.Generator().manual_seed(2)) < 0.5
    expected = torch.zeros(2, 6, dtype=torch.float64)
    for c in range(6):
        moved = step.parameters(coalitions[c : c + 1])[:, 0] - step.start
        slope, bend = engine.round.utility_gradient(), engine.round.utility_curvature(moved)
        expected[:, c] = (moved * slope).sum(dim=1) + 0.5 * (moved * bend).sum(dim=1)
    assert torch.allclose(near.game.value(coalitions), expected, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("weights", ["fixed", "participants"])
@pytest.mark.parametrize("server", SERVERS)
def test_the_logits_of_a_linear_module_are_its_game_at_any_step(weights, server):
    engine = played(weights=weights, model=LINEAR, **STEEP, **server)
    near = engine.round.game.surrogate(5)
    assert near.name == "logits, from all coalitions that lack one agent"
    assert torch.allclose(near.game.values(), engine.round.game.values(), rtol=1e-9, atol=1e-12)
    found = credit.make("shapley", budget=16).at(engine.round.game, 0, 0)
    assert torch.allclose(found.values, credit.make("shapley").values(engine.round.game), rtol=1e-9, atol=1e-12)
    assert found.explained.tolist() == pytest.approx([1.0, 1.0])


@pytest.mark.parametrize("weights", ["fixed", "participants"])
def test_the_logits_of_other_modules_are_right_for_everybody_and_near_elsewhere(weights):
    engine = played(weights=weights, model=MLP, **{**STEEP, "substrate.local_lr": 0.4})
    game = engine.round.game
    near, flat = game.surrogate(5), game.surrogate(4)
    assert flat.name == "quadratic expansion"
    v, s, q = game.values(), near.game.values(), flat.game.values()
    assert torch.allclose(s[:, -1], v[:, -1], rtol=1e-9)
    assert torch.allclose(s[:, 0], torch.zeros(2, dtype=torch.float64), atol=1e-12)
    left = [float((one - v).var() / v.var()) for one in (s, q)]
    assert left[0] < 0.05
    assert left[0] < left[1]


def test_what_made_it_is_not_evaluated_again(monkeypatch):
    engine = played(model=MLP)
    calls: list[int] = []
    logits = ModuleModel.logits
    monkeypatch.setattr(ModuleModel, "logits", lambda self, theta, x: (calls.append(len(theta)), logits(self, theta, x))[1])
    game = engine.round.game
    near = game.surrogate(5)
    assert (near.evaluations, near.known) == (5, frozenset({4}))
    assert sum(calls) == 2 * 6, "two environments, everybody and all that lack one"
    game.value(torch.cat([torch.ones(1, 5, dtype=torch.bool), ~torch.eye(5, dtype=torch.bool)]))
    assert sum(calls) == 2 * 6
    assert game.evaluations == 6


def test_what_screening_left_is_what_is_expanded():
    """Filters, a guard and admitted lots alone: with nothing admitted, nothing is gained."""
    engine = played(**{"screening.filter": "project", "screening.guard": True, "weights": "participants"})
    near = engine.round.game.surrogate(0)
    v, s = engine.round.game.values(), near.game.values()
    assert float((s - v).abs().max()) < 0.1 * float(v.abs().max())
    engine.step(torch.zeros(2, 5, engine.num_lots, dtype=torch.bool))
    nothing = engine.round.game.surrogate(0)
    assert nothing.solve(chances("shapley", 5)).abs().max() == 0.0
    found = credit.make("shapley", budget=15).at(engine.round.game, 0, 0)
    assert found.values.abs().max() < 1e-15
    assert found.explained.isnan().all()


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"server": {"kind": "adam"}}, "a server of kind adam does not add up what agents bring"),
        ({"utility": "accuracy"}, "utility accuracy has no expansion"),
    ],
)
def test_where_there_is_none_it_is_said_and_the_estimate_is_the_bare_one(changes, why):
    engine = played(**changes)
    assert engine.round.game.surrogate(5) == why
    rule, bare = (credit.make("shapley", budget=20, surrogate=one) for one in (True, False))
    found = rule.at(engine.round.game, 0, 0)
    assert found.surrogate == why
    assert torch.equal(found.values, bare.at(engine.round.game, 0, 0).values)


@pytest.mark.parametrize("model", [{"kind": "softmax"}, MLP], ids=["softmax", "mlp"])
def test_estimates_do_not_depend_on_the_others_of_a_batch(model):
    alone, together = (played(num_envs=size, weights="participants", model=model, dtype=torch.float32) for size in (1, 4))
    rule = credit.make("shapley", budget=15)
    assert torch.allclose(rule.at(alone.round.game, 0, 0).values[0], rule.at(together.round.game, 0, 0).values[0], rtol=1e-4, atol=1e-7)


def test_a_round_with_its_game_can_be_pickled():
    import pickle

    engine = played(model=MLP)
    again = pickle.loads(pickle.dumps(engine.round.game))
    assert torch.equal(again.surrogate(5).game.values(), engine.round.game.surrogate(5).game.values())


@pytest.mark.parametrize(
    "name", ["antithetic", "kernelshap", "leverage", "complementary", "stratified_svarm", "svarm", "gaussian_process", "banzhaf_msr"]
)
@pytest.mark.parametrize("budget", [17, 24, 60])
def test_every_estimator_keeps_to_its_budget_with_a_round_s_surrogate(name, budget):
    """Where too little would be left beside the evaluations that make the logits, the expansion is taken, which costs none."""
    engine = Engine(scenario.load("digits", principals=7, model=MLP, **{"reward.scale": 1.0}), None, 2, dtype=torch.float64)
    engine.reset(range(2))
    engine.step(torch.ones(2, 7, engine.num_lots, dtype=torch.bool))
    rule = credit.make(name, budget=budget)
    rule.surrogate = True
    try:
        rule.check(7)
    except ValueError:
        return
    played = engine.round.game  # of which the engine has valued N
    game = credit.CoalitionGame(played._value, 7, surrogate=played._surrogate)
    found = rule.at(game, 0, 0)
    assert game.evaluations <= budget
    assert found.evaluations <= budget
    exact = credit.make(rule.target).values(engine.round.game)
    assert float((found.values - exact).norm() / exact.norm()) < 0.5
