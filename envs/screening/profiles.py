"""Value profiles: what each principal allows an update to do, and who holds which profile."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import torch
from pydantic import Field, model_validator
from torch import Tensor

from ...settings import Settings
from ..devices import CPU
from ..model.utility import least_divisor
from ..randomness import permutation

DIRECTION_SLACK = 1e-6
"""By how much an update may go against a direction, in the unit of the weighted sum of harms. It allows for rounding of an exact 0."""


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
        for kind, limits in (("tolerance", self.tolerances), ("relative tolerance", self.relative_tolerances)):
            for value, limit in limits.items():
                if not (math.isfinite(limit) and limit >= 0):
                    raise ValueError(f"{kind} {limit} for value {value!r}: must be finite and at least 0")
        if both := sorted(self.tolerances.keys() & self.relative_tolerances.keys()):
            raise ValueError(f"value {both[0]!r} has an absolute and a relative tolerance: give one of the two")
        if self.direction and not any(self.direction.values()):
            raise ValueError(f"direction={self.direction}: at least one weight must differ from 0")
        return self

    def tightened(self, factor: float) -> Profile:
        """The same profile with all tolerances, absolute and relative, multiplied by a factor ≥ 0."""
        return Profile.model_validate(
            self.model_dump()
            | {kind: {value: factor * tau for value, tau in getattr(self, kind).items()} for kind in ("tolerances", "relative_tolerances")}
        )

    @property
    def values(self) -> tuple[str, ...]:
        """Names of the values that the profile limits or weighs, each once."""
        return tuple(dict.fromkeys([*self.tolerances, *self.relative_tolerances, *self.direction]))


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
    """

    tolerance: Tensor
    forbidden: Tensor
    max_norm: Tensor
    relative: Tensor | None = None
    directions: Tensor | None = None
    follows: Tensor | None = None
    stake: Tensor | None = None
    kind: Tensor | None = None

    def seated(self, seats: Sequence[int]) -> Profiles:
        """The same cooperatives, in which seat i holds the profile of seat ``seats[i]``."""
        index = list(seats)
        return replace(
            self,
            tolerance=self.tolerance[:, index],
            forbidden=self.forbidden[:, index],
            max_norm=self.max_norm[:, index],
            relative=None if self.relative is None else self.relative[:, index],
            follows=None if self.follows is None else self.follows[:, index],
            stake=None if self.stake is None else self.stake[:, index],
            kind=None if self.kind is None else self.kind[:, index],
        )

    @cached_property
    def direction_of_each(self) -> Tensor:
        """Everybody's direction over values, ``(E, N, M)``; zeros for principals without a direction."""
        if self.directions is None or self.follows is None:
            return torch.zeros_like(self.tolerance)
        return self.follows.to(self.directions) @ self.directions

    def at(self, value_losses: Tensor) -> Profiles:
        """The profiles of a round. Relative tolerances are turned into the values' units by the value losses ``(E, M)`` at its start."""
        if self.relative is None:
            return self
        # rounding may make a loss slightly negative; ∞·0 would be NaN
        share = torch.where(self.relative.isfinite(), self.relative * value_losses[:, None].clamp(min=0), math.inf)
        return replace(self, tolerance=torch.minimum(self.tolerance, share), relative=None)

    @cached_property
    def holds(self) -> Tensor:
        """Whether a principal's profile names a value, by a tolerance or in its direction, bool ``(E, N, M)``."""
        has = self.tolerance.isfinite()
        if self.relative is not None:
            has = has | self.relative.isfinite()
        return has if self.directions is None else has | (self.direction_of_each != 0)

    @cached_property
    def yardstick(self) -> Tensor:
        """The unit in which a principal observes harm, ``(E, N, M)``: its own tolerance, else the strictest one.

        If a value is named only in directions, the unit is 1. If no profile names it, the unit is infinite. It is at least 1e-6, and in
        single precision 1.2e-5: harm is a difference of losses of about 1; see :func:`~proxycoop.envs.model.utility.least_divisor`.
        """
        least = float(least_divisor(torch.ones((), dtype=self.tolerance.dtype)))
        own = torch.where(self.tolerance.isfinite(), self.tolerance, self.strictest_tolerance[:, None]).clamp(min=max(1e-6, least))
        named = self.holds.any(dim=1, keepdim=True)
        return torch.where(own.isfinite() | ~named, own, 1.0)

    @cached_property
    def strictest_tolerance(self) -> Tensor:
        """The strictest tolerance that anybody has for each value, ``(E, M)``."""
        return self.tolerance.amin(dim=1)

    @cached_property
    def strictest_norm(self) -> Tensor:
        """The strictest limit that anybody has on a norm, ``(E,)``."""
        return self.max_norm.amin(dim=1)

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

        self.tolerance = limits([row.tolerances for row in rows])
        relative = limits([row.relative_tolerances for row in rows])
        self.relative = relative if relative.isfinite().any() else None
        self.forbidden = torch.tensor([[tag in row.forbidden_tags for tag in tags] for row in rows], dtype=torch.bool, device=device)
        self.forbidden = self.forbidden.reshape(n_principals, len(tags))
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
        )


def _unit(direction: Mapping[str, float]) -> dict[str, float]:
    """The direction scaled to Euclidean length 1."""
    largest = max(map(abs, direction.values()))
    length = math.hypot(*(weight / largest for weight in direction.values()))
    return {value: weight / largest / length for value, weight in direction.items()}
