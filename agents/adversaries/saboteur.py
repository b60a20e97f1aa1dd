"""A saboteur: it undoes what its data would teach."""

from __future__ import annotations

from torch import Tensor

from ..agent import AGENTS
from .adversary import Adversary


@AGENTS.register("saboteur")
class Saboteur(Adversary):
    """Contributes no lot, and sends the updates of the lots that ``honest`` would contribute with the sign turned (``flip``)."""

    kinds = ("flip",)
    by_default = "nothing"

    def cheat(self, lots: Tensor, honest: Tensor) -> tuple[Tensor, Tensor]:
        """The lots, and the turned updates of those that the honest self contributes."""
        return lots, self.made_of(honest, self.kinds)
