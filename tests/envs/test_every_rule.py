"""Every credit rule in the environment: batches, repetition, pickling, and what a round costs."""

from __future__ import annotations

import pickle

import pytest
import torch
from torch import Tensor

from proxycoop import credit
from proxycoop.envs import Engine, cooperative_v0, scenario
from proxycoop.envs.records import RoundResult

OURS = [name for name in credit.RULES if credit.RULES[name].__module__.startswith("proxycoop.")]
ESTIMATORS = [name for name in OURS if isinstance(credit.make(name), credit.Estimator)]
SAMPLING = [f"{name}(budget=40)" for name in ESTIMATORS]  # fewer than the 63 coalitions of six agents, so that something is drawn
WITH_ARGUMENTS = [
    *SAMPLING,
    "owen(unions=[[0, 3], [1, 2, 5], [4]])",
    "myerson(graph='star')",
    "normalised(rule='banzhaf', max_scale=2.0)",
    "coopetition(rule='shapley(budget=20)', interdependence=0.5)",
    "clipped(rule='shapley', low=None, high=0.001)",
    "smoothed(rule='svarm(budget=30)', decay=0.5)",
]
# among the fast tests an estimator has the small budget alone; with its default one it is among the slow tests
every_rule = pytest.mark.parametrize(
    "rule", [*(pytest.param(rule, marks=pytest.mark.slow if rule in ESTIMATORS else ()) for rule in OURS), *WITH_ARGUMENTS]
)
BY_WHAT_MIGHT_HAVE_BEEN = ("expected_difference",)
"""Rules that also pay and charge for what agents withhold: see their own tests."""
T = 2
COOPERATIVE = scenario.load("breast_cancer", horizon=T, **{"reward.scale": 200.0})
# of as many agents and lots, for rules that need principals to hold columns
VERTICAL = scenario.load("breast_cancer-vertical", horizon=T, principals=6, **{"lots.per_principal": 4, "reward.scale": 200.0})
SEEDS = [5, 17, 2**63 - 1]


def cooperative(rule: str) -> scenario.Scenario:
    """A cooperative that the rule can serve."""
    return VERTICAL if "columns" in credit.make(rule).needs else COOPERATIVE


def actions(num_envs: int) -> Tensor:
    """Choices of two episodes, the same for each environment whatever the batch, ``(2, T, E, N, K)``."""
    drawn = torch.rand(2, T, len(SEEDS), 6, 4, generator=torch.Generator().manual_seed(1)) < 0.7
    return drawn[:, :, :num_envs]


def play(engine: Engine, choices: Tensor) -> list[RoundResult]:
    """The rest of the episode with given choices, ``(T, E, N, K)``."""
    return [engine.step(choices[t]) for t in range(engine.t, engine.horizon)]


def same(a: list[RoundResult], b: list[RoundResult]) -> bool:
    names = ("observations", "rewards", "credit", "admitted", "utility")
    return all(torch.equal(getattr(x, name), getattr(y, name)) for x, y in zip(a, b, strict=True) for name in names)


@every_rule
def test_environment_e_of_a_batch_is_the_single_environment_with_its_seed(rule: str) -> None:
    batch, single = (Engine(cooperative(rule), rule, size) for size in (len(SEEDS), 1))
    batch.reset(SEEDS)
    results = play(batch, actions(len(SEEDS))[0])
    for e, seed in enumerate(SEEDS):
        single.reset([seed])
        for together, alone in zip(results, play(single, actions(len(SEEDS))[0, :, e : e + 1]), strict=True):
            assert torch.equal(together.admitted[e], alone.admitted[0])
            torch.testing.assert_close(together.credit[e], alone.credit[0], rtol=1e-5, atol=1e-7)
            torch.testing.assert_close(together.rewards[e], alone.rewards[0], rtol=1e-5, atol=2e-5)


@every_rule
def test_the_same_seeds_give_exactly_the_same_two_episodes_on_the_same_engine(rule: str) -> None:
    engine = Engine(cooperative(rule), rule, 2)
    played = []
    for _ in range(2):
        engine.reset(SEEDS[:2])
        first = play(engine, actions(2)[0])
        engine.reset()
        played.append(first + play(engine, actions(2)[1]))
    assert same(*played)
    engine.reset(SEEDS[:2], episode=1)  # entered without the episode before
    assert same(play(engine, actions(2)[1]), played[0][T:])


@every_rule
def test_a_pickled_environment_goes_on_where_it_was(rule: str) -> None:
    env = cooperative_v0.parallel_env(cooperative(rule), credit=rule)
    env.reset(seed=4)
    engine = env.engine
    engine.step(actions(1)[0, 0])
    twin = pickle.loads(pickle.dumps(env)).engine
    assert same(play(twin, actions(1)[0]), play(engine, actions(1)[0]))
    assert twin.rule_name == rule


@every_rule
def test_a_round_costs_no_more_than_the_rule_says_and_pays_what_it_promises(rule: str) -> None:
    engine = Engine(cooperative(rule), rule, dtype=torch.float64)
    assert engine.rule is not None
    engine.reset([7])
    for result in play(engine, actions(1)[0]):
        assert result.evaluations <= engine.rule.cost(6)
        assert result.credit.isfinite().all()
        if engine.rule.efficient:
            torch.testing.assert_close(result.credit.sum(dim=1), result.gain, rtol=1e-9, atol=1e-9)


@every_rule
def test_an_episode_in_which_nobody_contributes_pays_nobody(rule: str) -> None:
    engine = Engine(cooperative(rule), rule, 2)
    engine.reset(SEEDS[:2])
    for result in play(engine, torch.zeros(T, 2, 6, 4)):
        for paid in (result.gain,) if rule in BY_WHAT_MIGHT_HAVE_BEEN else (result.gain, result.credit):
            torch.testing.assert_close(paid, torch.zeros_like(paid), rtol=0, atol=1e-7)  # 0 but for the rounding of single precision


@pytest.mark.parametrize("rule", SAMPLING)
def test_an_estimator_s_seed_and_the_episode_decide_what_it_draws(rule: str) -> None:
    def first_credit(rule: str, episode: int) -> Tensor:
        engine = Engine(cooperative(rule), rule)
        engine.reset([5])
        engine.episode = episode  # the lots stay those of the first episode
        return engine.step(actions(1)[0, 0]).credit

    one = first_credit(rule, 0)
    assert torch.equal(one, first_credit(rule, 0))
    assert not torch.equal(one, first_credit(rule, 1))
    assert not torch.equal(one, first_credit(rule.replace(")", ", seed=1)"), 0))
