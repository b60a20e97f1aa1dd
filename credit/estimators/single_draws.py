"""Estimators that fit something to coalitions which are drawn one by one."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from torch import Tensor

from ..games.game import CoalitionGame, Surrogate
from .estimate import Estimate, Estimator
from .regression import Design, single_design


@dataclass(frozen=True)
class Fit:
    """What was fitted to drawn coalitions, and how well it foretells each of them from the others.

    Attributes:
        estimate: The values that follow from it.
        left_out: Computes how far each draw's worth is from what the others foretell, ``(E, m)``, in the game's unit.
    """

    estimate: Estimate
    left_out: Callable[[], Tensor]


class SingleDraws(Estimator):
    """An estimator that draws coalitions by :func:`~proxycoop.credit.estimators.regression.single_design`.

    Of the difference to a surrogate it takes all coalitions of the sizes that the surrogate knows, beside those within the budget.
    """

    def least_rest(self, n_players: int) -> int:
        """v(N) and two coalitions: those of sizes that a surrogate knows come on top."""
        del n_players
        return 3

    def sample(self, game: CoalitionGame, budget: int, generator: np.random.Generator) -> Estimate:
        """See the class."""
        return self.fitted(game, single_design(game.n_players, budget - 1, generator), generator).estimate

    def sample_rest(self, game: CoalitionGame, budget: int, generator: np.random.Generator, near: Surrogate) -> Estimate:
        """See the class."""
        return self.fitted(game, single_design(game.n_players, budget - 1, generator, free=near.known), generator).estimate

    @abstractmethod
    def fitted(self, game: CoalitionGame, design: Design, generator: np.random.Generator) -> Fit:
        """What is fitted to drawn coalitions and v(N).

        Args:
            game: The game.
            design: The draws.
            generator: Source of all further randomness.
        """
