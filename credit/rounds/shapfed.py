"""ShapFed: how well an update agrees with the aggregate, class by class, in the last layer."""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor

from ..arguments import is_number
from ..games.round import Round
from ..rule import RULES, CreditRule, Family
from .running_mean import RunningMean
from .shares import by_shares, proportions


@RULES.register("shapfed")
class ShapFed(CreditRule):
    r"""Pays parts of the round's gain by how well an agent's update of each class's outputs agrees with everybody's.

    .. math:: s_i = \frac{1}{C} \sum_{c=1}^{C} \cos\bigl(u_i^{(c)}, u_N^{(c)}\bigr), \qquad
        \gamma_i^t = \frac{\sum_{\tau \le t} \mu^{t - \tau} s_i^\tau}{\sum_{\tau \le t} \mu^{t - \tau}}, \qquad
        c_i = \max(v(N), 0) \frac{[\gamma_i]_+}{\sum_j [\gamma_j]_+} + \frac{\min(v(N), 0)}{n}

    where :math:`u_i^{(c)}` are the parameters of class c in the last layer (weights and bias) in agent i's part in the step, and
    :math:`u_N = \sum_j u_j`. A zero update of a class has the cosine 0. A loss is shared equally, since disagreement does not prove harm.
    Where nobody has a positive γ, all are paid alike. Despite its name it is no Shapley value.

    Costs one evaluation, and needs a model with a class head. Efficient. Not symmetric: agents that are interchangeable in the game may
    agree differently, or have another past. Not null-player.

    Known failure: agreement, class by class. A small update in the direction of the others is worth as much as a large one, so copying a
    little of what all do pays. And an agent that works on one class alone is paid for one of C classes, however much it does for it.

    Departures from the source:

    - The layer. The authors' code has two versions. For synthetic data it compares the last layers after local training, weights and bias,
      which have their start in common. For CIFAR-10 it compares the updates of the last layer, weights and bias, as is done here.
    - The aggregate. There the updates in it are weighted by γ from the round before, over its sum, and alike in the first round. Here u_N
      is the step that was applied.
    - The mean. The authors' code starts the running mean at the first round's s and gives each later round the weight 1 − μ, with μ = 0.9
      as here. So the first round still has the weight μ^t after t more. Here that bias is removed, as in Adam (Kingma & Ba 2015).
    - Negative γ count as 0 in the shares, so that nobody is fined for disagreeing. The authors' code divides γ by its sum as it is.
    - In the paper γ weighs the aggregation, and decides how personal a model each agent gets. Here it divides what the round gained.

    The code is https://github.com/tnurbek/shapfed.

    Args:
        momentum: μ, from 0 (only this round counts) to 1 (all rounds count the same).

    Raises:
        ValueError: If ``momentum`` is not a number from 0 to 1. In a round, if the model has no class head.

    References:
        Tastan, Fares, Aremu, Horváth & Nandakumar (2024), *Redefining contributions: Shapley-driven federated learning*, IJCAI.
    """

    family: ClassVar[Family] = "gradient"
    source = "Tastan et al. 2024 (IJCAI)"
    pays = "v(N) by cosine with the mean update, class by class"
    known_failure = "copying a little of what all do is paid in full"
    evaluations = "1"
    efficient = True
    needs = ("class_head",)

    def __init__(self, momentum: float = 0.9) -> None:
        if not is_number(momentum) or not 0 <= momentum <= 1:
            raise ValueError(f"momentum={momentum!r}: must be a number from 0 to 1")
        self.momentum = momentum
        self._agreement = RunningMean(momentum)  # double (E, N)

    def cost(self, n_players: int) -> int:
        """One evaluation, v(N)."""
        del n_players
        return 1

    def reset(self, num_envs: int, num_agents: int) -> None:
        """Begin episodes, with no memory."""
        super().reset(num_envs, num_agents)
        self._agreement.forget()

    def assign(self, round: Round) -> Tensor:
        """Credit of every agent for this round, ``(E, N)``, in the utility's unit."""
        standing = self._agreement.with_(_agreement(round.updates, round.class_head).mean(dim=2)).clamp(min=0)  # [γ]₊, (E, N)
        return by_shares(round.gain, proportions(standing, 1 / round.num_agents))


def _agreement(updates: Tensor, class_head: Tensor) -> Tensor:
    """Cosine between each agent's update of each class and the aggregate's: ``(E, N, P)``, ``(P,)`` → double ``(E, N, C)``."""
    class_head = class_head.to(updates.device)
    of_head = class_head >= 0
    last = updates[:, :, of_head].double()  # (E, N, L)
    everybody = last.sum(dim=1, keepdim=True)
    classes = class_head[of_head]
    n_classes = int(classes.max()) + 1

    def by_class(terms: Tensor) -> Tensor:
        return terms.new_zeros(*terms.shape[:2], n_classes).index_add_(2, classes, terms)  # (E, N or 1, C)

    length = by_class(last.square()).sqrt()
    strength = by_class(everybody.square()).sqrt()
    # where updates cancel, what is left is rounding
    pointing = (length > 0) & (strength > 1e-12 * length.sum(dim=1, keepdim=True))
    return torch.where(pointing, by_class(last * everybody) / torch.where(pointing, length * strength, 1.0), 0.0)
