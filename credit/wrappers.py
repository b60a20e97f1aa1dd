"""Rules that change what another rule pays: normalised, clipped, smoothed, coopetition."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Sequence
from typing import ClassVar

import torch
from torch import Tensor

from .arguments import is_number
from .games.game import CoalitionGame
from .games.round import Round
from .rounds.running_mean import RunningMean
from .rounds.shares import MAX_SCALE, rescaled
from .rule import RULES, CreditRule, Family, GameRule, make


class _Wrapper(GameRule):
    """A rule that reads another's credit; it serves games if the other does.

    Args:
        rule: The other rule, or its name (with arguments, if it takes any: ``"shapley(budget=60)"``).
    """

    family: ClassVar[Family] = "wrapper"

    def __init__(self, rule: CreditRule | str) -> None:
        self.rule = make(rule) if isinstance(rule, str) else rule
        if not isinstance(self.rule, CreditRule):
            raise ValueError(f"rule={rule!r}: must be a credit rule or the name of one")
        self.max_players = self.rule.max_players
        self.needs = self.rule.needs
        self.evaluations = f"{self.rule.evaluations} (the rule's)"

    def cost(self, n_players: int) -> int:
        """The other rule's."""
        return self.rule.cost(n_players)

    def method(self, n_players: int) -> str:
        """The other rule's, and v(N) where that costs something more."""
        own = "" if self.cost(n_players) == self.rule.cost(n_players) else ", and v(N)"
        return self.rule.method(n_players) + own

    def check(self, n_players: int) -> None:
        """Refuse what the other rule refuses.

        Raises:
            ValueError: If it does.
        """
        self.rule.check(n_players)

    def reset(self, num_envs: int, num_agents: int) -> None:
        """Begin episodes, for the other rule too."""
        super().reset(num_envs, num_agents)
        self.rule.reset(num_envs, num_agents)

    def assign(self, round: Round) -> Tensor:
        """Credit of every agent for this round, ``(E, N)``, in the utility's unit."""
        return self.change(self.rule.assign(round), lambda: round.gain)

    def divide(self, game: CoalitionGame) -> Tensor:
        """The changed values, ``(n_envs, n_players)``.

        Raises:
            ValueError: If the other rule needs more than a game.
        """
        if not isinstance(self.rule, GameRule):
            raise ValueError(f"{type(self.rule).__name__} needs a round of a cooperative: it has no values for a game alone")
        return self.change(self.rule.divide(game), game.grand)

    @abstractmethod
    def change(self, credit: Tensor, gain: Callable[[], Tensor]) -> Tensor:
        """What is paid instead of ``credit`` ``(E, N)`` in a round that gained ``gain()`` ``(E,)``; asking for that is an evaluation."""


@RULES.register("normalised")
class Normalised(_Wrapper):
    r"""Any rule, rescaled to efficiency.

    .. math:: c_i = f \pi_i + \frac{v(N) - f \sum_j \pi_j}{n}, \qquad f = \begin{cases}
        \min\bigl(v(N) / \sum_j \pi_j,\; f_{\max}\bigr) & \text{if } v(N) \text{ and } \sum_j \pi_j \text{ have one sign} \\
        1 & \text{otherwise} \end{cases}

    for the other rule's credit π. So credit is scaled to sum to v(N) where that is possible by a positive factor of at most
    ``max_scale``. Where π sums to zero (to rounding), or v(N) is zero or of the other sign, no such factor exists, and scaling would turn
    rewards into fines: then π is kept, and what is missing or too much is borne by all alike; so is what a factor beyond ``max_scale``
    would have brought. Costs what the other rule costs, and v(N). Efficient; symmetric if the other rule is; null-player if the other
    rule is and is efficient too, else not, because of what is borne by all. Its known failure is the factor, by which one agent's harm
    raises what the others are paid.

    Args:
        rule: The other rule, or its name.
        max_scale: f_max, the largest factor, at least 1.

    References:
        Dubey & Shapley (1979) for the normalised Banzhaf index; the cases beyond positive sums are ours.
    """

    source = "Dubey & Shapley 1979 (of Banzhaf's index)"
    efficient = True

    def __init__(self, rule: CreditRule | str = "loo", max_scale: float = MAX_SCALE) -> None:
        super().__init__(rule)
        if not is_number(max_scale, finite=False) or max_scale < 1:
            raise ValueError(f"max_scale={max_scale!r}: must be a number of at least 1")
        self.max_scale = max_scale
        self.symmetric = self.rule.symmetric
        self.null_player = self.rule.efficient and self.rule.null_player

    def cost(self, n_players: int) -> int:
        """The other rule's, and v(N)."""
        return self.rule.cost(n_players) + 1

    def change(self, credit: Tensor, gain: Callable[[], Tensor]) -> Tensor:
        """See the class."""
        return rescaled(credit, gain(), self.max_scale)


@RULES.register("coopetition")
class Coopetition(_Wrapper):
    r"""Any rule, with agents who have a stake in what others are paid.

    .. math:: c_i = \pi_i + \sum_{j \ne i} D_{ij} \pi_j

    for the other rule's credit π and an interdependence matrix D: how much of agent j's pay agent i counts as its own. Costs what the
    other rule costs. Not efficient, because stakes are counted on top; symmetric if the other rule is and D is the same for all;
    not null-player. Its known failure is its purpose taken too far: with stakes near 1 it is equal split, and breeds free riders.

    Args:
        rule: The other rule, or its name.
        interdependence: D: a number for all pairs, or a matrix, ``(N, N)``, non-negative; its diagonal is ignored.

    References:
        Pant & Yu (2025), *Strategic coopetition*, arXiv 2510.18802: U_i = π_i + Σ_j D_ij π_j.
    """

    source = "strategic coopetition (arXiv 2510.18802)"

    def __init__(self, rule: CreditRule | str = "loo", interdependence: float | Sequence[Sequence[float]] | Tensor = 0.2) -> None:
        super().__init__(rule)
        try:
            d = torch.as_tensor(interdependence, dtype=torch.float64)
        except (TypeError, ValueError, RuntimeError) as error:
            raise ValueError(f"interdependence={interdependence!r}: must be a number or a square matrix ({error})") from None
        if d.dim() not in (0, 2) or (d.dim() == 2 and d.shape[0] != d.shape[1]):
            raise ValueError(f"interdependence must be a number or a square matrix, got shape {tuple(d.shape)}")
        if not ((d >= 0) & d.isfinite()).all():
            raise ValueError(f"interdependence={interdependence!r}: must be finite and not negative")
        self.interdependence = d
        no_stakes = not d.any() if d.dim() == 0 else not (d - d.diag().diag()).any()
        self.efficient = no_stakes and self.rule.efficient
        self.null_player = no_stakes and self.rule.null_player
        self.symmetric = (no_stakes or d.dim() == 0) and self.rule.symmetric

    def check(self, n_players: int) -> None:
        """Refuse another number of players than the matrix has.

        Raises:
            ValueError: If it has, or the other rule refuses.
        """
        super().check(n_players)
        if self.interdependence.dim() == 2 and len(self.interdependence) != n_players:
            raise ValueError(f"interdependence is a matrix of {len(self.interdependence)} agents, but there are {n_players}")

    def change(self, credit: Tensor, gain: Callable[[], Tensor]) -> Tensor:
        """See the class."""
        del gain
        n = credit.shape[1]
        stakes = self.interdependence.to(credit).expand(n, n).clone().fill_diagonal_(0)
        return credit + credit @ stakes.T


@RULES.register("clipped")
class Clipped(_Wrapper):
    r"""Any rule, within bounds.

    .. math:: c_i = \min(\max(\pi_i, \text{low}), \text{high})

    for the other rule's credit π. By default nobody is fined. Costs what the other rule costs. Not efficient; symmetric if the
    other rule is, null-player if it is and 0 is within the bounds. Its known failure is that harm costs nothing any more: under
    ``low=0`` an agent gambles with lots that may harm, since only the gains are its own.

    Args:
        rule: The other rule, or its name.
        low: Least credit of a round, in the utility's unit; ``None`` for no bound.
        high: Most credit of a round, in the utility's unit; ``None`` for no bound.

    References:
        Limited liability in contract theory: Sappington (1983), *Limited liability contracts between principal and agent*, Journal of
        Economic Theory 29(1).
    """

    source = "limited liability (Sappington 1983)"

    def __init__(self, rule: CreditRule | str = "loo", low: float | None = 0.0, high: float | None = None) -> None:
        super().__init__(rule)
        for name, bound in (("low", low), ("high", high)):
            if bound is not None and not is_number(bound, finite=False):
                raise ValueError(f"{name}={bound!r}: must be a number, or None for no bound")
        if low is None and high is None:
            raise ValueError("low=None and high=None clip nothing: give one of them")
        if low is not None and high is not None and not low <= high:
            raise ValueError(f"low={low} is above high={high}")
        self.low = low
        self.high = high
        self.symmetric = self.rule.symmetric
        self.null_player = self.rule.null_player and (low is None or low <= 0) and (high is None or high >= 0)

    def change(self, credit: Tensor, gain: Callable[[], Tensor]) -> Tensor:
        """See the class."""
        del gain
        return credit.clamp(self.low, self.high)


@RULES.register("smoothed")
class Smoothed(_Wrapper):
    r"""Any rule, averaged over the rounds of the episode so far.

    .. math:: c_i^t = \frac{\sum_{\tau \le t} \lambda^{t - \tau} \pi_i^\tau}{\sum_{\tau \le t} \lambda^{t - \tau}}

    for the other rule's credit π. λ = 1 is the plain running mean. Costs what the other rule costs. Symmetric and null-player if the
    other rule is, in rounds alike; over rounds that differ neither, and not efficient, because old rounds are paid again: an
    agent that was useful once is paid while it rests. That is its known failure. A game by itself is a first round.

    Args:
        rule: The other rule, or its name.
        decay: λ, from 0 (no memory) to 1.

    References:
        Xu et al. (2021), NeurIPS, r ← αr + (1−α)φ; here with the bias of the first rounds removed as in Adam (Kingma & Ba 2015).
    """

    source = "running mean (as in Xu et al. 2021, NeurIPS)"

    def __init__(self, rule: CreditRule | str = "loo", decay: float = 0.9) -> None:
        super().__init__(rule)
        if not is_number(decay) or not 0 <= decay <= 1:
            raise ValueError(f"decay={decay!r}: must be a number from 0 to 1")
        self.decay = decay
        if decay == 0:
            self.efficient, self.symmetric, self.null_player = self.rule.efficient, self.rule.symmetric, self.rule.null_player
        self._mean = RunningMean(decay)

    def reset(self, num_envs: int, num_agents: int) -> None:
        """Begin episodes, with no memory."""
        super().reset(num_envs, num_agents)
        self._mean.forget()

    def assign(self, round: Round) -> Tensor:
        """Credit of every agent for this round, ``(E, N)``, in the utility's unit."""
        return self._mean.with_(self.rule.assign(round))

    def change(self, credit: Tensor, gain: Callable[[], Tensor]) -> Tensor:
        """A game by itself has no past."""
        del gain
        return credit
