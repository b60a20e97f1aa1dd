"""A saboteur: it undoes what data would teach, its own or everybody's."""

from __future__ import annotations

from torch import Tensor

from ..agent import AGENTS
from .adversary import Adversary

_OMNISCIENT = ("little_is_enough", "inner_product")


@AGENTS.register("saboteur")
class Saboteur(Adversary):
    """Contributes no lot, and sends updates against what is learned.

    These are the updates of the lots that ``honest`` would contribute with the sign turned (``flip``), and updates against the mean of all
    others (``little_is_enough``, ``inner_product``).
    """

    kinds = ("flip", *_OMNISCIENT)
    knows = "what a proxy observes; with little_is_enough or inner_product, all that the others propose"
    by_default = "nothing"

    def cheat(self, lots: Tensor, honest: Tensor) -> tuple[Tensor, Tensor]:
        """The lots, the turned updates of those that the honest self contributes, and all updates against the others' mean."""
        return lots, self.made_of(honest, ("flip",)) | self.every(lots, _OMNISCIENT)
