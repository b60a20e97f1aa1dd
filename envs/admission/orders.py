"""Mechanisms that put the candidates in an order: by gain, by turns, or by what everybody has a right to."""

from __future__ import annotations

from typing import ClassVar, Literal

import torch

from .mechanism import Mechanism, Need, Offers, Places, downwards, first, ranks, seats


class ByGain(Mechanism):
    """Admits the B candidates with the largest predicted gain; ties in item order.

    Guarantee: no other set of as many candidates has a larger predicted gain. To first order a set's gain is the sum of its members'
    gains, so the greedy choice is the best. Candidates with a negative gain are admitted too, where there is room.
    """

    kind: Literal["by_gain"] = "by_gain"
    needs: ClassVar[tuple[Need, ...]] = ("gain",)

    def choose(self, capacity: int, offers: Offers) -> Places:
        """See :meth:`Mechanism.choose`."""
        return Places(first(capacity, offers.candidates, downwards(offers.the("gain"))))


class Turns(Mechanism):
    """Round robin: the principals take turns to send one update each, until the places are gone.

    Who has nothing left loses the turn. In round t principal t mod N begins. A principal sends its c candidates in item order, from number
    ``taken`` mod c on: it goes on where it stopped.

    Guarantee: in a round, numbers of places differ by at most one among the principals who had more to send. If a principal offers the same
    candidates in all rounds, the turns of these differ by at most one.
    """

    kind: Literal["turns"] = "turns"

    def choose(self, capacity: int, offers: Offers) -> Places:
        """See :meth:`Mechanism.choose`."""
        candidates = offers.candidates
        number = candidates.cumsum(dim=2) - 1  # of each candidate among its agent's
        count = candidates.sum(dim=2, keepdim=True).clamp(min=1)
        turn = (number - offers.taken[..., None]) % count
        return Places(first(capacity, candidates, turn, seats(candidates, offers.t)[:, None].expand_as(turn)))


class Maximin(Mechanism):
    r"""Every principal has a right to its maximin share of the places; those that are left go to who had the fewest.

    A principal's *maximin share* (MMS) is what it can be sure of if it divides the B places into N bundles and gets the worst:
    :math:`\lfloor B/N \rfloor` places, for its updates with the largest predicted gain (in item order where there is no gain). The places
    that are left are dealt one by one, to the principal with the fewest places so far in the episode, this round included. Ties are
    broken by rotation: principal t mod N comes first.

    Guarantee: everybody gets at least its MMS, where k places are worth the gains of a principal's k best candidates to it, negative ones
    counting 0. Over rounds in which all want more than they get, the totals of the episode differ by at most one.

    References:
        Budish (2011), *The combinatorial assignment problem*, Journal of Political Economy 119(6), for the maximin share. Since places are
        alike and an update is of use to one principal only, all can have theirs. That is not so in general.
    """

    kind: Literal["maximin"] = "maximin"
    needs: ClassVar[tuple[Need, ...]] = ("gain",)
    optional: ClassVar[tuple[Need, ...]] = ("gain",)

    def choose(self, capacity: int, offers: Offers) -> Places:
        """See :meth:`Mechanism.choose`."""
        candidates = offers.candidates
        gain = torch.zeros_like(candidates, dtype=torch.float64) if offers.gain is None else offers.gain
        own = ranks((~candidates).long(), downwards(gain))  # place among the agent's own, from 0
        right = capacity // candidates.shape[1]
        # An agent's next place is due when it has this many. Each place that it gets raises it by one, so sorting deals them one by one.
        due = torch.where(own < right, -1, offers.taken[..., None] + own)
        return Places(first(capacity, candidates, due, seats(candidates, offers.t)[:, None].expand_as(due)))
