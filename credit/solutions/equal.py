"""Equal split of the round's gain."""

from __future__ import annotations

from typing import ClassVar

from torch import Tensor

from ..games.game import CoalitionGame
from ..rule import RULES, Family, GameRule


@RULES.register("equal")
class Equal(GameRule):
    """Pays every agent the same share of what the round gained.

    .. math:: c_i = v(N) / n

    Costs one evaluation. Efficient and symmetric. Not null-player: who adds nothing is paid all the same.

    Known failure: the free rider (Olson 1965). An agent's private benefit of a lot is 1/n of what the lot does for all, but the agent bears
    the cost alone.

    References:
        Olson (1965), *The Logic of Collective Action*, Harvard University Press, for free riding.
    """

    family: ClassVar[Family] = "division"
    source = "egalitarian division"
    pays = "v(N) / n"
    known_failure = "free riders are paid like everybody else"
    evaluations = "1"
    efficient = True
    symmetric = True

    def cost(self, n_players: int) -> int:
        """One evaluation, v(N)."""
        del n_players
        return 1

    def divide(self, game: CoalitionGame) -> Tensor:
        """v(N)/n for every player, ``(n_envs, n_players)``."""
        return (game.grand() / game.n_players)[:, None].repeat(1, game.n_players)
