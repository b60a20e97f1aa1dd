"""A doubler: it sends its updates twice."""

from __future__ import annotations

from torch import Tensor

from ..agent import AGENTS
from .adversary import Adversary


@AGENTS.register("doubler")
class Doubler(Adversary):
    """Contributes as ``honest`` does, and sends the updates of these lots a second time (``twin`` and ``near_twin``)."""

    kinds = ("twin", "near_twin")

    def cheat(self, lots: Tensor, honest: Tensor) -> tuple[Tensor, Tensor]:
        """The lots, and the twins of those that the honest self contributes."""
        return lots, self.made_of(honest, self.kinds)
