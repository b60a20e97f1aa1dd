"""A hypocrite: it declares that its principal tolerates more than it does."""

from __future__ import annotations

from ..agent import AGENTS
from .adversary import Adversary


@AGENTS.register("hypocrite")
class Hypocrite(Adversary):
    """Contributes as ``honest`` does, and declares larger tolerances than its principal has (``lax``).

    It sells the values that it acts for: what the principal would not tolerate passes, and is credited.
    """

    kinds = ("lax",)
