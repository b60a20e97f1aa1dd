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
    r"""Average marginal contribution over all coalitions of the others, each alike.

    .. math:: c_i = 2^{1-n} \sum_{S \subseteq N \setminus i} [v(S \cup i) - v(S)]

    Costs 2^n evaluations, n ≤ 20, in bounded memory. Symmetric, null-player and linear; not efficient. Of all semivalues it is the
    most robust to noise in v. Its known failure is the budget: what it pays sums to less or more than v(N).

    References:
        Banzhaf (1965), *Weighted voting doesn't work*, Rutgers Law Review 19; Dubey & Shapley (1979), Mathematics of Operations
        Research 4(2). Wang & Jia (2023), *Data Banzhaf*, AISTATS, for its robustness.
    """

    source = "Banzhaf 1965"
    symmetric = True
    null_player = True
    max_players = MAX_ENUMERATED

    def divide(self, game: CoalitionGame) -> Tensor:
        """The Banzhaf value of every player, ``(n_envs, n_players)``."""
        return semivalue(game, banzhaf_weights(game.n_players))


@RULES.register("banzhaf_msr")
class BanzhafMsr(Estimator):
    r"""The Banzhaf value by maximum sample reuse: every coalition serves every player.

    .. math:: c_i = \overline{v(S) : i \in S} - \overline{v(S) : i \notin S}, \qquad S \text{ uniform over all subsets of } N

    Costs ``budget`` evaluations, drawn without replacement and again until every player is in one and outside of one; a budget of all
    coalitions gives the exact value. Unbiased for the Banzhaf value (not for Shapley's). Not efficient, and symmetric and null-player
    in expectation only. Its known failure is that of SVARM: differences of means of whole worths vary more than means of differences.

    References:
        Wang & Jia (2023), *Data Banzhaf: a robust data valuation framework for machine learning*, AISTATS.
    """

    source = "Wang & Jia 2023 (AISTATS)"

    def least_budget(self, n_players: int) -> int:
        """Enough for most draws to put every player on both sides."""
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
    """Distinct uniform subsets, bool ``(count, n)``, of which each player is in one at least and outside of one at least."""
    while True:
        if n <= MAX_ENUMERATED and 4 * count >= 2**n:
            codes = generator.choice(2**n, size=count, replace=False)
            rows: Rows = (codes[:, None] >> np.arange(n)) & 1 == 1
        else:
            rows = generator.random((2 * count + 8, n)) < 0.5
            rows = rows[first_seen(rows)][:count]
        if len(rows) == count and (rows.any(axis=0) & ~rows.all(axis=0)).all():
            return rows
