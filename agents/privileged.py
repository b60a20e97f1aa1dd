"""References that see what no proxy could: they bound what proxies might reach, and nobody could play them."""

from __future__ import annotations

import torch
from torch import Tensor

from ..envs.scenario import Scenario
from .agent import AGENTS, PrivilegedAgent


@AGENTS.register("oracle")
class Oracle(PrivilegedAgent):
    """For reference only: contributes exactly the clean lots that will be admitted."""

    def choose(self, observations: Tensor) -> Tensor:
        """Clean and admissible."""
        del observations
        return ~self.engine.lots.corrupt & self.engine.prospect.passes


@AGENTS.register("planner")
class Planner(PrivilegedAgent):
    r"""For reference only: contributes the lots whose true first-order gain on the validation set exceeds their cost.

    Lot (i, k) is contributed iff it will be admitted and
    :math:`\text{scale} \cdot p_{ik} \langle \nabla U(\theta), \Delta_{ik} \rangle > \text{cost}`. Greedy in the round and in the
    first order, so near an upper bound of welfare rather than one; and that only with fixed weights and a plain server of learning
    rate 1, where :math:`p_{ik} \Delta_{ik}` is what the lot adds to the step. Elsewhere agents may well do better.

    Raises:
        ValueError: On playing, if the utility has no gradient.
    """

    @classmethod
    def plays(cls, scenario: Scenario) -> bool:
        """Only where the utility has a gradient."""
        return scenario.utility == "neg_log_loss"

    def choose(self, observations: Tensor) -> Tensor:
        """Admissible and worth its cost to all."""
        del observations
        engine = self.engine
        proposals, updates = engine.prospect.proposals, engine.prospect.filtered.updates
        gain = (updates @ engine.utility_gradient()[:, None, :, None])[..., 0]  # (E, N, K)
        worth = engine.reward_scale * proposals.share * gain > engine.scenario.reward.contribution_cost
        return torch.logical_and(worth, engine.prospect.passes)
