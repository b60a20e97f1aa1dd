"""Who is present in a round, and the way from all agents to those who are present and back."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from ..randomness import Purpose, fold, uniform


@dataclass(frozen=True)
class Attendance:
    """The agents that are present in a round of E cooperatives: m of N. Each has a *seat*, in the order of the agents.

    Attributes:
        agents: The agent in each seat, int64 ``(E, m)``, ascending.
        n_agents: Number of agents N.
    """

    agents: Tensor
    n_agents: int

    @classmethod
    def drawn(cls, keys: Tensor, t: int, n_agents: int, sample: int) -> Attendance:
        """Draw who is present: a set of ``sample`` agents, each set with equal probability.

        Args:
            keys: One key per environment and episode, int64 ``(E,)``. A row depends on its own key and on t alone.
            t: Index of the round.
            n_agents: Number of agents N.
            sample: Number of those who are present, m.
        """
        lots = uniform(fold(keys, Purpose.PARTICIPATION, t), n_agents)  # (E, N)
        return cls(lots.topk(sample, dim=-1, largest=False, sorted=False).indices.sort(dim=-1).values, n_agents)

    def of(self, by_agent: Tensor) -> Tensor:
        """What belongs to those who are present, ``(E, N, …)`` → ``(E, m, …)``."""
        return by_agent[self._rows, self.agents]

    def among_all(self, by_seat: Tensor, others: Tensor | None = None) -> Tensor:
        """What belongs to everybody, ``(E, m, …)`` → ``(E, N, …)``.

        Args:
            by_seat: What those have who are present.
            others: What the others have, ``(E, N, …)``; zeros by default.
        """
        whole = by_seat.new_zeros(len(by_seat), self.n_agents, *by_seat.shape[2:]) if others is None else others.clone()
        whole[self._rows, self.agents] = by_seat
        return whole

    @cached_property
    def mask(self) -> Tensor:
        """Who is present, bool ``(E, N)``."""
        return self.among_all(torch.ones_like(self.agents, dtype=torch.bool))

    @cached_property
    def _rows(self) -> Tensor:
        return torch.arange(len(self.agents), device=self.agents.device)[:, None]
