"""Conduct: what proxies may do beside contributing their lots.

* ``settings``: the forgeries and levers of a scenario (``conduct:``), as data;
* ``items``: a proxy's lots, forgeries and levers as one list, each with a choice every round;
* ``forging``: how forged updates are made.
"""

from .forging import Sent, forge, remember
from .items import Items, Standing
from .settings import Conduct

__all__ = ["Conduct", "Items", "Sent", "Standing", "forge", "remember"]
