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
    r"""What a coalition is worth more than everybody else, averaged over each player's coalitions of every size.

    .. math:: c_i = \frac{1}{n} \sum_{s=1}^{n} \overline{v(S) - v(N \setminus S) : i \in S, |S| = s}

    One pair (S, N∖S) serves every player, those in S and those in its complement. Costs 2 evaluations a pair and v(N). Unbiased. Not
    efficient, and symmetric and null-player in expectation only. A budget of all coalitions gives the exact value. Its known failure
    is the least budget, about 2n ln n, below which a player would have no coalition of some size: it is refused.

    Departures from the source: sizes are drawn in proportion to s^{−1/2}, s ≤ n/2, in fixed numbers (a player is in a share s/n of the
    sets of size s, so that small ones need more), without replacement.

    References:
        Zhang, Sun, Liu, Xiong, Pei & Ren (2023), *Efficient sampling approaches to Shapley value approximation*, SIGMOD.
    """

    source = "Zhang et al. 2023 (SIGMOD)"

    def least_budget(self, n_players: int) -> int:
        """v(N), and for every size as many pairs as put each player on both sides."""
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
