"""Fixed statistics of observations, for libraries that do not normalise by running statistics."""

from __future__ import annotations

import torch
from torch import Tensor

from ...agents import Agent, Honest, Random, play
from ...envs import Engine, Scenario

EPISODES = 16
"""Number of episodes that each agent plays. They give tens of thousands of observed lots."""


def reference_statistics(scenario: Scenario, credit: str) -> tuple[Tensor, Tensor]:
    """Mean and variance of what proxies observe, measured once, before training.

    Half of the episodes are played at random and half by honest proxies, so that the statistics cover models that improve and models that
    do not. They are the same for all seeds of a training.

    Args:
        scenario: The cooperative.
        credit: The credit rule. It matters because proxies observe what they earned.

    Returns:
        Mean and variance of each lot feature, pooled over lots, then of each agent feature, ``(F + G,)`` each.
    """
    engine = Engine(scenario, credit, EPISODES)
    seen: list[Tensor] = []

    def look(engine: Engine) -> None:
        seen.append(engine.observations)

    players: list[Agent] = [Random(), Honest()]
    for agent in players:
        play(engine, agent, range(EPISODES), before_round=look)
    lots, own = engine.layout.split(torch.stack(seen).double())  # (2T, E, N, K, F), (2T, E, N, G)
    parts = (lots.flatten(end_dim=-2), own.flatten(end_dim=-2))
    mean, variance = (torch.cat([getattr(torch, what)(part, dim=0) for part in parts]).float() for what in ("mean", "var"))
    return mean, variance
