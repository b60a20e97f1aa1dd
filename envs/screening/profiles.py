"""Value profiles: what each principal lets a model update do, and who holds which profile."""

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
from ..randomness import permutation

DIRECTION_SLACK = 1e-6
"""By how much an update may go against a direction, in the weighted values' unit: what rounding leaves of exactly nothing."""


class Profile(Settings):
    """A value profile, and how many principals hold it."""

    holders: int = Field(1, ge=1, description="Number of principals with this profile.")
    tolerances: dict[str, float] = Field(
        default_factory=dict, description="Largest predicted harm of one update, per value, in the value's unit; ≥ 0."
    )
    relative_tolerances: dict[str, float] = Field(
        default_factory=dict,
        description="The same as a share of the value's loss at the round's start; ≥ 0. A value has one kind of limit.",
    )
    direction: dict[str, float] = Field(
        default_factory=dict,
        description="Weights over values, per unit of each; brought to Euclidean length 1. An update must not go against it: the weighted "
        "sum of its harms is at most 0.",
    )
    forbidden_tags: tuple[str, ...] = Field((), description="Provenance tags of which no data may be used.")
    max_norm: float | None = Field(None, gt=0, description="Largest Euclidean norm of an update; no limit by default.")
    stake: float = Field(1.0, gt=0, description="Weight of each holder's verdict where governance is weighted by stake; any unit.")

    @model_validator(mode="after")
    def _check(self) -> Profile:
        for kind, limits in (("tolerance", self.tolerances), ("relative tolerance", self.relative_tolerances)):
            for value, limit in limits.items():
                if not (math.isfinite(limit) and limit >= 0):
                    raise ValueError(f"{kind} {limit} for value {value!r}: must be finite and at least 0")
        if both := sorted(self.tolerances.keys() & self.relative_tolerances.keys()):
            raise ValueError(f"value {both[0]!r} has an absolute and a relative tolerance: give one")
        if self.direction and not any(self.direction.values()):
            raise ValueError(f"direction={self.direction}: at least one weight must differ from 0")
        return self

    def tightened(self, factor: float) -> Profile:
        """The same profile with all tolerances, absolute and relative, times a factor ≥ 0: for sweeps of strictness."""
        return Profile.model_validate(
            self.model_dump()
            | {kind: {value: factor * tau for value, tau in getattr(self, kind).items()} for kind in ("tolerances", "relative_tolerances")}
        )

    @property
    def values(self) -> tuple[str, ...]:
        """Names of the values that the profile is about, each once."""
        return tuple(dict.fromkeys([*self.tolerances, *self.relative_tolerances, *self.direction]))


@dataclass(frozen=True)
class Profiles:
    """Everybody's profiles in a batch of E environments with N principals, M values, G tags and D directions.

    Attributes:
        tolerance: ``(E, N, M)``, infinite where a principal has none.
        forbidden: bool ``(E, N, G)``.
        max_norm: ``(E, N)``, infinite where a principal has none.
        relative: The same as tolerance, as shares of the values' losses; ``None`` where nobody has one. See :meth:`at`.
        directions: Unit vectors over values, ``(D, M)``; ``None`` where nobody has one.
        follows: Which principal minds which direction, bool ``(E, N, D)``; likewise.
        stake: Everybody's stake, ``(E, N)``; all alike if ``None``.
        kind: Which of the scenario's profiles a principal holds, int64 ``(E, N)``; as many as there are profiles where it holds none.
    """

    tolerance: Tensor
    forbidden: Tensor
    max_norm: Tensor
    relative: Tensor | None = None
    directions: Tensor | None = None
    follows: Tensor | None = None
    stake: Tensor | None = None
    kind: Tensor | None = None

    @cached_property
    def direction_of_each(self) -> Tensor:
        """Everybody's direction over values, ``(E, N, M)``; zeros for those who have none."""
        if self.directions is None or self.follows is None:
            return torch.zeros_like(self.tolerance)
        return self.follows.to(self.directions) @ self.directions

    def at(self, value_losses: Tensor) -> Profiles:
        """The profiles of a round, all tolerances in the values' units, by the value losses ``(E, M)`` at its start."""
        if self.relative is None:
            return self
        # a loss is at least 0 but for rounding; ∞·0 would be no number
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
        """What each principal measures harm by, ``(E, N, M)``: its tolerance, else the strictest, else a unit; ∞ where nobody cares."""
        own = torch.where(self.tolerance.isfinite(), self.tolerance, self.strictest_tolerance[:, None]).clamp(min=1e-6)
        named = self.holds.any(dim=1, keepdim=True)
        return torch.where(own.isfinite() | ~named, own, 1.0)

    @cached_property
    def strictest_tolerance(self) -> Tensor:
        """The tightest tolerance anybody has, ``(E, M)``."""
        return self.tolerance.amin(dim=1)

    @cached_property
    def strictest_norm(self) -> Tensor:
        """The tightest limit anybody has on a norm, ``(E,)``."""
        return self.max_norm.amin(dim=1)

    @cached_property
    def limit(self) -> Tensor:
        """Everybody's limits on what :meth:`effects` says, ``(E, N, M + D)``, infinite where there is none."""
        if self.follows is None:
            return self.tolerance
        against = torch.where(self.follows, DIRECTION_SLACK, math.inf).to(self.tolerance)
        return torch.cat([self.tolerance, against], dim=-1)

    def effects(self, harm: Tensor) -> Tensor:
        """What profiles limit: harms ``(..., M)`` and how far they go against each direction → ``(..., M + D)``."""
        if self.directions is None:
            return harm
        return torch.cat([harm, harm @ self.directions.T], dim=-1)

    def normals(self, value_gradients: Tensor) -> Tensor:
        """Gradients of the same: ``(E, M, P)`` → ``(E, M + D, P)``."""
        if self.directions is None:
            return value_gradients
        return torch.cat([value_gradients, self.directions @ value_gradients], dim=1)


class ProfileTable:
    """The profiles of a scenario as tensors, ready to be dealt out.

    Args:
        profiles: The profiles; principals beyond their holders have none.
        n_principals: Number of principals N.
        values: Names of the values, in order.
        tags: Names of the provenance tags, in order.
        drawn: Whether who holds which profile is drawn anew each episode; else principals take them in order.
        dtype: Type of the limits.
        device: Where the tensors live.
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
        largest = max(row.stake for row in rows)  # in single precision, stakes in a small unit could overflow
        self.stake = torch.tensor([row.stake / largest for row in rows], dtype=dtype, device=device)
        guided = [kind for kind, profile in enumerate(profiles) if profile.direction]
        self.directions = self.follows = None
        if guided:
            units = [_unit(profiles[kind].direction) for kind in guided]
            weights = [[unit.get(value, 0.0) for value in values] for unit in units]
            self.directions = torch.tensor(weights, dtype=dtype, device=device)  # (D, M)
            self.follows = self.kind[:, None] == torch.tensor(guided, device=device)  # (N, D)

    def deal(self, keys: Tensor) -> Profiles:
        """Give every principal its profile, by one key an environment, int64 ``(E,)``."""
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
    """A direction of Euclidean length 1, whatever the size of its weights."""
    largest = max(map(abs, direction.values()))
    length = math.hypot(*(weight / largest for weight in direction.values()))
    return {value: weight / largest / length for value, weight in direction.items()}
