"""Settlement in a cooperative: what its model earns, and when that is split.

* ``settlement``: the settings, the revenue of a round, and the accounts of a batch of cooperatives.

How revenue is split is in :mod:`proxycoop.credit.money`, and the ledger in :mod:`proxycoop.credit.ledger`.
"""

from .settlement import SettlementTerms, Treasury

__all__ = [
    "SettlementTerms",
    "Treasury",
]
