r"""Screening: which updates are admissible to whom, and who decides.

Update (i, k) is admissible to principal j iff its harm is within j's tolerance for every value, it does not go against j's
direction, it carries no tag that j forbids, and its norm is within j's limit. *Governance* says whose verdicts count for whose
updates, the *filter* what becomes of an update that does not pass (:mod:`proxycoop.envs.screening.filters`).

To first order the harm is linear in the update, so a mean of admissible updates is admissible: with ``unanimous`` governance,
tolerances ≥ 0, weights that sum to at most one and a plain server with a learning rate of at most one, no applied step violates
any profile to first order. Where that argument fails (``own``, ``quorum``, ``weighted``, ``stakeholders``, server momentum, Adam)
the guard shrinks the step until its harm and norm are within everybody's limits again. It cannot undo the use of forbidden data:
only ``unanimous``, ``stakeholders`` (all who name a tag forbid it) and ``negotiate`` prevent that.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Literal

import torch
from pydantic import Field, model_validator
from torch import Tensor

from ...credit.games.lots import objections
from ...settings import Settings
from .harm import HarmName
from .profiles import Profiles

_ROUNDING = 1e-6


class Screening(Settings):
    """Whose profiles screen whose updates, what happens to inadmissible ones, and whether the applied step is guarded."""

    governance: Literal["none", "own", "unanimous", "quorum", "weighted", "stakeholders", "negotiate"] = Field(
        "unanimous",
        description="none: nobody's; own: each principal's for its own updates; unanimous: everybody's for all; "
        "quorum: an update passes if it is admissible to at least a share of the principals; weighted: to principals with at least that "
        "share of all weight; stakeholders: for every value, tag, norm or direction, to at least that share of those whose profile "
        "names it; negotiate: the set of updates is bargained, so that their step is admissible to everybody as a whole.",
    )
    quorum: float = Field(0.5, gt=0, le=1, description="That share, for governance quorum, weighted and stakeholders.")
    weigh_by: Literal["data", "stake"] = Field(
        "data", description="What weighs a verdict under governance weighted: the rows of data that a principal holds, or its stake."
    )
    harm: HarmName = Field(
        "first_order",
        description="How harm is foreseen: first_order and second_order expand the value's loss around the shared model; measured tries "
        "every update out on the value's probe set, which costs a forward pass an update.",
    )
    filter: Literal["reject", "scale", "project"] = Field(
        "reject",
        description="What happens to an inadmissible update: reject drops it; scale shrinks it until it is admissible; project replaces "
        "it by the nearest admissible one.",
    )
    guard: bool = Field(False, description="Shrink the applied step until its harm and its norm are within every principal's limits.")
    bargain: Literal["nash", "worst_off"] = Field(
        "nash", description="What governance negotiate maximises: the product of satisfactions, or that of the worst-off principal."
    )
    budget: int = Field(32, ge=0, description="Most moves that a negotiation may take from the unanimous set.")

    @model_validator(mode="after")
    def _check(self) -> Screening:
        by_share = ("quorum", "weighted", "stakeholders")
        for name, governances in (
            ("quorum", by_share),
            ("weigh_by", ("weighted",)),
            ("bargain", ("negotiate",)),
            ("budget", ("negotiate",)),
        ):
            if self.governance not in governances and getattr(self, name) != type(self).model_fields[name].default:
                raise ValueError(
                    f"{name}={getattr(self, name)} contradicts governance {self.governance}, which asks for none: leave it out, or use "
                    f"governance {' or '.join(governances)}"
                )
        if self.filter != "reject" and self.governance in ("none", "negotiate"):
            why = "nobody screens" if self.governance == "none" else "it is bargained which updates enter, whole"
            raise ValueError(f"filter={self.filter} contradicts governance {self.governance}, under which {why}: use filter reject")
        return self

    @property
    def judges_each(self) -> bool:
        """Whether every update is let in whole or not at all, whatever the others are: what rules about vetoes build on."""
        return self.filter == "reject" and self.governance != "negotiate"


def inadmissible_to(harm: Tensor, norm: Tensor, tags: Tensor, profiles: Profiles) -> Tensor:
    """Who finds which update inadmissible.

    Args:
        harm: Harm, ``(E, N, K, M)``.
        norm: Euclidean norm of the updates, ``(E, N, K)``; a norm that is not finite makes an update inadmissible to everybody.
        tags: Tag of each lot, int64 ``(E, N, K)``.
        profiles: Everybody's profiles.

    Returns:
        bool ``(E, N, K, N)``; entry (i, k, j): update (i, k) is inadmissible to principal j.
    """
    # a comparison with NaN is false, so "not within" rather than "beyond" refuses what is not a number
    within = (profiles.effects(harm)[:, :, :, None] <= profiles.limit[:, None, None]).all(dim=-1)  # (E, N, K, N)
    within &= norm[..., None] <= profiles.max_norm[:, None, None]
    within &= norm.isfinite()[..., None]
    if profiles.forbidden.shape[-1]:
        within &= ~forbidden_by(tags, profiles)
    return ~within


def forbids(tags: Tensor, profiles: Profiles) -> Tensor:
    """Who forbids the data of which lot for which tag, ``(E, N, K)`` → bool ``(E, N, K, N, G)``."""
    carried = tags[..., None] == torch.arange(profiles.forbidden.shape[-1], device=tags.device)  # (E, N, K, G)
    return carried[:, :, :, None] & profiles.forbidden[:, None, None]


def forbidden_by(tags: Tensor, profiles: Profiles) -> Tensor:
    """Who forbids the data of which lot, ``(E, N, K)`` → bool ``(E, N, K, N)``."""
    return forbids(tags, profiles).any(dim=-1)


@dataclass(frozen=True)
class Verdicts:
    """What every principal thinks of every update.

    Attributes:
        harm: ``(E, N, K, M)``.
        norm: ``(E, N, K)``.
        tags: int64 ``(E, N, K)``.
        profiles: Everybody's profiles, in this round.
        weight: Weight of each principal's verdict under governance weighted, ``(E, N)``, summing to 1; ``None`` elsewhere.
    """

    harm: Tensor
    norm: Tensor
    tags: Tensor
    profiles: Profiles
    weight: Tensor | None = None

    @cached_property
    def blocked_by(self) -> Tensor:
        """Who finds which update inadmissible, bool ``(E, N, K, N)``."""
        return inadmissible_to(self.harm, self.norm, self.tags, self.profiles)

    @cached_property
    def finite(self) -> Tensor:
        """Whether an update is finite, bool ``(E, N, K)``; one that is not passes under no governance."""
        return self.norm.isfinite()

    @cached_property
    def own_blocked(self) -> Tensor:
        """Whether an update is inadmissible to its own principal, bool ``(E, N, K)``."""
        return self.blocked_by.diagonal(dim1=1, dim2=3).transpose(1, 2)  # (E, K, N) → (E, N, K)

    @cached_property
    def negotiable(self) -> Tensor:
        """Whether nobody objects for another reason than harm, bool ``(E, N, K)``: no forbidden tag, nobody's norm exceeded, all finite."""
        long = self.norm > self.profiles.strictest_norm[:, None, None]
        return ~(long | forbidden_by(self.tags, self.profiles).any(dim=-1)) & self.finite & self.harm.isfinite().all(dim=-1)

    @cached_property
    def objects(self) -> Tensor:
        """On which account who objects, bool ``(E, N, K, N, A)``: values, directions, the norm and each tag, in this order."""
        harm = ~(self.profiles.effects(self.harm)[:, :, :, None] <= self.profiles.limit[:, None, None])
        norm = ~(self.norm[..., None] <= self.profiles.max_norm[:, None, None])
        return torch.cat([harm, norm[..., None], forbids(self.tags, self.profiles)], dim=-1)

    @cached_property
    def stakeholders(self) -> Tensor:
        """Whose profile names what, bool ``(E, N, A)``, in the order of :attr:`objects`."""
        profiles = self.profiles
        named = [profiles.limit.isfinite(), profiles.max_norm.isfinite()[..., None], profiles.forbidden]
        return torch.cat(named, dim=-1)


def admissible(verdicts: Verdicts, screening: Screening) -> Tensor:
    """Which updates pass whole, under the governance, bool ``(E, N, K)``; under negotiate, which are open to bargaining."""
    blocked_by, finite = verdicts.blocked_by, verdicts.finite
    match screening.governance:
        case "none":
            return finite.clone()
        case "own":
            return ~verdicts.own_blocked
        case "unanimous":
            return ~blocked_by.any(dim=-1)
        case "quorum":
            share = (~blocked_by).sum(dim=-1) / blocked_by.shape[-1]
            return (share >= screening.quorum) & finite
        case "negotiate":
            return verdicts.negotiable
    everyone = torch.ones(1, blocked_by.shape[-1], dtype=torch.bool, device=blocked_by.device)
    return let_through(everyone, verdicts, screening)[:, 0]


def let_through(coalitions: Tensor, verdicts: Verdicts, screening: Screening) -> Tensor:
    """Which updates would pass if only the members of a coalition screened, under the governance.

    Args:
        coalitions: bool ``(C, N)``.
        verdicts: Everybody's.
        screening: The governance; not negotiate, which judges no update by itself.

    Returns:
        bool ``(E, C, N, K)``; with everybody in the coalition, what :func:`admissible` says. A coalition in which nobody has a say, as
        the empty one, lets everything finite through, but under quorum and weighted, where no share of nobody is enough.
    """
    blocked_by, finite = verdicts.blocked_by, verdicts.finite[:, None]
    members = coalitions.to(verdicts.harm)  # (C, N)
    match screening.governance:
        case "none" | "own":  # whoever else is there
            return admissible(verdicts, screening)[:, None].expand(-1, len(coalitions), -1, -1)
        case "weighted":
            assert verdicts.weight is not None
            consent = torch.einsum("eikj,cj,ej->ecik", (~blocked_by).to(members), members, verdicts.weight)
            weight = (verdicts.weight @ members.T)[..., None, None]  # (E, C, 1, 1)
            return (consent >= screening.quorum * weight - _ROUNDING) & (weight > 0) & finite
        case "stakeholders":
            stakeholders = verdicts.stakeholders.to(members)
            voices = torch.einsum("cj,eja->eca", members, stakeholders)[:, :, None, None]  # (E, C, 1, 1, A)
            against = torch.einsum("eikja,cj,eja->ecika", verdicts.objects.to(members), members, stakeholders)
            return (voices - against >= screening.quorum * voices - _ROUNDING).all(dim=-1) & finite
        case "negotiate":
            raise ValueError("governance negotiate judges no update by itself, so no coalition's verdict can be told from others'")
    against = objections(coalitions, blocked_by)  # (E, C, N, K)
    if screening.governance == "unanimous":
        return (against == 0) & finite
    size = coalitions.sum(dim=1)[:, None, None].to(against.device)  # (C, 1, 1)
    return ((size - against) / size.clamp(min=1) >= screening.quorum) & finite


def guard_factor(harm: Tensor, norm: Tensor, profiles: Profiles) -> Tensor:
    r"""Largest factor γ ≤ 1 by which the applied step may be taken so that it is admissible to every principal, to first order.

    Args:
        harm: First-order harm of the step, ``(E, M)``.
        norm: Euclidean norm of the step, ``(E,)``.
        profiles: Everybody's profiles.

    Returns:
        γ, ``(E,)``, in [0, 1]: the harm is linear in the step, so :math:`\gamma = \min(1, \min_m \tau_m / h_m)` over the values
        that the step harms, and likewise for directions and the norm.
    """
    limit = torch.cat([profiles.limit.amin(dim=1), profiles.strictest_norm[:, None]], dim=1)  # (E, A)
    size = torch.cat([profiles.effects(harm), norm[:, None]], dim=1)
    return within_limits(size, limit).amin(dim=1)


def within_limits(size: Tensor, limit: Tensor) -> Tensor:
    """Largest factors ≤ 1 that bring sizes within limits ≥ 0, entry by entry."""
    # one part in 10^6 of slack: γ·h rounds to τ rather than above it
    return torch.where(size > limit, limit / size * (1 - _ROUNDING), 1.0)


def exceeds(harm: Tensor, norm: Tensor, profiles: Profiles, rounding: float) -> Tensor:
    """Whether steps, ``(E, M)`` and ``(E,)``, are beyond somebody's limits by more than rounding, bool ``(E,)``."""
    # as for single updates, what is not a number is not within
    within = (profiles.effects(harm) <= profiles.limit.amin(dim=1) * (1 + rounding) + rounding).all(dim=-1)
    return ~(within & (norm <= profiles.strictest_norm * (1 + rounding)))


def weights_of(screening: Screening, profiles: Profiles, samples: Tensor) -> Tensor | None:
    """Everybody's weight under governance weighted, ``(E, N)``, summing to 1; ``None`` under others.

    Args:
        screening: The governance.
        profiles: Everybody's profiles.
        samples: Rows of each lot, ``(N, K)``.
    """
    if screening.governance != "weighted":
        return None
    if screening.weigh_by == "stake":
        assert profiles.stake is not None
        return profiles.stake / profiles.stake.sum(dim=1, keepdim=True)
    rows = samples.sum(dim=1).to(profiles.tolerance)
    return (rows / rows.sum()).expand(len(profiles.tolerance), -1)
