"""A doubler: it sends its updates twice."""

from __future__ import annotations

from typing import Literal

from torch import Tensor

from ..agent import AGENTS
from .adversary import Adversary


@AGENTS.register("doubler")
class Doubler(Adversary):
    """Contributes as ``honest`` does, and sends the updates of these lots a second time (``twin`` and ``near_twin``).

    Args:
        kind: Which copies it sends: ``"twin"`` or ``"near_twin"``; by default all that there are.

    Raises:
        ValueError: If there is no such kind.
    """

    kinds = ("twin", "near_twin")

    def __init__(self, kind: Literal["twin", "near_twin"] | None = None) -> None:
        super().__init__()
        if kind not in (None, "twin", "near_twin"):
            raise ValueError(f"kind={kind!r}: must be 'twin' or 'near_twin'")
        self.sends = self.kinds if kind is None else (kind,)

    def cheat(self, lots: Tensor, honest: Tensor) -> tuple[Tensor, Tensor]:
        """The lots, and the twins of those that the honest self contributes."""
        return lots, self.made_of(honest, self.sends)
