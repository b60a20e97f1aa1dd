"""Credit for coalitions: games, rounds, and the rules that divide what a coalition gained.

This is the ground floor: it works on tensors and callables alone and knows nothing of environments or agents, so that it
serves any game and any federated code::

    from proxycoop import credit

    game = credit.CoalitionGame(lambda coalitions: 1.0 * (coalitions[:, 0] & coalitions[:, 1:].any(dim=1)), n_players=3)
    credit.make("shapley").values(game)  # [[2/3, 1/6, 1/6]]
"""

if __name__ != "proxycoop.credit":
    raise ImportError(f"{__name__!r} is part of proxycoop: use 'import proxycoop.credit'")

from .data_size import DataSize
from .equal import Equal
from .game import CoalitionGame, coalition_matrix
from .loo import LeaveOneOut
from .round import Round
from .rule import RULES, CreditRule, GameRule, make
from .shapley import Shapley, shapley_values
from .standalone import Standalone

__all__ = [
    "RULES",
    "CoalitionGame",
    "CreditRule",
    "DataSize",
    "Equal",
    "GameRule",
    "LeaveOneOut",
    "Round",
    "Shapley",
    "Standalone",
    "coalition_matrix",
    "make",
    "shapley_values",
]
