"""A blocker: it objects to all that others send."""

from __future__ import annotations

from ..agent import AGENTS
from .adversary import Adversary


@AGENTS.register("blocker")
class Blocker(Adversary):
    """Contributes as ``honest`` does, and objects to everything that others send (``block``)."""

    kinds = ("block",)
