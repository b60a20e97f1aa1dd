"""Settlement in a cooperative: what its model earns, and when that is split."""

from .settlement import SettlementTerms, Treasury

__all__ = [
    "SettlementTerms",
    "Treasury",
]
