"""Estimators that fit something to coalitions which are drawn one by one."""

from __future__ import annotations

from abc import abstractmethod

import numpy as np

from ..games.game import CoalitionGame, Surrogate
from .estimate import Estimate, Estimator
from .regression import Design, single_design


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
        return self.fitted(game, single_design(game.n_players, budget - 1, generator), generator)

    def sample_rest(self, game: CoalitionGame, budget: int, generator: np.random.Generator, near: Surrogate) -> Estimate:
        """See the class."""
        return self.fitted(game, single_design(game.n_players, budget - 1, generator, free=near.known), generator)

    @abstractmethod
    def fitted(self, game: CoalitionGame, design: Design, generator: np.random.Generator) -> Estimate:
        """The estimate from drawn coalitions and v(N).

        Args:
            game: The game.
            design: The draws.
            generator: Source of all further randomness.
        """
