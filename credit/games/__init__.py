"""Coalition games, rounds that make them, and games whose values are known in closed form.

* ``game``: a coalition game, batched over environments;
* ``surrogate``: cheap games that stand in for dear ones, and their values in closed form;
* ``round``: a round, as credit rules see it;
* ``lots``: the game among lots instead of agents;
* ``false_names``: what a player gains that appears as several;
* ``known``: games whose values are known in closed form;
* ``from_updates``: a round from a module and its clients' updates, for federated code outside this package;
* ``replica``: a copy of a module that is evaluated at other parameters;
* ``head``: which parameters of the last layer belong to which class.
"""

from .false_names import false_name_gain, held
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
    "false_name_gain",
    "from_updates",
    "glove",
    "held",
    "random_game",
    "saturating",
    "table_game",
    "unanimity",
    "unanimity_sum",
    "weighted_majority",
]
