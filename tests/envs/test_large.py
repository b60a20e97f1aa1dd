"""Large cooperatives: rules with few evaluations serve them, and the others say which do."""

from __future__ import annotations

import re
from functools import cache

import pytest
import torch

from proxycoop import credit
from proxycoop.credit.rule import parse
from proxycoop.envs import Engine, scenario
from proxycoop.envs.records import RoundResult

FIXED = {"reward.scale": 1.0, "horizon": 2}
LARGE: dict[int | str, scenario.Scenario] = {n: scenario.load("digits", principals=n, **FIXED) for n in (13, 21, 64, 256)}
LARGE["64, two classes"] = scenario.load("breast_cancer", principals=64, **FIXED)


def first_round(rule: str, made: scenario.Scenario) -> tuple[Engine, RoundResult]:
    engine = Engine(made, rule)
    engine.reset([3])
    contributed = torch.rand(1, engine.num_agents, engine.num_lots, generator=torch.Generator().manual_seed(0)) < 0.7
    return engine, engine.step(contributed)


@cache  # refusals name the same few rules again and again
def pays_what_it_promises(rule: str, made: int | str) -> None:
    engine, result = first_round(rule, LARGE[made])
    assert engine.rule is not None
    assert result.credit.shape == (1, engine.num_agents)
    assert result.credit.isfinite().all()
    assert result.evaluations <= engine.rule.cost(engine.num_agents)
    assert engine.observations.isfinite().all()
    if engine.rule.efficient:
        torch.testing.assert_close(result.credit.sum(dim=1), result.gain, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize(
    "rule",
    [
        "equal",
        "data_size",
        "loo",
        "standalone",
        "shapley(budget=300)",
        "antithetic(budget=300)",
        "kernelshap(budget=300)",
        "leverage(budget=300)",
        "svarm(budget=300)",
        "stratified_svarm",
        "complementary",
        "tmc(budget=300)",
        "gtg(budget=300)",
        "banzhaf_msr(budget=300)",
        "myerson",
        "myerson(graph='line')",
        "normalised(rule='standalone')",
        "coopetition",
        "clipped",
        "smoothed",
    ],
)
def test_64_principals_are_served_within_the_budget(rule: str) -> None:
    pays_what_it_promises(rule, 64)


@pytest.mark.parametrize("unions", [pytest.param(8, marks=pytest.mark.slow), [list(range(first, 64, 8)) for first in range(8)]])
def test_64_principals_in_8_unions_are_served(unions: object) -> None:
    pays_what_it_promises(f"owen(unions={unions})", "64, two classes")


@pytest.mark.parametrize(
    "rule",
    [
        "equal",
        "data_size",
        "loo",
        "standalone",
        "shapley(budget=600)",
        "kernelshap(budget=600)",
        "svarm(budget=1100)",
        "tmc(budget=600)",
        "banzhaf_msr(budget=600)",
        "normalised",
        "smoothed(rule='standalone')",
    ],
)
def test_256_principals_are_served_within_the_budget(rule: str) -> None:
    pays_what_it_promises(rule, 256)


def test_an_estimate_for_64_principals_is_near_what_another_estimator_says() -> None:
    """Digits' lots hardly interact, so that few evaluations tell much: two estimators that share nothing but the game agree."""
    one, other = (first_round(rule, LARGE[64])[1].credit[0] for rule in ("antithetic", "kernelshap"))
    assert float(torch.corrcoef(torch.stack([one, other]))[0, 1]) > 0.999


def refused(n: int) -> list[str]:
    """Rules of ours that cannot serve so many with their default arguments."""
    names = [name for name in credit.RULES if credit.RULES[name].__module__.startswith("proxycoop.")]
    wrapped = [f"normalised(rule={name!r})" for name in ("shapley", "least_core")]
    return [rule for rule in [*names, *wrapped] if _refusal(rule, n)]


def _refusal(rule: str, n: int) -> str:
    try:
        credit.make(rule).check(n)
    except ValueError as error:
        return str(error)
    return ""


def test_who_cannot_serve_whom() -> None:
    assert {"joint_shapley", "least_core", "nucleolus", "normalised(rule='least_core')"} <= set(refused(13))
    assert {*refused(13), "banzhaf", "beta_shapley", "shapley", "normalised(rule='shapley')"} <= set(refused(21))
    assert {*refused(21), "owen"} <= set(refused(64))
    assert not {"shapley", "banzhaf", "beta_shapley", "equal", "loo"} & set(refused(13))


@pytest.mark.parametrize(
    ("n", "rule"), [pytest.param(n, rule, marks=pytest.mark.slow if n == 21 else ()) for n in (13, 21, 64) for rule in refused(n)]
)
def test_a_rule_that_cannot_serve_so_many_says_so_with_numbers_and_names_rules_that_can(n: int, rule: str) -> None:
    with pytest.raises(ValueError, match=rf"\b{n}\b") as caught:
        Engine(LARGE[n], rule)
    message = str(caught.value)
    named = re.findall(r"credit='([^']*)'(?: \(([\d,]+)\))?", message)
    assert named, message
    for alternative, cost in named:
        pays_what_it_promises(alternative, n)
        if cost:
            assert credit.make(alternative).cost(n) == int(cost.replace(",", ""))
    assert len(re.findall(r"\d[\d,]*", message)) >= 3, "how many there are, how many there may be, and what it would cost"


@pytest.mark.parametrize(
    "rule", ["antithetic", "kernelshap", "leverage", "svarm", "stratified_svarm", "complementary", "tmc", "gtg", "banzhaf_msr", "shapley"]
)
def test_a_budget_that_is_too_small_is_refused_and_the_least_that_is_named_will_do(rule: str) -> None:
    with pytest.raises(ValueError, match=r"budget=50 is too small for .* 64 players: pass at least") as caught:
        Engine(LARGE[64], f"{rule}(budget=50)")
    least = re.search(r"pass at least (\d+)", str(caught.value))
    assert least is not None
    pays_what_it_promises(f"{rule}(budget={least[1]})", 64)
    assert _refusal(f"{rule}(budget={int(least[1]) - 1})", 64)
    for alternative in re.findall(r"credit='([^']*)'", str(caught.value)):
        assert parse(alternative)[0] in credit.RULES
        assert not _refusal(alternative, 64)
