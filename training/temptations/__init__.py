"""What a rule tempts proxies to do: cheats, best responses, and what all learn when they may cheat.

* ``cheats``: manipulation gain, what a scripted cheat earns over its honest self;
* ``exploit``: exploitability, what one proxy gains that learns to best-respond;
* ``findings``: both and more for a rule, in parallel processes; ``words``: what was found, in sentences;
* ``diagram``: what honesty and a cheat earn against the number of others who are honest.
"""

if __name__ != "proxycoop.training.temptations":
    raise ImportError(f"{__name__!r} is part of proxycoop: use 'import proxycoop.training.temptations'")

from .cheats import CHEATS, Cheat, Gain, gain_of, gains, tempting
from .diagram import Diagram, schelling
from .exploit import Response, best_response
from .findings import Defence, Findings, redteam
from .words import sentences

__all__ = [
    "CHEATS",
    "Cheat",
    "Defence",
    "Diagram",
    "Findings",
    "Gain",
    "Response",
    "best_response",
    "gain_of",
    "gains",
    "redteam",
    "schelling",
    "sentences",
    "tempting",
]
