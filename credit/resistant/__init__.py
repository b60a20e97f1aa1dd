"""Rules that resist cheating: false names, shell companies, free riding, forged updates.

* ``quotient``: names that are presumed to be one principal are paid as one player;
* ``clusters``: who is presumed to be one principal, and how often that is wrong;
* ``faithful``: an agent's lots earn the same, however they are dealt out to names;
* ``fact``: a penalty against free riding;
* ``slashing``: random audits, and a stake that is lost where one finds a forged update.
"""

from .clusters import false_merge_rate, false_split_rate, similar
from .fact import Fact, contest, local_optimum
from .faithful import FaithfulGroupShapley, group_values
from .quotient import Quotient, quotient_game
from .slashing import Slashing, least_stake

__all__ = [
    "Fact",
    "FaithfulGroupShapley",
    "Quotient",
    "Slashing",
    "contest",
    "false_merge_rate",
    "false_split_rate",
    "group_values",
    "least_stake",
    "local_optimum",
    "quotient_game",
    "similar",
]
