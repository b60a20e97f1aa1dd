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
    r"""Pays parts of the round's gain by reputation: it grows with the cosine between an agent's update and reputable agents'.

    .. math:: \varphi_i = \cos\Bigl(\hat u_i, \sum_j r_j \hat u_j\Bigr), \qquad r_i \leftarrow
        \frac{[\alpha r_i + (1 - \alpha) \varphi_i]_+}{\sum_j [\alpha r_j + (1 - \alpha) \varphi_j]_+}, \qquad
        c_i = \max(v(N), 0) \frac{\tanh(\beta r_i)}{\sum_j \tanh(\beta r_j)} + \frac{\min(v(N), 0)}{n}

    where :math:`\hat u_i = u_i / \lVert u_i \rVert` is the direction of agent i's part in the step. The sum in φ uses the reputations from
    before the round, which are 1/n in the first round. The round is paid by the reputations after it. A zero update has the cosine 0. A
    loss is shared equally, since a low reputation does not prove harm.

    Costs one evaluation. Efficient. Not symmetric: agents that are interchangeable in the game may have updates of other directions, or
    other reputations. Not null-player, because reputation lasts.

    Known failure: agreement. An agent that copies gains. A rare but valuable agent, with whom nobody agrees, loses.

    Where only some members are present in a round, the reputations of those who are, divided by their sum, take the place of r, and the sum
    that they have together stays what it was. So a round moves reputation among those present, and that of the absent waits. If all who are
    present have lost theirs, they begin anew with 1/n each, n the number of all members.

    Departures from the source:

    - There all agents take part in every round.
    - In the paper the reward of a round is not money. The quality :math:`q_i = \tanh(\beta r_i) / \max_j \tanh(\beta r_j)` decides how much
      of the aggregate each agent downloads. Here all agents have the same model, and q divides what the round gained.
    - The paper aggregates by reputation, and scales updates to a common length Γ. Here the step is the cooperative's, and Γ cancels in the
      cosine.
    - The authors' code starts with reputations of 0, and weighs the first aggregate by the size of the data. So the first reputations are
      φ over its sum, whatever α is. Here they start at 1/n, and α counts from the first round on.
    - The authors' code raises every α r + (1 − α) φ to 0.001 at least, before it divides by the sum. So an agent that always disagrees
      keeps a small reputation there. Here it loses all of it, and is paid nothing.
    - The authors' code adds 10⁻⁷ to the length by which it divides an update. Here only a zero update is treated apart.

    The code is https://github.com/XinyiYS/Gradient-Driven-Rewards-to-Guarantee-Fairness-in-Collaborative-Machine-Learning.

    Args:
        alpha: α, how much of the old reputation is kept in a round, from 0 to 1.
        beta: β, at least 1e-6. For small β the shares tend to the reputations. For large β all agents with a reputation get equal shares.

    Raises:
        ValueError: If ``alpha`` or ``beta`` is not a number in its range.

    References:
        Xu, Lyu, Ma, Miao, Foo & Low (2021), *Gradient-driven rewards to guarantee fairness in collaborative machine learning*, NeurIPS.
    """

    family: ClassVar[Family] = "gradient"
    source = "Xu et al. 2021 (NeurIPS)"
    pays = "v(N) by reputation: cosine with the reputable agents' updates"
    known_failure = "rare but valuable data loses, copies gain"
    evaluations = "1"
    efficient = True
    by_agent: ClassVar[bool] = True

    def __init__(self, alpha: float = 0.95, beta: float = 1.0) -> None:
        if not is_number(alpha) or not 0 <= alpha <= 1:
            raise ValueError(f"alpha={alpha!r}: must be a number from 0 to 1")
        if not is_number(beta) or beta < 1e-6:
            raise ValueError(f"beta={beta!r}: must be a positive number, at least 1e-6")
        self.alpha = alpha
        self.beta = beta
        self._reputation: Tensor | None = None  # r of all members, double (E, n)

    def cost(self, n_players: int) -> int:
        """One evaluation, v(N)."""
        del n_players
        return 1

    def reset(self, num_envs: int, num_agents: int) -> None:
        """Begin episodes, in which all agents have the same reputation."""
        super().reset(num_envs, num_agents)
        self._reputation = None

    def assign(self, round: Round) -> Tensor:
        """Credit of every agent for this round, ``(E, N)``, in the utility's unit."""
        members = self._reputation
        if members is None:
            members = round.gain.new_full((round.num_envs, round.n_members), 1 / round.n_members).double()
        before, together = round.of_agents(members), torch.ones((), dtype=members.dtype, device=members.device)
        if round.num_agents < round.n_members:
            before = torch.where((before > 0).any(dim=1, keepdim=True), before, 1 / round.n_members)
            together = before.sum(dim=1, keepdim=True)
            before = before / together
        earned = (self.alpha * before + (1 - self.alpha) * _agreement(round.updates.double(), before)).clamp(min=0)
        after = proportions(earned, before)  # with α = 0 a round in which nobody did anything leaves nothing to divide by
        self._reputation = round.among_members(together * after, members)
        quality = (self.beta * after).tanh()
        return by_shares(round.gain, quality / quality.sum(dim=1, keepdim=True))


def _agreement(updates: Tensor, reputation: Tensor) -> Tensor:
    """Cosine between each update and the reputable agents' common direction: ``(E, N, P)``, ``(E, N)`` → ``(E, N)``."""
    length = updates.norm(dim=2, keepdim=True)
    unit = updates / torch.where(length > 0, length, 1.0)
    common = reputation[:, None] @ unit  # (E, 1, P)
    strength = common.norm(dim=2)  # (E, 1), at most 1
    cosine = (unit * common).sum(dim=2) / torch.where(strength > 0, strength, 1.0)
    return torch.where(strength > 1e-12, cosine, 0.0)  # where directions cancel, what is left is rounding
