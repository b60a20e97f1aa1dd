"""Apportionment and settlement as pure functions on whole minor units."""

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
