r"""Returns where only some agents are present in a round: each agent's rounds are those in which it is present.

An agent that is absent chooses nothing and learns nothing. What it is rewarded with meanwhile (a public share, a payout) follows from what
it chose when it was last present, and is added to the reward of that round, undiscounted. The discount counts the agent's own rounds: in

.. math:: G_t = r_t + \gamma G_{t'}

t' is the next round in which the same agent is present. What comes before an agent's first round does not count for learning.
"""

from __future__ import annotations

import torch
from torch import Tensor


class OwnRounds:
    """The rounds of each agent in an episode of E cooperatives of N agents, of whom m are present in each of T rounds.

    Args:
        agents: Who is present, int64 ``(T, E, m)``.
        n_agents: Number of agents N.
    """

    def __init__(self, agents: Tensor, n_agents: int) -> None:
        self._agents = agents
        self._n_agents = n_agents

    def rewards(self, rewards: Tensor) -> Tensor:
        """Each own round's reward, and what came until the next one, ``(T, E, N)`` → ``(T, E, m)``."""
        waiting = torch.zeros_like(rewards[0])  # (E, N)
        own = []
        for reward, agents in zip(rewards.flip(0), self._agents.flip(0), strict=True):
            waiting = waiting + reward
            own.append(waiting.gather(1, agents))
            waiting = waiting.scatter(1, agents, 0.0)
        return torch.stack(own[::-1])

    def discounted(self, rewards: Tensor, gamma: float) -> Tensor:
        r"""Discounted sum of this own round's and earlier rewards, ``(T, E, m)``: :math:`R_t = r_t + \gamma R_{t-1}`."""
        return self._summed(rewards, self._agents, gamma)

    def reward_to_go(self, rewards: Tensor, gamma: float) -> Tensor:
        r"""Discounted sum of this own round's and later rewards, ``(T, E, m)``: :math:`G_t = r_t + \gamma G_{t+1}`."""
        return self._summed(rewards.flip(0), self._agents.flip(0), gamma).flip(0)

    def gae(self, rewards: Tensor, values: Tensor, gamma: float, lam: float) -> Tensor:
        """Generalised advantage estimation over own rounds, ``(T, E, m)`` each; see :func:`~proxycoop.training.libraries.ippo.gae`."""
        advantages = torch.empty_like(rewards)
        later = rewards.new_zeros(2, rewards.shape[1], self._n_agents)  # advantage and value in the agent's next own round
        for t in reversed(range(len(rewards))):
            agents = self._agents[t]
            advantage, next_value = later.gather(2, agents.expand(2, -1, -1))
            advantages[t] = rewards[t] + gamma * next_value - values[t] + gamma * lam * advantage
            later = later.scatter(2, agents.expand(2, -1, -1), torch.stack([advantages[t], values[t]]))
        return advantages

    def _summed(self, rewards: Tensor, agents: Tensor, gamma: float) -> Tensor:
        so_far = rewards.new_zeros(rewards.shape[1], self._n_agents)
        sums = []
        for reward, those in zip(rewards, agents, strict=True):
            sums.append(reward + gamma * so_far.gather(1, those))
            so_far = so_far.scatter(1, those, sums[-1])
        return torch.stack(sums)
