"""What each agent would have achieved alone."""

from __future__ import annotations

import torch
from torch import Tensor

from .game import CoalitionGame
from .rule import RULES, GameRule


@RULES.register("standalone")
class Standalone(GameRule):
    r"""Individual worth.

    .. math:: c_i = v(\{i\}) - v(\varnothing)

    Costs n + 1 evaluations. Symmetric and null-player; not efficient: what several agents know is paid several times, and
    what they can only do together is paid to nobody. Its known failure is the copy, which earns as much as the original.

    References:
        Individual rationality's benchmark in von Neumann & Morgenstern (1944), *Theory of Games and Economic Behavior*.
    """

    source = "individual worth (von Neumann & Morgenstern 1944)"
    evaluations = "n + 1"
    symmetric = True
    null_player = True

    def values(self, game: CoalitionGame) -> Tensor:
        """v({i}) − v(∅) for every player, ``(n_envs, n_players)``."""
        n = game.n_players
        coalitions = torch.cat([torch.zeros(1, n, dtype=torch.bool), torch.eye(n, dtype=torch.bool)])
        v = game.value(coalitions)  # (n_envs, n + 1)
        return v[:, 1:] - v[:, :1]
