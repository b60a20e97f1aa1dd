"""Cumulation and valuation: dividends paid by when the last member of a coalition joined."""

from __future__ import annotations

import re
from itertools import combinations
from math import exp, log
from pathlib import Path

import pytest
import torch
from torch import Tensor

from proxycoop import credit
from proxycoop.credit import Round, dividends, games, shapley_values
from proxycoop.credit.rounds.time_aware import NEVER

# v({0}) = 1, v({1}) = 2, v({0, 1}) = 4, so the dividends are 1, 2 and 4 − 1 − 2 = 1
TWO = torch.tensor([[0.0, 1.0, 2.0, 4.0]], dtype=torch.float64)


def played(v: Tensor, there: list[bool] | Tensor, t: int) -> Round:
    """A round with the worths ``v``, in which those who are ``there`` contribute."""
    the_round = credit.game_round(credit.table_game(v), num_envs=len(v), t=t)
    the_round.contributed = torch.as_tensor(there).reshape(-1, the_round.num_agents, 1).expand(len(v), -1, 1)
    return the_round


def pay(rule: str, v: Tensor, presence: list[list[bool]]) -> list[Tensor]:
    """What a rule pays for the same game round after round, by who contributes in each."""
    made = credit.make(rule)
    made.reset(len(v), len(presence[0]))
    return [made.assign(played(v, there, t)) for t, there in enumerate(presence)]


def random_table(n: int, seed: int = 0, batch: int = 2) -> Tensor:
    v = torch.randn(batch, 2**n, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))
    v[:, 0] = 0
    return v


def restricted(v: Tensor, members: int) -> Tensor:
    """v(S ∩ J) for all S, J coded in bits."""
    return v[:, torch.arange(v.shape[1]) & members]


def test_dividends_by_hand_and_by_their_definition() -> None:
    assert dividends(TWO).tolist() == [[0.0, 1.0, 2.0, 1.0]]
    v = random_table(4)
    d = dividends(v)
    for code in range(16):
        members = [i for i in range(4) if code >> i & 1]
        parts = [sum(1 << i for i in part) for size in range(len(members) + 1) for part in combinations(members, size)]
        torch.testing.assert_close(sum(d[:, part] for part in parts), v[:, code])


def test_dividends_leave_the_worths_as_they_were() -> None:
    v = random_table(3)
    before = v.clone()
    dividends(v)
    assert v.equal(before)


def test_cumulation_of_two_agents_by_hand() -> None:
    """Agent 0 joins in round 0, agent 1 in round 1; β = 1 weighs both rounds by a half.

    Round 0: agent 0 is paid for {0}, 1. Round 1: agent 0 for {0} in full and half of its half of {0, 1}: 1 + 1/4; agent 1 half of {1} and
    half of its half of {0, 1}: 1 + 1/4. Of the 4 there are, 1.5 are not paid.
    """
    first, second = pay("cumulation", TWO, [[True, False], [True, True]])
    assert first.tolist() == [[1.0, 0.0]]
    assert second.tolist() == [[1.25, 1.25]]
    # β = 3: weights 1/4 and 3/4
    assert pay("cumulation(beta=3)", TWO, [[True, False], [True, True]])[1].tolist() == [[1.375, 1.875]]


def test_valuation_of_two_agents_by_hand() -> None:
    """γ = log 2: what the two do together is halved by one round of delay; alone both are paid in full: 1 + ½·½ and 2 + ½·½."""
    _, second = pay(f"valuation(gamma={log(2)!r})", TWO, [[True, False], [True, True]])
    torch.testing.assert_close(second, torch.tensor([[1.25, 2.25]], dtype=torch.float64))


PRESENCE = [[True, False, False, True], [False, True, False, True], [True, True, False, False], [True, True, True, True]]
JOINED = [0, 1, 3, 0]


@pytest.mark.parametrize("beta", [0.5, 1.0, 4.0])
def test_cumulation_is_the_weighted_mean_of_shapley_values_of_those_who_had_joined(beta: float) -> None:
    v = random_table(4)
    for t, paid in enumerate(pay(f"cumulation(beta={beta})", v, PRESENCE)):
        weights = [beta**tau / sum(beta**s for s in range(t + 1)) for tau in range(t + 1)]
        mean = torch.zeros(2, 4, dtype=torch.float64)
        for tau, weight in enumerate(weights):
            members = sum(1 << i for i in range(4) if JOINED[i] <= tau)
            mean += weight * shapley_values(restricted(v, members))
        torch.testing.assert_close(paid, mean)


def test_cumulation_tends_to_the_shapley_value_as_beta_grows() -> None:
    v = random_table(4)
    plain = shapley_values(v)
    off = [(pay(f"cumulation(beta={beta})", v, PRESENCE)[3] - plain).abs().max().item() for beta in (1.0, 10.0, 100.0, 1e4, 1e100)]
    assert off == sorted(off, reverse=True)
    assert off[0] > 0.1
    assert off[2] < 0.02 * off[0] + 0.02
    assert off[4] < 1e-12


@pytest.mark.parametrize("gamma", [0.1, 1.0])
def test_valuation_discounts_each_coalition_by_its_last_member(gamma: float) -> None:
    v = random_table(4)
    paid = pay(f"valuation(gamma={gamma})", v, PRESENCE)[3]
    d = dividends(v)
    expected = torch.zeros(2, 4, dtype=torch.float64)
    for code in range(1, 16):
        members = [i for i in range(4) if code >> i & 1]
        discount = 1.0 if len(members) == 1 else min(exp(-gamma * JOINED[i]) for i in members)
        expected[:, members] += (d[:, code] * discount / len(members))[:, None]
    torch.testing.assert_close(paid, expected)


def test_without_a_discount_valuation_is_the_shapley_value() -> None:
    v = random_table(5)
    torch.testing.assert_close(pay("valuation(gamma=0)", v, [[True] * 5, [False] * 5])[1], shapley_values(v))
    assert credit.make("valuation(gamma=0)").efficient


@pytest.mark.parametrize("rule", ["cumulation", "valuation"])
def test_who_was_there_from_the_first_round_is_paid_by_shapley_whenever_it_rests(rule: str) -> None:
    v = random_table(3)
    for paid in pay(rule, v, [[True] * 3, [False, True, False], [False] * 3]):
        torch.testing.assert_close(paid, shapley_values(v))


@pytest.mark.parametrize("rule", ["cumulation", "valuation"])
def test_environments_keep_their_own_times(rule: str) -> None:
    v = random_table(3, batch=3)
    there = [torch.tensor([[True, False, False], [True, True, True], [False, False, True]]), torch.tensor([[True] * 3] * 3)]
    made = credit.make(rule)
    made.reset(3, 3)
    together = [made.assign(played(v, now, t)) for t, now in enumerate(there)]
    for e in range(3):
        made.reset(1, 3)
        for t, now in enumerate(there):
            torch.testing.assert_close(made.assign(played(v[e : e + 1], now[e], t))[0], together[t][e])


@pytest.mark.parametrize("rule", ["cumulation", "valuation"])
def test_who_joins_earlier_is_paid_more_for_the_same(rule: str) -> None:
    v = games.unanimity(3, [0, 1, 2]).game().values() + games.additive([1.0, 1.0, 1.0]).game().values()
    paid = pay(rule, v, [[True, False, False], [True, True, False], [True, True, True]])[2][0]
    if rule == "cumulation":
        assert paid[0] > paid[1] > paid[2] > 0
    else:  # alone all are worth the same, and together they are as late as the last
        assert paid[0] == paid[1] == paid[2] < 4 / 3


def test_a_superadditive_game_never_pays_more_than_there_is() -> None:
    v = games.random_game("unanimity_sum", 5, seed=2).game().values()
    d = dividends(v).clamp(min=0)  # monotone and superadditive
    codes = torch.arange(32)
    v = torch.stack([d[0, (codes & code) == codes].sum() for code in codes])[None]
    for rule in ("cumulation", "valuation"):
        paid = pay(rule, v, [[True, False, True, False, False], [True] * 5])[1]
        assert (paid >= 0).all()
        assert paid.sum() <= v[0, -1] + 1e-12


@pytest.mark.parametrize(
    ("rule", "wrong"),
    [
        ("cumulation", {"beta": 0}),
        ("cumulation", {"beta": float("inf")}),
        ("cumulation", {"beta": "1"}),
        ("valuation", {"gamma": -0.1}),
        ("valuation", {"gamma": float("nan")}),
        ("valuation", {"gamma": True}),
    ],
)
def test_wrong_arguments_are_refused_by_name(rule: str, wrong: dict[str, object]) -> None:
    with pytest.raises(ValueError, match=f"{next(iter(wrong))}=.*must be"):
        credit.make(rule, **wrong)


def test_more_than_fourteen_agents_are_refused() -> None:
    for rule in ("cumulation", "valuation"):
        with pytest.raises(ValueError, match="at most 14 agents, got 15"):
            credit.make(rule).reset(1, 15)


def test_those_yet_to_come_have_a_time_beyond_all_rounds() -> None:
    made = credit.make("cumulation")
    v = random_table(2)
    joined = torch.tensor([[0, NEVER], [0, NEVER]])
    torch.testing.assert_close(made.divide(credit.table_game(v), joined, 0), shapley_values(restricted(v, 1)))


def test_the_source_is_called_by_its_title_wherever_it_is_cited():
    root = Path(__file__).parents[3]
    folders = ["credit", "docs", "benchmarks", "envs", "agents", "training", "examples", "src"]
    files = [path for folder in folders for path in (root / folder).rglob("*") if path.suffix in {".py", ".md"}]
    generated = root / "docs" / "credit" / "rules"  # from the rules' docstrings, when the site is built
    texts = {path: " ".join(path.read_text(encoding="utf-8").split()) for path in files if generated not in path.parents}
    cited = [(path, found.start()) for path, text in texts.items() for found in re.finditer("2510.09240", text)]
    assert len(cited) >= 5
    for path, place in cited:
        near = texts[path][max(place - 100, 0) : place].replace('" "', "").lower()
        assert "incentivizing time-aware fairness in data sharing" in near, path


@pytest.mark.parametrize("v", [[0.0, 1.0], torch.zeros(4), torch.zeros(1, 7), torch.zeros(1, 1), None])
@pytest.mark.parametrize("divide", [credit.dividends, credit.shapley_values, lambda v: credit.joint_shapley_values(v, 1)])
def test_what_is_no_batch_of_all_worths_is_refused(divide, v):
    with pytest.raises(ValueError, match=r"v must have shape|v=.*must be a tensor of real numbers"):
        divide(v)
