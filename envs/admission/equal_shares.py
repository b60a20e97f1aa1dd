"""The method of equal shares: principals pay for the updates that help them, each from the same share of the places."""

from __future__ import annotations

from typing import ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor

from .mechanism import Mechanism, Need, Offers, Places, downwards, first

_SLACK = 1e-9  # a price of 1 is paid, and two prices per utility are equal, up to this
_LEAST = 1e-30  # a utility below this share of the largest one in its environment counts as 0


class EqualShares(Mechanism):
    r"""Every principal has B/N to spend; an update costs 1, and those whom it helps share its price in proportion to their utilities.

    With cardinal utilities :math:`u_j(c) = \max(0, \text{wants}_j(c))`; with approval, 1 where that is positive. Principal j has
    :math:`b_j = B/N` at first. A candidate c is affordable at the price :math:`\rho` per utility if

    .. math:: \sum_j \min(b_j, \rho\, u_j(c)) \ge 1

    In each step the candidate that is affordable at the least price is admitted, and each principal pays :math:`\min(b_j, \rho\, u_j(c))`.
    Ties in item order. It ends when nothing is affordable. The places that are left go to the candidates with the largest total utility,
    then in item order, unless ``complete`` is false.

    Guarantee: *extended justified representation* (EJR) up to one project. Let G be a group of principals, and T a set of at most
    :math:`B|G|/N` candidates, and let each member's utility of every c in T be at least :math:`\alpha(c)`. Then there is a member whose
    admitted candidates are worth at least :math:`\sum_{c \in T} \alpha(c)` to it, or more than that with one more. With approval it is
    EJR: some member approves at least \|T\| of those that are admitted, if all members approve all of T. Both hold before completion too.

    With cardinal utilities, their size counts: a principal to whom an update is worth twice as much pays twice as much for it. Here the
    sizes are those of predicted losses. With ``approval`` only signs count.

    References:
        Peters, Pierczyński & Skowron (2021), *Proportional participatory budgeting with additive utilities*, NeurIPS. Completion only
        adds to what the method has chosen.
    """

    kind: Literal["equal_shares"] = "equal_shares"
    needs: ClassVar[tuple[Need, ...]] = ("wants",)
    utilities: Literal["cardinal", "approval"] = Field(
        "cardinal",
        description="cardinal: an update is worth to a principal by how much it is predicted to lower the loss on its data. approval: "
        "every update that is predicted to lower it is worth 1.",
    )
    complete: bool = Field(True, description="Whether places that nobody can pay for go to the candidates with the largest total utility.")

    def choose(self, capacity: int, offers: Offers) -> Places:
        """See :meth:`Mechanism.choose`."""
        candidates = offers.candidates
        wants = offers.the("wants").double().nan_to_num(nan=0.0).clamp(min=0.0).flatten(2)  # (E, N, N·U)
        wants = torch.where(candidates.flatten(1)[:, None], wants, 0.0)
        if self.utilities == "approval":
            utility = (wants > 0).double()
        else:  # only ratios of utilities matter; a power of two changes no digit
            largest = torch.frexp(wants.amax(dim=(1, 2), keepdim=True)).exponent
            utility = torch.ldexp(wants, -largest)
            utility = torch.where(utility >= _LEAST, utility, 0.0)
        paid_for = _paid_for(capacity, utility)
        if self.complete:
            unpaid, total = (~paid_for).long().reshape(candidates.shape), utility.sum(dim=1).reshape(candidates.shape)
            return Places(first(capacity, candidates, unpaid, downwards(total)))
        room = candidates.sum(dim=(1, 2)) <= capacity
        return Places(candidates & (paid_for.reshape(candidates.shape) | room[:, None, None]))


def _paid_for(capacity: int, utility: Tensor) -> Tensor:
    """The updates that the principals pay for, by utilities ``(E, N, C)``: bool ``(E, C)``."""
    n_envs, n_principals, n_updates = utility.shape
    budget = utility.new_full((n_envs, n_principals), capacity / n_principals)
    chosen = torch.zeros(n_envs, n_updates, dtype=torch.bool, device=utility.device)
    for _ in range(min(capacity, n_updates)):
        price = torch.where(chosen, torch.inf, _prices(budget, utility))  # (E, C)
        least = price.amin(dim=1, keepdim=True)
        can = least[:, 0] < torch.inf
        if not can.any():
            break
        c = (price <= least * (1 + _SLACK)).int().argmax(dim=1)  # the first of the cheapest
        pays = torch.minimum(budget, _at(price, c)[:, None] * utility.gather(2, c[:, None, None].expand(-1, n_principals, 1))[..., 0])
        budget = torch.where(can[:, None], budget - pays, budget)
        chosen[torch.arange(n_envs, device=c.device), c] |= can
    return chosen


def _prices(budget: Tensor, utility: Tensor) -> Tensor:
    r"""The least price per utility at which each update is affordable, ``(E, C)``; infinite where it is not at any.

    What is paid at a price, :math:`\sum_j \min(b_j, \rho u_j)`, is the least of all sums in which some pay all that they have, and the
    others by utility. Those who pay all are the first ones in the order of :math:`b_j / u_j`. So the price is the largest of
    :math:`(1 - \sum_{j \le k} b_j) / \sum_{j > k} u_j` over k.
    """
    worth = utility.transpose(1, 2)  # (E, C, N)
    purse = torch.where(worth > 0, budget[:, None], 0.0)
    ratio = torch.where(worth > 0, purse / worth, torch.inf)
    order = ratio.argsort(dim=2, stable=True)
    purse, worth = purse.gather(2, order), worth.gather(2, order)
    before = purse.cumsum(dim=2) - purse
    others = worth.flip(2).cumsum(dim=2).flip(2)  # from k on
    price = torch.where(others > 0, (1 - before) / others, -torch.inf).amax(dim=2)
    return torch.where(purse.sum(dim=2) >= 1 - _SLACK, price, torch.inf)


def _at(rows: Tensor, column: Tensor) -> Tensor:
    """One entry of each row, ``(E,)``."""
    return rows.gather(1, column[:, None])[:, 0]
