r"""Steps whose updates are merged by another aggregator than the weighted sum, and how any coalition's step would have been made.

.. math:: d_S = s_S \cdot A(\{\Delta_u : u \in S\}), \qquad s_S = \min\Bigl(1, \sum_{u \in S} p_u\Bigr)

with A the aggregator, over the units u that coalition S sends: its admitted updates, or one mean update an agent. With fixed weights s_S is
the share of all data that these updates claim, so that who withholds does not lengthen the others' part of the step; with participants'
weights it is 1. A is redone with S alone. For the weighted mean this is the usual step (:mod:`~proxycoop.envs.model.coalitions`).
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from ..aggregation import AggregatorSettings, aggregate, parts
from .additive import CHUNK
from .coalitions import RoundStep


@dataclass(frozen=True)
class RobustStep(RoundStep):
    """One round's aggregate under any aggregator, for E environments, N players of U updates each.

    Players are agents; for a game among lots, the lots are players of one update each.

    Attributes:
        aggregator: The settings.
        sent: Every update, admitted or not, ``(E, N, U, P)``.
        share: The admitted updates' shares of all data, ``(E, N, U)``; 0 for what is not admitted.
        order: Random priorities of the updates, for aggregators that draw, ``(E, N, U)``.
        n_agents: Number of agents; the players of an agent come one after another, equally many of each.
    """

    aggregator: AggregatorSettings
    sent: Tensor
    share: Tensor
    order: Tensor
    n_agents: int

    @property
    def does_not_add_up(self) -> str:
        """Why steps are not sums over players, in words."""
        return f"aggregator {self.aggregator.kind} does not add up what agents bring"

    def step(self, coalitions: Tensor) -> Tensor:
        """d_S before the server sees it, of coalitions bool ``([E,] C, N)``: ``(E, C, P)``."""
        n_envs, _, _, n_parameters = self.sent.shape
        coalitions = coalitions.to(self.sent.device)
        in_each = coalitions if coalitions.dim() == 3 else coalitions.expand(n_envs, *coalitions.shape)
        present = in_each[..., None] & (self.share > 0)[:, None]  # (E, C, N, U)
        if self.aggregator.over == "agents":
            size = max(1, CHUNK // (n_envs * self.n_agents * n_parameters))
            steps = [self._of_agents(some) for some in present.split(size, dim=1)]
            made = torch.cat(steps, dim=1) if steps else self.sent.new_zeros(n_envs, 0, n_parameters)
        else:
            made = aggregate(self.aggregator, self.sent.flatten(1, 2), self.share.flatten(1), present.flatten(2), self.order.flatten(1))
        return made if self.weights == "participants" else self._claimed(present)[..., None] * made

    def applied_updates(self) -> Tensor:
        """Each player's part in the step, ``(E, N, P)``; they sum to it, less what the server's memory alone brings."""
        return self._unit_parts.sum(dim=2)

    def applied_lots(self, share: Tensor, updates: Tensor) -> Tensor:
        """Each update's part in the step, ``(E, N, U, P)``."""
        del share, updates  # they are its own
        return self._unit_parts

    def of_lots(self, share: Tensor, updates: Tensor) -> RobustStep:
        """The same step with lots in the agents' place, whatever was contributed: shares ``(E, N, K)``, updates ``(E, N, K, P)``."""
        plain = super().of_lots(share, updates)
        sent, share, order = updates.flatten(1, 2)[:, :, None], share.flatten(1, 2)[..., None], self.order.flatten(1, 2)[..., None]
        return replace(self, updates=plain.updates, weight=plain.weight, sent=sent, share=share, order=order)

    @property
    def _unit_parts(self) -> Tensor:
        """Each update's part in what is added to θ, ``(E, N, U, P)``."""
        present = self.share > 0
        if self.aggregator.over == "agents":
            vectors, weight, within = self._means(present[:, None])
            everyone = weight > 0
            of_agents = parts(self.aggregator, vectors, weight, everyone, self._order_of_agents)  # (E, n, P)
            factor = torch.where(vectors != 0, of_agents / torch.where(vectors != 0, vectors, 1.0), 0.0)  # by coordinate
            made = factor.repeat_interleave(self.sent.shape[1] // self.n_agents, dim=1)[:, :, None] * within[..., None] * self.sent
        else:
            made = parts(self.aggregator, self.sent.flatten(1, 2), self.share.flatten(1), present.flatten(1), self.order.flatten(1))
            made = made.reshape(self.sent.shape)
        if self.weights == "fixed":
            made = self._claimed(present[:, None])[:, 0, None, None, None] * made
        return self._parts(made.flatten(1, 2)).reshape(made.shape)

    def _claimed(self, present: Tensor) -> Tensor:
        """s_S: the share of all data that updates claim, at most 1, bool ``(E, C, N, U)`` → ``(E, C)``."""
        return (present * self.share[:, None]).sum(dim=(2, 3)).clamp(max=1)

    @property
    def _order_of_agents(self) -> Tensor:
        """Random priorities of the agents, ``(E, n)``: those of their first updates."""
        return self.order[:, :: self.order.shape[1] // self.n_agents, 0]

    def _means(self, present: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Agents' mean updates, by what each coalition sends, bool ``(E, C, N, U)``.

        Returns:
            The means, ``(E·C, n, P)``; the shares that agents claim, ``(E·C, n)``; and of C = 1, each update's share of its agent's,
            ``(E, N, U)``.
        """
        n_envs, n_sets = present.shape[:2]
        share = (present * self.share[:, None]).reshape(n_envs, n_sets, self.n_agents, -1)  # (E, C, n, players · U)
        weight = share.sum(dim=-1)
        within = share / torch.where(weight > 0, weight, 1.0)[..., None]
        sent = self.sent.reshape(n_envs, self.n_agents, share.shape[-1], -1)
        means = torch.einsum("ecnu,enup->ecnp", within, sent)
        return means.flatten(0, 1), weight.flatten(0, 1), within[:, 0].reshape(self.share.shape)

    def _of_agents(self, present: Tensor) -> Tensor:
        """The aggregate of agents' mean updates, bool ``(E, C, N, U)`` → ``(E, C, P)``."""
        n_sets = present.shape[1]
        vectors, weight, _ = self._means(present)
        order = self._order_of_agents.repeat_interleave(n_sets, dim=0)
        made = aggregate(self.aggregator, vectors, weight, (weight > 0)[:, None], order)  # (E·C, 1, P)
        return made.reshape(len(present), n_sets, -1)
