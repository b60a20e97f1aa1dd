"""Different policies in different seats."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor

from ..envs.engine import Engine
from ..envs.observations.layout import ObservationLayout
from .agent import Agent


class Seats(Agent):
    """One policy for most proxies and other policies for some seats: for deviators, free riders and mixed populations.

    Args:
        default: The policy of all seats that ``others`` does not name.
        others: Policies by seat. The same object may play several seats.
    """

    def __init__(self, default: Agent, others: Mapping[int, Agent]) -> None:
        self.default = default
        self.others = dict(others)
        self.members = list(dict.fromkeys([default, *self.others.values()]))
        self.privileged = any(agent.privileged for agent in self.members)

    def watch(self, engine: Engine) -> None:
        """Pass the engine on to the privileged policies."""
        for agent in self.members:
            if agent.privileged:
                agent.watch(engine)

    def begin(self, layout: ObservationLayout, keys: Tensor) -> None:
        """Begin an episode for every policy."""
        super().begin(layout, keys)
        for agent in self.members:
            agent.begin(layout, keys)

    def choose(self, observations: Tensor) -> Tensor:
        """The choice of each seat's own policy.

        Raises:
            ValueError: If a seat does not exist.
        """
        n_agents = observations.shape[1]
        chosen = {agent: agent.act(observations) for agent in self.members}
        choices = chosen[self.default].clone()
        for seat, agent in self.others.items():
            if seat not in range(n_agents):
                raise ValueError(f"seat {seat}: seats go from 0 to {n_agents - 1}")
            choices[:, seat] = chosen[agent][:, seat]
        return choices
