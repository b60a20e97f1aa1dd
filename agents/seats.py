"""Different policies in different seats."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor

from ..envs.engine import Engine
from ..envs.observation import ObservationLayout
from .agent import Agent, PrivilegedAgent


class Seats(PrivilegedAgent):
    """One policy for most proxies, others for some: for deviators, free riders and mixed company.

    Args:
        default: Everybody's policy.
        others: Policies by seat.
    """

    def __init__(self, default: Agent, others: Mapping[int, Agent]) -> None:
        self.default = default
        self.others = dict(others)

    def watch(self, engine: Engine) -> None:
        """Hand the engine on to those who may see it.

        Raises:
            ValueError: If a seat does not exist.
        """
        for seat in self.others:
            if seat not in range(engine.num_agents):
                raise ValueError(f"seat {seat}: seats go from 0 to {engine.num_agents - 1}")
        for agent in (self.default, *self.others.values()):
            if isinstance(agent, PrivilegedAgent):
                agent.watch(engine)

    def begin(self, layout: ObservationLayout, keys: Tensor) -> None:
        """An episode begins for everybody."""
        super().begin(layout, keys)
        for agent in (self.default, *self.others.values()):
            agent.begin(layout, keys)

    def choose(self, observations: Tensor) -> Tensor:
        """Everybody's own choice."""
        choices = self.default.act(observations).clone()
        for seat, agent in self.others.items():
            choices[:, seat] = agent.act(observations)[:, seat]
        return choices
