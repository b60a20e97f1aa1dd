"""Antithetic permutation sampling of the Shapley value."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from ..games.game import CoalitionGame
from ..rule import RULES
from .estimate import Estimate, Estimator
from .sampling import affordable, marginals, positions, prefixes, random_orders, tensor


@RULES.register("antithetic")
class AntitheticPermutations(Estimator):
    r"""Pays an estimate of the Shapley value from random orders of joining, each taken with its reverse.

    .. math:: c_i = \frac{1}{2K} \sum_{k=1}^{K} \bigl[\Delta_i(P_i^{\pi_k}) + \Delta_i(P_i^{\bar\pi_k})\bigr], \qquad
        \Delta_i(S) = v(S \cup i) - v(S)

    where :math:`P_i^\pi` are those who join before i in the order π, and :math:`\bar\pi` is its reverse. As many pairs of orders are drawn
    as fit into the budget. Orders share coalitions, and each coalition is evaluated once. The estimate is exact for games in which players
    interact by pairs only: of two players, each joins first in one of the two orders.

    Costs v(N), and 2(n − 1) evaluations for each pair of orders. Unbiased. Efficient and null-player in every draw. Symmetric in
    expectation only.

    Known failure: a small budget. One pair of orders is the least it can draw, and from one pair no standard error can be told (it is NaN).
    From two or three pairs it is rough: 95 % intervals then hold the value in 75 to 93 % of the cases.

    Args:
        budget: Most coalitions to evaluate in a round, v(∅) apart: a positive whole number. ``None`` is 20 a player.
        seed: Seed of the draws, a whole number from 0.
        surrogate: Whether the difference to a round's surrogate is estimated, where it has one.

    Raises:
        ValueError: If ``budget`` is not a positive whole number, ``seed`` is negative or not whole, or ``surrogate`` is not a bool. At
            reset, if the budget is too small for the number of agents.

    References:
        Mitchell, Cooper, Frank & Holmes (2022), *Sampling permutations for Shapley value estimation*, JMLR 23(43).
    """

    source = "Mitchell et al. 2022 (JMLR 23)"
    pays = "Shapley value, from random orders and their reverses"
    known_failure = "small budgets: one pair of orders, which needs 2n − 1, tells no standard error"
    efficient = True
    null_player = True

    def least_budget(self, n_players: int) -> int:
        """2n − 1: v(N) and one pair of orders."""
        return 2 * (n_players - 1) + 1

    def sample(self, game: CoalitionGame, budget: int, generator: np.random.Generator) -> Estimate:
        """See the class."""
        n = game.n_players
        n_fit = (budget - 1) // (2 * (n - 1))  # pairs, if no coalition occurred twice
        joins_at = positions(random_orders(n, 2 * n_fit + 1, generator))  # (K, n)
        inside = prefixes(joins_at)  # (K, n − 1, n); prefixes of the reverse are their complements
        rows = np.stack([inside, ~inside], axis=1)  # (K, 2, n − 1, n)
        n_pairs, n_fresh = affordable(rows.reshape(len(rows), -1, n), budget - 1)
        v = game.value(tensor(rows[:n_pairs].reshape(-1, n))).double().reshape(-1, n_pairs, 2, n - 1)
        grand = game.grand().double()[:, None, None].expand(-1, n_pairs, 1)
        none = torch.zeros_like(grand)
        # pairs beyond n_fit are taken because they repeat coalitions: how far they differ says little, unless there is room for all
        n_told = n_pairs if budget >= 2**n - 1 else n_fit
        forward = marginals(none, v[:, :, 0], grand, joins_at[:n_pairs])  # (E, K, n)
        backward = -marginals(grand, v[:, :, 1], none, joins_at[:n_pairs])
        of_pairs = (forward + backward) / 2
        values = of_pairs.mean(dim=1)

        def errors() -> tuple[Tensor, Tensor]:
            error = of_pairs[:, :n_told].std(dim=1) / n_pairs**0.5 if n_told > 1 else torch.full_like(values, torch.nan)
            return error, torch.full_like(values, n_told - 1.0)

        return Estimate(
            values,
            errors,
            n_fresh + 1,
            f"antithetic permutations, {n_pairs} pair{'s' if n_pairs != 1 else ''}",
        )
