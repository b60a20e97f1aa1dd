"""Peer ranking: BitTensor's incentive, and what it pays in a learning cooperative."""

from __future__ import annotations

from math import exp

import pytest
import torch
from torch import Tensor

from proxycoop import credit
from proxycoop.credit import peer_incentives


def sigma(x: float) -> float:
    return 1 / (1 + exp(-x))


def test_incentives_of_three_peers_by_hand() -> None:
    """Stakes .5, .3, .2. Peer 0 ranks 1; peer 1 ranks 0 and 2 alike; peer 2 ranks nobody.

    R = (.3·.5, .5, .3·.5); trust = (.3, .5, .3), so C = (σ(−2), σ(0), σ(−2)) with ρ = 10, κ = .5.
    """
    weights = torch.tensor([[0.0, 1.0, 0.0], [0.5, 0.0, 0.5], [0.0, 0.0, 0.0]], dtype=torch.float64)
    rank, consensus, incentive = peer_incentives(weights, torch.tensor([0.5, 0.3, 0.2], dtype=torch.float64))
    assert rank.tolist() == pytest.approx([0.15, 0.5, 0.15])
    assert consensus.tolist() == pytest.approx([sigma(-2), 0.5, sigma(-2)])
    assert incentive.tolist() == pytest.approx([0.15 * sigma(-2), 0.25, 0.15 * sigma(-2)])


def test_the_published_shares_of_the_cabal() -> None:
    """A cabal of 49 % of the stake that ranks only itself loses stake to honest peers who rank only each other."""
    stakes = torch.tensor([0.51, 0.49], dtype=torch.float64)
    shares = []
    for _ in range(5):
        incentive = peer_incentives(torch.eye(2, dtype=torch.float64), stakes)[2]
        stakes = (stakes + 0.1 * incentive / incentive.sum()) / 1.1
        shares.append(round(float(stakes[1]), 4))
    assert shares == [0.4877, 0.4850, 0.4816, 0.4774, 0.4723]


def peers_round(updates: list[list[float]], target: list[float], own: list[list[float]] | None = None, **kwargs: object) -> credit.Round:
    own_targets = None if own is None else torch.tensor([own], dtype=torch.float64)
    return credit.learning_round(
        torch.tensor([updates], dtype=torch.float64), torch.tensor([target], dtype=torch.float64), own_targets=own_targets, **kwargs
    )


def test_a_round_of_three_agents_by_hand() -> None:
    """One parameter, everybody's target is 1: an update x lowers everybody's loss by x − x²/2.

    Updates .4, .2, −.5 lower it by .32, .18, −.625. So 0 ranks 1 fully, 1 ranks 0 fully, and 2 ranks 0 and 1 by .32 : .18. With equal
    stakes R = (1 + .64, 1 + .36, 0)/3, and both are trusted by two thirds, so the incentives are as R: .82/1.5 and .68/1.5 … of
    v(N) = x − x²/2 at x = .1, .095.
    """
    rule = credit.make("peer_ranking")
    rule.reset(1, 3)
    paid = rule.assign(peers_round([[0.4], [0.2], [-0.5]], [1.0]))
    assert paid[0].tolist() == pytest.approx([0.095 * 0.82 / 1.5, 0.095 * 0.68 / 1.5, 0.0])


def test_stakes_grow_by_what_was_earned() -> None:
    rule = credit.make("peer_ranking", stakes=[0.2, 0.2, 0.6], tau=0.5)
    rule.reset(1, 3)
    stakes = torch.tensor([0.2, 0.2, 0.6], dtype=torch.float64)
    own = [[1.0, 0.0], [0.0, 1.0], [1.0, 1.0]]
    for t, updates in enumerate([[[0.4, 0.1], [0.0, 0.3], [0.2, 0.2]], [[0.1, 0.0], [0.2, 0.3], [0.0, -0.1]], [[0.0, 0.3]] * 3]):
        the_round = peers_round(updates, [1.0, 1.0], own, t=t)
        paid = rule.assign(the_round)[0]
        # by loops over who ranks whom
        weights = torch.zeros(3, 3, dtype=torch.float64)
        for j in range(3):
            for i in range(3):
                x, y = (torch.tensor(one[k], dtype=torch.float64) for one, k in ((updates, i), (own, j)))
                if i != j:
                    weights[j, i] = max(0.0, float(x @ y - x @ x / 2))
            weights[j] /= max(float(weights[j].sum()), 1e-300)  # who likes no update ranks nobody
        rank = [sum(float(stakes[j] * weights[j, i]) for j in range(3)) for i in range(3)]
        trust = [sum(float(stakes[j]) for j in range(3) if weights[j, i] > 0) for i in range(3)]
        incentive = torch.tensor([rank[i] * sigma(10 * (trust[i] - 0.5)) for i in range(3)], dtype=torch.float64)
        share = incentive / incentive.sum()
        assert the_round.gain > 0
        torch.testing.assert_close(paid, the_round.gain * share)
        stakes = (stakes + 0.5 * share) / 1.5
        torch.testing.assert_close(rule._stakes[0], stakes)


def test_losses_are_borne_by_all_alike_and_gains_that_nobody_sees_too() -> None:
    rule = credit.make("peer_ranking")
    rule.reset(1, 3)
    harmed = peers_round([[0.4], [-0.6], [-0.5]], [1.0])  # x = −.7: −.945
    assert rule.assign(harmed)[0].tolist() == pytest.approx([-0.315] * 3)
    # each agent's own data points away from what helps the cooperative
    rule.reset(1, 3)
    unseen = peers_round([[0.1], [0.1], [0.1]], [1.0], [[-1.0]] * 3)  # x = .3: .255
    assert rule.assign(unseen)[0].tolist() == pytest.approx([0.085] * 3)
    assert rule._stakes[0].tolist() == pytest.approx([1 / 3] * 3)


def test_a_majority_of_stake_can_pay_itself() -> None:
    """Two colluders whose data prefers each other's updates hold most of the stake; what helps all is the work of the other two."""
    updates = [[0.01, 0.0], [0.01, 0.0], [0.0, 0.5], [0.0, 0.5]]
    own = [[1.0, -1.0], [1.0, -1.0], [-1.0, 1.0], [-1.0, 1.0]]
    rich, even = ([0.4, 0.4, 0.1, 0.1], [0.25] * 4)
    paid = {}
    for name, stakes in (("rich", rich), ("even", even)):
        rule = credit.make("peer_ranking", stakes=stakes, rho=30.0, kappa=0.2)
        rule.reset(1, 4)
        paid[name] = rule.assign(peers_round(updates, [1.0, 1.0], own))[0]
    assert paid["rich"][:2].sum() > 0.9 * paid["rich"].sum()
    torch.testing.assert_close(paid["even"], paid["even"].mean().expand(4))


def test_nobody_is_paid_for_praising_itself() -> None:
    """Agent 0's own data likes its own update best, which no other agent's does."""
    rule = credit.make("peer_ranking")
    rule.reset(1, 3)
    paid = rule.assign(peers_round([[0.5, 0.0], [0.0, 0.4], [0.0, 0.4]], [1.0, 1.0], [[9.0, 1.0], [-1.0, 1.0], [-1.0, 1.0]]))
    assert paid[0, 0] == 0
    assert paid[0, 1] == pytest.approx(float(paid[0, 2])) == pytest.approx(float(paid.sum()) / 2)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"stakes": [0.5, 0.4]}, r"stakes=\[0.5, 0.4\]: must be non-negative numbers that sum to 1, but sum to 0.9"),
        ({"stakes": [1.5, -0.5]}, "must be non-negative numbers that sum to 1"),
        ({"stakes": [float("nan"), 1.0]}, "must be non-negative numbers that sum to 1"),
        ({"stakes": []}, "must be non-negative numbers that sum to 1"),
        ({"stakes": "all"}, "stakes='all': must be one number an agent"),
        ({"stakes": ["a", 1.0]}, "must be non-negative numbers that sum to 1$"),
        ({"stakes": "1"}, "stakes='1': must be one number an agent"),
        ({"tau": "a"}, "tau='a': must be a number of at least 0"),
        ({"kappa": True}, "kappa=True: must be a number from 0 to 1"),
        ({"tau": -0.1}, "tau=-0.1: must be a number of at least 0"),
        ({"rho": 0.0}, "rho=0.0: must be a positive number"),
        ({"kappa": 1.5}, "kappa=1.5: must be a number from 0 to 1"),
    ],
)
def test_wrong_arguments_are_refused_by_name(wrong: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        credit.make("peer_ranking", **wrong)


def test_stakes_for_another_number_of_agents_are_refused() -> None:
    with pytest.raises(ValueError, match="stakes has 2 entries for 3 agents: give one each"):
        credit.make("peer_ranking", stakes=[0.5, 0.5]).reset(1, 3)


def test_stakes_are_forgotten_at_a_reset_and_one_environment_knows_nothing_of_another() -> None:
    generator = torch.Generator().manual_seed(0)
    updates = torch.rand(4, 3, 2, generator=generator, dtype=torch.float64) * 0.3
    own = torch.randn(4, 3, 2, generator=generator, dtype=torch.float64)

    def pay(envs: slice, rule: credit.CreditRule) -> list[Tensor]:
        rule.reset(len(updates[envs]), 3)
        target = torch.ones(len(updates[envs]), 2, dtype=torch.float64)
        return [rule.assign(credit.learning_round(updates[envs] * f, target, own_targets=own[envs], t=t)) for t, f in enumerate((1.0, 0.5))]

    rule = credit.make("peer_ranking")
    together = pay(slice(0, 4), rule)
    for e in range(4):
        for t, alone in enumerate(pay(slice(e, e + 1), rule)):
            torch.testing.assert_close(alone[0], together[t][e])
