"""Scripted proxies. They follow a rule of thumb, and see only what a proxy can see."""

from __future__ import annotations

import torch
from torch import Tensor

from ..checks import real_number
from ..envs import randomness
from .agent import AGENTS, Agent


@AGENTS.register("all")
class All(Agent):
    """Contributes every lot in every round."""

    made_for = "any"

    def choose(self, observations: Tensor) -> Tensor:
        """Every lot."""
        return torch.ones(*observations.shape[:2], self.layout.n_lots, dtype=torch.bool)


@AGENTS.register("none")
class Nothing(Agent):
    """Never contributes anything."""

    made_for = "any"

    def choose(self, observations: Tensor) -> Tensor:
        """No lot."""
        return torch.zeros(*observations.shape[:2], self.layout.n_lots, dtype=torch.bool)


@AGENTS.register("random")
class Random(Agent):
    """Contributes every lot with the same probability, independently.

    Args:
        probability: Probability of contributing a lot in a round, from 0 to 1.

    Raises:
        ValueError: If the probability is not within 0..1.
    """

    made_for = "any"

    def __init__(self, probability: float = 0.5) -> None:
        self.probability = real_number("probability", probability, 0, 1)

    def choose(self, observations: Tensor) -> Tensor:
        """Draw each lot independently."""
        return randomness.uniform(self.round_keys(), observations.shape[1], self.layout.n_lots) < self.probability


@AGENTS.register("honest")
class Honest(Agent):
    """Contributes the lots that are admissible to its own principal and whose loss is at most that of the validation data.

    Mislabelled lots have a high loss under any useful model, so this rule withholds most of them. It also withholds clean lots that are
    hard for the model, although the model could learn most from those.

    Args:
        margin: By how much a lot's loss may exceed the validation loss, in nats.

    Raises:
        ValueError: If the margin is no finite number.
    """

    made_for = "any"

    def __init__(self, margin: float = 0.0) -> None:
        self.margin = real_number("margin", margin)

    def choose(self, observations: Tensor) -> Tensor:
        """The lots that the own principal admits and whose loss exceeds the validation loss by at most the margin."""
        useful = self.layout.lot(observations, "excess_loss") <= self.margin
        return useful & (self.layout.lot(observations, "own_admissible") > 0.5)
