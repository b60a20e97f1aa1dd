"""Scripted adversaries: proxies that cheat in one way each, one file an adversary.

=================  =================================================================================  ====================================
agent              what it does                                                                       the scenario needs
=================  =================================================================================  ====================================
``free_rider``     sends the last step back, and no data                                              ``echo``
``noise_maker``    sends random updates, and no data                                                  ``noise``
``plagiarist``     sends the mean of what others sent last, and no data                               ``blend``
``recycler``       sends what its lots proposed some rounds ago                                       ``stale``
``doubler``        sends its updates twice                                                            ``twin`` or ``near_twin``
``booster``        sends its updates enlarged                                                         ``boost``
``saboteur``       sends its updates with the sign turned, or updates against the mean of all          ``flip``, ``little_is_enough`` …
``over_claimer``   claims more rows than it has                                                       ``claim``
``hypocrite``      declares larger tolerances than its principal has                                  ``lax``
``blocker``        objects to all that others send                                                    ``block``
``colluder``       objects to all but its cabal's updates, and praises only these                     ``block`` or ``vouch``, ``cabal``
``sybil``          is honest under several names                                                      ``identities``
``sandbagger``     waits for half the episode, then is honest
``label_flipper``  contributes all its lots, whose labels are wrong                                   ``lots.corruption.principals``
=================  =================================================================================  ====================================

``FreeRider.knows`` and so on say what each may know. All but ``label_flipper`` and ``colluder`` know what any proxy observes.

The modules: ``adversary``, their base with what they share; and one for each, of its name.
"""

if __name__ != "proxycoop.agents.adversaries":
    raise ImportError(f"{__name__!r} is part of proxycoop: use 'import proxycoop.agents.adversaries'")

from .adversary import Adversary
from .blocker import Blocker
from .booster import Booster
from .colluder import Colluder
from .doubler import Doubler
from .free_rider import FreeRider
from .hypocrite import Hypocrite
from .label_flipper import LabelFlipper
from .noise_maker import NoiseMaker
from .over_claimer import OverClaimer
from .plagiarist import Plagiarist
from .recycler import Recycler
from .saboteur import Saboteur
from .sandbagger import Sandbagger
from .sybil import Sybil

__all__ = [
    "Adversary",
    "Blocker",
    "Booster",
    "Colluder",
    "Doubler",
    "FreeRider",
    "Hypocrite",
    "LabelFlipper",
    "NoiseMaker",
    "OverClaimer",
    "Plagiarist",
    "Recycler",
    "Saboteur",
    "Sandbagger",
    "Sybil",
]
