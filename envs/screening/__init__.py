"""Screening: which updates are admitted, by whose profiles, and what happens to the others.

* ``profiles``: value profiles, and who holds which;
* ``harm``: the harm of updates, predicted or measured;
* ``electorate``: who judges where only some of the agents are present;
* ``verdicts``: which updates are admissible to whom, the governance, and the guard's factor;
* ``filters``: what happens to an inadmissible update: reject, scale, project;
* ``projection``: the nearest admissible update;
* ``bargaining``: governance negotiate;
* ``procedure``: the screening of one round, in its order.
"""

from .bargaining import Bargain, Offers
from .electorate import Electorate
from .filters import Filtered
from .harm import Harm
from .procedure import Guarded, Screener
from .profiles import Profile, Profiles, ProfileTable
from .verdicts import Screening, Verdicts

__all__ = [
    "Bargain",
    "Electorate",
    "Filtered",
    "Guarded",
    "Harm",
    "Offers",
    "Profile",
    "ProfileTable",
    "Profiles",
    "Screener",
    "Screening",
    "Verdicts",
]
