"""Cosine gradient Shapley value: reputation for updates that point where the others' point."""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor

from ..arguments import is_number
from ..games.round import Round
from ..rule import RULES, CreditRule, Family
from .shares import by_shares, proportions


@RULES.register("cgsv")
class CosineGradientShapley(CreditRule):
    r"""The round's gain is shared by reputation, which grows with the cosine between an agent's update and the reputable agents'.

    .. math:: \varphi_i = \cos\Bigl(\hat u_i, \sum_j r_j \hat u_j\Bigr), \qquad r_i \leftarrow
        \frac{[\alpha r_i + (1 - \alpha) \varphi_i]_+}{\sum_j [\alpha r_j + (1 - \alpha) \varphi_j]_+}, \qquad
        c_i = \max(v(N), 0) \frac{\tanh(\beta r_i)}{\sum_j \tanh(\beta r_j)} + \frac{\min(v(N), 0)}{n}

    where :math:`\hat u_i = u_i / \lVert u_i \rVert` is the direction of agent i's part in the step. The reference direction is
    weighted by the reputations of before the round, all 1/n in the first; the round is paid by those after it. A zero update has
    the cosine 0. Costs one evaluation. Efficient; not symmetric (agents that are interchangeable in the game may point
    elsewhere, or come with other reputations) and not null-player (reputation lasts). Its known failure is agreement: a copier gains,
    and a rare but valuable agent, whom nobody agrees with, loses.

    In the paper the reward of a round is not money: the quality :math:`q_i = \tanh(\beta r_i) / \max_j \tanh(\beta r_j)` decides how
    much of the aggregate each agent downloads. Here everybody has the same model, and q divides what the round gained; a loss is borne
    by all alike, since reputation is no ground for a fine. The paper
    aggregates by reputation, and brings updates to a common length Γ; here the step is the cooperative's, and Γ cancels in the cosine.

    Args:
        alpha: α, how much of the old reputation is kept in a round, from 0 to 1.
        beta: β, positive: shares tend to the reputations for small β, and to equal shares of all who have one for large β.

    References:
        Xu, Lyu, Ma, Miao, Foo & Low (2021), *Gradient-driven rewards to guarantee fairness in collaborative machine learning*, NeurIPS.
    """

    family: ClassVar[Family] = "gradient"
    source = "Xu et al. 2021 (NeurIPS)"
    evaluations = "1"
    efficient = True

    def __init__(self, alpha: float = 0.95, beta: float = 1.0) -> None:
        if not is_number(alpha) or not 0 <= alpha <= 1:
            raise ValueError(f"alpha={alpha!r}: must be a number from 0 to 1")
        if not is_number(beta) or beta < 1e-6:
            raise ValueError(f"beta={beta!r}: must be a positive number, at least 1e-6")
        self.alpha = alpha
        self.beta = beta
        self._reputation: Tensor | None = None  # r, double (E, N)

    def cost(self, n_players: int) -> int:
        """v(N)."""
        del n_players
        return 1

    def reset(self, num_envs: int, num_agents: int) -> None:
        """Begin episodes, in which all are of the same repute."""
        super().reset(num_envs, num_agents)
        self._reputation = None

    def assign(self, round: Round) -> Tensor:
        """Credit of every agent for this round, ``(E, N)``, in the utility's unit."""
        before = self._reputation
        if before is None:
            before = torch.full((round.num_envs, round.num_agents), 1 / round.num_agents).to(round.gain).double()
        earned = (self.alpha * before + (1 - self.alpha) * _agreement(round.updates.double(), before)).clamp(min=0)
        self._reputation = proportions(earned, before)  # with α = 0 a round in which nobody did anything leaves nothing to divide by
        quality = (self.beta * self._reputation).tanh()
        return by_shares(round.gain, quality / quality.sum(dim=1, keepdim=True))


def _agreement(updates: Tensor, reputation: Tensor) -> Tensor:
    """Cosine between each update and the reputable agents' common direction: ``(E, N, P)``, ``(E, N)`` → ``(E, N)``."""
    length = updates.norm(dim=2, keepdim=True)
    unit = updates / torch.where(length > 0, length, 1.0)
    common = reputation[:, None] @ unit  # (E, 1, P)
    strength = common.norm(dim=2)  # (E, 1), at most 1
    cosine = (unit * common).sum(dim=2) / torch.where(strength > 0, strength, 1.0)
    return torch.where(strength > 1e-12, cosine, 0.0)  # directions that cancel leave none but that of rounding
