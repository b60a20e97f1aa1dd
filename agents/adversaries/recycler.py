"""A recycler: it sends old work again."""

from __future__ import annotations

from ..agent import AGENTS
from .adversary import Adversary


@AGENTS.register("recycler")
class Recycler(Adversary):
    """Contributes no lot, and sends what its lots proposed some rounds ago (``stale``): nothing is trained anew."""

    kinds = ("stale",)
    by_default = "nothing"
