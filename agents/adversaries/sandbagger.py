"""A sandbagger: it keeps its data back for later."""

from __future__ import annotations

from torch import Tensor

from ...checks import real_number
from ..agent import AGENTS
from .adversary import Adversary


@AGENTS.register("sandbagger")
class Sandbagger(Adversary):
    """Contributes nothing in the first part of an episode, and as ``honest`` does after it: what it has may be worth more then.

    Args:
        share: Which part of the episode's rounds it waits, from 0 to 1.

    Raises:
        ValueError: If the share is not within 0..1.
    """

    def __init__(self, share: float = 0.5) -> None:
        super().__init__()
        self.share = real_number("share", share, 0, 1)

    def cheat(self, lots: Tensor, honest: Tensor) -> tuple[Tensor, Tensor]:
        """No lot while it waits, then the lots; nothing beside them."""
        del honest
        waits = self.layout.agent(self.observed, "time") < self.share - 1e-6  # (E, N)
        return lots & ~waits[..., None], self.every(lots, ())
