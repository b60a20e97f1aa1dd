"""A free rider: it sends back what all did before."""

from __future__ import annotations

from ..agent import AGENTS
from .adversary import Adversary


@AGENTS.register("free_rider")
class FreeRider(Adversary):
    """Contributes no lot, and sends the step of the last round back (``echo``): credit for the work of all, without training."""

    kinds = ("echo",)
    by_default = "nothing"
