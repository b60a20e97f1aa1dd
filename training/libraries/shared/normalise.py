"""Fixed statistics of observations, for libraries that do not normalise by running statistics."""

from __future__ import annotations

import torch
from torch import Tensor

from ....agents import Agent, Honest, Random, play
from ....envs import Engine, Scenario, randomness

EPISODES = 16
"""Number of episodes that each agent plays on each split. They give tens of thousands of observed lots."""


class _Anything(Random):
    """Chooses every lot, forgery and lever with the same probability, independently, as a policy does before it has learned."""

    def choose(self, observations: Tensor) -> Tensor:
        return randomness.uniform(self.round_keys(), observations.shape[1], self.layout.n_items) < self.probability


def reference_statistics(scenario: Scenario, credit: str) -> tuple[Tensor, Tensor]:
    """Mean and variance of what proxies observe, measured once, before training.

    Half of the episodes are played at random and half by honest proxies, so that the statistics cover models that improve and models that
    do not. Neither forge updates or pull levers. Where the scenario has these, a third part is played by proxies that choose anything at
    random, as learners do at first: forgeries can spoil a model beyond what lots do. All of the scenario's splits take part. The statistics
    are the same for all trainings on these splits.

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
    if engine.items:
        players.append(_Anything())
    for agent in players:
        for index in range(scenario.data.splits):  # each episode is on the next split of the data
            play(engine, agent, None if index else range(EPISODES), before_round=look)
    lots, own = engine.layout.split(torch.stack(seen).double())  # (2TS, E, N, K, F), (2TS, E, N, G); S splits
    parts = (lots.flatten(end_dim=-2), own.flatten(end_dim=-2))
    mean, variance = (torch.cat([getattr(torch, what)(part, dim=0) for part in parts]).float() for what in ("mean", "var"))
    return mean, variance
