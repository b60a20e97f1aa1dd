"""A booster: it makes its updates larger."""

from __future__ import annotations

from torch import Tensor

from ..agent import AGENTS
from .adversary import Adversary


@AGENTS.register("booster")
class Booster(Adversary):
    """Contributes as ``honest`` does, but sends the enlarged update (``boost``) in place of a lot where there is one."""

    kinds = ("boost",)

    def cheat(self, lots: Tensor, honest: Tensor) -> tuple[Tensor, Tensor]:
        """The lots without those that are sent enlarged, and these."""
        boosted = self.made_of(honest, self.kinds)
        return lots & ~self.lots_of(boosted, lots), boosted
