"""Conduct: what proxies may do beside contributing their lots.

* ``population``: which agents play which seats (``population:``);
* ``settings``: the forgeries and levers of a scenario (``conduct:``), as data;
* ``items``: a proxy's lots, forgeries and levers as one list, each with a choice every round;
* ``forging``: how forged updates are made.
"""

from .forging import Sent, forge, remember
from .items import Items, Standing
from .settings import (
    Bid,
    Blend,
    Block,
    Boost,
    Claim,
    Conduct,
    Echo,
    Flip,
    Forgery,
    Identities,
    InnerProduct,
    Lax,
    Lever,
    LittleIsEnough,
    NearTwin,
    Noise,
    OfALot,
    OfASize,
    Quit,
    Stale,
    Strict,
    Twin,
)

__all__ = [
    "Bid",
    "Blend",
    "Block",
    "Boost",
    "Claim",
    "Conduct",
    "Echo",
    "Flip",
    "Forgery",
    "Identities",
    "InnerProduct",
    "Items",
    "Lax",
    "Lever",
    "LittleIsEnough",
    "NearTwin",
    "Noise",
    "OfALot",
    "OfASize",
    "Quit",
    "Sent",
    "Stale",
    "Standing",
    "Strict",
    "Twin",
    "forge",
    "remember",
]
