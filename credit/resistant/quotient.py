"""Quotient semivalues: names that are presumed to be one principal are paid as one player."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from typing import ClassVar, Literal, get_args

import torch
from torch import Tensor

from ..arguments import is_number
from ..games.game import BLOCK_PLAYERS, MAX_ENUMERATED, CoalitionGame, GameLike, as_game
from ..games.round import Round
from ..rounds.shares import proportions
from ..rule import RULES, CreditRule, GameRule, too_many
from ..wrappers import Guard
from .clusters import labels_of, similar

Copies = Literal["once", "all"]
"""Whether members of a cluster that was found by updates count as one, or each."""
Within = Literal["equal", "rows"]
"""How a cluster's pay is divided among its names: equally, or by the rows of data behind what they contributed."""


@RULES.register("quotient")
class Quotient(Guard):
    r"""Pays clusters of names as one player each, and divides what a cluster earns among its names.

    .. math:: c_i = \frac{1}{|C|} \, \psi_C(v^{\mathcal{C}}), \quad i \in C, \qquad
        v^{\mathcal{C}}(R) = v\Bigl(\bigcup_{C \in R} C\Bigr), \quad R \subseteq \mathcal{C}

    where ψ is the other rule, and the clusters :math:`\mathcal{C}` of the round are those who are presumed to be one principal. By default
    agents are linked whose updates have a cosine of at least ``similarity``, and the clusters are the connected components. In the quotient
    game :math:`v^{\mathcal{C}}` a cluster is in as a whole or not at all. So a principal gains nothing by appearing under several names, as
    long as they all are in one cluster and nobody else is. In other words: if no name escapes, the total of the names is what one name
    would have earned, for any semivalue and any game.

    Where clusters are found by updates, environments of one batch may have different ones. Environments with the same number m of clusters
    are divided together, as games of m players. This is the rule itself on the quotient, for any rule. (For Shapley, Banzhaf and Beta
    values it would be the same to give empty clusters a place as null players: a semivalue whose weights are the moments of one
    distribution for all m pays the others as if a null player were not there.)

    Costs what the other rule costs where clusters are given. Where they are found by updates, the batch asks for the coalitions of all its
    environments' quotients: 2^n evaluations at most, and n ≤ 20. Efficient if the other rule is, and clusters are given or all copies
    count. Not symmetric, because interchangeable agents may be in clusters of other sizes. Not null-player, because an agent that adds
    nothing may be in a cluster with one that does.

    Known failure: the false merge. Honest agents that are alike are paid as one. In a unanimity game of n players, two who are merged have
    1 / (n − 1) together instead of 2 / n. And within a cluster names count: who copies another's update under k names takes
    k / (k + 1) of what the cluster earns. ``within="rows"`` counts rows of data instead of names.

    Members of a cluster that was found by updates are presumed to be copies. With ``copies="once"`` only the first of them is in the
    quotient game: the cluster is worth what it would have brought under one name, and the rest of what the round gained is paid to nobody.
    With ``copies="all"`` the cluster is worth what all its updates did together. Where copies count as data, as in every cooperative here,
    a second copy does move the model further, so that it still earns then. Known clusters are always in as a whole.

    Departures from the source: there, a principal's evidence is about examples, and duplicates within a cluster are replaced by one
    representative before the game is played. Here agents are clustered, and the first agent is the representative. The source's condition
    on the division within a cluster is that names do not matter to it; the divisions offered are ours.

    Args:
        rule: The other rule, or its name: a rule that needs nothing but the game, with no memory.
        by: ``"updates"``, or clusters known from elsewhere, as lists of agents: ``[[0, 3], [1], [2]]``.
        similarity: Least cosine between two updates that links them, above 0 and at most 1.
        within: How a cluster's pay is divided. ``"equal"``: equally. ``"rows"``: in proportion to the rows of the lots that were
            contributed; equally where there are none.
        copies: Whether only the first member of a cluster that was found by updates counts, ``"once"``, or ``"all"`` do.

    Raises:
        ValueError: If ``rule`` is not such a rule, or another argument is not allowed. At reset, if ``by`` is of another number of agents,
            or clusters are to be found among more than 20.

    References:
        Burnat & Davidson (2026), *Quotient semivalues for false-name-resistant data attribution*, arXiv 2605.07663.
    """

    _remembers: ClassVar[bool] = False
    source = "Burnat & Davidson 2026 (arXiv 2605.07663)"
    pays = "another rule's credit among clusters of like agents, divided within each"
    known_failure = "honest agents that are alike are paid as one"

    def __init__(
        self,
        rule: CreditRule | str = "shapley",
        by: Literal["updates"] | Sequence[Sequence[int]] = "updates",
        similarity: float = 0.95,
        within: Within = "equal",
        copies: Copies = "once",
    ) -> None:
        super().__init__(rule)
        if not isinstance(self.rule, GameRule) or self.rule.needs or _remembering(self.rule):
            raise ValueError(f"rule={rule!r}: must be a rule that needs nothing but a game and has no memory, such as 'shapley'")
        if isinstance(by, str) and by != "updates":
            raise ValueError(f"by={by!r}: must be 'updates', or clusters as lists of agents, such as [[0, 3], [1], [2]]")
        if not is_number(similarity) or not 0 < similarity <= 1:
            raise ValueError(f"similarity={similarity!r}: must be a number above 0 and at most 1")
        if within not in get_args(Within):
            raise ValueError(f"within={within!r}: must be one of {', '.join(get_args(Within))}")
        self.divider: GameRule = self.rule
        self.by: Tensor | None = None if isinstance(by, str) else labels_of(by)  # (N,)
        self.similarity = float(similarity)
        if copies not in get_args(Copies):
            raise ValueError(f"copies={copies!r}: must be one of {', '.join(get_args(Copies))}")
        self.within = within
        self.copies = copies
        self.efficient = self.rule.efficient and (self.by is not None or copies == "all")
        if self.by is None:
            self.evaluations = "2^n"
            self.max_players = min(MAX_ENUMERATED, self.rule.max_players or MAX_ENUMERATED)
        else:
            self.max_players = None  # as many clusters as the other rule serves
            alone = bool(self.by.equal(torch.arange(len(self.by))))
            self.symmetric, self.null_player = alone and self.rule.symmetric, alone and self.rule.null_player

    def cost(self, n_players: int) -> int:
        """What the other rule costs among the clusters; all coalitions where clusters may differ between environments."""
        return 1 << n_players if self.by is None else self.rule.cost(len(self.by.unique()))

    def method(self, n_players: int) -> str:
        """The other rule's method among the clusters."""
        if self.by is None:
            return f"at most {self.cost(n_players):,} coalition evaluations a round"
        return f"among {len(self.by.unique())} clusters: {self.rule.method(len(self.by.unique()))}"

    def check(self, n_players: int) -> None:
        """Refuse more agents than can be clustered, and another number than ``by`` is of.

        Raises:
            ValueError: If there are too many, ``by`` is of another number, or the other rule refuses the number of clusters.
        """
        if self.by is None:
            assert self.max_players is not None
            if n_players > self.max_players:
                raise too_many("Quotient", self.max_players, n_players)
            for m in range(1, n_players + 1):
                self.rule.check(m)
            return
        if len(self.by) != n_players:
            raise ValueError(f"by holds {len(self.by)} agents, but there are {n_players}: pass clusters of all of them")
        self.rule.check(len(self.by.unique()))

    def reset(self, num_envs: int, num_agents: int) -> None:
        """Begin episodes. The other rule is not asked, since it has no memory, and divides among clusters."""
        CreditRule.reset(self, num_envs, num_agents)

    def labels(self, round: Round) -> Tensor:
        """The cluster of each agent in this round, int64 ``(E, N)``: the least index of its members."""
        if self.by is None:
            return similar(round.sent, self.similarity)
        return self.by.to(round.contributed.device).expand(round.num_envs, -1)

    def assign(self, round: Round) -> Tensor:
        """Credit of every agent for this round, ``(E, N)``, in the utility's unit."""
        labels = self.labels(round)
        weight = (round.contributed * round.samples.to(round.contributed.device)).sum(dim=-1).double()  # (E, N)

        def divide(game: CoalitionGame) -> Tensor:
            quotient = copy.copy(round)  # so that rules that sample draw for this round
            quotient.__dict__.pop("gain", None)
            quotient.game = game
            return self.divider.assign(quotient)

        return self._paid(round.game, labels, torch.ones_like(weight) if self.within == "equal" else weight, divide)

    def values(self, game: GameLike, n_players: int | None = None) -> Tensor:
        """Each player's value in any game, where the clusters are given.

        Args:
            game: As in :meth:`~proxycoop.credit.GameRule.values`.
            n_players: Number of players, for a callable.

        Returns:
            ``(n_envs, n_players)``, in the game's unit.

        Raises:
            ValueError: If clusters are to be found by updates, or divided by rows, which a game alone has not. If the number of players is
                not that of ``by``.
        """
        if self.by is None or self.within == "rows":
            raise ValueError("a game alone has neither updates nor rows: pass by=[[0, 3], [1], [2]], and within='equal'")
        game = as_game(game, n_players)
        self.check(game.n_players)
        return self._paid(game, self.by[None], torch.ones(1, game.n_players, dtype=torch.float64), self.divider.divide)

    def _paid(self, game: CoalitionGame, labels: Tensor, weight: Tensor, divide: Callable[[CoalitionGame], Tensor]) -> Tensor:
        """What is paid where clusters are ``labels``, ``(E, N)``, or ``(1, N)`` for all environments, and names weigh ``weight``."""
        if self.by is not None:
            of_clusters = divide(quotient_game(game, self.by))  # (E, m)
            place = self.by.unique(return_inverse=True)[1].to(of_clusters.device)
            earned = of_clusters[:, place]
        else:
            earned = self._by_number(game, labels, divide)
        return earned * _share_within(labels, weight).to(earned)

    def _by_number(self, game: CoalitionGame, labels: Tensor, divide: Callable[[CoalitionGame], Tensor]) -> Tensor:
        """What each agent's cluster earns, ``(E, N)``: environments with equally many clusters at once."""
        n = game.n_players
        if self.rule.cost(n) >= 2**n - 1 and n <= BLOCK_PLAYERS:
            game.values()  # all at once is cheaper, and what follows looks them up
        leads = labels == torch.arange(n, device=labels.device)  # (E, N)
        place = (leads.cumsum(dim=1) - 1).gather(1, labels)  # (E, N): clusters are numbered in the order of their first members
        number = leads.sum(dim=1)
        earned: Tensor | None = None
        for m in number.unique().tolist():
            envs = (number == m).nonzero()[:, 0]
            counted = leads[envs] if self.copies == "once" else torch.ones_like(leads[envs])
            of_clusters = divide(_merged(game, place[envs], counted, envs, m))  # (E', m)
            if earned is None:
                earned = of_clusters.new_zeros(labels.shape)
            earned = earned.index_put((envs.to(earned.device),), of_clusters.gather(1, place[envs].to(of_clusters.device)))
        assert earned is not None
        return earned


def quotient_game(game: CoalitionGame, labels: Tensor) -> CoalitionGame:
    """The game among clusters, each of which is in as a whole or not at all.

    Args:
        game: The game among n players.
        labels: The cluster of each player, int64 ``(n,)``, any numbers.

    Returns:
        The game of as many players as there are different labels, in the order of the labels.
    """
    kinds, place = labels.cpu().unique(return_inverse=True)
    belongs = place == torch.arange(len(kinds))[:, None]  # (m, n)

    def value(coalitions: Tensor) -> Tensor:
        return game.value((coalitions[:, :, None] & belongs.to(coalitions.device)).any(dim=1))

    return CoalitionGame(value, len(kinds))


def _merged(game: CoalitionGame, place: Tensor, counted: Tensor, envs: Tensor, n_clusters: int) -> CoalitionGame:
    """The quotient game of some environments.

    Args:
        game: The game among n players, of all environments.
        place: The cluster of each player there, from 0, ``(E', n)``.
        counted: Which players stand for their clusters, bool ``(E', n)``.
        envs: Which environments these are, ``(E',)``.
        n_clusters: How many clusters each of them has.
    """
    n = game.n_players
    bits = 2.0 ** torch.arange(n, dtype=torch.float64, device=place.device)
    belongs = (place[:, None] == torch.arange(n_clusters, device=place.device)[:, None]) & counted[:, None]  # (E', m, n)
    members = belongs.double() @ bits  # (E', m): each cluster as a code

    def value(coalitions: Tensor) -> Tensor:
        codes = (members @ coalitions.to(members).T).long()  # (E', C); exact, since codes are below 2^20
        asked, at = codes.unique(return_inverse=True)
        rows = (asked[:, None] >> torch.arange(n, device=asked.device)) & 1 == 1
        worth = game.value(rows)  # (E, U)
        return worth[envs.to(worth.device)].gather(1, at.to(worth.device))

    return CoalitionGame(value, n_clusters)


def _share_within(labels: Tensor, weight: Tensor) -> Tensor:
    """Each name's share of its cluster's pay, ``(E, N)``: by ``weight``, or equal where nobody of the cluster weighs anything."""
    together = labels[:, :, None] == labels[:, None, :]  # (E, N, N)
    of_members = proportions(together * weight[:, None, :], together / together.sum(dim=-1, keepdim=True))
    return of_members.diagonal(dim1=1, dim2=2)


def _remembering(rule: CreditRule) -> bool:
    """Whether a rule, or one that it wraps, remembers earlier rounds."""
    inner = getattr(rule, "rule", None)
    return rule._remembers or (isinstance(inner, CreditRule) and _remembering(inner))
