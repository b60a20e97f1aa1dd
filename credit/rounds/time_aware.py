"""Time-aware credit: agents that joined early are paid more."""

from __future__ import annotations

from abc import abstractmethod
from math import log
from typing import ClassVar

import torch
from torch import Tensor

from ..arguments import is_number
from ..games.game import BLOCK_PLAYERS, MAX_ENUMERATED, CoalitionGame, coalition_matrix
from ..games.round import Round
from ..rule import RULES, CreditRule, Family
from ..solutions.semivalues import players_of

NEVER = 2**31
"""The joining time of agents that have not joined yet."""


def dividends(v: Tensor) -> Tensor:
    r"""Harsanyi dividends of a batch of games: what each coalition brings beyond all its parts.

    .. math:: d(T) = \sum_{S \subseteq T} (-1)^{|T| - |S|} \, v(S)

    Args:
        v: Coalition values, ``(batch, 2**n)``, v(∅) = 0. Bit ``i`` of the column says whether player ``i`` is in.

    Returns:
        ``(batch, 2**n)``, same unit. v(S) is the sum of the dividends of all parts of S.

    Raises:
        ValueError: If ``v`` is no tensor, or the number of columns is not 2**n for an n from 1 to 20.

    References:
        Harsanyi (1963), *A simplified bargaining model for the n-person cooperative game*, International Economic Review 4(2).
    """
    n = players_of(v, MAX_ENUMERATED)
    d = v.clone() if v.is_floating_point() else v.double()
    for i in range(n):
        with_i = d.view(len(d), -1, 2, 2**i)
        with_i[:, :, 1] -= with_i[:, :, 0]
    return d


class _TimeAware(CreditRule):
    """A rule that pays a coalition's dividend by when its last member joined."""

    family: ClassVar[Family] = "time"
    source = "Incentivizing time-aware fairness in data sharing (Chen et al. 2025, arXiv 2510.09240)"
    evaluations = "2^n"
    null_player = True
    max_players = BLOCK_PLAYERS
    by_agent: ClassVar[bool] = True

    def __init__(self) -> None:
        self._joined: Tensor | None = None  # round of every member's first contribution, (E, n)

    def cost(self, n_players: int) -> int:
        """All 2^n coalitions."""
        return 1 << n_players

    def reset(self, num_envs: int, num_agents: int) -> None:
        """Begin episodes, in which nobody has joined yet."""
        super().reset(num_envs, num_agents)
        self._joined = None

    def assign(self, round: Round) -> Tensor:
        """Credit of every agent for this round, ``(E, N)``, in the utility's unit."""
        now = torch.where(round.took_part, round.t, NEVER)
        if self._joined is None:
            self._joined = now.new_full((round.num_envs, round.n_members), NEVER)
        before = round.of_agents(self._joined)
        joined = torch.where(before < NEVER, before, now)
        self._joined = round.among_members(joined, self._joined)
        return self.divide(round.game, joined, round.t)

    def divide(self, game: CoalitionGame, joined: Tensor, t: int) -> Tensor:
        """Credit in a game whose players joined at different times.

        Args:
            game: The game.
            joined: When each player joined, int64 ``(E, N)``; :data:`NEVER` for players yet to come.
            t: The time now.

        Returns:
            ``(E, N)``, in the game's unit.
        """
        n = game.n_players
        d = dividends(game.values())  # (E, 2^n)
        latest = joined.new_zeros(len(d), 2**n)
        for i in range(n):
            torch.maximum(latest[:, : 2**i], joined[:, i, None], out=latest[:, 2**i : 2 ** (i + 1)])
        members = coalition_matrix(n, d.device)
        size = members.sum(dim=1)
        part = members.to(d.dtype) / size.clamp(min=1)[:, None]  # (2^n, n)
        return (d * self.weight(latest, size, t).to(d.dtype)) @ part

    @abstractmethod
    def weight(self, latest: Tensor, size: Tensor, t: int) -> Tensor:
        """The part of its dividend that a coalition is paid.

        Args:
            latest: When the last of its members joined, int64 ``(E, 2^n)``.
            size: Number of members, int64 ``(2^n,)``.
            t: The time now.

        Returns:
            float64 ``(E, 2^n)``, from 0 to 1.
        """


@RULES.register("cumulation")
class Cumulation(_TimeAware):
    r"""Pays the mean, over the rounds so far, of the Shapley values among the agents that had joined by then.

    .. math:: c_i^t = \sum_{\tau=0}^{t} w_\tau \, \phi_i\bigl(v^t|_{J_\tau}\bigr), \qquad
        w_\tau = \frac{\beta^\tau}{\sum_{\tau'=0}^t \beta^{\tau'}}

    J_τ are the agents that had contributed a lot by round τ, and :math:`v|_J(S) = v(S \cap J)`. It is computed from Harsanyi dividends d
    and joining times t_j, as :math:`c_i = \sum_{T \ni i} \frac{d(T)}{|T|} \sum_{\tau \ge \max_{j \in T} t_j} w_\tau`. As β grows it tends
    to the Shapley value.

    Costs 2^n evaluations and takes n ≤ 14. Null-player. Symmetric only among agents that joined together. Not efficient: what late agents
    have to wait for is paid to nobody.

    Known failure: the newcomer. An agent that comes late with better data is paid like one with worse data.

    Departures from the source: there one game is played over time. Here every round has a game of its own, restricted to those who had
    joined by each round so far. The source also takes v to be monotone and superadditive. A round's game need not be, and then an early
    agent may also bear more of a loss.

    Args:
        beta: β, positive. Above 1 later rounds count more; 1 counts all rounds the same.

    Raises:
        ValueError: If ``beta`` is not a positive number. At reset, if there are more than 14 agents.

    References:
        Chen, Pham, Sim, Verma, Wu, Foo & Low (2025), *Incentivizing time-aware fairness in data sharing*, NeurIPS; arXiv 2510.09240. The
        paper calls the rule "time-aware reward cumulation".
    """

    pays = "mean over rounds of the Shapley value among those who had joined by then"
    known_failure = "who comes late with better data is paid like one with worse"

    def __init__(self, beta: float = 1.0) -> None:
        super().__init__()
        if not is_number(beta) or beta <= 0:
            raise ValueError(f"beta={beta!r}: must be a positive number")
        self.beta = beta

    def weight(self, latest: Tensor, size: Tensor, t: int) -> Tensor:
        """The sum of w_τ over the rounds τ in which all members had joined."""
        del size
        # as a softmax, so that no power overflows
        w = (torch.arange(t + 1, dtype=torch.float64) * log(self.beta)).softmax(dim=0)
        from_then_on = torch.cat([w.flip(0).cumsum(dim=0).flip(0), w.new_zeros(1)])  # (t + 2,)
        from_then_on[0] = 1.0  # exactly, without rounding
        return from_then_on.to(latest.device)[latest.clamp(max=t + 1)]


@RULES.register("valuation")
class Valuation(_TimeAware):
    r"""Pays in full what each agent achieves alone, and less for joint work the later it became possible.

    .. math:: c_i = d(\{i\}) + \sum_{T \ni i,\, |T| \ge 2} \frac{d(T)}{|T|} \, \min_{j \in T} e^{-\gamma t_j}

    for Harsanyi dividends d of the round's game and the rounds t_j, counted from 0, in which the agents first contributed. γ = 0 is the
    Shapley value.

    Costs 2^n evaluations and takes n ≤ 14. Null-player. Symmetric only among agents that joined together. Not efficient: the discount is
    paid to nobody. With γ = 0 it is symmetric and efficient.

    Known failure: copies gain by coming late. Joint dividends are negative among agents with similar data, and lateness lessens what that
    redundancy costs.

    Departures from the source: as for :class:`Cumulation`, every round has a game of its own, which need not be monotone and superadditive.

    Args:
        gamma: γ, at least 0: discount for each round of delay.

    Raises:
        ValueError: If ``gamma`` is negative or not a number. At reset, if there are more than 14 agents.

    References:
        Chen, Pham, Sim, Verma, Wu, Foo & Low (2025), *Incentivizing time-aware fairness in data sharing*, NeurIPS; arXiv 2510.09240. The
        paper calls the rule "time-aware data valuation".
    """

    pays = "v({i}), and joint work discounted by when its last member joined"
    known_failure = "copies gain by coming late"

    def __init__(self, gamma: float = 0.1) -> None:
        super().__init__()
        if not is_number(gamma) or gamma < 0:
            raise ValueError(f"gamma={gamma!r}: must be a number of at least 0")
        self.gamma = gamma
        self.efficient = self.symmetric = gamma == 0

    def weight(self, latest: Tensor, size: Tensor, t: int) -> Tensor:
        """e^(−γ max t_j), and 1 for single agents."""
        del t
        discount = (-self.gamma * latest.double()).exp()
        return torch.where(size > 1, discount, 1.0)
