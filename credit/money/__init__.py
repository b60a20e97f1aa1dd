"""Apportionment and settlement as pure functions on whole minor units.

* ``money``: currencies, and amounts as text;
* ``apportionment``: whole units in proportion to weights, by largest remainder;
* ``settlement``: how revenue is split by cumulative credit.
"""

from .apportionment import apportion, apportion_within
from .money import Currency
from .settlement import Accounts, Settlement, SettlementPolicy, settle

__all__ = [
    "Accounts",
    "Currency",
    "Settlement",
    "SettlementPolicy",
    "apportion",
    "apportion_within",
    "settle",
]
