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


UNSCREENED = {"screening.governance": "none", "screening.guard": False}
STEEP = {"substrate.local_lr": 2.0, **UNSCREENED}
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
@pytest.mark.parametrize("most", [5, 10])
def test_the_logits_of_a_linear_module_are_its_game_at_any_step(weights, server, most):
    engine = played(weights=weights, model=LINEAR, **STEEP, **server)
    near = engine.round.game.surrogate(most)
    assert near.name == "logits, between single agents and all" + " but one" * (most == 10)
    assert torch.allclose(near.game.values(), engine.round.game.values(), rtol=1e-9, atol=1e-12)
    found = credit.make("shapley", budget=16).at(engine.round.game, 0, 0)
    assert torch.allclose(found.values, credit.make("shapley").values(engine.round.game), rtol=1e-9, atol=1e-12)
    assert found.explained.tolist() == pytest.approx([1.0, 1.0])


@pytest.mark.parametrize("weights", ["fixed", "participants"])
def test_the_logits_of_other_modules_are_right_at_the_ends_and_near_between(weights):
    engine = played(weights=weights, model=MLP, **{**STEEP, "substrate.local_lr": 0.4})
    game = engine.round.game
    ends, single, flat = (game.surrogate(most) for most in (10, 9, 4))
    assert (ends.known, ends.evaluations) == (frozenset({1, 4}), 10)
    assert (single.known, single.evaluations) == (frozenset({1}), 5)
    assert flat.name == "quadratic expansion"
    v, values = game.values(), [near.game.values() for near in (ends, single, flat)]
    alone = 2 ** torch.arange(5)
    for s in values[:2]:
        assert torch.allclose(s[:, [0, 31, *alone]], v[:, [0, 31, *alone]], rtol=1e-9, atol=1e-12)
    off = [(s - v)[:, 31 - alone].abs().max() for s in values]
    assert off[0] < 0.5 * off[1]
    left = [float((s - v).var() / v.var()) for s in values]
    assert left[0] < left[1] < left[2]
    assert left[1] < 0.02


def pairs(n_features: int, n_classes: int) -> torch.nn.Module:
    """Logits of second order in the parameters: products of two that every agent moves."""

    class Pairs(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.matrix = torch.nn.Parameter(0.1 * torch.eye(n_features)[:, :n_classes].clone())
            self.scale = torch.nn.Parameter(torch.ones(1))

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.scale * (x @ self.matrix)

    return Pairs()


def test_bends_of_products_of_two_steps_are_found():
    """Logits scale · x·matrix: where each agent moves the scale alike, two agents' steps matter together by a sum of a part for each."""
    engine = played(weights="fixed", model={"kind": "module", "factory": "tests.envs.model.test_surrogates:pairs"}, **UNSCREENED)
    engine.step(torch.ones(2, 5, engine.num_lots, dtype=torch.bool))
    game = engine.round.game
    step = game._surrogate.args[0].round_step
    step.updates[..., -1] = 0.05  # the scale's
    v, both, single = (one.values()[:, :-1] for one in (game, game.surrogate(10).game, game.surrogate(5).game))  # v(N) was known before
    assert torch.allclose(both, v, rtol=1e-9, atol=1e-12)
    assert not torch.allclose(single, v, rtol=1e-4)


def test_what_made_it_is_not_evaluated_again(monkeypatch):
    engine = played(model=MLP)
    calls: list[int] = []
    logits = ModuleModel.logits
    monkeypatch.setattr(ModuleModel, "logits", lambda self, theta, x: (calls.append(len(theta)), logits(self, theta, x))[1])
    game = engine.round.game
    near = game.surrogate(10)
    assert (near.evaluations, near.known) == (10, frozenset({1, 4}))
    assert sum(calls) == 2 * 11, "two environments; everybody, all alone, and all that lack one"
    single = torch.eye(5, dtype=torch.bool)
    game.value(torch.cat([single.new_ones(1, 5), single, ~single]))
    assert sum(calls) == 2 * 11
    assert game.evaluations == 11


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
    "name",
    ["antithetic", "kernelshap", "leverage", "complementary", "stratified_svarm", "svarm", "gaussian_process", "stacked", "banzhaf_msr"],
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
    assert found.evaluations == game.evaluations <= budget
    exact = credit.make(rule.target).values(engine.round.game)
    assert float((found.values - exact).norm() / exact.norm()) < 0.5
