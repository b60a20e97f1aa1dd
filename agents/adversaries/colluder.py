"""A colluder: a member of a cabal, whose members spare and praise each other."""

from __future__ import annotations

from ..agent import AGENTS
from .adversary import Adversary


@AGENTS.register("colluder")
class Colluder(Adversary):
    """Contributes as ``honest`` does, objects to all that others than its cabal send (``block``), and praises its cabal alone (``vouch``).

    The scenario says who belongs to the cabal (``conduct.cabal``). In seats beside the cabal it objects to everybody, as ``blocker`` does.
    """

    kinds = ("block", "vouch")
    knows = "what a proxy observes, and who belongs to its cabal"
