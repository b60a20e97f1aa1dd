"""Complementary contributions: the Shapley value from coalitions and their complements."""

from __future__ import annotations

import numpy as np
import torch

from ..games.game import CoalitionGame
from ..rule import RULES
from .estimate import Estimate, Estimator
from .sampling import allocate, covering, subsets, tensor
from .strata import coalitions_with, degrees_of_freedom, strata


@RULES.register("complementary")
class ComplementaryContributions(Estimator):
    r"""Pays an estimate of the Shapley value from coalitions and their complements.

    .. math:: c_i = \frac{1}{n} \sum_{s=1}^{n} \overline{v(S) - v(N \setminus S) : i \in S, |S| = s}

    where a bar is the mean over the drawn coalitions. It averages by how much a coalition is worth more than everybody else, over each
    player's coalitions of every size. One pair (S, N∖S) serves every player: those in S and those in its complement. With a budget of all
    coalitions the value is exact.

    Costs v(N), and 2 evaluations for each pair. Unbiased. Not efficient. Symmetric and null-player in expectation only.

    Known failure: the least budget, about 2n ln n. With less, some player would have no coalition of some size, so a smaller budget is
    refused.

    Departures from the source: sizes s ≤ n/2 are drawn in proportion to s^{−1/2}, because a player is in a share s/n of the sets of size s
    and small sets need more draws. The numbers of draws are fixed, and draws are without replacement.

    Args:
        budget: Most coalitions to evaluate in a round, v(∅) apart: a positive whole number. ``None`` is 20 a player.
        seed: Seed of the draws, a whole number from 0.

    Raises:
        ValueError: If ``budget`` is not a positive whole number, or ``seed`` is negative or not whole. At reset, if the budget is too small
            for the number of agents.

    References:
        Zhang, Sun, Liu, Xiong, Pei & Ren (2023), *Efficient sampling approaches to Shapley value approximation*, SIGMOD.
    """

    source = "Zhang et al. 2023 (SIGMOD)"
    pays = "Shapley value, from v(S) − v(N∖S) by coalition size"
    known_failure = "needs about 2n ln n evaluations"

    def least_budget(self, n_players: int) -> int:
        """v(N), and for every size enough pairs to put each player on both sides."""
        return 1 + 2 * sum(_least_pairs(n_players, s) for s in range(1, n_players // 2 + 1))

    def sample(self, game: CoalitionGame, budget: int, generator: np.random.Generator) -> Estimate:
        """See the class."""
        n = game.n_players
        sizes = range(1, n // 2 + 1)
        available = [int(coalitions_with(n)[s] * n / s) // (2 if 2 * s == n else 1) for s in sizes]
        least = [_least_pairs(n, s) for s in sizes]
        counts = allocate((budget - 1) // 2, [s**-0.5 for s in sizes], least, available)
        drawn = [subsets(n, s, count, generator, halves=2 * s == n) for s, count in zip(sizes, counts, strict=True)]
        rows = tensor(np.concatenate(drawn))
        rows = torch.cat([rows, ~rows])
        v = game.value(rows).double()
        more = v - v.roll(len(rows) // 2, dims=1)  # v(S) − v(N∖S), for both of a pair
        of_size = strata(rows, rows.sum(dim=1), more, coalitions_with(n))
        grand = game.grand().double()[:, None]
        values = (of_size.mean[:, 1:n].sum(dim=1) + grand) / n
        variance = of_size.variance[:, 1:n] / n**2
        return Estimate(
            values,
            lambda: (variance.sum(dim=1).sqrt(), degrees_of_freedom(variance, of_size.count[1:n])),
            len(rows) + 1,
            f"complementary contributions, {len(rows) // 2} pairs",
        )


def _least_pairs(n: int, size: int) -> int:
    return 1 if 2 * size == n else covering(n, size)
