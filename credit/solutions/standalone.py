"""What each agent would have achieved alone."""

from __future__ import annotations

import torch
from torch import Tensor

from ..games.game import CoalitionGame
from ..rule import RULES, GameRule


@RULES.register("standalone")
class Standalone(GameRule):
    r"""Pays each agent what it would have achieved alone.

    .. math:: c_i = v(\{i\})

    Costs n evaluations. Symmetric and null-player. Not efficient: what several agents know is paid several times, and what they can only do
    together is paid to nobody.

    Known failure: copies. A copy earns as much as the original.

    References:
        The benchmark of individual rationality in von Neumann & Morgenstern (1944), *Theory of Games and Economic Behavior*, Princeton
        University Press.
    """

    source = "individual worth (von Neumann & Morgenstern 1944)"
    pays = "v({i})"
    known_failure = "a copy is paid like the original"
    evaluations = "n"
    symmetric = True
    null_player = True

    def cost(self, n_players: int) -> int:
        """One evaluation for every agent alone."""
        return n_players

    def divide(self, game: CoalitionGame) -> Tensor:
        """v({i}) for every player, ``(n_envs, n_players)``."""
        return game.value(torch.eye(game.n_players, dtype=torch.bool))
