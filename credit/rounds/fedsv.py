"""FedSV: the Shapley value of those who took part, round by round."""

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
    r"""Pays, in each round by itself, the Shapley value among those who took part: the federated Shapley value.

    .. math:: c_i = \sum_{S \subseteq I \setminus i} \frac{|S|!\,(|I|-|S|-1)!}{|I|!} \, [v(S \cup i) - v(S)] \text{ for } i \in I,
        \qquad c_i = 0 \text{ for } i \notin I

    where I are the agents who contributed a lot, admitted or not. An episode pays the sum over its rounds. An agent that contributes
    nothing has no update, so it is a null player of the round's game, and a null player changes nobody else's Shapley value. So the value
    among I is the value among all agents. It is computed as :class:`Shapley` computes it, and set to exactly 0 for i ∉ I.

    Where many agents take turns, ``participants`` says how many take part in a round at most. Then only coalitions of the participants are
    evaluated, and the costs and the limit of 20 agents are those of the participants.

    Costs 2^n evaluations and takes n ≤ 20 without a budget. With a budget it estimates as ``shapley`` does. Where an estimate is set to 0,
    its noise is missing from the sum. Efficient, symmetric and null-player in every round without a budget; with one, in expectation only.

    Known failure: it knows nothing beyond the round. Identical agents who take part in different rounds are paid differently, and more for
    early rounds, in which more is gained. ``comfedsv`` was made against that.

    Departure from the source: the published value draws the participants, and trains a model for every coalition. Here proxies choose
    whether to take part, and a coalition's model is the round's aggregation of its members' updates.

    Args:
        budget: Most coalitions to evaluate in a round, v(∅) apart: a positive whole number. ``None`` is all of them.
        seed: Seed of the draws, a whole number from 0.
        participants: Most agents that take part in a round, at least 1; ``None`` for all. A round with more participants is refused.

    Raises:
        ValueError: If an argument is not such a number, or ``participants`` is too large for the exact value or the budget. At reset, if
            there are too many agents for them. In a round, if more than ``participants`` agents take part.

    References:
        Wang, Rausch, Zhang, Jia & Song (2020), *A principled approach to data valuation for federated learning*, Federated Learning, LNCS
        12500; arXiv 2009.06192.
    """

    family: ClassVar[Family] = "federated"
    source = "Wang et al. 2020 (arXiv 2009.06192)"
    pays = "Shapley value among those who took part in the round"
    known_failure = "the same work is paid differently in another round"
    needs: tuple[Need, ...] = ()

    def __init__(self, budget: int | None = None, seed: int = 0, participants: int | None = None) -> None:
        if participants is not None and not is_whole(participants, 1):
            raise ValueError(f"participants={participants!r}: must be a positive whole number, or None for all agents")
        self.shapley = Shapley(budget, seed)
        self.participants = None if participants is None else int(participants)
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
        """Refuse a cooperative that is too large for the exact value, or for which the budget is too small.

        Raises:
            ValueError: If it is; the message says what to use instead.
        """
        self.shapley.check(self._most(n_players))

    def assign(self, round: Round) -> Tensor:
        """Credit of every agent for this round, ``(E, N)``, in the utility's unit."""
        there, most = round.took_part, self._most(round.num_agents)
        if self.participants is None:
            return torch.where(there, self.shapley.assign(round), 0.0)
        if (there.sum(dim=1) > most).any():
            raise ValueError(f"participants={self.participants}, but {int(there.sum(dim=1).max())} agents take part in round {round.t}")
        # the players of the smaller game are seats, which each environment's participants take; empty seats are null players
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
