"""A truthful auction of the places, whose revenue goes back to the members."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor

from .mechanism import Mechanism, Need, Offers, Places, downwards, ranks, seats

Rebate = Literal["bailey", "cavallo", "none"]


class Auction(Mechanism):
    r"""Proxies bid for all that they contribute; the highest bids by size win, and pay what they had to bid at least.

    Agent i has :math:`s_i` candidates and wants all of them admitted, or none: it is *single-minded*. The bids are gone through by
    :math:`b_i / s_i^x`, the largest first, and each one that fits into the places that are left wins. Ties are broken by rotation: agent
    t mod N comes first. A bid of 0 counts, and may win. A winner pays its critical bid, the least with which it would still have won: let k
    be the first winner of the auction without i that leaves fewer than :math:`s_i` places; then i pays

    .. math:: \pi_i = s_i^x \, b_k / s_k^x

    and 0 if there is no such k. Those who lose pay nothing. The revenue :math:`R = \sum_i \pi_i` goes back to all N agents:

    .. math:: \text{payment}_i = \pi_i - \frac{1}{N} G_i

    - ``bailey``: :math:`G_i` is the revenue of the auction without i. It is also the revenue if i bids 0.
    - ``cavallo``: :math:`G_i` is the least revenue that there can be, whatever i bids.
    - ``none``: :math:`G_i = 0`; the cooperative keeps the revenue.

    Guarantee: for a single-minded agent it is a dominant strategy to bid what its places are worth to it. For a higher bid never loses
    what a lower one wins, and neither what a winner pays nor what an agent gets back depends on its own bid. No agent pays more than it
    bids. This holds for bids, given what is contributed: what an agent contributes changes its size, and what others pay.

    The budget: with ``cavallo`` and ``none`` the rebates never exceed the revenue. With ``bailey`` they do not if all sizes are equal. With
    unequal sizes a greedy auction can bring more without an agent than with it, and then the rebates may exceed the revenue: **the
    cooperative pays the difference**. ``docs/admission.md`` says how often that was so.

    References:
        Lehmann, O'Callaghan & Shoham (2002), *Truth revelation in approximately efficient combinatorial auctions*, Journal of the ACM
        49(5), for the greedy auction. Their bundles are of different goods; here only the number of places matters. Bailey (1997), *The
        demand revealing process: to distribute the surplus*, Public Choice 91, and Cavallo (2006), *Optimal decision-making with minimal
        waste*, AAMAS, for the rebates. Both redistribute the revenue of efficient auctions, and this one need not be efficient.
    """

    kind: Literal["auction"] = "auction"
    needs: ClassVar[tuple[Need, ...]] = ("bids",)
    exponent: float = Field(
        0.5,
        ge=0,
        description="x: bids are compared after division by the number of updates to this power. 0: by the bid. 1: by the bid per place.",
    )
    rebate: Rebate = Field(
        "bailey",
        description="What of the revenue each agent gets back. bailey: 1/N of what there would be without it; the cooperative may have to "
        "add to it. cavallo: 1/N of the least that there could be, whatever it bids; never more than the revenue. none: nothing.",
    )

    def choose(self, capacity: int, offers: Offers) -> Places:
        """See :meth:`Mechanism.choose`."""
        size, seat = offers.candidates.sum(dim=2), seats(offers.candidates, offers.t)
        sold = sales(capacity, size, offers.the("bids"), seat, self.exponent, self.rebate)
        return Places(offers.candidates & sold.wins[..., None], payments=sold.price - sold.rebate)


@dataclass(frozen=True)
class Sales:
    """What an auction sold.

    Attributes:
        wins: Who wins, bool ``(E, N)``.
        price: What each agent pays before rebates, ``(E, N)``, 0 for those who do not win.
        rebate: What each agent gets back, ``(E, N)``.
    """

    wins: Tensor
    price: Tensor
    rebate: Tensor


def sales(capacity: int, size: Tensor, bids: Tensor, seat: Tensor, exponent: float = 0.5, rebate: Rebate = "bailey") -> Sales:
    """Run the auction of :class:`Auction`.

    Rebates cost N more auctions an environment, or N² with ``cavallo``. Each takes N steps on N numbers.

    Args:
        capacity: Number of places B.
        size: Number of candidates of each agent, int64 ``(E, N)``. Who has none does not bid.
        bids: ``(E, N)``, at least 0.
        seat: Who comes first in ties, int64 ``(N,)``.
        exponent: x.
        rebate: How the revenue goes back.
    """
    n_envs, n_agents = bids.shape
    scale = size.clamp(min=1).double() ** exponent
    score = bids.double() / scale
    order = ranks((size == 0).long(), downwards(score), seat.expand_as(size)).argsort(dim=1)
    wins, price = _run(capacity, order, score, size, scale)

    def revenue(order: Tensor, score: Tensor, size: Tensor) -> Tensor:
        """Of several auctions in each environment, ``(E, A, N)`` each → ``(E, A)``."""
        n_auctions = order.shape[1]
        scales = scale.repeat_interleave(n_auctions, dim=0)
        prices = _run(capacity, order.flatten(0, 1), score.flatten(0, 1), size.flatten(0, 1), scales)[1]
        return prices.sum(dim=1).reshape(n_envs, n_auctions)

    if rebate == "bailey":
        without = torch.where(torch.eye(n_agents, dtype=torch.bool, device=size.device), 0, size[:, None])
        back = revenue(order[:, None].expand_as(without), score[:, None].expand_as(without), without)
    elif rebate == "cavallo":
        tried_order, tried_score = _instead(order, score)
        back = revenue(tried_order, tried_score, size[:, None].expand_as(tried_order))
        back = back.reshape(n_envs, n_agents, n_agents).amin(dim=2)
    else:
        back = torch.zeros_like(price)
    return Sales(wins, price, back / n_agents)


def _run(capacity: int, order: Tensor, score: Tensor, size: Tensor, scale: Tensor) -> tuple[Tensor, Tensor]:
    """Who wins, and at what price, in A auctions.

    Args:
        capacity: Number of places.
        order: The agents in the order in which they are gone through, int64 ``(A, N)``.
        score: What each agent's bid is compared by, ``(A, N)``.
        size: What each agent needs, int64 ``(A, N)``; 0 if it is not there.
        scale: Its bid over its score, ``(A, N)``.
    """
    n_agents = size.shape[1]
    agents = torch.arange(n_agents, device=size.device)
    left = torch.full_like(size[:, :1], capacity)  # places left in the auction of all, (A, 1)
    without = torch.full_like(size, capacity)  # places left in the auction without i
    wins, critical = torch.zeros_like(size, dtype=torch.bool), torch.zeros_like(score)
    for place in range(n_agents):
        k = order[:, place : place + 1]  # (A, 1)
        is_k, needed = agents == k, size.gather(1, k)
        fits = (needed > 0) & (needed <= left)
        left = left - torch.where(fits, needed, 0)
        wins = wins | (is_k & fits)
        after = without - torch.where(~is_k & (needed <= without), needed, 0)
        shut_out = (without >= size) & (after < size)  # i would have fitted before k, and does not after it
        critical = torch.where(shut_out, score.gather(1, k), critical)
        without = after
    return wins, torch.where(wins, critical * scale, 0.0)


def _instead(order: Tensor, score: Tensor) -> tuple[Tensor, Tensor]:
    """All places in the order that agent i could bid for, with the least score that it takes: ``(E, N·N, N)`` each, for i after i.

    While i stays at a place, what others pay can only rise with its bid. So the revenue is least at one of these.
    """
    n_envs, n_agents = order.shape
    agents = torch.arange(n_agents, device=order.device)
    others = order[:, None].expand(-1, n_agents, -1)
    others = others[others != agents[:, None]].reshape(n_envs, n_agents, n_agents - 1)  # without i, in order
    below = score[:, None].expand(-1, n_agents, -1).gather(2, others)
    below = torch.cat([below, torch.zeros_like(score)[..., None]], dim=2)  # of whoever comes next, (E, i, place)
    orders, scores = [], []
    for place in range(n_agents):
        orders.append(torch.cat([others[..., :place], agents.expand(n_envs, -1)[..., None], others[..., place:]], dim=2))
        scores.append(
            torch.where(torch.eye(n_agents, dtype=torch.bool, device=order.device), below[..., place : place + 1], score[:, None])
        )
    return torch.stack(orders, dim=2).flatten(1, 2), torch.stack(scores, dim=2).flatten(1, 2)
