r"""Value profiles: what each principal allows an update, and a whole episode, to do; and who holds which profile.

A *tolerance* is about one update, a *limit* about the episode. A limit :math:`\lambda` on value m says that its loss may never be more than
:math:`\lambda` above where the episode began: :math:`\ell_m(\theta_t) \le \ell_m(\theta_0) + \lambda` in every round. So before round t
what is left is :math:`\lambda - (\ell_m(\theta_t) - \ell_m(\theta_0))`, and a step may take at most that. A principal's tolerance in a
round is therefore the smallest of its tolerance, its relative tolerance, and what is left of its limit, but at least 0: where a limit is
used up, or exceeded, no further harm is admissible, and repair is.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import torch
from pydantic import Field, model_validator
from torch import Tensor

from ...settings import LATER, Settings, misplaced
from ..devices import CPU
from ..model.utility import least_divisor
from ..randomness import permutation

DIRECTION_SLACK = 1e-6
"""By how much an update may go against a direction, in the unit of the weighted sum of harms. It allows for rounding of an exact 0."""

BY_VALUE = ("tolerances", "relative_tolerances", "limits", "relative_limits", "direction")
"""The settings of a profile that are numbers by value."""


class Profile(Settings):
    """A value profile, and how many principals hold it."""

    holders: int = Field(1, ge=1, description="Number of principals that hold this profile.")
    tolerances: dict[str, float] = Field(
        default_factory=dict, description="Largest predicted harm of one update to each value, in the value's unit; ≥ 0."
    )
    relative_tolerances: dict[str, float] = Field(
        default_factory=dict,
        description="Largest predicted harm of one update to each value, as a share of the value's loss at the round's start; ≥ 0. A value "
        "may have only one of the two kinds of tolerance.",
    )
    limits: dict[str, float] = Field(
        default_factory=dict,
        json_schema_extra=LATER,
        description="Largest rise of each value's loss over where the episode began, in the value's unit; ≥ 0. 0: it may never become "
        "worse than it was. An update may take at most what is left.",
    )
    relative_limits: dict[str, float] = Field(
        default_factory=dict,
        json_schema_extra=LATER,
        description="The same as a share of the value's loss where the episode began; ≥ 0. A value may have only one of the two kinds of "
        "limit.",
    )
    direction: dict[str, float] = Field(
        default_factory=dict,
        description="Weights over values, per unit of each value; scaled to Euclidean length 1. The weighted sum of an update's harms must "
        "be at most 0.",
    )
    forbidden_tags: tuple[str, ...] = Field((), description="Provenance tags; data with one of these must not be used.")
    max_norm: float | None = Field(None, gt=0, description="Largest Euclidean norm of an update; no limit by default.")
    stake: float = Field(1.0, gt=0, description="Weight of each holder's verdict under governance weighted with weigh_by: stake; any unit.")

    @model_validator(mode="after")
    def _check(self) -> Profile:
        for kind in ("tolerances", "limits"):
            absolute, relative = getattr(self, kind), getattr(self, f"relative_{kind}")
            for name, limits in ((kind, absolute), (f"relative_{kind}", relative)):
                for value, limit in limits.items():
                    if not (math.isfinite(limit) and limit >= 0):
                        raise misplaced((name, value), f"must be finite and at least 0 (got {limit})")
            if both := sorted(absolute.keys() & relative.keys()):
                raise misplaced((f"relative_{kind}", both[0]), f"there is an absolute one under {kind} too: give one of the two")
        if self.direction and not any(self.direction.values()):
            raise ValueError(f"direction={self.direction}: at least one weight must differ from 0")
        return self

    def tightened(self, factor: float) -> Profile:
        """The same profile with all tolerances and limits, absolute and relative, multiplied by a factor ≥ 0."""
        return Profile.model_validate(
            self.model_dump() | {kind: {value: factor * most for value, most in of.items()} for kind, of in self.bounds}
        )

    @property
    def bounds(self) -> list[tuple[str, Mapping[str, float]]]:
        """The tolerances and limits for values, by setting and then by value; settings without any are left out."""
        return [(kind, getattr(self, kind)) for kind in BY_VALUE if kind != "direction" and getattr(self, kind)]

    @property
    def limited(self) -> tuple[str, ...]:
        """Names of the values that have a limit for the episode, absolute or relative."""
        return (*self.limits, *self.relative_limits)

    @property
    def values(self) -> tuple[str, ...]:
        """Names of the values that the profile limits or weighs, each once."""
        return tuple(dict.fromkeys([*self.tolerances, *self.relative_tolerances, *self.limited, *self.direction]))


@dataclass(frozen=True)
class Profiles:
    """Everybody's profiles in a batch of E environments with N principals, M values, G tags and D directions.

    Attributes:
        tolerance: Tolerances in the values' units, ``(E, N, M)``; infinite where a principal has none.
        forbidden: Which principal forbids which tag, bool ``(E, N, G)``.
        max_norm: Largest norm of an update, ``(E, N)``; infinite where a principal has no limit.
        relative: Tolerances as shares of the values' losses, ``(E, N, M)``; infinite where a principal has none. ``None`` if nobody has
            one. See :meth:`at`.
        directions: Unit vectors over values, ``(D, M)``; ``None`` if nobody has a direction.
        follows: Which principal has which direction, bool ``(E, N, D)``; ``None`` if nobody has a direction.
        stake: Everybody's stake, ``(E, N)``; ``None`` if all stakes are equal.
        kind: Index of the scenario's profile that a principal holds, int64 ``(E, N)``; the number of profiles if it holds none.
        max_rise: Limits: largest rises of the value losses over an episode's start, ``(E, N, M)``; infinite where a principal has none.
            ``None`` if nobody has one.
        relative_rise: The same as shares of the losses at the start, ``(E, N, M)``; ``None`` if nobody has one. See :meth:`at`.
        may_rise: In the profiles of a round, by how much each loss may rise in it so that no limit is exceeded, ``(E, N, M)``, at least 0;
            infinite where a principal has no limit. ``None`` if nobody has one. It is within the tolerance already.
        remaining: In the profiles of a round, what is left of the limits before it, ``(E, N, M)``; see :meth:`left`. ``None`` if nobody has
            one.
        remaining_share: The same as shares of the limits, ``(E, N, M)``; see :meth:`left_in_shares`. ``None`` if nobody has one.
        start: Value losses where the episode began, ``(E, M)``, if they are known; see :meth:`begun`.
        norms_limited: Whether somebody may have a limit on norms.
    """

    tolerance: Tensor
    forbidden: Tensor
    max_norm: Tensor
    relative: Tensor | None = None
    directions: Tensor | None = None
    follows: Tensor | None = None
    stake: Tensor | None = None
    kind: Tensor | None = None
    max_rise: Tensor | None = None
    relative_rise: Tensor | None = None
    may_rise: Tensor | None = None
    remaining: Tensor | None = None
    remaining_share: Tensor | None = None
    start: Tensor | None = None
    norms_limited: bool = True

    def seated(self, seats: Sequence[int]) -> Profiles:
        """The same cooperatives, in which seat i holds the profile of seat ``seats[i]``. Seats of the same one share its stake equally."""
        index = list(seats)
        by_seat = {name: getattr(self, name) for name in _BY_SEAT}
        made = {name: table[:, index] for name, table in by_seat.items() if table is not None}
        if self.stake is not None:
            made["stake"] = made["stake"] / torch.tensor([seats.count(one) for one in seats]).to(self.stake)
        return replace(self, **made)

    def declared(self, factor: Tensor, gone: Tensor) -> Profiles:
        """The profiles that proxies declare: all tolerances times a factor, ``(E, N)``. Of those who are gone, bool ``(E, N)``: none."""
        gone, factor = gone[..., None], factor[..., None]

        def told(limit: Tensor | None) -> Tensor | None:
            return None if limit is None else torch.where(limit.isfinite(), limit * factor, math.inf).masked_fill(gone, math.inf)

        def kept(limit: Tensor | None) -> Tensor | None:
            return None if limit is None else limit.masked_fill(gone, math.inf)

        return replace(
            self,
            tolerance=torch.where(self.tolerance.isfinite(), self.tolerance * factor, math.inf).masked_fill(gone, math.inf),
            relative=told(self.relative),
            forbidden=self.forbidden & ~gone,
            max_norm=self.max_norm.masked_fill(gone[..., 0], math.inf),
            follows=None if self.follows is None else self.follows & ~gone,
            max_rise=kept(self.max_rise),
            relative_rise=kept(self.relative_rise),
        )

    @property
    def tolerates(self) -> Tensor:
        """Whose profile has a tolerance, bool ``(E, N)``."""
        has = self.tolerance.isfinite()
        return (has if self.relative is None else has | self.relative.isfinite()).any(dim=-1)

    def suffered(self, before: Tensor, after: Tensor, n_rounds: int) -> Tensor:
        r"""The harm that a round did to the values of each principal, in its own tolerances.

        .. math:: H_j = \sum_m \frac{\ell_m(\theta_{t+1}) - \ell_m(\theta_t)}{\tau_{jm}}

        :math:`\tau_{jm}` is the principal's tolerance for one update; where it has a limit :math:`\lambda` alone, :math:`\lambda / T`. A
        value that its profile does not name so, or with a tolerance that rounding hides, is left out. A fall of a loss is negative harm.

        Args:
            before: Value losses at the round's start, ``(E, M)``.
            after: Value losses at its end, ``(E, M)``.
            n_rounds: Number of rounds T of an episode.

        Returns:
            ``(E, N)``, in tolerances.
        """
        unit = self.tolerance
        if self.relative is not None:
            unit = torch.minimum(unit, _shares_of(before, self.relative))
        if self.is_limited:
            unit = torch.where(unit.isfinite(), unit, self.largest_rise / n_rounds)
        unit = torch.where(unit > least_divisor(before.abs().clamp(min=1))[:, None], unit, math.inf)
        return ((after - before)[:, None] / unit).sum(dim=-1)

    @cached_property
    def direction_of_each(self) -> Tensor:
        """Everybody's direction over values, ``(E, N, M)``; zeros for principals without a direction."""
        if self.directions is None or self.follows is None:
            return torch.zeros_like(self.tolerance)
        return self.follows.to(self.directions) @ self.directions

    def begun(self, start: Tensor) -> Profiles:
        """The profiles of an episode that begins with these value losses, ``(E, M)``: what follows from them is computed once."""
        return replace(self, start=start) if self.is_limited else self

    def at(self, value_losses: Tensor, start: Tensor | None = None) -> Profiles:
        """The profiles of a round: its tolerances in the values' units, with what is left of the limits.

        Rounding may not lead beyond a limit, so a little is kept back: :func:`~proxycoop.envs.model.utility.least_divisor` of the loss.

        Args:
            value_losses: Value losses at the round's start, ``(E, M)``.
            start: Value losses where the episode began, ``(E, M)``, unless the profiles know them.
        """
        if self.relative is None and not self.is_limited:
            return self
        if self.is_limited and start is not None:
            return self.begun(start).at(value_losses)
        tolerance = self.tolerance
        if self.relative is not None:
            tolerance = torch.minimum(tolerance, _shares_of(value_losses, self.relative))
        if not self.is_limited:
            made = replace(self, tolerance=tolerance, relative=None)
        else:
            assert self.start is not None
            kept_back = least_divisor(value_losses.abs().clamp(min=1))[:, None]
            rise = (value_losses - self.start)[:, None]
            left = self._left(rise)
            may_rise = (left - kept_back).clamp(min=0)
            made = replace(
                self,
                tolerance=torch.minimum(tolerance, may_rise),
                relative=None,
                max_rise=self.largest_rise,
                relative_rise=None,
                may_rise=may_rise,
                remaining=left,
                remaining_share=self._left_in_shares(rise),
            )
        lasting = (*_LASTING, *_OF_LIMITS) if self.is_limited else _LASTING
        vars(made).update({name: getattr(self, name) for name in lasting})
        return made

    @property
    def is_limited(self) -> bool:
        """Whether anybody has a limit for the episode."""
        return self.max_rise is not None or self.relative_rise is not None

    def left(self, value_losses: Tensor, start: Tensor) -> Tensor:
        """What is left of everybody's limits, ``(E, N, M)``, in the values' units: below 0 beyond a limit, infinite where there is none.

        Only for the profiles of a round; see :meth:`at`, also for the arguments.
        """
        if self.max_rise is None:
            return self.nothing_limited
        return self.begun(start)._left((value_losses - start)[:, None])

    def left_in_shares(self, value_losses: Tensor, start: Tensor) -> Tensor:
        """What is left as a share of the own limit, else of the strictest one, ``(E, N, M)``, from −1 to 1; 1 where nobody has one.

        Nothing is left of a limit of 0. See :meth:`left`.
        """
        if self.max_rise is None:
            return self.nothing_limited_in_shares
        return self.begun(start)._left_in_shares((value_losses - start)[:, None])

    @cached_property
    def nothing_limited(self) -> Tensor:
        """What is left where nobody has a limit, ``(E, N, M)``."""
        return torch.full_like(self.tolerance, math.inf)

    @cached_property
    def nothing_limited_in_shares(self) -> Tensor:
        """The same in shares, ``(E, N, M)``."""
        return torch.ones_like(self.tolerance)

    def _left(self, rise: Tensor) -> Tensor:
        """What is left of the limits when the losses have risen, ``(E, 1, M)``."""
        return (self.largest_rise - rise).masked_fill(self.no_limit, math.inf)

    def _left_in_shares(self, rise: Tensor) -> Tensor:
        return ((self.own_limit - rise) / self.limit_unit).clamp(-1, 1).masked_fill(self.no_limit_of_any, 1.0)

    @cached_property
    def largest_rise(self) -> Tensor:
        """Limits in the values' units, absolute and relative ones, ``(E, N, M)``; only where somebody has one, in an episode."""
        if self.relative_rise is None:
            assert self.max_rise is not None
            return self.max_rise
        assert self.start is not None
        rise = _shares_of(self.start, self.relative_rise)
        return rise if self.max_rise is None else torch.minimum(self.max_rise, rise)

    @cached_property
    def no_limit(self) -> Tensor:
        """Where a principal has no limit, bool ``(E, N, M)``; this and the next three only where somebody has one."""
        return ~self.largest_rise.isfinite()

    @cached_property
    def own_limit(self) -> Tensor:
        """A principal's own limit, else the strictest one, ``(E, N, M)``; infinite where nobody has one."""
        return torch.where(self.no_limit, self.largest_rise.amin(dim=1, keepdim=True), self.largest_rise)

    @cached_property
    def no_limit_of_any(self) -> Tensor:
        """Where :attr:`own_limit` is none, bool ``(E, N, M)``."""
        return ~self.own_limit.isfinite()

    @cached_property
    def limit_unit(self) -> Tensor:
        """In which unit what is left is a share, ``(E, N, M)``: the own limit, where rounding does not hide it."""
        assert self.start is not None
        return torch.maximum(self.own_limit, least_divisor(self.start.abs().clamp(min=1))[:, None])

    @cached_property
    def holds(self) -> Tensor:
        """Whether a principal's profile names a value, by a tolerance, a limit, or in its direction, bool ``(E, N, M)``."""
        has = self.tolerance.isfinite()
        for also in (self.relative, self.max_rise, self.relative_rise):
            if also is not None:
                has = has | also.isfinite()
        return has if self.directions is None else has | (self.direction_of_each != 0)

    @cached_property
    def yardstick(self) -> Tensor:
        """The unit in which a principal observes harm, ``(E, N, M)``: its own tolerance, else the strictest one.

        If a value is named only in directions, the unit is 1. If no profile names it, the unit is infinite. It is at least 1e-6, and in
        single precision 1.2e-5: harm is a difference of losses of about 1; see :func:`~proxycoop.envs.model.utility.least_divisor`.
        """
        least = 100 * torch.finfo(self.tolerance.dtype).eps  # of numbers of about 1
        own = torch.where(self.tolerance < math.inf, self.tolerance, self.strictest_tolerance[:, None]).clamp(min=max(1e-6, least))
        return torch.where((own < math.inf) | self.unnamed, own, 1.0)

    @cached_property
    def unnamed(self) -> Tensor:
        """Which values no profile names, bool ``(E, 1, M)``."""
        return ~self.holds.any(dim=1, keepdim=True)

    @cached_property
    def strictest_tolerance(self) -> Tensor:
        """The strictest tolerance that anybody has for each value, ``(E, M)``."""
        return self.tolerance.amin(dim=1)

    @cached_property
    def strictest_norm(self) -> Tensor:
        """The strictest limit that anybody has on a norm, ``(E,)``."""
        return self.max_norm.amin(dim=1)

    @cached_property
    def longest(self) -> Tensor:
        """Limits on norms that are finite numbers, ``(E, N)``: no norm that is not finite is within them."""
        return self.max_norm.clamp(max=torch.finfo(self.max_norm.dtype).max)

    @cached_property
    def strictest_limit(self) -> Tensor:
        """The strictest :attr:`limit` on each effect, ``(E, M + D)``."""
        return self.strictest_tolerance if self.follows is None else self.limit.amin(dim=1)

    @cached_property
    def limit(self) -> Tensor:
        """Everybody's limits on the :meth:`effects`, ``(E, N, M + D)``; infinite where there is none."""
        if self.follows is None:
            return self.tolerance
        against = torch.where(self.follows, DIRECTION_SLACK, math.inf).to(self.tolerance)
        return torch.cat([self.tolerance, against], dim=-1)

    def effects(self, harm: Tensor) -> Tensor:
        """What profiles limit: the harms themselves, and their weighted sum for each direction, ``(..., M)`` → ``(..., M + D)``."""
        if self.directions is None:
            return harm
        return torch.cat([harm, harm @ self.directions.T], dim=-1)

    def normals(self, value_gradients: Tensor) -> Tensor:
        """Gradients of the :meth:`effects`: ``(E, M, P)`` → ``(E, M + D, P)``."""
        if self.directions is None:
            return value_gradients
        return torch.cat([value_gradients, self.directions @ value_gradients], dim=1)


_LASTING = ("holds", "unnamed", "strictest_norm", "longest")
"""What is the same in all rounds of an episode."""
_OF_LIMITS = ("largest_rise", "no_limit", "own_limit", "no_limit_of_any", "limit_unit")
"""The same where there are limits for the episode."""
_BY_SEAT = ("tolerance", "forbidden", "max_norm", "relative", "follows", "stake", "kind", "max_rise", "relative_rise", "may_rise")
"""What of :class:`Profiles` has an axis of principals."""


def _shares_of(losses: Tensor, shares: Tensor) -> Tensor:
    """Shares of losses in their unit, ``(E, M)``, ``(E, N, M)`` → ``(E, N, M)``; infinite where the share is."""
    # rounding may make a loss slightly negative; ∞·0 would be NaN
    return torch.where(shares.isfinite(), shares * losses[:, None].clamp(min=0), math.inf)


class ProfileTable:
    """The profiles of a scenario as tensors, from which every episode deals them to the principals.

    Args:
        profiles: The profiles. Principals beyond the number of holders have none.
        n_principals: Number of principals N.
        values: Names of the values, in order.
        tags: Names of the provenance tags, in order.
        drawn: Whether each episode draws anew who holds which profile. If not, principals take the profiles in order.
        dtype: Type of the limits.
        device: Device of the tensors.
    """

    def __init__(
        self,
        profiles: Sequence[Profile],
        n_principals: int,
        values: Sequence[str],
        tags: Sequence[str],
        drawn: bool,
        dtype: torch.dtype,
        device: torch.device = CPU,
    ) -> None:
        held = [kind for kind, profile in enumerate(profiles) for _ in range(profile.holders)]
        self.kind = torch.tensor(held + [len(profiles)] * (n_principals - len(held)), device=device)
        rows = [*(profiles[kind] for kind in held), *[Profile()] * (n_principals - len(held))]
        self.drawn = drawn

        def limits(of: Sequence[Mapping[str, float]]) -> Tensor:
            table = torch.tensor([[row.get(value, math.inf) for value in values] for row in of], dtype=dtype, device=device)
            return table.reshape(n_principals, len(values))

        def limits_if_any(of: Sequence[Mapping[str, float]]) -> Tensor | None:
            table = limits(of)
            return table if table.isfinite().any() else None

        self.tolerance = limits([row.tolerances for row in rows])
        self.relative = limits_if_any([row.relative_tolerances for row in rows])
        self.max_rise = limits_if_any([row.limits for row in rows])
        self.relative_rise = limits_if_any([row.relative_limits for row in rows])
        self.forbidden = torch.tensor([[tag in row.forbidden_tags for tag in tags] for row in rows], dtype=torch.bool, device=device)
        self.forbidden = self.forbidden.reshape(n_principals, len(tags))
        self.norms_limited = any(row.max_norm is not None for row in rows)
        self.max_norm = torch.tensor([row.max_norm or math.inf for row in rows], dtype=dtype, device=device)
        largest = max(row.stake for row in rows)  # stakes in a small unit could overflow in single precision
        self.stake = torch.tensor([row.stake / largest for row in rows], dtype=dtype, device=device)
        guided = [kind for kind, profile in enumerate(profiles) if profile.direction]
        self.directions = self.follows = None
        if guided:
            units = [_unit(profiles[kind].direction) for kind in guided]
            weights = [[unit.get(value, 0.0) for value in values] for unit in units]
            self.directions = torch.tensor(weights, dtype=dtype, device=device)  # (D, M)
            self.follows = self.kind[:, None] == torch.tensor(guided, device=device)  # (N, D)

    def deal(self, keys: Tensor) -> Profiles:
        """Deal the profiles to the principals. There is one key per environment, int64 ``(E,)``."""
        n = len(self.max_norm)
        order = permutation(keys, n) if self.drawn else torch.arange(n, device=keys.device).expand(len(keys), n)  # (E, N)
        return Profiles(
            self.tolerance[order],
            self.forbidden[order],
            self.max_norm[order],
            relative=None if self.relative is None else self.relative[order],
            directions=self.directions,
            follows=None if self.follows is None else self.follows[order],
            stake=self.stake[order],
            kind=self.kind[order],
            max_rise=None if self.max_rise is None else self.max_rise[order],
            relative_rise=None if self.relative_rise is None else self.relative_rise[order],
            norms_limited=self.norms_limited,
        )


def _unit(direction: Mapping[str, float]) -> dict[str, float]:
    """The direction scaled to Euclidean length 1."""
    largest = max(map(abs, direction.values()))
    length = math.hypot(*(weight / largest for weight in direction.values()))
    return {value: weight / largest / length for value, weight in direction.items()}
