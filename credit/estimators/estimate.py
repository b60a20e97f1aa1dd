"""Estimates of a value from a budget of coalition evaluations, with their standard errors."""

from __future__ import annotations

import copy
from abc import abstractmethod
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cached_property
from typing import ClassVar

import numpy as np
import torch
from scipy.special import stdtrit
from torch import Tensor

from ..arguments import checked_budget, checked_seed, is_number
from ..games.game import CoalitionGame, GameLike, Surrogate, as_game
from ..games.round import Round
from ..games.surrogate import chances
from ..rule import Family, GameRule, make

ENUMERATED_SURROGATE = 12
"""Largest number of players for which a surrogate without a closed form is asked for all its coalitions."""
DRAWS_OF_SURROGATE = 64
"""Coalitions a player that are drawn of a larger one."""
LEAST_EXPLAINED = -1.0
"""Share of variance below which a surrogate is left out: the difference then varies more than twice as much as the worth."""


@dataclass(frozen=True)
class Estimate:
    """Each player's value, and how far off it may be.

    Attributes:
        values: ``(n_envs, n_players)``, in the game's unit.
        errors: Computes :attr:`standard_error` and :attr:`degrees_of_freedom` when one of them is first asked for.
        evaluations: Number of distinct coalitions that were asked for, v(∅) = 0 apart.
        method: How the values were computed, in words.
        surrogate: Which surrogate was the control variate, or why there was none, in words; empty where none was asked for.
        explained: Share of the variance of the drawn coalitions' worth that the surrogate explains, ``(n_envs,)``: 1 if it is the game, 0
            if it is as far from the game as a constant, below 0 if further. NaN if all are worth the same, or there is no surrogate.
            ``None`` if none was asked for.
    """

    values: Tensor
    errors: Callable[[], tuple[Tensor, Tensor]]
    evaluations: int
    method: str
    surrogate: str = ""
    explained: Tensor | None = None

    @classmethod
    def exact(cls, values: Tensor, evaluations: int, method: str) -> Estimate:
        """Values that involve no chance, so that their standard errors are 0."""
        return cls(values, lambda: (torch.zeros_like(values), torch.full_like(values, torch.inf)), evaluations, method)

    @property
    def standard_error(self) -> Tensor:
        """``(n_envs, n_players)``, in the game's unit: standard deviation of ``values`` over the draws of coalitions.

        0 where no chance was involved; NaN where there were too few draws to tell.
        """
        return self._errors[0].to(self.values.dtype)

    @property
    def degrees_of_freedom(self) -> Tensor:
        """``(n_envs, n_players)``: degrees of freedom of the standard error, for Student's t."""
        return self._errors[1]

    @cached_property
    def _errors(self) -> tuple[Tensor, Tensor]:
        return self.errors()

    def interval(self, level: float = 0.95) -> tuple[Tensor, Tensor]:
        """Lower and upper end of a confidence interval for every value, ``(n_envs, n_players)`` each.

        Raises:
            ValueError: If ``level`` is not between 0 and 1.
        """
        if not is_number(level) or not 0 < level < 1:
            raise ValueError(f"level={level!r}: must be between 0 and 1, a number such as 0.95")
        degrees = self.degrees_of_freedom.detach().cpu().double().numpy()
        quantile = torch.from_numpy(np.asarray(stdtrit(np.where(np.isfinite(degrees), degrees, 1e12), (1 + level) / 2)))
        half = torch.where(self.standard_error == 0, 0.0, quantile.to(self.standard_error) * self.standard_error)
        return self.values - half, self.values + half


class Estimator(GameRule):
    """A rule that samples coalitions within a budget.

    The same coalitions serve all environments of a batch, so an environment's estimate does not depend on the batch, but for rounding in
    double precision. Coalitions are drawn anew in every round of every episode. The same seed draws the same ones.

    With a surrogate φ(v) = φ(s) + φ(v − s) is estimated: φ(s) is known, or estimated from coalitions of s, which cost nothing. Only the
    value of the difference is estimated within the budget. Standard errors are those of both. In environments where the surrogate explains
    so little that the difference varies more than twice as much as the worth itself, v alone is estimated, from the same coalitions.

    Args:
        budget: Most coalitions to evaluate in a round, v(∅) apart: a positive whole number. ``None`` is 20 a player.
        seed: Seed of the draws, a whole number from 0.
        surrogate: Whether to take a cheap game near this one as a control variate, where there is one: a round has its expansion; see
            :mod:`~proxycoop.credit.games.surrogate`.

    Raises:
        ValueError: If ``budget`` is not a positive whole number, ``seed`` is negative or not whole, or ``surrogate`` is not a bool.
    """

    family: ClassVar[Family] = "estimator"
    target: ClassVar[str] = "shapley"
    """Name of the rule that pays the value exactly."""

    def __init__(self, budget: int | None = None, seed: int = 0, surrogate: bool = False) -> None:
        self.budget = checked_budget(budget)
        self.seed = checked_seed(seed)
        if not isinstance(surrogate, bool):
            raise ValueError(f"surrogate={surrogate!r}: must be True or False")
        self.surrogate = surrogate
        self.evaluations = "20 n" if budget is None else str(budget)

    def cost(self, n_players: int) -> int:
        """Most coalitions that are evaluated in a round."""
        return min(20 * n_players if self.budget is None else self.budget, (1 << n_players) - 1)

    def least_budget(self, n_players: int) -> int:
        """Smallest budget that gives every player a value."""
        return n_players

    def check(self, n_players: int) -> None:
        """Refuse a cooperative for which the budget is too small.

        Raises:
            ValueError: If it is too small; the message says how much is needed.
        """
        super().check(n_players)
        least = min(self.least_budget(n_players), 2**n_players - 1)
        if self.cost(n_players) < least:
            raise ValueError(
                f"budget={self.cost(n_players)} is too small for {type(self).__name__} with {n_players} players: pass at least {least}, "
                f"or use a rule with few evaluations, such as credit='loo' ({n_players + 1})"
            )

    def estimate(self, game: GameLike, n_players: int | None = None) -> Estimate:
        """Each player's value in any game, with standard errors.

        Args:
            game: As in :meth:`values`.
            n_players: Number of players, for a callable.

        Raises:
            ValueError: If the number of players is missing, or the budget is too small for it.
        """
        game = as_game(game, n_players)
        self.check(game.n_players)
        return self.at(game, 0, 0)

    def divide(self, game: CoalitionGame) -> Tensor:
        """The estimates, ``(n_envs, n_players)``, in the game's unit."""
        return self.at(game, 0, 0).values

    def assign(self, round: Round) -> Tensor:
        """Credit of every agent for this round, ``(E, N)``, in the utility's unit. Every round draws its own coalitions."""
        return self.at(round.game, round.episode, round.t).values

    def at(self, game: CoalitionGame, episode: int, t: int) -> Estimate:
        """The estimate from the coalitions that are drawn for this round of this episode. The number of players has been checked."""
        n = game.n_players
        if n == 1:
            return Estimate.exact(game.grand()[:, None].clone(), 1, "v(N)")
        budget, draws = self.cost(n), (self.seed, episode, t)
        near = game.surrogate(budget - self.least_rest(n)) if self.surrogate else ""
        if isinstance(near, str):
            found = replace(self.sample(game, budget, np.random.default_rng(draws)), surrogate=near)
            if near:
                found = replace(found, explained=torch.full_like(found.values[:, 0], torch.nan))
        else:
            found = self._with(near, game, budget, draws)
        dtype = game.value(torch.zeros(0, n, dtype=torch.bool)).dtype
        return replace(found, values=found.values.to(dtype))  # the sums were kept in double precision

    def _with(self, near: Surrogate, game: CoalitionGame, budget: int, draws: tuple[int, ...]) -> Estimate:
        """The estimate with a surrogate as control variate."""
        left = budget - near.evaluations
        difference = _Difference(game, near)
        rest = self.sample_rest(difference.game, left, np.random.default_rng(draws), near)
        solved, explained = self._solved(near, draws), difference.explained()
        values = solved.values + rest.values
        poor = explained.lt(LEAST_EXPLAINED) | ~values.isfinite().all(dim=1)
        evaluations = near.evaluations + difference.fresh + (near.evaluations > 0 and not difference.knows_all)
        method = f"{rest.method}, of the difference to {near.name}"
        if not poor.any():
            return Estimate(values, lambda: _sum_of_errors(solved, rest), evaluations, method, near.name, explained)
        bare = self.sample_rest(game, left, np.random.default_rng(draws), near)  # of the same coalitions, which are known by now

        def errors() -> tuple[Tensor, Tensor]:
            error, degrees = (
                torch.where(poor[:, None], one, other) for one, other in zip(bare.errors(), _sum_of_errors(solved, rest), strict=True)
            )
            return error, degrees

        return Estimate(torch.where(poor[:, None], bare.values, values), errors, evaluations, method, near.name, explained)

    def _solved(self, near: Surrogate, draws: tuple[int, ...]) -> Estimate:
        """The value of a surrogate: in closed form, from all its coalitions, or estimated from many."""
        n = near.game.n_players
        if near.solve is not None:
            return Estimate.exact(near.solve(chances(self.target, n)).double(), 0, "in closed form")
        if n <= ENUMERATED_SURROGATE:
            exact = make(self.target)
            assert isinstance(exact, GameRule)
            return Estimate.exact(exact.values(near.game).double(), 0, "exact")
        budget = DRAWS_OF_SURROGATE * n
        cheap = copy.copy(self) if self.target != "shapley" else make("shapley", budget=budget)
        assert isinstance(cheap, Estimator)
        cheap.budget = budget
        further = near.game.surrogate(0)
        draws = (*draws, 1)  # not those of the difference: the two errors are then independent, and their variances add up
        if isinstance(further, str):
            return cheap.sample(near.game, budget, np.random.default_rng(draws))
        return cheap._with(further, near.game, budget, draws)

    def least_rest(self, n_players: int) -> int:
        """How many evaluations must be left for the difference to a surrogate, v(N) among them, or none is made that costs any."""
        return self.least_budget(n_players) + 1

    def sample_rest(self, game: CoalitionGame, budget: int, generator: np.random.Generator, near: Surrogate) -> Estimate:
        """The estimate for the difference between a game and its surrogate.

        Args:
            game: The difference.
            budget: Most coalitions to ask for. Estimators that draw coalitions one by one take those of the known sizes beside it; for the
                others they count.
            generator: Source of all randomness.
            near: The surrogate.
        """
        # v(N) was evaluated to make a surrogate that took evaluations, and not every estimator asks for it
        return self.sample(game, budget - (near.evaluations > 0), generator)

    @abstractmethod
    def sample(self, game: CoalitionGame, budget: int, generator: np.random.Generator) -> Estimate:
        """The estimate for a game of at least 2 players.

        Args:
            game: The game.
            budget: Most distinct coalitions to ask for, v(∅) apart; at least :meth:`least_budget`, at most 2^n − 1.
            generator: Source of all randomness.
        """


class _Difference:
    """The game v − s, which remembers what it was asked for."""

    def __init__(self, game: CoalitionGame, near: Surrogate) -> None:
        self._game, self._near = game, near
        self._worths: list[tuple[Tensor, Tensor]] = []
        self.fresh = 0
        """How many coalitions were asked for whose worth was not known from making the surrogate."""
        self.knows_all = False
        """Whether v(N) was among them."""
        self.game = CoalitionGame(self._value, game.n_players)

    def _value(self, coalitions: Tensor) -> Tensor:
        worth = self._game.value(coalitions).double()
        rest = worth - self._near.game.value(coalitions).double()
        self._worths.append((worth, rest))
        sizes = coalitions.sum(dim=1).tolist()
        self.fresh += sum(size not in self._near.known for size in sizes)
        self.knows_all |= coalitions.shape[1] in sizes
        return rest

    def explained(self) -> Tensor:
        """Share of the worth's variance over the coalitions that the surrogate explains, ``(n_envs,)``."""
        worth, rest = (torch.cat(parts, dim=1) for parts in zip(*self._worths, strict=True))
        spread = worth.var(dim=1, correction=0)
        return torch.where(spread > 0, 1 - rest.var(dim=1, correction=0) / spread, torch.nan)


def _sum_of_errors(first: Estimate, second: Estimate) -> tuple[Tensor, Tensor]:
    """Standard error of a sum of independent estimates, and its degrees of freedom by Welch and Satterthwaite."""
    (error, degrees), (other, others) = first.errors(), second.errors()
    variances = torch.stack([error, other]).double().square()
    numbers = torch.stack([degrees.expand_as(error), others.expand_as(other)]).double()
    total = variances.sum(dim=0)
    below = torch.where(variances > 0, variances.square() / numbers, 0.0).sum(dim=0)
    return total.sqrt(), torch.where(below > 0, total.square() / below, numbers[1])
