"""Loyalty: what a proxy loses for the harm that a round did to the values of its own principal."""

from __future__ import annotations

import pytest
import torch

from proxycoop.agents.trial import try_out
from proxycoop.envs import Engine, episode_metrics, scenario
from proxycoop.envs.data.names import Names

LOYAL = {"reward.loyalty": 0.7}


def played(engine: Engine, seeds: list[int]) -> Engine:
    generator = torch.Generator().manual_seed(3)
    engine.reset(seeds)
    draws = torch.rand(engine.horizon, engine.num_agents, engine.num_items, generator=generator) < 0.6
    for choice in draws:
        engine.step(choice.expand(engine.num_envs, -1, -1))
    return engine


def by_hand(engine: Engine, row: int, agent: int, t: int) -> float:
    """The harm of a round to one principal, value by value, from the profile that it holds."""
    assert engine.profiles.kind is not None
    kind = int(engine.profiles.kind[row, agent])
    if kind == len(engine.scenario.profiles):
        return 0.0
    profile, losses = engine.scenario.profiles[kind], [engine.initial_value_losses, *(one.value_losses for one in engine.history)]
    harm = 0.0
    for m, value in enumerate(engine.values):
        before, after = float(losses[t][row, m]), float(losses[t + 1][row, m])
        if value in profile.tolerances:
            harm += (after - before) / profile.tolerances[value]
        elif value in profile.relative_tolerances:
            harm += (after - before) / (profile.relative_tolerances[value] * before)
        elif value in profile.limits:
            harm += (after - before) / (profile.limits[value] / engine.horizon)
        elif value in profile.relative_limits:
            harm += (after - before) / (profile.relative_limits[value] * float(losses[0][row, m]) / engine.horizon)
    return harm


PROFILES = {
    "as they are": {},
    "relative": {"profiles": [{"holders": 3, "relative_tolerances": {"eights": 0.2}}, {"holders": 1, "tolerances": {"nines": 0.1}}]},
    "limits alone": {"profiles": [{"holders": 2, "limits": {"eights": 0.6}}, {"holders": 2, "relative_limits": {"nines": 0.3}}]},
    "direction beside": {"profiles": [{"holders": 2, "tolerances": {"eights": 0.3}, "direction": {"nines": 1}}]},
}


@pytest.mark.parametrize("profiles", PROFILES)
def test_loyalty_takes_the_harm_to_the_own_principal_in_its_tolerances(profiles: str) -> None:
    plain = scenario.load("digits", **PROFILES[profiles])
    loyal = scenario.load("digits", **PROFILES[profiles], **LOYAL)
    one, other = (played(Engine(which, "shapley", 2, dtype=torch.float64), [4, 5]) for which in (plain, loyal))
    for t in (0, 5, 15):
        for row in range(2):
            for agent in range(6):
                harm = by_hand(other, row, agent, t)
                taken = float(one.history[t].rewards[row, agent] - other.history[t].rewards[row, agent])
                assert taken == pytest.approx(0.7 * harm, abs=1e-9)


def test_welfare_of_a_principal_is_the_return_less_the_harm_whatever_the_loyalty() -> None:
    measured = [episode_metrics(played(Engine(scenario.load("digits", **more), "loo", 2), [4, 5])) for more in ({}, LOYAL)]
    plain, loyal = measured
    torch.testing.assert_close(plain["own_harm"], loyal["own_harm"])
    torch.testing.assert_close(plain["principal_welfare"], plain["return"] - plain["own_harm"])
    torch.testing.assert_close(plain["principal_welfare"], loyal["principal_welfare"], rtol=1e-4, atol=1e-4)
    assert plain["own_harm"].abs().max() > 0.1


def test_without_loyalty_nothing_is_taken_to_the_last_bit() -> None:
    plain, zero = (played(Engine(scenario.load("digits", **more), "loo", 2), [4, 5]) for more in ({}, {"reward.loyalty": 0}))
    assert all(torch.equal(a.rewards, b.rewards) for a, b in zip(plain.history, zero.history, strict=True))
    assert "loyalty" not in zero.scenario.to_yaml()


@pytest.mark.parametrize(
    "more",
    [
        {},
        {"conduct": {"forgeries": [{"kind": "echo"}], "levers": [{"kind": "lax"}, {"kind": "quit"}]}},
        {"settlement": {"reward": "settlement"}},
    ],
)
def test_a_round_that_is_tried_out_takes_what_the_round_then_takes(more: dict[str, object]) -> None:
    engine = Engine(scenario.load("digits-mean", **LOYAL, **more), "loo", 2, dtype=torch.float64)
    engine.reset([1, 2])
    generator = torch.Generator().manual_seed(0)
    for _ in range(4):
        choices = torch.rand(2, 6, engine.num_items, generator=generator) < 0.5
        tried = try_out(engine, torch.tensor([0, 1]), choices)
        torch.testing.assert_close(engine.step(choices).rewards, tried.rewards, rtol=1e-9, atol=1e-9)


def test_one_cooperative_is_a_row_of_a_batch() -> None:
    loyal = scenario.load("adult", **LOYAL)
    batch = played(Engine(loyal, "loo", 3), [7, 8, 9])
    for row, seed in enumerate([7, 8, 9]):
        single = played(Engine(loyal, "loo", 1), [seed])
        for a, b in zip(batch.history, single.history, strict=True):
            torch.testing.assert_close(a.rewards[row], b.rewards[0], rtol=1e-4, atol=1e-4)


def test_each_name_of_a_principal_bears_its_harm() -> None:
    loyal = scenario.load("digits", **LOYAL)
    engine = played(Engine(loyal, "loo", 1, names=Names.split(6, 4, 0)), [4])
    harm = episode_metrics(engine)["own_harm"]
    torch.testing.assert_close(harm[:, 0], harm[:, 6])


@pytest.mark.parametrize(
    ("more", "said"),
    [
        ({"reward.loyalty": -1}, "reward.loyalty"),
        ({"reward.loyalty": 1, "profiles": []}, "no profile has any"),
        ({"reward.loyalty": 1, "profiles": [{"tolerances": {"eights": 0}}]}, "profiles.0.tolerances.eights"),
        ({"reward.loyalty": 1, "profiles": [{"relative_limits": {"eights": 0}}]}, "profiles.0.relative_limits.eights"),
    ],
)
def test_loyalty_is_refused_where_harm_has_no_unit(more: dict[str, object], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        scenario.load("digits", **more)
