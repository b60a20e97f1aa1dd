"""Places for kinds of updates: who offers the same kind as others shares what it brings."""

from __future__ import annotations

from typing import ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor

from ...credit.resistant.clusters import components
from ..randomness import fold, uniform
from .mechanism import Mechanism, Need, Offers, Places, downwards, first

_PRIORITY = 3  # word of the key


class Shareable(Mechanism):
    """Groups candidates into kinds; a place goes to one representative of each kind, then to a second one, and so on.

    Two candidates are of one kind if their cosine similarity is at least ``similarity``, or if a chain of such candidates joins them
    (connected components). Kinds come in the order of the predicted gain of their best member (in item order where there is no gain), and
    representatives are drawn. :func:`shared_credit` then gives all agents that offered a kind the same part of what the kind earned.

    Guarantee: numbers of places differ by at most one among the kinds that have more members. With fewer places than kinds, the kinds
    with the best gain have them. So a copy of an update takes no place from another kind before every kind has one. With shared credit
    it does not matter to an agent whose update of a kind was drawn, and a second update of the same kind brings it no second part. A
    principal that takes part under several names has several parts.

    References:
        Xu, Wang, Zhang, Li & Cui (2023), *Competing for shareable arms in multi-player multi-armed bandits*, ICML, for the averaging
        allocation: players who pull the same arm share its reward equally. Kinds and places are ours; there every arm may be pulled.
    """

    kind: Literal["shareable"] = "shareable"
    needs: ClassVar[tuple[Need, ...]] = ("likeness", "gain")
    optional: ClassVar[tuple[Need, ...]] = ("gain",)
    similarity: float = Field(0.9, gt=0, le=1, description="Cosine similarity from which on two updates are of one kind.")

    def choose(self, capacity: int, offers: Offers) -> Places:
        """See :meth:`Mechanism.choose`."""
        candidates, present = offers.candidates, offers.candidates.flatten(1)
        likeness = offers.the("likeness")
        slack = 8 * torch.finfo(likeness.dtype).eps  # copies have a cosine of 1 but for rounding
        kinds = components((likeness >= self.similarity - slack) & present[:, None] & present[:, :, None])
        kinds = torch.where(present, kinds, -1)  # (E, N·U)
        alike = (kinds[:, None] == kinds[:, :, None]) & present[:, None]  # whether d is a candidate of c's kind, at [c, d]

        drawn = uniform(fold(offers.keys, offers.t, _PRIORITY), present.shape[1])
        turn = (alike & (drawn[:, None] < drawn[:, :, None])).sum(dim=2)  # members of the kind that were drawn before
        gain = torch.zeros_like(drawn) if offers.gain is None else offers.gain.flatten(1)
        best = torch.where(alike, downwards(gain)[:, None], torch.inf).amin(dim=2)
        keys = (key.reshape(candidates.shape) for key in (turn, best, kinds))
        return Places(first(capacity, candidates, *keys), kinds=kinds.reshape(candidates.shape))


def shared_credit(credit_of_lots: Tensor, kinds: Tensor, candidates: Tensor) -> Tensor:
    r"""Credit of updates after all agents that offered a kind have shared what its admitted members earned.

    Let :math:`C_g` be the sum of the credit of kind g's candidates, and :math:`n_g` the number of agents that offered one. Then each of
    these agents gets :math:`C_g / n_g`, in equal parts for its own candidates of that kind.

    Args:
        credit_of_lots: Credit of each update, ``(E, N, U)``. Credit of what is no candidate stays where it is.
        kinds: See :attr:`Places.kinds`, int64 ``(E, N, U)``.
        candidates: bool ``(E, N, U)``.

    Returns:
        ``(E, N, U)``, with the same sum in each environment.
    """
    n_envs, n_agents, n_updates = candidates.shape
    kind, present, credit = kinds.flatten(1), candidates.flatten(1), credit_of_lots.flatten(1)
    alike = (kind[:, None] == kind[:, :, None]) & present[:, None] & present[:, :, None]
    earned = torch.where(alike, credit[:, None], 0.0).sum(dim=2)  # C_g of each one's kind, (E, N·U)
    offered = alike.reshape(n_envs, -1, n_agents, n_updates).sum(dim=3)  # by each agent, (E, N·U, N)
    sharers = (offered > 0).sum(dim=2)
    owner = torch.arange(n_agents, device=kinds.device).repeat_interleave(n_updates).expand(n_envs, -1)
    own = offered.gather(2, owner[..., None])[..., 0]
    part = earned / (sharers * own).clamp(min=1)
    return torch.where(present, part, credit).reshape(credit_of_lots.shape)
