"""FACT: in its model, nobody gains by sending other than it would use alone, nobody loses by joining, and the truth wins the contest."""

import math

import numpy as np
import pytest
import torch

from proxycoop import credit
from proxycoop.credit.resistant import contest, local_optimum

SCALE, COST = 50.0, 0.01  # alone, an agent uses √(50 / 0.02) = 50 rows


def loss(own, others, penalty, share):
    """What federating costs an agent in the model: its part of the loss, its rows, and the penalty."""
    return share * SCALE / (2 * (own + others)) + COST * own + penalty


@pytest.mark.parametrize("share", [1.0, 0.25])
@pytest.mark.parametrize("keep", [0.0, 0.5, 0.99])
@pytest.mark.parametrize("others", [10, 50, 150, 4000])
def test_what_an_agent_would_use_alone_is_its_best_whatever_the_others_send(share, keep, others):
    rule = credit.Fact(scale=SCALE, cost=COST, keep=keep, share=share)
    best = local_optimum(SCALE, COST)
    assert best == pytest.approx(50)
    own = torch.linspace(0, 200, 4001, dtype=torch.float64)
    sent = torch.stack([own, torch.full_like(own, others)], dim=1)
    lost = [
        loss(m, others, p, share)
        for m, p in zip(own.tolist(), rule.penalty(sent, torch.tensor([1000, 10_000]))[:, 0].tolist(), strict=True)
    ]
    assert own[np.argmin(lost)].item() == pytest.approx(best, abs=0.06)
    without = [loss(m, others, 0.0, share) for m in own.tolist()]
    assert own[np.argmin(without)].item() < 45  # free riding, in part or whole


@pytest.mark.parametrize("keep", [0.0, 0.3, 0.9])
@pytest.mark.parametrize("others", [1, 50, 900])
def test_at_the_optimum_an_agent_keeps_its_part_of_what_federating_saves(keep, others):
    rule = credit.Fact(scale=SCALE, cost=COST, keep=keep, share=1.0)
    penalty = rule.penalty(torch.tensor([[50.0, others]]).double(), torch.tensor([100, 1000]))[0, 0].item()
    alone, together = loss(50, 0, 0, 1), loss(50, others, penalty, 1)
    assert alone - together == pytest.approx(keep * (SCALE / 2 * (1 / 50 - 1 / (50 + others))))


@pytest.mark.parametrize("keep", [0.1, 0.9])
def test_the_penalty_is_the_authors(keep):
    """λ (c/2λ − a/4λM² + m* − m)², λ = m* M (c − a/2M²)² / (2 − α) a (M − m*), with α = 2κ."""
    rule = credit.Fact(scale=SCALE, cost=COST, keep=keep, share=1.0)
    for own, others in ((0.0, 30.0), (20.0, 30.0), (50.0, 400.0), (80.0, 400.0)):
        best, total = 50.0, 50.0 + others
        weight = best * total / (total - best) * (COST - SCALE / (2 * total**2)) ** 2 / ((2 - 2 * keep) * SCALE)
        expected = weight * (COST / (2 * weight) - SCALE / (4 * weight * total**2) + best - own) ** 2
        assert rule.penalty(torch.tensor([[own, others]]).double(), torch.tensor([100, 1000]))[0, 0].item() == pytest.approx(expected)


def test_an_agent_with_few_rows_is_asked_for_those_it_has():
    rule = credit.Fact(scale=SCALE, cost=COST, share=1.0)
    own = torch.linspace(0, 20, 401, dtype=torch.float64)
    penalty = rule.penalty(torch.stack([own, torch.full_like(own, 100)], dim=1), torch.tensor([20, 1000]))[:, 0]
    lost = [loss(m, 100, p, 1) for m, p in zip(own.tolist(), penalty.tolist(), strict=True)]
    assert own[np.argmin(lost)] == 20


def test_it_pays_the_other_rule_less_the_penalty_on_the_rows_that_were_sent():
    the_round = credit.suite.battery.random_round(4, 0)
    rule = credit.Fact("shapley", scale=SCALE, cost=COST, keep=0.5)
    paid = rule.assign(the_round)
    expected = credit.make("shapley").assign(the_round)
    sent = (the_round.contributed * the_round.samples).sum(dim=-1).tolist()
    for e in range(2):
        for i in range(4):
            others = sum(sent[e]) - sent[e][i]
            best = min(
                50.0, sum(float(rows) for rows, forged in zip(the_round.samples[i], the_round.forged[e, i], strict=True) if not forged)
            )
            total = best + others
            if best == 0 or others == 0:
                continue
            saved = SCALE / 8 * (1 / best - 1 / total)
            growth = COST - SCALE / 8 / total**2
            expected[e, i] -= 0.5 * saved * (1 + growth * (best - sent[e][i]) / saved) ** 2
    torch.testing.assert_close(paid, expected, rtol=0, atol=1e-12)


def test_nobody_is_fined_where_there_is_nobody_to_ride_on():
    rule = credit.Fact()
    sent = torch.tensor([[0.0, 0, 0], [0, 30, 0], [10, 30, 0]]).double()
    fined = rule.penalty(sent, torch.tensor([20, 40, 0])) > 0
    assert fined.tolist() == [[False] * 3, [True, False, False], [True, True, False]]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"rule": 1}, "rule=1: must be a credit rule or the name of one"),
        ({"scale": 0}, "scale=0: must be above 0"),
        ({"cost": -1.0}, "cost=-1.0"),
        ({"keep": 1.0}, "keep=1.0: must be at least 0 and below 1"),
        ({"keep": -0.1}, "keep=-0.1"),
        ({"share": 0}, "share=0: must be above 0"),
        ({"share": 2}, "share=2: must be above 0 and at most 1, or None for 1/n"),
    ],
)
def test_wrong_arguments_are_refused_by_name(arguments, message):
    with pytest.raises(ValueError, match=message):
        credit.Fact(**arguments)


# the contest


def test_the_middle_of_three_takes_all_and_no_gain_is_lost():
    reports, gains = torch.tensor([[3.0, 1.0, 2.0]]), torch.tensor([[5.0, 7.0, 11.0]])
    assert contest(reports, gains, np.random.default_rng(0)).tolist() == [[0, 0, 23]]
    assert contest(torch.tensor([[1.0, 1.0, 2.0]]), gains, np.random.default_rng(0)).equal(gains)  # nobody is between
    generator = torch.Generator().manual_seed(0)
    many, own = torch.rand(9, 8, generator=generator), torch.rand(9, 8, generator=generator)
    after = contest(many, own, np.random.default_rng(1))
    torch.testing.assert_close(after.sum(dim=1), own.sum(dim=1))
    assert ((after != 0) & (after != own)).sum(dim=1).tolist() == [2] * 9  # two groups of three have a winner each
    assert ((after == own).sum(dim=1) == 2).all()  # two are left over


@pytest.mark.parametrize("draw", ["normal", "uniform"])
def test_who_thinks_itself_typical_does_best_to_tell_the_truth(draw):
    generator = torch.Generator().manual_seed(0)
    n = 20_000
    others = torch.randn(n, 2, generator=generator) * 0.1 if draw == "normal" else torch.rand(n, 2, generator=generator) - 0.5
    gains = torch.ones(n, 3)
    won = {}
    for lie in (-0.2, -0.1, -0.05, 0.0, 0.05, 0.1, 0.2):
        reports = torch.cat([torch.full((n, 1), 1 + lie), 1 + others], dim=1)
        won[lie] = contest(reports, gains, np.random.default_rng(0))[:, 0].mean().item()
        below = 0.5 * (1 + math.erf(lie / 0.1 / 2**0.5)) if draw == "normal" else 0.5 + lie
        assert won[lie] == pytest.approx(3 * 2 * below * (1 - below), abs=0.05)
    assert max(won.values()) - won[0.0] < 0.02
    assert won[0.0] > won[0.2]
    assert won[0.0] > won[-0.2]


def test_reports_and_gains_of_other_shapes_are_refused():
    with pytest.raises(ValueError, match=r"reports and gains must both be of shape \(E, N\), got \(1, 3\) and \(3,\)"):
        contest(torch.zeros(1, 3), torch.zeros(3), np.random.default_rng(0))


def test_without_a_cost_all_own_rows_are_an_agent_s_best_alone():
    sent = torch.tensor([[40.0, 30.0, 0.0]], dtype=torch.float64)
    available = torch.tensor([40.0, 60.0, 20.0], dtype=torch.float64)
    found = credit.Fact(scale=SCALE, keep=0.5).penalty(sent, available)
    for i in range(3):
        cost = SCALE / (2 * float(available[i]) ** 2)
        one = credit.Fact(scale=SCALE, cost=cost, keep=0.5).penalty(sent, available)
        assert float(found[0, i]) == pytest.approx(float(one[0, i]), rel=1e-12)


def test_rows_that_forged_updates_claim_are_none_that_an_agent_has():
    from proxycoop.envs import Engine, scenario

    paid = {}
    for conduct in (None, {"forgeries": [{"kind": "noise"}, {"kind": "twin"}]}):
        engine = Engine(scenario.load("digits", conduct=conduct, **{"reward.scale": 1.0}), "fact(scale=80.0, cost=0.001)", 2)
        engine.reset([1, 2])
        chosen = torch.zeros(2, 6, engine.num_items)
        chosen[..., :4] = 1
        paid[conduct is None] = engine.step(chosen).credit
    torch.testing.assert_close(paid[True], paid[False])
