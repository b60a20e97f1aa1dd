"""Rules for cooperatives in which one principal's values block another's updates: Shapley values of the screened game."""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor

from ..games.game import coalition_matrix
from ..games.round import Need, Round
from ..rule import RULES, CreditRule, Family, too_many
from ..solutions.semivalues import shapley_weights
from ..solutions.shapley import shapley_values
from .shares import rescaled

MAX_PLAYERS = 12
"""Largest number of agents: every coalition screens the lots anew."""


def veto_split(round: Round) -> tuple[Tensor, Tensor]:
    r"""The Shapley value of the screened game, split into what agents bring and what their values cost.

    .. math:: \Delta_j(S) = \underbrace{w(A(S \cup j)) - w(A(S) \setminus B_j)}_{\text{own part}}
        + \underbrace{w(A(S) \setminus B_j) - w(A(S))}_{\text{veto cost}}

    where A(S) are the contributed lots of the members of S that the members of S let through, and w is the worth of a set of lots.
    :math:`A(S) \setminus B_j = A(S) \cap A(S \cup j)` are the lots of A(S) that are still let through once j is there too: under unanimous
    screening, those that j does not veto. Both parts are averaged over S with Shapley's weights. Under a quorum a new member may let
    through others' lots that had failed without it; what they bring is in the new member's own part.

    Costs 2^n evaluations of sets of lots for all A(S), and at most n 2^(n−1) more for the sets between. The latter are evaluated only where
    somebody vetoes something.

    Args:
        round: A round that knows its lots, of at most 12 agents.

    Returns:
        Own part and veto cost of every agent, ``(E, N)`` each, in the utility's unit. They sum to the Shapley value of w∘A. A veto cost is
        negative where the vetoed lots would have been useful.

    Raises:
        ValueError: If there are more agents, or the round does not know its lots.
    """
    if round.num_agents > MAX_PLAYERS:
        raise too_many("veto_split", MAX_PLAYERS, round.num_agents)
    own, veto, _ = _split(round)
    return own, veto


class _VetoRule(CreditRule):
    """A rule that screens every coalition by its own members' values."""

    family: ClassVar[Family] = "veto"
    source = "proxycoop (docs/credit/vetoes.md)"
    evaluations = "(n + 2) 2^(n−1)"
    efficient = True
    max_players = MAX_PLAYERS
    needs: tuple[Need, ...] = ("lots", "vetoes")

    def cost(self, n_players: int) -> int:
        """What every coalition lets through, and what it would still let through with each other agent: (n + 2) 2^(n−1)."""
        return (n_players + 2) << n_players >> 1


@RULES.register("veto_shapley")
class VetoShapley(_VetoRule):
    r"""Pays the average marginal contribution over all orders of joining, where each agent brings its lots and its values.

    .. math:: c_i = \sum_{S \subseteq N \setminus i} \frac{|S|!\,(n-|S|-1)!}{n!} \, [w(A(S \cup i)) - w(A(S))]

    where A(S) are the contributed lots of the members of S that the members of S let through, and w is the worth of a set of lots. The
    round's own game screens by everybody's values, whoever is in the coalition. Here a coalition is screened by its own members' values
    only.

    Costs 2^n evaluations and takes n ≤ 12. Efficient, since A(N) is what was admitted. Neither symmetric nor null-player in the round's own
    game, which does not know who objects to what. Of two agents with equal lots, the one that objects earns less. An agent whose lots are
    all vetoed is paid for what they would have been worth to those who do not object.

    Known failure: a tax on values. A principal whose values block useful lots can be fined for having them; :func:`veto_split` says how
    much.

    Raises:
        ValueError: At reset, if there are more than 12 agents.

    References:
        Shapley (1953), *A value for n-person games*, Contributions to the Theory of Games II, of w∘A. A is contractive and idempotent but
        not monotone, so permission structures (Gilles, Owen & van den Brink 1992) do not cover it; see docs/credit/vetoes.md.
    """

    source = "Shapley 1953, of each coalition's own screening"
    pays = "Shapley value when every coalition is screened by its own members"
    known_failure = "taxes values: who vetoes useful lots can be fined"
    evaluations = "2^n"

    def cost(self, n_players: int) -> int:
        """2^n: what every coalition lets through."""
        return 1 << n_players

    def assign(self, round: Round) -> Tensor:
        """Credit of every agent for this round, ``(E, N)``, in the utility's unit."""
        self.check(round.num_agents)
        return shapley_values(_screened_game(round)[1])


@RULES.register("veto_own")
class VetoOwn(_VetoRule):
    r"""Pays what agents bring to coalitions that screen by their own members' values, rescaled to v(N); nobody pays for a veto.

    .. math:: c_i = f\,\text{own}_i + \frac{v(N) - f \sum_j \text{own}_j}{n}, \qquad
        \text{own}_i = \sum_{S \subseteq N \setminus i} \frac{|S|!\,(n-|S|-1)!}{n!} \, [w(A(S \cup i)) - w(A(S) \setminus B_i)]

    with A and w as in :class:`VetoShapley`. :math:`A(S) \setminus B_i` are the lots of A(S) that are still let through once i is there too,
    and f is the factor of :class:`Normalised` (at most 10).

    Costs (n + 2) 2^(n−1) evaluations at most and takes n ≤ 12. Efficient. Neither symmetric nor null-player in the round's own game, see
    :class:`VetoShapley`.

    Known failure: vetoes look free. What they cost is taken from everybody in proportion to what each brings, and no number shows it.

    Raises:
        ValueError: At reset, if there are more than 12 agents.

    References:
        The split is that of docs/credit/vetoes.md, for which we found no earlier source.
    """

    pays = "the same without veto costs, rescaled to v(N)"
    known_failure = "hides what vetoes cost"

    def assign(self, round: Round) -> Tensor:
        """Credit of every agent for this round, ``(E, N)``, in the utility's unit."""
        own, _, worth = _split(round)
        return rescaled(own, worth)


@RULES.register("veto_shared")
class VetoShared(_VetoRule):
    r"""Pays what agents bring to coalitions that screen by their own members' values, less an equal share of what all vetoes cost.

    .. math:: c_i = \text{own}_i + \frac{1}{n} \sum_j \text{veto}_j, \qquad
        \text{veto}_j = \sum_{S \subseteq N \setminus j} \frac{|S|!\,(n-|S|-1)!}{n!} \, [w(A(S) \setminus B_j) - w(A(S))]

    with own as in :class:`VetoOwn`. Here values are a public matter: every member shares what they cost.

    Costs (n + 2) 2^(n−1) evaluations at most and takes n ≤ 12. Efficient. Neither symmetric nor null-player in the round's own game, see
    :class:`VetoShapley`.

    Known failure: the bystander. An agent that brings nothing and objects to nothing is fined for the vetoes of others.

    Raises:
        ValueError: At reset, if there are more than 12 agents.

    References:
        The split is that of docs/credit/vetoes.md, for which we found no earlier source.
    """

    pays = "the same with veto costs shared by all alike"
    known_failure = "fines bystanders for the vetoes of others"

    def assign(self, round: Round) -> Tensor:
        """Credit of every agent for this round, ``(E, N)``, in the utility's unit."""
        own, veto, _ = _split(round)
        return own + veto.mean(dim=1, keepdim=True)


def _screened_game(round: Round) -> tuple[Tensor, Tensor]:
    """A(S) of every coalition, bool ``(E, 2**n, N, K)``, and its worth, ``(E, 2**n)``."""
    screened = round.let_through(coalition_matrix(round.num_agents))
    return screened, _worth(round, screened)


def _worth(round: Round, lots: Tensor) -> Tensor:
    """The worth of sets of lots, ``(E, C, N, K)`` → ``(E, C)``: exactly 0 for no lots, however the cooperative rounds."""
    return torch.where(lots.flatten(start_dim=2).any(dim=-1), round.lots.value(lots), 0.0)


def _split(round: Round) -> tuple[Tensor, Tensor, Tensor]:
    """The two parts of :func:`veto_split`, and the worth of all lots that were let through, ``(E,)``."""
    n = round.num_agents
    screened, worth = _screened_game(round)  # (E, 2**n, N, K), (E, 2**n)
    codes = torch.arange(2**n, device=screened.device)
    size = coalition_matrix(n).sum(dim=1).to(screened.device)
    weights = torch.tensor(shapley_weights(n), dtype=worth.dtype, device=worth.device)
    own, veto = torch.zeros_like(worth[:, :n]), torch.zeros_like(worth[:, :n])
    for j in range(n):
        without = codes[codes >> j & 1 == 0]  # (2**(n-1),)
        before = screened[:, without]  # A(S)
        kept = before & screened[:, without | 1 << j]  # A(S)∖B_j
        struck = (kept != before).flatten(start_dim=2).any(dim=-1)  # (E, 2**(n-1))
        between = worth[:, without]  # where nothing is struck out, w(A(S)) to the last digit
        some = struck.any(dim=0)
        if some.any():
            between[:, some] = torch.where(struck[:, some], _worth(round, kept[:, some]), between[:, some])
        p = weights[size[without]]
        own[:, j] = ((worth[:, without | 1 << j] - between) * p).sum(dim=1)
        veto[:, j] = ((between - worth[:, without]) * p).sum(dim=1)
    return own, veto, worth[:, -1]
