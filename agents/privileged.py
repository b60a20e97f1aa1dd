"""References that see what no proxy can see. They show how much proxies could reach at best. No proxy could play them."""

from __future__ import annotations

import torch
from torch import Tensor

from ..envs.scenario import Scenario
from .agent import AGENTS, PrivilegedAgent


@AGENTS.register("oracle")
class Oracle(PrivilegedAgent):
    """For reference only: contributes exactly the clean lots that will be admitted."""

    def choose(self, observations: Tensor) -> Tensor:
        """The lots that are clean and will be admitted."""
        del observations
        return ~self.engine.lots.corrupt & self.engine.prospect.passes


@AGENTS.register("planner")
class Planner(PrivilegedAgent):
    r"""For reference only: contributes the lots whose true first-order gain on the validation set exceeds their cost.

    Lot (i, k) is contributed iff it will be admitted and
    :math:`\text{scale} \cdot p_{ik} \langle \nabla U(\theta), \Delta_{ik} \rangle > \text{cost}`.

    The planner looks at one round at a time, and to first order only. So its welfare is near the upper bound, but is not a bound itself.
    Even that holds only with fixed weights and a plain server of learning rate 1, where the lot adds :math:`p_{ik} \Delta_{ik}` to the
    step. In other cooperatives agents may do better than the planner.

    Raises:
        ValueError: When it plays, if the utility has no gradient.
    """

    @classmethod
    def plays(cls, scenario: Scenario) -> bool:
        """Only where the utility has a gradient."""
        return scenario.utility == "neg_log_loss"

    def choose(self, observations: Tensor) -> Tensor:
        """The lots that will be admitted and whose gain for everybody exceeds their cost."""
        del observations
        engine = self.engine
        proposals, updates = engine.prospect.proposals, engine.prospect.filtered.updates
        gain = (updates @ engine.utility_gradient()[:, None, :, None])[..., 0]  # (E, N, K)
        worth = engine.reward_scale * proposals.share * gain > engine.scenario.reward.contribution_cost
        return torch.logical_and(worth, engine.prospect.passes)
