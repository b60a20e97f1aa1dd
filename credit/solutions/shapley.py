"""The Shapley value: exact, or estimated within a budget."""

from __future__ import annotations

from typing import ClassVar

import numpy as np
from torch import Tensor

from ..estimators.antithetic import AntitheticPermutations
from ..estimators.estimate import Estimate, Estimator
from ..estimators.kernelshap import KernelShap
from ..estimators.size_regression import SizeRegression
from ..games.game import MAX_ENUMERATED, CoalitionGame
from ..rule import RULES, Family, too_many
from .semivalues import semivalue, semivalues, shapley_weights


def shapley_values(v: Tensor) -> Tensor:
    r"""Shapley value of each player, for a batch of games.

    .. math:: \phi_i = \sum_{S \subseteq N \setminus i} \frac{|S|!\,(n-|S|-1)!}{n!} \, [v(S \cup i) - v(S)]

    written as one matrix product, because φ is linear in v.

    Args:
        v: Coalition values, ``(batch, 2**n)``, in any unit. Bit ``i`` of the column says whether player ``i`` is in.

    Returns:
        ``(batch, n)``, same unit, in double precision if ``v`` holds whole numbers. Rows sum to v(N) − v(∅).

    Raises:
        ValueError: If the number of columns is not a power of two, or stands for no player or for more than 20.

    References:
        Shapley (1953), *A value for n-person games*, Contributions to the Theory of Games II.
    """
    return semivalues(v, shapley_weights(max(1, v.shape[-1].bit_length() - 1)))


@RULES.register("shapley")
class Shapley(Estimator):
    r"""Average marginal contribution over all orders in which the agents could have joined.

    .. math:: c_i = \sum_{S \subseteq N \setminus i} \frac{|S|!\,(n-|S|-1)!}{n!} \, [v(S \cup i) - v(S)]

    Without a budget it is exact, costs 2^n evaluations and takes n ≤ 20, in memory that does not grow with 2^n. With a budget it is
    exact where the budget covers all coalitions, and else an estimate: antithetic permutations below five evaluations a player, above
    that paired KernelSHAP by size for n < 16 and regression on size and membership from there on, as measured by
    ``benchmarks/credit/estimators.py``; :meth:`method` and the estimate say which. The only rule that is
    efficient, symmetric, null-player and linear at once; its estimates are efficient, and the rest in expectation. Its known failure
    is replication: an agent whose data others have too gains by splitting itself into copies (Han et al. 2022).

    Args:
        budget: Most coalitions to evaluate in a round; ``None`` is all of them.
        seed: Seed of the draws.

    References:
        Shapley (1953), *A value for n-person games*, Contributions to the Theory of Games II.
    """

    family: ClassVar[Family] = "value"
    source = "Shapley 1953"
    efficient = True

    def __init__(self, budget: int | None = None, seed: int = 0) -> None:
        super().__init__(budget, seed)
        self.exact = budget is None
        self.evaluations = "2^n" if budget is None else str(budget)
        self.symmetric = self.null_player = self.exact
        self.max_players = MAX_ENUMERATED if self.exact else None

    def cost(self, n_players: int) -> int:
        """Most coalitions that are evaluated in a round."""
        if self.budget is None or self.budget >= (1 << n_players) - 1:
            return 1 << n_players  # v(∅) costs nothing, but is evaluated with the others
        return self.budget

    def estimator(self, n_players: int) -> Estimator | None:
        """What estimates the value of so many players within the budget; ``None`` if it is exact."""
        if self.budget is None or self.budget >= 2**n_players - 1:
            return None
        if self.budget + 1 < 5 * n_players:  # v(∅) costs nothing here, but counts elsewhere
            return AntitheticPermutations(self.budget, self.seed)
        return KernelShap(self.budget, self.seed, by_size=True) if n_players < 16 else SizeRegression(self.budget, self.seed)

    def least_budget(self, n_players: int) -> int:
        """That of what estimates the value."""
        estimator = self.estimator(n_players)
        return 1 if estimator is None else estimator.least_budget(n_players)

    def method(self, n_players: int) -> str:
        """Whether the value is exact, or what estimates it."""
        estimator = self.estimator(n_players)
        by_size = "(by_size=True)" if isinstance(estimator, KernelShap) else ""
        how = "exact" if estimator is None else f"estimated by {RULES.name_of(type(estimator))}{by_size}"
        return f"{how}, {super().method(n_players)}"

    def check(self, n_players: int) -> None:
        """Refuse a cooperative that is too large to be exact, or for which the budget is too small.

        Raises:
            ValueError: If it is; the message says what would do.
        """
        if self.estimator(n_players) is None and n_players > MAX_ENUMERATED:
            raise too_many("Shapley", MAX_ENUMERATED, n_players)
        super().check(n_players)

    def sample(self, game: CoalitionGame, budget: int, generator: np.random.Generator) -> Estimate:
        """See the class; only where :meth:`estimator` gives one."""
        estimator = self.estimator(game.n_players)
        assert estimator is not None
        return estimator.sample(game, budget, generator)

    def at(self, game: CoalitionGame, episode: int, t: int) -> Estimate:
        """The value, or the estimate from the coalitions that are drawn for a round of an episode."""
        if self.estimator(game.n_players) is None:  # nothing to draw
            return Estimate.exact(semivalue(game, shapley_weights(game.n_players)), 1 << game.n_players, "exact")
        return super().at(game, episode, t)
