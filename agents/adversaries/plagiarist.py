"""A plagiarist: it sends what others sent."""

from __future__ import annotations

from ..agent import AGENTS
from .adversary import Adversary


@AGENTS.register("plagiarist")
class Plagiarist(Adversary):
    """Contributes no lot, and sends the mean of what the others sent in the last round (``blend``): their work, without data."""

    kinds = ("blend",)
    by_default = "nothing"
