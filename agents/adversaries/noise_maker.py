"""A noise maker: it sends random updates."""

from __future__ import annotations

from ..agent import AGENTS
from .adversary import Adversary


@AGENTS.register("noise_maker")
class NoiseMaker(Adversary):
    """Contributes no lot, and sends random updates (``noise``): rows that it claims without training on them."""

    kinds = ("noise",)
    by_default = "nothing"
