"""The Banzhaf value: exact, or estimated by maximum sample reuse."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from ..estimators.estimate import Estimate, Estimator
from ..estimators.sampling import Rows, first_seen, tensor
from ..estimators.strata import degrees_of_freedom, moments
from ..games.game import MAX_ENUMERATED, CoalitionGame
from ..rule import RULES, WholeGameRule
from .semivalues import banzhaf_weights, semivalue


@RULES.register("banzhaf")
class Banzhaf(WholeGameRule):
    r"""Pays each agent its average marginal contribution over all coalitions of the others, which all count the same.

    .. math:: c_i = 2^{1-n} \sum_{S \subseteq N \setminus i} [v(S \cup i) - v(S)]

    Of all semivalues it is the most robust to noise in v (Wang & Jia 2023).

    Costs 2^n evaluations and takes n ≤ 20, in bounded memory. Symmetric, null-player and linear. Not efficient.

    Known failure: the budget. What it pays sums to less or more than v(N).

    Raises:
        ValueError: At reset, if there are more than 20 agents.

    References:
        Banzhaf (1965), *Weighted voting doesn't work: a mathematical analysis*, Rutgers Law Review 19. Dubey & Shapley (1979),
        *Mathematical properties of the Banzhaf power index*, Mathematics of Operations Research 4(2). Wang & Jia (2023), *Data Banzhaf: a
        robust data valuation framework for machine learning*, AISTATS, for its robustness.
    """

    source = "Banzhaf 1965"
    pays = "mean marginal contribution over all coalitions"
    known_failure = "credits sum to less or more than v(N)"
    symmetric = True
    null_player = True
    max_players = MAX_ENUMERATED

    def divide(self, game: CoalitionGame) -> Tensor:
        """The Banzhaf value of every player, ``(n_envs, n_players)``."""
        return semivalue(game, banzhaf_weights(game.n_players))


@RULES.register("banzhaf_msr")
class BanzhafMsr(Estimator):
    r"""Pays an estimate of the Banzhaf value in which every sampled coalition serves every player (maximum sample reuse).

    .. math:: c_i = \overline{v(S) : i \in S} - \overline{v(S) : i \notin S}, \qquad S \text{ uniform over all subsets of } N

    where a bar is the mean over the drawn coalitions. They are drawn without replacement. The draw is repeated until every player is in one
    coalition at least and outside of one at least. With a budget of all coalitions the value is exact.

    Costs ``budget`` evaluations. Unbiased for the Banzhaf value (not for Shapley's). Not efficient. Symmetric and null-player in
    expectation only.

    Known failure: that of SVARM. A difference of two means of whole worths varies more than a mean of differences.

    Departure from the source: Wang & Jia draw with replacement.

    Args:
        budget: Most coalitions to evaluate in a round, v(∅) apart: a positive whole number. ``None`` is 20 a player.
        seed: Seed of the draws, a whole number from 0.

    Raises:
        ValueError: If ``budget`` is not a positive whole number, or ``seed`` is negative or not whole. At reset, if the budget is too small
            for the number of agents.

    References:
        Wang & Jia (2023), *Data Banzhaf: a robust data valuation framework for machine learning*, AISTATS.
    """

    target = "banzhaf"
    source = "Wang & Jia 2023 (AISTATS)"
    pays = "Banzhaf value, from mean worths of coalitions with and without the agent"
    known_failure = "a large v(N) hides differences"

    def least_budget(self, n_players: int) -> int:
        """2n: enough for most draws to put every player inside and outside."""
        return 2 * n_players

    def sample(self, game: CoalitionGame, budget: int, generator: np.random.Generator) -> Estimate:
        """See the class."""
        n = game.n_players
        rows = tensor(_uniform(n, budget + (budget == 2**n - 1), generator))
        somebody = rows.any(dim=1)
        v = game.value(rows[somebody]).double()
        worth = v.new_zeros(len(v), len(rows))
        worth[:, somebody.to(v.device)] = v
        parts = [moments(worth, members) for members in (rows, ~rows)]
        means, spreads, counts = (torch.stack(part, dim=-2) for part in zip(*parts, strict=True))
        variance = spreads / counts * (1 - counts / 2.0 ** (n - 1))  # drawn without replacement
        return Estimate(
            means[:, 0] - means[:, 1],
            lambda: (variance.sum(dim=1).sqrt(), degrees_of_freedom(variance, counts)),
            v.shape[1],
            f"maximum sample reuse, {len(rows)} draws",
        )


def _uniform(n: int, count: int, generator: np.random.Generator) -> Rows:
    """Distinct uniform subsets, bool ``(count, n)``. Every player is in at least one and outside of at least one."""
    while True:
        if n <= MAX_ENUMERATED and 4 * count >= 2**n:
            codes = generator.choice(2**n, size=count, replace=False)
            rows: Rows = (codes[:, None] >> np.arange(n)) & 1 == 1
        else:
            rows = generator.random((2 * count + 8, n)) < 0.5
            rows = rows[first_seen(rows)][:count]
        if len(rows) == count and (rows.any(axis=0) & ~rows.all(axis=0)).all():
            return rows
