"""Equal split of the round's gain."""

from __future__ import annotations

from typing import ClassVar

from torch import Tensor

from ..games.game import CoalitionGame
from ..rule import RULES, Family, GameRule


@RULES.register("equal")
class Equal(GameRule):
    r"""Everyone gets the same share of what was gained.

    .. math:: c_i = v(N) / n

    Costs one evaluation. Efficient and symmetric; not null-player: who adds nothing is paid all the same, and so its known
    failure is the free rider (Olson 1965, *The Logic of Collective Action*): the private benefit of a lot is 1/n of what it
    does for all, while its cost is borne alone.
    """

    family: ClassVar[Family] = "division"
    source = "egalitarian division"
    evaluations = "1"
    efficient = True
    symmetric = True

    def cost(self, n_players: int) -> int:
        """v(N)."""
        del n_players
        return 1

    def divide(self, game: CoalitionGame) -> Tensor:
        """v(N)/n for every player, ``(n_envs, n_players)``."""
        return (game.grand() / game.n_players)[:, None].repeat(1, game.n_players)
