"""Admission: who may contribute when a round does not take everybody's updates.

* ``settings``: the capacity of a round and the mechanism (``admission:``), as data, and what does not go together;
* ``mechanism``: what mechanisms may know and what they answer; how candidates are put in order;
* ``orders``: by gain, by turns, by maximin shares;
* ``lotteries``: uniform lots, and lots with a fair share for every group of principals;
* ``equal_shares``: principals pay for what helps them, from equal shares of the places;
* ``auction``: bids with critical payments, and rebates of the revenue;
* ``shareable``: places for kinds of updates, whose members share what they bring.
"""

if __name__ != "proxycoop.envs.admission":
    raise ImportError(f"{__name__!r} is part of proxycoop: use 'import proxycoop.envs'")

from .auction import Auction
from .equal_shares import EqualShares
from .lotteries import FairLottery, Lottery
from .mechanism import Mechanism, Need, Offers, Places
from .orders import ByGain, Maximin, Turns
from .settings import MECHANISMS, Admission, AnyMechanism, refuse
from .shareable import Shareable, shared_credit

__all__ = [
    "MECHANISMS",
    "Admission",
    "AnyMechanism",
    "Auction",
    "ByGain",
    "EqualShares",
    "FairLottery",
    "Lottery",
    "Maximin",
    "Mechanism",
    "Need",
    "Offers",
    "Places",
    "Shareable",
    "Turns",
    "refuse",
    "shared_credit",
]
