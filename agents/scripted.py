"""Scripted proxies: they follow a rule of thumb, and see what a real proxy could."""

from __future__ import annotations

import torch
from torch import Tensor

from ..envs import randomness
from .agent import AGENTS, Agent


@AGENTS.register("all")
class All(Agent):
    """Contributes every lot in every round."""

    def choose(self, observations: Tensor) -> Tensor:
        """Every lot."""
        return torch.ones(*observations.shape[:2], self.layout.n_lots, dtype=torch.bool)


@AGENTS.register("none")
class Nothing(Agent):
    """Contributes nothing, ever."""

    def choose(self, observations: Tensor) -> Tensor:
        """No lot."""
        return torch.zeros(*observations.shape[:2], self.layout.n_lots, dtype=torch.bool)


@AGENTS.register("random")
class Random(Agent):
    """Contributes each lot with the same probability, independently.

    Args:
        probability: Of contributing a lot in a round.

    Raises:
        ValueError: If it is not within 0..1.
    """

    def __init__(self, probability: float = 0.5) -> None:
        if not 0 <= probability <= 1:
            raise ValueError(f"probability={probability}: must lie between 0 and 1")
        self.probability = probability

    def choose(self, observations: Tensor) -> Tensor:
        """Each lot by a coin of its own."""
        return randomness.uniform(self.round_keys(), observations.shape[1], self.layout.n_lots) < self.probability


@AGENTS.register("honest")
class Honest(Agent):
    """Contributes what its principal admits and what looks like good data: lots no harder for the shared model than validation data.

    Mislabelled lots have a high loss under any useful model, so this keeps most of them out; it also keeps out clean lots that are
    hard, from which there would be most to learn.

    Args:
        margin: Largest excess of a lot's loss over the validation loss, in nats.
    """

    def __init__(self, margin: float = 0.0) -> None:
        self.margin = margin

    def choose(self, observations: Tensor) -> Tensor:
        """Own-admissible lots whose loss is not above the validation loss by more than the margin."""
        useful = self.layout.lot(observations, "excess_loss") <= self.margin
        return useful & (self.layout.lot(observations, "own_admissible") > 0.5)
