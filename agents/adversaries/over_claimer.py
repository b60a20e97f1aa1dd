"""An over-claimer: it says that it has more data than it has."""

from __future__ import annotations

from ..agent import AGENTS
from .adversary import Adversary


@AGENTS.register("over_claimer")
class OverClaimer(Adversary):
    """Contributes as ``honest`` does, and claims more rows than its lots have (``claim``)."""

    kinds = ("claim",)
