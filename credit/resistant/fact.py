"""FACT: a penalty that makes an agent's best part in a federation what it would be alone, and a contest that makes it say its true cost."""

from __future__ import annotations

from math import sqrt

import numpy as np
import torch
from torch import Tensor

from ...checks import real_number
from ..games.round import Round
from ..rule import RULES, CreditRule
from ..wrappers import Guard


@RULES.register("fact")
class Fact(Guard):
    r"""Pays another rule's credit, less a penalty on contributing other than an agent would on its own.

    .. math:: c_i = \pi_i - (1 - \kappa)\, G_i \Bigl(1 + \frac{g_i (m_i^* - m_i)}{2 (1 - \kappa) G_i}\Bigr)^2, \qquad
        m_i^* = \min\bigl(\sqrt{a / 2c}, \bar m_i\bigr)

    .. math:: G_i = b\,\frac{a}{2} \Bigl(\frac{1}{m_i^*} - \frac{1}{M_i}\Bigr), \qquad g_i = c - \frac{a b}{2 M_i^2}, \qquad
        M_i = m_i^* + \sum_{j \ne i} m_j

    for the other rule's credit π. :math:`m_i` are the rows that agent i sent, of the :math:`\bar m_i` that it has. In the model of the
    source, training on m rows has the loss a / 2m, and a row costs its owner c. So alone an agent would use :math:`m_i^*` rows. In a
    federation its own rows hardly change the loss any more, and its best is to send next to nothing. The penalty makes
    :math:`m_i^*` the best again, whatever the others send. At :math:`m_i^*` it takes the part 1 − κ of what the federation saves the agent,
    :math:`G_i`. So nobody loses by joining. b is the part of the federation's gain that reaches an agent: 1/n under ``equal``, and 1 in the
    source, where every agent has the model for itself.

    Nobody is fined in a round in which nothing was contributed, nor an agent that has no rows, or with whom nobody else contributes.

    Costs what the other rule costs. Not efficient, because penalties are burnt. Not symmetric, because interchangeable agents may have
    unequal data. Not null-player, because it fines free riders.

    Known failure: it counts rows, whatever is in them. A corrupt or forged lot meets the quota as a clean one does. And the quota is right
    only if the loss is near a / 2m; the claim is for ``equal``, since other rules pay by what the rows did.

    Departures from the source: there, agents are paid by the model alone, and the penalty adds to their loss. Here credit in the utility's
    unit is what they get. The formula is that of the authors' code with its weight λ put in: there, λ is chosen so that an agent keeps
    α/2 of the saving, which is κ here. The contest for true costs needs reports, which a round has not; :func:`contest` is the contest.

    Args:
        rule: The other rule, or its name.
        scale: a, in the utility's unit times rows, above 0: the loss of training on m rows is a / 2m.
        cost: c, what a row costs its owner, in the utility's unit, above 0; ``None`` for a / 2m̄², with which an agent alone would just use
            all rows that it has.
        keep: κ, the part of its saving that an agent keeps, at least 0 and below 1.
        share: b, above 0 and at most 1; ``None`` is 1/n.

    Raises:
        ValueError: If ``rule`` is not a rule, or another argument is not in its range.

    References:
        Bornstein, Bedi, Mohamed & Huang (2024), *FACT or fiction: can truthful mechanisms eliminate federated free riding?*, NeurIPS,
        arXiv 2405.13879. Their code: https://github.com/marcobornstein/FACT.
    """

    source = "FACT (Bornstein et al. 2024, NeurIPS), with money"
    pays = "another rule's credit, less a penalty on sending other than one would use alone"
    known_failure = "a corrupt lot meets the quota as a clean one does"

    def __init__(
        self,
        rule: CreditRule | str = "equal",
        scale: float = 1.0,
        cost: float | None = None,
        keep: float = 0.9,
        share: float | None = None,
    ) -> None:
        super().__init__(rule)
        self.scale = _positive("scale", scale)
        self.unit_cost = None if cost is None else _positive("cost", cost)
        self.keep = real_number("keep", keep, 0, 1)
        if self.keep == 1:
            raise ValueError(f"keep={keep!r}: must be at least 0 and below 1")
        self.share = None if share is None else _positive("share", share)
        if self.share is not None and self.share > 1:
            raise ValueError(f"share={share!r}: must be above 0 and at most 1, or None for 1/n")

    def assign(self, round: Round) -> Tensor:
        """Credit of every agent for this round, ``(E, N)``, in the utility's unit."""
        credit = self.rule.assign(round)
        samples = round.samples.to(round.contributed.device).double()
        sent = (round.contributed * samples).sum(dim=-1)  # (E, N)
        return credit - self.penalty(sent, round.rows_held.double()).to(credit)

    def penalty(self, sent: Tensor, available: Tensor) -> Tensor:
        """What is taken from agents that send some of their rows.

        Args:
            sent: m, rows that each agent sent, double ``(E, N)``.
            available: Rows that it has, ``(E, N)`` or ``(N,)``.

        Returns:
            ``(E, N)``, in the utility's unit, at least 0.
        """
        share = 1 / sent.shape[1] if self.share is None else self.share
        held = available.to(sent)
        best = (held if self.unit_cost is None else held.clamp(max=local_optimum(self.scale, self.unit_cost))).expand_as(sent)
        unit_cost = self.scale / (2 * held.clamp(min=1).square()) if self.unit_cost is None else self.unit_cost
        others = sent.sum(dim=1, keepdim=True) - sent
        counts = (best > 0) & (others > 0)
        alone, together = torch.where(counts, best, 1.0), torch.where(counts, best + others, 2.0)
        saved = share * self.scale / 2 * (1 / alone - 1 / together)  # G, above 0
        growth = unit_cost - share * self.scale / (2 * together.square())  # g
        taken = (1 - self.keep) * saved
        return torch.where(counts, taken * (1 + growth * (best - sent) / (2 * taken)).square(), 0.0)


def local_optimum(scale: float, cost: float) -> float:
    r"""Rows that an agent would use alone: :math:`\sqrt{a / 2c}`, which minimises a / 2m + c m.

    Args:
        scale: a, in the utility's unit times rows, above 0.
        cost: c, what a row costs, in the utility's unit, above 0.

    Raises:
        ValueError: If an argument is not above 0.
    """
    return sqrt(_positive("scale", scale) / (2 * _positive("cost", cost)))


def contest(reports: Tensor, gains: Tensor, draws: np.random.Generator) -> Tensor:
    """FACT's contest for the truth: of three agents, the one with the middle report gets what all three gained.

    Agents are dealt to groups of three at random; one or two that are left over keep their own gains. Everybody in a group gives up its
    gain. The member whose reported cost lies strictly between the others' gets all three. Where reports are equal nobody wins, and all
    keep their own.

    An agent wins with probability 2F(1 − F), where F is the share of the others' reports below its own. So who believes that its own cost
    is the median does best to tell the truth, as long as it can't know the others' reports. A group's gains are not changed in all.

    Args:
        reports: Reported cost of each agent, ``(E, N)``.
        gains: What each agent gained by federating, ``(E, N)``, at least 0.
        draws: Where chance comes from.

    Returns:
        What each agent has after the contest, ``(E, N)``.

    Raises:
        ValueError: If the shapes differ.
    """
    if reports.shape != gains.shape or reports.dim() != 2:
        raise ValueError(f"reports and gains must both be of shape (E, N), got {tuple(reports.shape)} and {tuple(gains.shape)}")
    n_groups = reports.shape[1] // 3
    order = torch.from_numpy(draws.permutation(reports.shape[1])[: 3 * n_groups]).to(reports.device)
    told = reports[:, order].unflatten(1, (n_groups, 3))  # (E, G, 3)
    won = (told > told.amin(dim=-1, keepdim=True)) & (told < told.amax(dim=-1, keepdim=True))
    own = gains[:, order].unflatten(1, (n_groups, 3))
    after = torch.where(won.any(dim=-1, keepdim=True), won * own.sum(dim=-1, keepdim=True), own)
    return gains.index_copy(1, order, after.flatten(start_dim=1))


def _positive(name: str, came: float) -> float:
    number = real_number(name, came, 0)
    if number == 0:
        raise ValueError(f"{name}={came!r}: must be above 0")
    return number
