"""Rules that remember, where only some members are present in a round, against loops that keep a dictionary of members."""

import math

import pytest
import torch

from proxycoop import credit

N, M = 6, 3


def episode(n_rounds: int, *, n_envs: int = 2, seed: int = 0, rests: bool = True) -> list[credit.Round]:
    """Random rounds of 3 of 6 members; now and then somebody who is present contributes nothing."""
    generator = torch.Generator().manual_seed(seed)
    rounds = []
    for t in range(n_rounds):
        agents = torch.rand(n_envs, N, generator=generator).argsort(dim=1)[:, :M].sort(dim=1).values
        part = (torch.rand(n_envs, M, generator=generator) < 0.7) | (not rests)
        updates = (torch.randn(n_envs, M, 3, dtype=torch.float64, generator=generator) + 1) / M
        target = 1 + torch.rand(n_envs, 3, dtype=torch.float64, generator=generator)
        rounds.append(present(updates, target, part, agents, t))
    return rounds


def present(updates: torch.Tensor, target: torch.Tensor, part: torch.Tensor, agents: torch.Tensor, t: int) -> credit.Round:
    """A round of some members, as an engine hands it to rules."""
    contributed = part[..., None]
    made = credit.learning_round(updates * contributed, target, admitted=contributed, contributed=contributed, t=t)
    made._agents, made.n_members = agents, N
    return made


def test_a_round_knows_its_agents_and_hands_members_numbers_to_them_and_back():
    (the_round,) = episode(1)
    members = torch.arange(2 * N).reshape(2, N)
    own = the_round.of_agents(members)
    assert torch.equal(own, the_round.agents + N * torch.arange(2)[:, None])
    changed = the_round.among_members(own + 100, members)
    assert int((changed != members).sum()) == 2 * M
    assert torch.equal(the_round.of_agents(changed), own + 100)


def test_cgsv_keeps_reputations_by_member():
    rule = credit.CosineGradientShapley(alpha=0.8, beta=2.0)
    rule.reset(2, M)
    reputation = [dict.fromkeys(range(N), 1 / N) for _ in range(2)]
    for the_round in episode(12, seed=1):
        paid = rule.assign(the_round)
        for e, known in enumerate(reputation):
            who = the_round.agents[e].tolist()
            units = [u / u.norm() if u.norm() > 0 else u for u in the_round.updates[e]]
            had = [known[i] for i in who] if any(known[i] > 0 for i in who) else [1 / N] * M
            together = sum(had)
            before = [r / together for r in had]
            common = sum(r * u for r, u in zip(before, units, strict=True))
            cosine = [float(u @ common / common.norm()) if common.norm() > 0 else 0.0 for u in units]
            raw = [max(0.8 * r + 0.2 * c, 0.0) for r, c in zip(before, cosine, strict=True)]
            after = [r / sum(raw) for r in raw] if sum(raw) > 0 else before
            known.update({i: together * r for i, r in zip(who, after, strict=True)})
            quality = [math.tanh(2.0 * r) for r in after]
            gain = float(the_round.gain[e])
            expected = [max(gain, 0) * q / sum(quality) + min(gain, 0) / M for q in quality]
            assert paid[e].tolist() == pytest.approx(expected, abs=1e-12)
    assert all(sum(known.values()) == pytest.approx(1) for known in reputation)


def test_smoothed_pays_the_mean_over_the_rounds_in_which_a_member_was_present():
    rule = credit.make("smoothed", rule="standalone", decay=0.5)
    rule.reset(2, M)
    past: dict[tuple[int, int], list[float]] = {}
    for the_round in episode(10, seed=2):
        paid = rule.assign(the_round)
        plain = credit.make("standalone").assign(the_round)
        for e in range(2):
            for seat, member in enumerate(the_round.agents[e].tolist()):
                earned = past.setdefault((e, member), [])
                earned.append(float(plain[e, seat]))
                weights = [0.5 ** (len(earned) - 1 - k) for k in range(len(earned))]
                mean = sum(w * c for w, c in zip(weights, earned, strict=True)) / sum(weights)
                assert float(paid[e, seat]) == pytest.approx(mean, abs=1e-12)


@pytest.mark.parametrize("name", ["cumulation", "valuation"])
def test_time_aware_rules_know_when_a_member_joined(name):
    rule = credit.make(name)
    rule.reset(2, M)
    joined: dict[tuple[int, int], int] = {}
    for the_round in episode(8, seed=3):
        paid = rule.assign(the_round)
        when = torch.full((2, M), 2**31, dtype=torch.int64)
        never = rule._joined.max()  # some members have not joined yet
        for e in range(2):
            for seat, member in enumerate(the_round.agents[e].tolist()):
                if the_round.took_part[e, seat]:
                    joined.setdefault((e, member), the_round.t)
                when[e, seat] = joined.get((e, member), int(never))
        expected = credit.make(name).divide(the_round.game, when, the_round.t)
        torch.testing.assert_close(paid, expected, rtol=0, atol=1e-12)


def test_fedsv_is_the_shapley_value_of_those_who_took_part_and_sums_over_rounds():
    rule = credit.make("fedsv")
    rule.reset(2, M)
    for the_round in episode(6, seed=4):
        exact = credit.shapley_values(the_round.game.values())
        torch.testing.assert_close(rule.assign(the_round), torch.where(the_round.took_part, exact, 0.0), rtol=0, atol=1e-12)


def test_comfedsv_pays_fedsv_once_more_agents_took_part_than_can_ever_meet():
    rounds = episode(9, seed=5, rests=False)
    rule, plain = credit.make("comfedsv"), credit.make("fedsv")
    rule.reset(2, M)
    paid, owed = torch.zeros(2, N, dtype=torch.float64), torch.zeros(2, N, dtype=torch.float64)
    heard = torch.zeros(2, N, dtype=torch.bool)
    for the_round in rounds:
        paid.scatter_add_(1, the_round.agents, rule.assign(the_round))
        owed.scatter_add_(1, the_round.agents, plain.assign(the_round))
        heard.scatter_(1, the_round.agents, True)
        for e in range(2):
            if heard[e].sum() > M:
                torch.testing.assert_close(paid[e, the_round.agents[e]], owed[e, the_round.agents[e]], rtol=0, atol=1e-9)
    assert (heard.sum(dim=1) > M).all()
    assert not rule._utilities  # the matrix has been given up


def test_comfedsv_completes_while_the_same_few_take_part_and_pays_the_absent_when_they_are_back():
    """Members 0, 1 and 2 alone ever contribute. What each has been paid when it is present is its value among these three."""
    generator = torch.Generator().manual_seed(6)
    seats = [[0, 1, 2], [0, 1, 4], [1, 2, 5], [0, 3, 4], [0, 1, 2], [2, 3, 5], [0, 1, 2]]
    some, whole = credit.make("comfedsv"), credit.make("comfedsv")
    some.reset(1, M)
    whole.reset(1, M)
    paid, value = torch.zeros(N, dtype=torch.float64), torch.zeros(3, dtype=torch.float64)
    for t, who in enumerate(seats):
        updates = (torch.randn(1, N, 3, dtype=torch.float64, generator=generator) + 1) / M
        target = 1 + torch.rand(1, 3, dtype=torch.float64, generator=generator)
        part = torch.tensor([[i in who for i in range(3)]])
        agents = torch.tensor([who])
        there = present(updates[:, who], target, agents < 3, agents, t)
        paid.scatter_add_(0, agents[0], some.assign(there)[0])
        contributed = part[..., None]
        same = credit.learning_round(updates[:, :3] * contributed, target, admitted=contributed, contributed=contributed, t=t)
        value += whole.assign(same)[0]
        for i in who:
            expected = float(value[i]) if i < 3 else 0.0
            assert float(paid[i]) == pytest.approx(expected, abs=1e-9), (t, i)
