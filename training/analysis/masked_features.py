"""What a policy would do in the situations that occurred, if it saw fewer features."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from ...agents import Agent
from ...envs.observations.layout import ObservationLayout
from .coalition_play import LOTS_AT_ONCE, Background, Blinkered, features

MOST_LOTS = 4096
"""Most lots in situations. With more, only evenly spaced rounds are used, so that memory stays bounded."""
_NOTHING = 1e-6
"""Differences of probabilities up to this size are rounding."""


class MaskedFeatures:
    """Asks a policy what it would do in situations of which it sees only some features.

    A call with coalitions of features, bool ``(m, n_features)``, returns the probability of contributing each lot, ``(m, T', E, N, K)``.
    T' of the T rounds are used.

    Args:
        agent: The policy.
        observations: The situations, ``(T, E, N, size)``: what everybody observed in every round.
        keys: Keys of the episodes, int64 ``(E,)``.
        layout: Layout of the observations.
        background: What replaces features that are not seen.
        draws: Draws over which probabilities are averaged.
        progress: Called with the number of coalitions that are done.
    """

    def __init__(
        self,
        agent: Agent,
        observations: Tensor,
        keys: Tensor,
        layout: ObservationLayout,
        background: Background,
        draws: int,
        progress: Callable[[int], None],
    ) -> None:
        horizon, self._lots = len(observations), observations[0, ..., 0].numel() * layout.n_items
        n_rounds = min(horizon, max(1, MOST_LOTS // self._lots))
        self.rounds = torch.linspace(0, horizon - 1, n_rounds).round().long().tolist()
        self.observations = observations[self.rounds]  # (T', E, N, size)
        self.layout = layout
        self._agent, self._keys, self._background, self._draws, self._progress = agent, keys, background, draws, progress

    def __call__(self, coalitions: Tensor) -> Tensor:
        """Probabilities, ``(m, T', E, N, K)``; see the class."""
        n_episodes = len(self._keys)
        answers = []
        for block in coalitions.split(max(1, LOTS_AT_ONCE // self._lots)):
            policy = Blinkered(self._agent, block.repeat_interleave(n_episodes, dim=0), self._background, self._draws)
            policy.begin(self.layout, self._keys.repeat(len(block)))
            rounds = []
            for t, observations in zip(self.rounds, self.observations, strict=True):
                policy.t = t
                rounds.append(policy.probabilities(observations.repeat(len(block), 1, 1)).unflatten(0, (len(block), n_episodes)))
            answers.append(torch.stack(rounds, dim=1))  # (m, T', E, N, K)
            self._progress(len(block))
        return torch.cat(answers)

    def is_read(self) -> Tensor:
        """Which features the policy reads at all, bool ``(n_features,)``.

        A feature is not read if it changes no probability in any situation, neither when it alone is hidden nor when it alone is seen.
        """
        alone = torch.eye(len(features(self.layout)), dtype=torch.bool)
        lost = self(~alone) - self(torch.ones_like(alone[:1]))
        gained = self(alone) - self(torch.zeros_like(alone[:1]))
        return torch.maximum(lost.abs(), gained.abs()).flatten(1).amax(dim=1) > _NOTHING

    def feature_values(self) -> Tensor:
        """The value of each feature for each lot, ``(T', E, N, K, n_features)``; those of the agent are the same for all lots."""
        lots, agent = self.layout.split(self.observations)
        return torch.cat([lots, agent[..., None, :].expand(*lots.shape[:-1], -1)], dim=-1)
