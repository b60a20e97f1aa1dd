"""CGSV: cosines and reputations by hand and by loops, and what it rewards."""

import math

import pytest
import torch
from torch import Tensor

from proxycoop import credit


def rounds_of(learning_round, n_rounds: int, n: int = 4, n_envs: int = 3, dtype: torch.dtype = torch.float64) -> list[credit.Round]:
    generator = torch.Generator().manual_seed(n_rounds)
    drawn = []
    for t in range(n_rounds):
        updates = torch.randn(n_envs, n, 3, dtype=torch.float64, generator=generator)
        updates[:, t % n] = 0  # somebody rests
        drawn.append(learning_round(updates.to(dtype), torch.randn(n_envs, 3, dtype=torch.float64, generator=generator).to(dtype), t=t))
    return drawn


def test_the_first_round_of_two_by_hand(learning_round):
    """Updates (3, 0) and (0, 1), r = ½ each: the common direction is (½, ½), and both cosines are 1/√2. So they share alike.

    Then the second update is (−1, 0), of direction opposite to the first's; it is called by r = ½, ½ too, so that nothing is common and
    both cosines are 0, and r stays. In the third round the directions are (1, 0) and none: cosines 1 and 0,
    r = (0.8·½ + 0.2·1, 0.8·½) = (0.6, 0.4).
    """
    target = torch.tensor([[1.0, 1.0]]).double()
    rule = credit.CosineGradientShapley(alpha=0.8, beta=2.0)
    rule.reset(1, 2)
    for updates in ([[3.0, 0.0], [0.0, 1.0]], [[3.0, 0.0], [-1.0, 0.0]]):
        the_round = learning_round(torch.tensor([updates]).double(), target)
        assert rule.assign(the_round)[0].tolist() == pytest.approx([float(the_round.gain) / 2] * 2, abs=1e-15)
    the_round = learning_round(torch.tensor([[[0.5, 0.0], [0.0, 0.0]]]).double(), target)
    gain = 0.5 - 0.125
    q = [math.tanh(1.2), math.tanh(0.8)]
    assert rule.assign(the_round)[0].tolist() == pytest.approx([gain * q[0] / sum(q), gain * q[1] / sum(q)], abs=1e-15)


def by_loops(updates: Tensor, reputation: list[float], alpha: float) -> list[float]:
    """The next reputations of one environment, ``(N, P)``."""
    rows = [row.tolist() for row in updates]
    units = [[x / math.hypot(*row) if any(row) else 0.0 for x in row] for row in rows]
    common = [sum(r * unit[p] for r, unit in zip(reputation, units, strict=True)) for p in range(len(rows[0]))]
    cosines = [sum(x * y for x, y in zip(unit, common, strict=True)) / math.hypot(*common) for unit in units]
    new = [max(alpha * r + (1 - alpha) * cosine, 0.0) for r, cosine in zip(reputation, cosines, strict=True)]
    return [r / sum(new) for r in new]


@pytest.mark.parametrize(("alpha", "beta"), [(0.95, 1.0), (0.5, 4.0), (0.8, 0.5), (1.0, 1.0)])
def test_reputation_is_what_loops_over_rounds_environments_and_agents_find(alpha, beta, learning_round):
    rule = credit.CosineGradientShapley(alpha, beta)
    rule.reset(3, 4)
    reputation = [[0.25] * 4 for _ in range(3)]
    for the_round in rounds_of(learning_round, 6):
        paid = rule.assign(the_round)
        for e in range(3):
            reputation[e] = by_loops(the_round.updates[e], reputation[e], alpha)
            q = [math.tanh(beta * r) for r in reputation[e]]
            gain = float(the_round.gain[e])
            expected = [max(gain, 0.0) * x / sum(q) + min(gain, 0.0) / len(q) for x in q]
            assert paid[e].tolist() == pytest.approx(expected, rel=1e-12, abs=1e-13)


def test_shares_tend_to_the_reputations_for_a_small_beta(learning_round):
    one, two = credit.CosineGradientShapley(beta=1e-5), credit.CosineGradientShapley(beta=50.0)
    for rule in (one, two):
        rule.reset(3, 4)
    reputation = [0.25] * 4
    rounds = [*rounds_of(learning_round, 5), learning_round(torch.full((3, 4, 3), 0.1).double(), torch.ones(3, 3).double())]  # gains
    for the_round in rounds:
        small, large = one.assign(the_round), two.assign(the_round)
        reputation = by_loops(the_round.updates[0], reputation, 0.95)
    torch.testing.assert_close(small[0] / the_round.gain[0], torch.tensor(reputation).double(), rtol=1e-6, atol=1e-9)
    assert (large[0] / the_round.gain[0] - 0.25).abs().max() < 1e-3  # everybody's quality is near 1


def test_lengths_of_updates_do_not_matter(learning_round):
    target = torch.ones(1, 3).double()
    updates = torch.randn(1, 4, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    scaled = updates * torch.tensor([1e-30, 1.0, 5.0, 1e20]).double()[:, None]
    shares = []
    for each in (updates, scaled):
        rule = credit.CosineGradientShapley()
        rule.reset(1, 4)
        the_round = learning_round(each, target)
        shares.append(rule.assign(the_round) / the_round.gain)
    torch.testing.assert_close(*shares, rtol=1e-12, atol=0)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_round_without_updates_pays_nobody_and_leaves_reputations_as_they_are(dtype, learning_round):
    nobody = torch.zeros(3, 4, 3, dtype=dtype)
    for alpha in (0.0, 0.95):
        rested, rule = credit.CosineGradientShapley(alpha), credit.CosineGradientShapley(alpha)
        rested.reset(3, 4)
        rule.reset(3, 4)
        first, second = rounds_of(learning_round, 2, dtype=dtype)
        rested.assign(first)
        rule.assign(first)
        assert rested.assign(learning_round(nobody, nobody[:, 0])).tolist() == [[0.0] * 4] * 3
        paid = rested.assign(second)
        assert paid.dtype == dtype
        torch.testing.assert_close(paid, rule.assign(second), rtol=1e-6, atol=1e-7)


def test_a_copier_gains_and_a_rare_but_valuable_agent_loses_which_is_its_known_failure(learning_round):
    # the target is (1, 1); only the last agent knows the second parameter, and the second copies the first
    updates = torch.tensor([[[0.4, 0.0], [0.4, 0.0], [0.4, 0.0], [0.0, 0.8]]]).double()
    target = torch.ones(1, 2).double()
    rule = credit.CosineGradientShapley()
    rule.reset(1, 4)
    for _ in range(20):
        paid = rule.assign(learning_round(updates, target))[0]
    fair = credit.Shapley().assign(learning_round(updates, target))[0]
    assert fair[3] > 2 * fair[1]
    assert paid[3] < 0.5 * paid[1]


def test_reputation_lasts_while_an_agent_rests_and_a_reset_clears_it(learning_round):
    target = torch.ones(1, 2).double()
    works = learning_round(torch.tensor([[[0.5, 0.5], [0.0, 0.0]]]).double(), target)
    rests = torch.tensor([[[0.0, 0.0], [0.5, 0.5]]]).double()
    rule = credit.CosineGradientShapley(alpha=0.5)
    rule.reset(1, 2)
    rule.assign(works)
    assert rule.assign(learning_round(rests, target))[0, 0] > 0.2
    rule.reset(1, 2)
    again = rule.assign(learning_round(rests, target))
    fresh = credit.CosineGradientShapley(alpha=0.5)
    fresh.reset(1, 2)
    assert again.equal(fresh.assign(learning_round(rests, target)))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"alpha": 1.1}, "alpha=1.1: must be a number from 0 to 1"),
        ({"alpha": -0.1}, "alpha=-0.1"),
        ({"alpha": float("nan")}, "alpha=nan"),
        ({"alpha": True}, "alpha=True"),
        ({"alpha": None}, "alpha=None"),
        ({"beta": 0.0}, "beta=0.0: must be a positive number"),
        ({"beta": -1}, "beta=-1"),
        ({"beta": float("inf")}, "beta=inf"),
        ({"beta": "1"}, "beta='1'"),
    ],
)
def test_wrong_arguments_are_refused_with_a_clear_message(arguments, message):
    with pytest.raises(ValueError, match=message):
        credit.make("cgsv", **arguments)


def test_it_passes_the_suite_with_other_arguments_too():
    credit.check_rule("cgsv(alpha=0.5, beta=2)")


def test_a_loss_is_borne_by_all_alike(learning_round):
    """Updates .5, .5 and −2.5 of one parameter with target 1: x = −1.5, so v(N) = −2.625. Who did the harm agrees with the step."""
    rule = credit.CosineGradientShapley()
    rule.reset(1, 3)
    updates, target = torch.tensor([[[0.5], [0.5], [-2.5]]], dtype=torch.float64), torch.ones(1, 1, dtype=torch.float64)
    assert rule.assign(learning_round(updates, target)).tolist() == [[-0.875] * 3]


def by_the_authors(updates: Tensor, reputation: Tensor, alpha: float, *, floor: float) -> Tensor:
    """The next reputations as in the authors' code, ``(N, P)``, ``(N,)`` → ``(N,)``; there the floor is 0.001."""
    units = updates / (updates.norm(dim=1, keepdim=True) + 1e-7)
    cosines = torch.nn.functional.cosine_similarity(units, (reputation @ units)[None], dim=1, eps=1e-10)
    kept = (alpha * reputation + (1 - alpha) * cosines).clamp(min=floor)
    return kept / kept.sum()


def test_it_departs_from_the_authors_code_in_the_start_and_in_the_floor_of_a_reputation(learning_round):
    """Agent 3 points where the others do not. Without the floor, and from the same start, both have the same reputations."""
    generator = torch.Generator().manual_seed(0)
    directions = torch.tensor([[1.0, 0.2, 0.0], [1.0, -0.2, 0.1], [1.0, 0.0, -0.1], [-1.0, 0.3, 0.2]], dtype=torch.float64)
    rule = credit.CosineGradientShapley(alpha=0.8, beta=1e-6)  # paid in proportion to reputations
    rule.reset(1, 4)
    ours = theirs = torch.full((4,), 0.25, dtype=torch.float64)
    for t in range(8):
        updates = directions + 0.1 * torch.randn(4, 3, dtype=torch.float64, generator=generator)
        ours = by_the_authors(updates, ours, 0.8, floor=0.0)
        theirs = by_the_authors(updates, theirs, 0.8, floor=1e-3)
        the_round = learning_round(updates[None], torch.full((1, 3), 100.0).double(), t=t)
        torch.testing.assert_close(rule.assign(the_round)[0] / the_round.gain, ours, rtol=0, atol=1e-6)
    assert ours[3] == 0
    assert 5e-4 < theirs[3] < 1e-3  # 0.001 over the sum
