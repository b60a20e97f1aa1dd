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


class Guard(CreditRule):
    """A rule that pays by another rule, for rounds.

    Args:
        rule: The other rule, or its name (with arguments, if it takes any: ``"shapley(budget=60)"``).

    Raises:
        ValueError: If ``rule`` is neither a credit rule nor the name of one.
    """

    family: ClassVar[Family] = "wrapper"
    _remembers: ClassVar[bool] = False  # the other rule may, and looks after itself

    def __init__(self, rule: CreditRule | str) -> None:
        self.rule = make(rule) if isinstance(rule, str) else rule
        if not isinstance(self.rule, CreditRule):
            raise ValueError(f"rule={rule!r}: must be a credit rule or the name of one")
        self.max_players = self.rule.max_players
        self.needs = tuple(dict.fromkeys((*self.rule.needs, *type(self).needs)))
        self.evaluations = f"{self.rule.evaluations} (the rule's)"

    def cost(self, n_players: int) -> int:
        """What the other rule costs."""
        return self.rule.cost(n_players)

    def method(self, n_players: int) -> str:
        """The other rule's method."""
        return self.rule.method(n_players)

    def check(self, n_players: int) -> None:
        """Refuse the numbers of agents that the other rule refuses.

        Raises:
            ValueError: If the other rule does.
        """
        self.rule.check(n_players)

    @property
    def tied_to_places(self) -> str:
        """What ties this rule, or else the other one, to places."""
        return super().tied_to_places or self.rule.tied_to_places

    def reset(self, num_envs: int, num_agents: int) -> None:
        """Begin episodes, for the other rule too."""
        super().reset(num_envs, num_agents)
        self.rule.reset(num_envs, num_agents)


class _Wrapper(Guard, GameRule):
    """A rule that changes another rule's credit. It serves games if the other rule does."""

    def method(self, n_players: int) -> str:
        """The other rule's method, and v(N) where that costs one evaluation more."""
        own = "" if self.cost(n_players) == self.rule.cost(n_players) else ", and v(N)"
        return self.rule.method(n_players) + own

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
        """What is paid instead of ``credit`` ``(E, N)`` in a round that gained ``gain()`` ``(E,)``; asking for it is an evaluation."""


@RULES.register("normalised")
class Normalised(_Wrapper):
    r"""Pays another rule's credit, rescaled so that it sums to v(N).

    .. math:: c_i = f \pi_i + \frac{v(N) - f \sum_j \pi_j}{n}, \qquad f = \begin{cases}
        \min\bigl(v(N) / \sum_j \pi_j,\; f_{\max}\bigr) & \text{if } v(N) \text{ and } \sum_j \pi_j \text{ have one sign} \\
        1 & \text{otherwise} \end{cases}

    for the other rule's credit π. All credits are multiplied by one positive factor f, at most ``max_scale``, so that they sum to v(N).
    Such a factor does not exist where π sums to zero (to rounding), or where v(N) is zero or of the other sign: scaling would then turn
    rewards into fines, so π is kept as it is. What is still missing from v(N), or too much, is shared by all agents equally. This happens
    where there is no factor, and where the factor would have to be larger than ``max_scale``.

    Costs what the other rule costs, and v(N). Efficient. Symmetric if the other rule is. Null-player if the other rule is both null-player
    and efficient; otherwise not, because null agents share the rest too.

    Known failure: through the factor, one agent's harm raises what the others are paid.

    Args:
        rule: The other rule, or its name.
        max_scale: f_max, the largest factor: a number of at least 1, or infinity.

    Raises:
        ValueError: If ``rule`` is not a rule, or ``max_scale`` is below 1.

    References:
        Dubey & Shapley (1979), *Mathematical properties of the Banzhaf power index*, Mathematics of Operations Research 4(2), for the
        normalised Banzhaf index. The cases beyond positive sums are ours.
    """

    source = "Dubey & Shapley 1979 (of Banzhaf's index)"
    pays = "another rule's credit, rescaled to v(N)"
    known_failure = "one agent's harm raises the others' pay"
    efficient = True

    def __init__(self, rule: CreditRule | str = "loo", max_scale: float = MAX_SCALE) -> None:
        super().__init__(rule)
        if not is_number(max_scale, finite=False) or max_scale < 1:
            raise ValueError(f"max_scale={max_scale!r}: must be a number of at least 1")
        self.max_scale = max_scale
        self.symmetric = self.rule.symmetric
        self.null_player = self.rule.efficient and self.rule.null_player

    def cost(self, n_players: int) -> int:
        """What the other rule costs, and v(N)."""
        return self.rule.cost(n_players) + 1

    def change(self, credit: Tensor, gain: Callable[[], Tensor]) -> Tensor:
        """See the class."""
        return rescaled(credit, gain(), self.max_scale)


@RULES.register("coopetition")
class Coopetition(_Wrapper):
    r"""Pays another rule's credit, plus a part of what the other agents are paid.

    .. math:: c_i = \pi_i + \sum_{j \ne i} D_{ij} \pi_j

    for the other rule's credit π and an interdependence matrix D. D_ij is the part of agent j's pay that agent i counts as its own.

    Costs what the other rule costs. Not efficient, because these parts are paid on top. Symmetric if the other rule is and D is the same
    for all pairs. Not null-player. If all D_ij are 0, the rule keeps every promise of the other rule.

    Known failure: with D near 1 all agents are paid the same, as under equal split, and free riding pays.

    Args:
        rule: The other rule, or its name.
        interdependence: D: one number for all pairs, or a matrix, ``(N, N)``. Finite and not negative. The diagonal is ignored.

    Raises:
        ValueError: If ``rule`` is not a rule, or ``interdependence`` is neither a number nor a square matrix, is negative or is not finite.
            At reset, if the matrix is of another number of agents.

    References:
        Pant & Yu (2025), *Strategic coopetition*, arXiv 2510.18802: U_i = π_i + Σ_j D_ij π_j.
    """

    source = "strategic coopetition (arXiv 2510.18802)"
    pays = "πᵢ + Σⱼ Dᵢⱼ πⱼ, for another rule's credit π"
    known_failure = "stakes D near 1 are equal split"

    def __init__(self, rule: CreditRule | str = "loo", interdependence: float | Sequence[Sequence[float]] | Tensor = 0.2) -> None:
        super().__init__(rule)
        try:
            given = torch.as_tensor(interdependence)
            if given.dtype == torch.bool or given.is_complex():
                raise TypeError(f"got {given.dtype}")
            d = torch.as_tensor(interdependence, dtype=torch.float64).detach()
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
        """Refuse a number of players that is not the matrix's.

        Raises:
            ValueError: If it is not, or the other rule refuses it.
        """
        super().check(n_players)
        if self.interdependence.dim() == 2 and len(self.interdependence) != n_players:
            raise ValueError(f"interdependence is a matrix of {len(self.interdependence)} agents, but there are {n_players}")

    @property
    def tied_to_places(self) -> str:
        """A matrix of interdependence names agents."""
        own = "interdependence is a matrix, whose rows and columns are agents" if self.interdependence.dim() == 2 else ""
        return own or super().tied_to_places

    def change(self, credit: Tensor, gain: Callable[[], Tensor]) -> Tensor:
        """See the class."""
        del gain
        n = credit.shape[1]
        stakes = self.interdependence.to(credit).expand(n, n).clone().fill_diagonal_(0)
        return credit + credit @ stakes.T


@RULES.register("clipped")
class Clipped(_Wrapper):
    r"""Pays another rule's credit, limited to a range.

    .. math:: c_i = \min(\max(\pi_i, \text{low}), \text{high})

    for the other rule's credit π. By default nobody is fined.

    Costs what the other rule costs. Not efficient. Symmetric if the other rule is. Null-player if the other rule is and 0 is within the
    range.

    Known failure: harm costs nothing any more. With ``low=0`` an agent gambles with lots that may harm, since only the gains are its own.

    Args:
        rule: The other rule, or its name.
        low: Least credit of a round, in the utility's unit; ``None`` for no bound.
        high: Largest credit of a round, in the utility's unit; ``None`` for no bound.

    Raises:
        ValueError: If ``rule`` is not a rule, a bound is not a number, both are ``None``, or ``low`` is above ``high``.

    References:
        Limited liability in contract theory: Sappington (1983), *Limited liability contracts between principal and agent*, Journal of
        Economic Theory 29(1).
    """

    source = "limited liability (Sappington 1983)"
    pays = "another rule's credit within bounds"
    known_failure = "harm costs nothing"

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
    r"""Pays the mean of another rule's credit over the rounds of the episode so far.

    .. math:: c_i^t = \frac{\sum_{\tau \le t} \lambda^{t - \tau} \pi_i^\tau}{\sum_{\tau \le t} \lambda^{t - \tau}}

    for the other rule's credit π. With λ = 1 all rounds count the same; with λ = 0 only the current one does. A game outside a cooperative
    has no past, and is paid as the other rule pays it. Where only some members are present in a round, an agent's mean is over the rounds
    in which it was.

    Costs what the other rule costs. As long as all rounds are alike, it is symmetric and null-player if the other rule is. Over rounds that
    differ it is neither, and it is not efficient, because old rounds are paid again. With λ = 0 it keeps every promise of the other rule.

    Known failure: an agent that was useful once is still paid while it rests.

    Departure from the source: Xu et al. write r ← αr + (1−α)φ. Here the bias of the first rounds is removed, as in Adam.

    Args:
        rule: The other rule, or its name.
        decay: λ, from 0 (no memory) to 1.

    Raises:
        ValueError: If ``rule`` is not a rule, or ``decay`` is outside 0 to 1.

    References:
        Xu, Lyu, Ma, Miao, Foo & Low (2021), *Gradient-driven rewards to guarantee fairness in collaborative machine learning*, NeurIPS.
        Kingma & Ba (2015), *Adam: a method for stochastic optimization*, ICLR, for the bias.
    """

    source = "running mean (as in Xu et al. 2021, NeurIPS)"
    pays = "another rule's credit, averaged over rounds"
    known_failure = "an agent that was useful once is paid while it rests"
    by_agent: ClassVar[bool] = True

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
        paid = self.rule.assign(round)
        return self._mean.with_(paid) if round.num_agents == round.n_members else self._mean.of_some(paid, round)

    def change(self, credit: Tensor, gain: Callable[[], Tensor]) -> Tensor:
        """The credit as it is: a game outside a cooperative has no past."""
        del gain
        return credit
