"""Mechanisms that draw lots: everybody alike, or with a fair share for every group of principals."""

from __future__ import annotations

from typing import ClassVar, Literal

import torch
from torch import Tensor

from ..randomness import fold, uniform
from .mechanism import Mechanism, Need, Offers, Places, first

_PRIORITY, _START = 1, 2  # words of the keys that a mechanism derives
_SURE = 1 - 1e-12  # a marginal probability above it is 1, but for rounding


class Lottery(Mechanism):
    """Draws B of the candidates, all sets of B with the same probability.

    Guarantee: each of c candidates is admitted with probability min(1, B/c). So an agent gains places by sending more updates.
    """

    kind: Literal["lottery"] = "lottery"

    def choose(self, capacity: int, offers: Offers) -> Places:
        """See :meth:`Mechanism.choose`."""
        candidates = offers.candidates
        admitted = first(capacity, candidates, _priorities(offers))
        count = candidates.sum(dim=(1, 2)).double()
        chance = (capacity / count.clamp(min=1)).clamp(max=1.0)
        return Places(admitted, marginals=candidates * chance[:, None, None])


class FairLottery(Mechanism):
    r"""Draws B candidates such that every group of principals has its fair share ex ante.

    Principal j approves the set :math:`A_j` of candidates that are predicted to help its own data (``wants`` above 0). Let C be the
    candidates and m = min(B, \|C\|). Principal j spreads :math:`\min(B, |A_j|)/N` equally over the candidates that it approves:

    .. math:: q_c = \sum_{j: c \in A_j} \frac{\min(B, |A_j|)}{N |A_j|}, \qquad p_c = \max(q_c, \lambda), \qquad \sum_{c \in C} p_c = m

    The level :math:`\lambda` is what fills up all places (water filling). No p is above 1, since a principal gives a candidate at most 1/N.
    Then systematic sampling in a random order (Madow 1949) draws exactly m candidates, each with probability p.

    Guarantee: *group fair share* (GFS). For every group G of principals, the expected number of admitted candidates that somebody in G
    approves is at least :math:`\frac{1}{N} \sum_{j \in G} \min(B, |A_j|)`. For one principal this is individual fair share; for a group
    whose members approve the same set, unanimous fair share.

    What of the paper holds here: all updates take one place, so "budget balanced up to one project" becomes exact balance. Ex ante there is
    GFS, and not *strong* unanimous fair share. An example: two of four principals approve the same single candidate, and B = 4. They are
    owed it for sure, and here they give it 1/2, before filling up. Ex post there is nothing but balance: no form of justified
    representation. The authors' own algorithms have that too. Use ``equal_shares`` for it.

    References:
        Aziz, Lu, Suzuki, Vollen & Walsh (2024), *Fair lotteries for participatory budgeting*, AAAI; and (2023), *Best-of-both-worlds
        fairness in committee voting*, for unit costs. Madow (1949), *On the theory of systematic sampling, II*, Annals of Mathematical
        Statistics 20(3). The spreading and the filling are ours: the simplest that give GFS.
    """

    kind: Literal["fair_lottery"] = "fair_lottery"
    needs: ClassVar[tuple[Need, ...]] = ("wants",)

    def choose(self, capacity: int, offers: Offers) -> Places:
        """See :meth:`Mechanism.choose`."""
        candidates = offers.candidates
        marginals = fair_marginals(capacity, candidates.flatten(1), (offers.the("wants") > 0).flatten(2))  # (E, N·U)
        places = candidates.sum(dim=(1, 2)).clamp(max=capacity)
        order = _priorities(offers).flatten(1).argsort(dim=1)
        start = uniform(fold(offers.keys, offers.t, _START), 1)[:, 0]
        admitted = systematic(marginals, places, order, start)
        return Places(admitted.reshape(candidates.shape), marginals=marginals.reshape(candidates.shape))


def fair_marginals(capacity: int, candidates: Tensor, approves: Tensor) -> Tensor:
    """With which probability :class:`FairLottery` admits each of C updates, double ``(E, C)``.

    Args:
        capacity: Number of places B.
        candidates: bool ``(E, C)``.
        approves: Who wants what, bool ``(E, N, C)``. Not read for what is no candidate.
    """
    approved = (approves & candidates[:, None]).double()
    number = approved.sum(dim=2, keepdim=True)  # |A_j|, (E, N, 1)
    given = (approved * (number.clamp(max=capacity) / (number.clamp(min=1) * approves.shape[1]))).sum(dim=1)  # q, (E, C)

    # Σ max(q, λ) is the largest of kλ + (all but the k least q) over k, so λ is the least of what each k alone would ask for.
    count = candidates.sum(dim=1, keepdim=True)  # (E, 1)
    least_first = torch.where(candidates, given, torch.inf).sort(dim=1).values
    least_first = torch.where(least_first < torch.inf, least_first, 0.0)
    above = given.sum(dim=1, keepdim=True) - least_first.cumsum(dim=1)
    k = torch.arange(1, candidates.shape[1] + 1, device=candidates.device)
    asked = (count.clamp(max=capacity) - above) / k
    level = torch.where(k <= count, asked, torch.inf).amin(dim=1, keepdim=True)
    return torch.where(candidates, torch.maximum(given, level).clamp(max=1.0), 0.0)


def systematic(marginals: Tensor, places: Tensor, order: Tensor, start: Tensor) -> Tensor:
    """Systematic sampling: exactly so many of C, each with its own probability.

    The marginals lie end to end on a line, in some order; the points start, start + 1, … pick those in whose interval they fall.

    Args:
        marginals: Probabilities, double ``(E, C)``; rows sum to ``places``.
        places: How many to draw, int64 ``(E,)``.
        order: A permutation of the columns, int64 ``(E, C)``.
        start: A number in (0, 1), double ``(E,)``.

    Returns:
        bool ``(E, C)``.
    """
    sure = marginals > _SURE
    left = (places - sure.sum(dim=1))[:, None]
    ends = torch.where(sure, 0.0, marginals).gather(1, order).cumsum(dim=1)
    ends = ends / torch.where(ends[:, -1:] > 0, ends[:, -1:], 1.0) * left  # the line ends at a whole number, but for rounding
    points = (ends - start[:, None]).floor()
    before = torch.cat([torch.full_like(points[:, :1], -1.0), points[:, :-1]], dim=1)
    return sure | (points > before).gather(1, order.argsort(dim=1))


def _priorities(offers: Offers) -> Tensor:
    """A random number for each update, double ``(E, N, U)``."""
    return uniform(fold(offers.keys, offers.t, _PRIORITY), *offers.candidates.shape[1:])
