"""Coalition games, rounds that make them, and games whose values are known in closed form."""

from .from_updates import from_updates
from .game import CoalitionGame, as_game, coalition_matrix
from .known import (
    GameKind,
    KnownGame,
    additive,
    airport,
    coverage,
    glove,
    random_game,
    saturating,
    table_game,
    unanimity,
    unanimity_sum,
    weighted_majority,
)
from .lots import LotGame
from .round import Round

__all__ = [
    "CoalitionGame",
    "GameKind",
    "KnownGame",
    "LotGame",
    "Round",
    "additive",
    "airport",
    "as_game",
    "coalition_matrix",
    "coverage",
    "from_updates",
    "glove",
    "random_game",
    "saturating",
    "table_game",
    "unanimity",
    "unanimity_sum",
    "weighted_majority",
]
