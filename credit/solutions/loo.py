"""Leave-one-out: the difference reward."""

from __future__ import annotations

import torch
from torch import Tensor

from ..games.game import CoalitionGame
from ..rule import RULES, GameRule


@RULES.register("loo")
class LeaveOneOut(GameRule):
    r"""Pays each agent what the round would lose without it.

    .. math:: c_i = v(N) - v(N \setminus i)

    In multi-agent learning this is the difference reward with the default action "contribute nothing": an agent that raises its own reward
    raises the team's.

    Costs n + 1 evaluations. Symmetric and null-player. Not efficient.

    Known failure: redundancy. Of two agents with the same data each earns nothing, because the other is still there.

    References:
        Wolpert & Tumer (2001), *Optimal payoff functions for members of collectives*, Advances in Complex Systems 4.
    """

    source = "difference reward (Wolpert & Tumer 2001)"
    pays = "v(N) − v(N∖i)"
    known_failure = "of two agents with the same data, each is paid nothing"
    evaluations = "n + 1"
    symmetric = True
    null_player = True

    def cost(self, n_players: int) -> int:
        """n + 1: v(N), and everybody but one."""
        return n_players + 1

    def divide(self, game: CoalitionGame) -> Tensor:
        """v(N) − v(N∖i) for every player, ``(n_envs, n_players)``."""
        n = game.n_players
        coalitions = torch.cat([torch.ones(1, n, dtype=torch.bool), ~torch.eye(n, dtype=torch.bool)])
        v = game.value(coalitions)  # (n_envs, n + 1)
        return v[:, :1] - v[:, 1:]
