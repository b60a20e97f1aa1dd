"""The Shapley value of those who took part, round by round: FedSV."""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor

from ..arguments import is_whole
from ..games.game import CoalitionGame
from ..games.round import Need, Round
from ..rule import RULES, CreditRule, Family
from ..solutions.shapley import Shapley


@RULES.register("fedsv")
class FedSv(CreditRule):
    r"""Federated Shapley value: each round by itself, among those who took part in it.

    .. math:: c_i = \sum_{S \subseteq I \setminus i} \frac{|S|!\,(|I|-|S|-1)!}{|I|!} \, [v(S \cup i) - v(S)] \text{ for } i \in I,
        \qquad c_i = 0 \text{ for } i \notin I

    where I are those who contributed a lot, admitted or not; what an episode pays is the sum over its rounds. Whoever contributes nothing
    has no update and is a null player of the round's game, and a null player changes nobody else's Shapley value: so the value among I is
    that among all agents, computed as :class:`Shapley` computes it, and is set to exactly 0 for i ∉ I. Costs 2^n evaluations and
    takes n ≤ 20 without a budget; with one it estimates as ``shapley`` does, and where an estimate is set to 0 its noise is lost to the
    sum. Efficient, symmetric and null-player in every round without a budget; with one, in expectation only.
    Where many agents take turns, ``participants`` says how many take part in a round at most: coalitions are then those of the participants
    alone, and costs and the limit of 20 are theirs.
    Its known failure is that it knows nothing beyond the round: identical agents who take part in different rounds are paid differently,
    more for early rounds, in which more is gained; ``comfedsv`` is made against that.

    Departure: the published value draws participants and trains a model for every coalition; here proxies choose whether to take part, and
    a coalition's model is the round's aggregation of its members' updates.

    Args:
        budget: Most coalitions to evaluate in a round; ``None`` is all of them.
        seed: Seed of the draws.
        participants: Most agents that take part in a round; ``None`` for all. A round in which more do is refused.

    References:
        Wang, Rausch, Zhang, Jia & Song (2020), *A principled approach to data valuation for federated learning*, Federated Learning,
        LNCS 12500; arXiv 2009.06192.
    """

    family: ClassVar[Family] = "federated"
    source = "Wang et al. 2020 (arXiv 2009.06192)"
    needs: tuple[Need, ...] = ()

    def __init__(self, budget: int | None = None, seed: int = 0, participants: int | None = None) -> None:
        if participants is not None and not is_whole(participants, 1):
            raise ValueError(f"participants={participants!r}: must be a positive whole number, or None for all agents")
        self.shapley = Shapley(budget, seed)
        self.participants = participants
        self.evaluations = self.shapley.evaluations
        self.efficient = self.symmetric = self.null_player = self.shapley.exact
        self.max_players = self.shapley.max_players
        if participants is not None:
            self.max_players = None
            self.needs = ("lots",)
            self.shapley.check(participants)

    def cost(self, n_players: int) -> int:
        """That of the Shapley value among the participants."""
        return self.shapley.cost(self._most(n_players))

    def method(self, n_players: int) -> str:
        """That of the Shapley value among the participants."""
        return self.shapley.method(self._most(n_players))

    def check(self, n_players: int) -> None:
        """Refuse a cooperative that is too large to be exact, or for which the budget is too small.

        Raises:
            ValueError: If it is; the message says what would do.
        """
        self.shapley.check(self._most(n_players))

    def assign(self, round: Round) -> Tensor:
        """Credit of every agent for this round, ``(E, N)``, in the utility's unit."""
        there, most = round.took_part, self._most(round.num_agents)
        if self.participants is None:
            return torch.where(there, self.shapley.assign(round), 0.0)
        if (there.sum(dim=1) > most).any():
            raise ValueError(f"participants={self.participants}, but {int(there.sum(dim=1).max())} agents take part in round {round.t}")
        # players of the smaller game are seats, taken by each environment's participants; seats that stay empty are null players
        seated = there.int().argsort(dim=1, descending=True, stable=True)[:, :most]  # (E, most)

        def value(coalitions: Tensor) -> Tensor:
            sets = coalitions.to(seated.device).expand(len(seated), -1, -1)  # (E, C, most)
            members = sets.new_zeros(*sets.shape[:2], round.num_agents).scatter(2, seated[:, None].expand_as(sets), sets)
            return round.lots.value(members[..., None] & round.admitted[:, None])

        paid = self.shapley.at(CoalitionGame(value, most), round.episode, round.t).values
        return torch.where(there, paid.new_zeros(there.shape).scatter(1, seated, paid), 0.0)

    def _most(self, n_players: int) -> int:
        """Most players of a round's game."""
        return n_players if self.participants is None else min(n_players, self.participants)
