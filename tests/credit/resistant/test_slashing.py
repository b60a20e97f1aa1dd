"""Slashing: who is audited, what a stake costs, and when forging does not pay."""

import pytest
import torch

from proxycoop import credit
from proxycoop.credit.resistant import least_stake

WORTH = torch.tensor([0.5, 0.2, 0.9, 0.0], dtype=torch.float64)


def round_of(forged, contributed=None, *, num_envs=1, t=0, episode=0):
    """Four agents of three lots, whose worths add up."""
    forged = torch.as_tensor(forged, dtype=torch.bool).expand(num_envs, 4, 3)
    contributed = torch.ones_like(forged) if contributed is None else torch.as_tensor(contributed).expand_as(forged)
    updates = torch.zeros(num_envs, 4, 1, dtype=torch.float64)
    the_round = credit.learning_round(
        updates, updates[:, 0], admitted=contributed, contributed=contributed, forged=forged, t=t, episode=episode
    )
    the_round.game = credit.CoalitionGame(lambda c: (c.double() @ WORTH).expand(num_envs, -1), 4)
    return the_round


FORGED = [[True, False, False], [False] * 3, [True, True, True], [False] * 3]


def test_with_certain_audits_and_evidence_who_forged_loses_the_stake_and_nobody_else():
    rule = credit.Slashing(stake=2.0, audit_rate=1.0, audit_cost=0.1)
    assert rule.assign(round_of(FORGED))[0].tolist() == pytest.approx([0.5 - 2 - 0.1, 0.2 - 0.1, 0.9 - 2 - 0.1, 0 - 0.1])


def test_lost_stakes_go_to_the_others_if_asked():
    rule = credit.Slashing(stake=2.0, audit_rate=1.0, to="members")
    paid = rule.assign(round_of(FORGED))[0]
    assert paid.tolist() == pytest.approx([0.5 - 2, 0.2 + 2, 0.9 - 2, 0 + 2])
    assert paid.sum().item() == pytest.approx(WORTH.sum().item())
    nobody_left = rule.assign(round_of(True))[0]
    assert nobody_left.tolist() == pytest.approx((WORTH - 2).tolist())  # burnt


def test_only_what_was_sent_is_looked_at_and_who_sends_nothing_stakes_nothing():
    sent = torch.tensor([[False, True, True], [True] * 3, [False] * 3, [True] * 3])
    rule = credit.Slashing(stake=2.0, audit_rate=1.0, audit_cost=0.4)
    audited, caught = rule.audits(round_of(FORGED, sent))
    assert audited.tolist() == [[True, True, False, True]]
    assert not caught.any()
    # three audits of four members
    assert rule.assign(round_of(FORGED, sent))[0].tolist() == pytest.approx((WORTH - 0.3).tolist())


@pytest.mark.parametrize(("rate", "evidence", "alarm"), [(0.3, 0.7, 0.1), (1.0, 0.5, 0.0), (0.6, 1.0, 0.2)])
def test_chances_are_the_closed_form(rate, evidence, alarm):
    rule = credit.Slashing("equal", audit_rate=rate, evidence=evidence, false_alarm=alarm)
    seen = [rule.audits(round_of(FORGED, t=t, episode=t // 50)) for t in range(4000)]
    audited, caught = (torch.cat(one).double().mean(dim=0) for one in zip(*seen, strict=True))
    expected = torch.tensor([1 - (1 - evidence) ** f * (1 - alarm) ** (3 - f) for f in (1, 0, 3, 0)]).double()
    assert (audited - rate).abs().max() < 4 * (rate * (1 - rate) / 4000) ** 0.5 + 1e-12
    p = rate * expected
    assert ((caught - p).abs() < 4 * (p * (1 - p) / 4000).sqrt() + 1e-12).all()
    both = torch.cat([one for one, _ in seen]).double()
    assert (both.T.cov() - torch.eye(4) * rate * (1 - rate)).abs().max() < 0.03  # one audit says nothing of another


@pytest.mark.parametrize(("rate", "evidence", "alarm", "gain"), [(0.2, 0.9, 0.0, 0.3), (0.5, 0.8, 0.3, 1.0), (1.0, 0.6, 0.1, 0.05)])
def test_the_least_stake_is_where_forging_one_update_neither_pays_nor_costs(rate, evidence, alarm, gain):
    """Expected pay, with every outcome of the audit written out."""
    stake = least_stake(gain, rate, evidence, alarm)

    def expected(forges, stake):
        caught = rate * (evidence if forges else alarm)
        return caught * (1.0 + gain * forges - stake) + (1 - caught) * (1.0 + gain * forges)

    assert expected(True, stake) == pytest.approx(expected(False, stake))
    assert expected(True, 1.01 * stake) < expected(False, 1.01 * stake)
    assert expected(True, 0.99 * stake) > expected(False, 0.99 * stake)


@pytest.mark.parametrize("to", ["burnt", "members"])
@pytest.mark.parametrize(("factor", "deterred"), [(1.3, True), (0.7, False)])
def test_above_the_least_stake_forging_does_not_pay_in_rounds_that_are_played(to, factor, deterred):
    """Agent 0 sends one update, forged or not; a forged one raises its credit by 0.4. Agent 2 forges in any case."""
    if to == "members" and not deterred:
        factor = 0.3  # who is found out also gives up a part of agent 2's stakes
    rate, evidence, gain = 0.5, 0.8, 0.4
    rule = credit.Slashing("shapley", factor * least_stake(gain, rate, evidence), rate, evidence=evidence, to=to)
    sent = torch.tensor([[True, False, False]] * 4)
    means = []
    for forges in (True, False):
        forged = torch.zeros(4, 3, dtype=torch.bool)
        forged[0, 0], forged[2, 0] = forges, True
        paid = torch.cat([rule.assign(round_of(forged, sent, t=t)) for t in range(3000)])[:, 0]
        means.append(paid.mean().item() + gain * forges)
    assert (means[0] < means[1]) == deterred


def test_audits_do_not_depend_on_the_batch_and_are_drawn_anew_every_round():
    rule = credit.Slashing(audit_rate=0.5)
    one, many = round_of(FORGED, t=7), round_of(FORGED, num_envs=5, t=7)
    assert rule.audits(many)[0].equal(rule.audits(one)[0].expand(5, -1))
    drawn = {tuple(rule.audits(round_of(FORGED, t=t, episode=e))[0][0].tolist()) for t in range(5) for e in range(5)}
    assert len(drawn) > 5
    assert not all(credit.Slashing(audit_rate=0.5, seed=s).audits(one)[0].equal(rule.audits(one)[0]) for s in range(1, 9))


def test_without_audits_it_is_the_other_rule():
    for arguments in ({"audit_rate": 0.0, "audit_cost": 3.0}, {"stake": 0.0}, {"evidence": 0.0}):
        rule = credit.Slashing("shapley", **arguments)
        assert (rule.efficient, rule.symmetric, rule.null_player) == (True, True, True)
        assert rule.assign(round_of(FORGED))[0].tolist() == pytest.approx(WORTH.tolist())
    assert not credit.Slashing("shapley", stake=0.0, audit_cost=1.0).efficient


def test_an_honest_agent_loses_by_false_alarms_what_the_manual_says():
    rule = credit.Slashing("equal", stake=1.0, audit_rate=0.5, false_alarm=0.2)
    honest = torch.zeros(4, 3, dtype=torch.bool)
    paid = torch.cat([rule.assign(round_of(honest, t=t)) for t in range(4000)]).mean(dim=0)
    expected = WORTH.mean() - 0.5 * (1 - 0.8**3)
    assert (paid - expected).abs().max() < 0.03


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"rule": None}, "rule=None: must be a credit rule or the name of one"),
        ({"stake": -1}, "stake=-1"),
        ({"audit_rate": 1.1}, "audit_rate=1.1: must be a number from 0 to 1"),
        ({"audit_cost": float("nan")}, "audit_cost=nan"),
        ({"evidence": 2}, "evidence=2"),
        ({"false_alarm": True}, "false_alarm=True"),
        ({"to": "everybody"}, "to='everybody': must be one of burnt, members"),
        ({"seed": -1}, "seed=-1"),
    ],
)
def test_wrong_arguments_are_refused_by_name(arguments, message):
    with pytest.raises(ValueError, match=message):
        credit.Slashing(**arguments)


@pytest.mark.parametrize("arguments", [(1.0, 0.0), (1.0, 0.5, 0.3, 0.3), (1.0, 0.5, 0.2, 0.4)])
def test_no_stake_deters_where_audits_tell_nothing(arguments):
    with pytest.raises(ValueError, match="no stake deters; audit_rate must be above 0, and evidence above false_alarm"):
        least_stake(*arguments)


def test_a_round_without_audits_is_refused():
    the_round = round_of(FORGED)
    the_round._forged = None
    with pytest.raises(ValueError, match="this cooperative has no audits: the round must say which updates an audit would find"):
        credit.Slashing().assign(the_round)
    assert credit.Slashing().unmet({"audits": False}, "slashing") == "audits"
    assert credit.Slashing(credit.DataShapley()).needs == ("lots", "audits")


@pytest.mark.parametrize(
    "text",
    ["slashing(audit_rate=0)", "slashing(to='members', audit_rate=1, false_alarm=0.2)", "slashing(rule='smoothed', audit_cost=0.1)"],
)
def test_variants_keep_what_they_promise(text):
    credit.check_rule(text)
