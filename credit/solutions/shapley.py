"""The Shapley value: exact, or estimated within a budget."""

from __future__ import annotations

from typing import ClassVar

import numpy as np
from torch import Tensor

from ..estimators.antithetic import AntitheticPermutations
from ..estimators.estimate import Estimate, Estimator
from ..estimators.gaussian_process import GaussianProcess
from ..estimators.kernelshap import KernelShap
from ..estimators.size_regression import SizeRegression
from ..estimators.stacked import Stacked
from ..estimators.truncated import TruncatedMonteCarlo
from ..games.game import MAX_ENUMERATED, CoalitionGame, Surrogate
from ..rule import RULES, Family, too_many
from .semivalues import players_of, semivalue, semivalues, shapley_weights

LARGEST_PROCESS = 1300
"""Most evaluations to which ``shapley(budget)`` fits a Gaussian process. The time grows with their third power."""


def shapley_values(v: Tensor) -> Tensor:
    r"""Shapley value of each player, for a batch of games.

    .. math:: \phi_i = \sum_{S \subseteq N \setminus i} \frac{|S|!\,(n-|S|-1)!}{n!} \, [v(S \cup i) - v(S)]

    φ is linear in v, so it is computed as one matrix product.

    Args:
        v: Coalition values, ``(batch, 2**n)``, in any unit. Bit ``i`` of the column says whether player ``i`` is in.

    Returns:
        ``(batch, n)``, same unit, in double precision if ``v`` holds whole numbers. Rows sum to v(N) − v(∅).

    Raises:
        ValueError: If the number of columns is not a power of two, or stands for no player or for more than 20.

    References:
        Shapley (1953), *A value for n-person games*, Contributions to the Theory of Games II.
    """
    return semivalues(v, shapley_weights(players_of(v, MAX_ENUMERATED)))


@RULES.register("shapley")
class Shapley(Estimator):
    r"""Pays each agent its average marginal contribution over all orders in which the agents could have joined.

    .. math:: c_i = \sum_{S \subseteq N \setminus i} \frac{|S|!\,(n-|S|-1)!}{n!} \, [v(S \cup i) - v(S)]

    Without a budget the value is exact. It costs 2^n evaluations and takes n ≤ 20, in memory that does not grow with 2^n. With a budget it
    is exact where the budget covers all coalitions. Otherwise it is an estimate, by the method that ``benchmarks/credit/estimators.py``
    found best:

    - with n evaluations: one order of joining (``tmc`` without truncation), which tells no standard error;
    - below five evaluations a player: a Gaussian process (``gaussian_process``);
    - from there on: a mean of that and of regression on size and membership, weighted by cross-validation (``stacked``);
    - beyond 1,300 evaluations, where a process takes long: antithetic permutations (``antithetic``) below five a player, and
      ``size_regression`` from there on.

    A round is no black box. Where it has a surrogate (:mod:`~proxycoop.credit.games.surrogate`), the value of the surrogate is known, and
    only the difference is estimated, by the same methods. Where agents' weights are fixed, the surrogate of a linear model takes all that
    pairs of players do. There, below three evaluations a player, orders of joining are better: a single one below 2n − 1 evaluations,
    antithetic ones from there on. Beyond 1,300 evaluations, from five a player on, so is paired KernelSHAP by size
    (``kernelshap(by_size=True)``). For a bare game in which players interact by pairs alone, name ``antithetic`` or that one: they are
    exact there.

    The rule's :meth:`method` and every estimate say which one was used.

    The Shapley value is the only value that is efficient, symmetric, null-player and linear at once. Its estimates are efficient in every
    draw, and the rest in expectation only.

    Known failure: replication. An agent whose data others have too gains by splitting itself into copies (Han et al. 2022).

    Args:
        budget: Most coalitions to evaluate in a round, v(∅) apart: a positive whole number. ``None`` is all of them.
        seed: Seed of the draws, a whole number from 0.
        surrogate: Whether a round's surrogate is used where it has one.

    Raises:
        ValueError: If ``budget`` is not a positive whole number, ``seed`` is negative or not whole, or ``surrogate`` is not a bool. At
            reset, if the value is to be exact for more than 20 agents, or the budget is below one evaluation an agent.

    References:
        Shapley (1953), *A value for n-person games*, Contributions to the Theory of Games II. Han et al. (2022), *Replication robust payoff
        allocation in submodular cooperative games*, IEEE Transactions on Artificial Intelligence.
    """

    family: ClassVar[Family] = "value"
    source = "Shapley 1953"
    pays = "mean marginal contribution over all orders of joining"
    known_failure = "who splits into copies gains"
    efficient = True

    def __init__(self, budget: int | None = None, seed: int = 0, surrogate: bool = True) -> None:
        super().__init__(budget, seed, surrogate)
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
        """The estimator of the value for so many players within the budget; ``None`` if the value is exact."""
        if self.budget is None or self.budget >= 2**n_players - 1:
            return None
        return self._serving(n_players, self.budget)

    def _serving(self, n_players: int, budget: int, near: Surrogate | None = None) -> Estimator:
        """The estimator for so many players within a budget, of the game or of its difference to a surrogate."""
        total = budget + (0 if near is None else near.evaluations)
        paired, known = (False, False) if near is None else (near.paired, near.known)
        fits = total <= LARGEST_PROCESS  # or the process's matrix is too large
        each = (total + 1) / n_players  # v(∅) costs nothing here, but counts elsewhere
        if each < 5 and not (paired and each < 3) and fits and (known or budget > n_players):
            return GaussianProcess(budget, self.seed)
        if each < 5:  # orders of joining, each with its reverse if the budget allows it
            if budget >= 2 * n_players - 1:
                return AntitheticPermutations(budget, self.seed)
            return TruncatedMonteCarlo(budget, self.seed, tolerance=0.0, patience=n_players)
        if fits:
            return Stacked(budget, self.seed)
        return KernelShap(budget, self.seed, by_size=True) if paired else SizeRegression(budget, self.seed)

    def least_budget(self, n_players: int) -> int:
        """The least budget of the estimator; 1 if the value is exact."""
        estimator = self.estimator(n_players)
        return 1 if estimator is None else estimator.least_budget(n_players)

    def least_rest(self, n_players: int) -> int:
        """v(N) and two coalitions: those of sizes that a surrogate knows come on top."""
        del n_players
        return 3

    def method(self, n_players: int) -> str:
        """Whether the value is exact, or which estimator is used."""
        estimator = self.estimator(n_players)
        if estimator is None:
            return f"exact, {super().method(n_players)}"
        more = "(tolerance=0)" if isinstance(estimator, TruncatedMonteCarlo) else ""
        beside = "; rounds that have a surrogate: estimated by their difference to it" if self.surrogate else ""
        return f"estimated by {RULES.name_of(type(estimator))}{more}, {super().method(n_players)}{beside}"

    def check(self, n_players: int) -> None:
        """Refuse a cooperative that is too large for the exact value, or for which the budget is too small.

        Raises:
            ValueError: If it is; the message says what to use instead.
        """
        if self.estimator(n_players) is None and n_players > MAX_ENUMERATED:
            raise too_many("Shapley", MAX_ENUMERATED, n_players)
        super().check(n_players)

    def sample(self, game: CoalitionGame, budget: int, generator: np.random.Generator) -> Estimate:
        """See the class. Called only where :meth:`estimator` gives one."""
        estimator = self.estimator(game.n_players)
        assert estimator is not None
        return estimator.sample(game, budget, generator)

    def sample_rest(self, game: CoalitionGame, budget: int, generator: np.random.Generator, near: Surrogate) -> Estimate:
        """See the class."""
        return self._serving(game.n_players, budget, near).sample_rest(game, budget, generator, near)

    def at(self, game: CoalitionGame, episode: int, t: int) -> Estimate:
        """The value, or its estimate from the coalitions that are drawn for this round of this episode."""
        if self.estimator(game.n_players) is None:  # nothing to draw
            return Estimate.exact(semivalue(game, shapley_weights(game.n_players)), 1 << game.n_players, "exact")
        return super().at(game, episode, t)
