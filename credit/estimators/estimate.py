"""Estimates of a value from a budget of coalition evaluations, with their standard errors."""

from __future__ import annotations

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
from ..games.game import CoalitionGame, GameLike, as_game
from ..games.round import Round
from ..rule import Family, GameRule


@dataclass(frozen=True)
class Estimate:
    """Each player's value, and how far off it may be.

    Attributes:
        values: ``(n_envs, n_players)``, in the game's unit.
        errors: Computes :attr:`standard_error` and :attr:`degrees_of_freedom` when one of them is first asked for.
        evaluations: Number of distinct coalitions that were asked for, v(∅) = 0 apart.
        method: How the values were computed, in words.
    """

    values: Tensor
    errors: Callable[[], tuple[Tensor, Tensor]]
    evaluations: int
    method: str

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

    The same coalitions serve all environments of a batch, so an environment's estimate does not depend on the batch. Coalitions are drawn
    anew in every round of every episode. The same seed draws the same ones.

    Args:
        budget: Most coalitions to evaluate in a round, v(∅) apart: a positive whole number. ``None`` is 20 a player.
        seed: Seed of the draws, a whole number from 0.

    Raises:
        ValueError: If ``budget`` is not a positive whole number, or ``seed`` is negative or not whole.
    """

    family: ClassVar[Family] = "estimator"

    def __init__(self, budget: int | None = None, seed: int = 0) -> None:
        self.budget = checked_budget(budget)
        self.seed = checked_seed(seed)
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
        if game.n_players == 1:
            return Estimate.exact(game.grand()[:, None].clone(), 1, "v(N)")
        found = self.sample(game, self.cost(game.n_players), np.random.default_rng((self.seed, episode, t)))
        dtype = game.value(torch.zeros(0, game.n_players, dtype=torch.bool)).dtype
        return replace(found, values=found.values.to(dtype))  # the sums were kept in double precision

    @abstractmethod
    def sample(self, game: CoalitionGame, budget: int, generator: np.random.Generator) -> Estimate:
        """The estimate for a game of at least 2 players.

        Args:
            game: The game.
            budget: Most distinct coalitions to ask for, v(∅) apart; at least :meth:`least_budget`, at most 2^n − 1.
            generator: Source of all randomness.
        """
