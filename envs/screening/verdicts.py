r"""Screening: which updates are admissible to whom, and who decides.

Update (i, k) is admissible to principal j iff its harm is within j's tolerance for every value, it does not go against j's direction, it
carries no tag that j forbids, and its norm is within j's limit. The *governance* says whose verdicts count for whose updates. The *filter*
says what happens to an update that does not pass (:mod:`proxycoop.envs.screening.filters`).

To first order the harm is linear in the update, so a mean of admissible updates is admissible. Hence no applied step violates any profile
to first order, if the governance is ``unanimous``, tolerances are ≥ 0, weights sum to at most one, and the server is plain with a learning
rate of at most one. Otherwise (``own``, ``quorum``, ``weighted``, ``stakeholders``, server momentum, Adam) a step may violate a profile.
Then the guard shrinks the step until its harm and its norm are within everybody's limits. Where profiles have limits for the whole episode,
the guard also measures the step on the probe sets, so that every such limit holds there after every round, under every governance, filter
and server. Without the guard a limit is kept only as well as harm is predicted: each round allows what is truly left, so a round may lead
beyond it by its own error. On other people than those of the probe sets nothing is promised. The guard cannot undo the use of forbidden
data. Only ``unanimous``, ``stakeholders`` (everybody whose profile names a tag forbids it) and ``negotiate`` prevent that.
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
from .electorate import Electorate
from .harm import HarmName, beside
from .profiles import Profiles

_ROUNDING = 1e-6


class Screening(Settings):
    """Whose profiles screen whose updates, what happens to inadmissible updates, and whether there is a guard."""

    governance: Literal["none", "own", "unanimous", "quorum", "weighted", "stakeholders", "negotiate"] = Field(
        "unanimous",
        description="Whose verdicts count. none: nobody's. own: each principal's for its own updates. unanimous: everybody's for all "
        "updates. quorum: an update passes if it is admissible to at least a share (quorum) of the principals. weighted: if it is "
        "admissible to principals with at least that share of all weight. stakeholders: if, for every value, direction, norm and tag, at "
        "least that share of the principals whose profiles name it do not object. negotiate: the principals bargain over the set of "
        "updates; its step as a whole is admissible to everybody.",
    )
    quorum: float = Field(0.5, gt=0, le=1, description="The share of consent that governance quorum, weighted and stakeholders need.")
    weigh_by: Literal["data", "stake"] = Field(
        "data",
        description="What gives a verdict its weight under governance weighted: the principal's rows of data, or its stake. "
        "The names of one principal share its stake.",
    )
    harm: HarmName = Field(
        "first_order",
        description="How harm is predicted. first_order and second_order expand the value's loss around the shared model. measured tries "
        "every update on the value's probe set, which costs one forward pass per update.",
    )
    filter: Literal["reject", "scale", "project"] = Field(
        "reject",
        description="What happens to an inadmissible update. reject drops it. scale shrinks it until it is admissible. project replaces it "
        "by the nearest admissible update.",
    )
    guard: bool = Field(
        False,
        description="Shrink the applied step until its harm and its norm are within every principal's limits. Limits for the episode are "
        "measured on the probe sets, however harm is predicted.",
    )
    bargain: Literal["nash", "worst_off"] = Field(
        "nash",
        description="What governance negotiate raises. nash: the product of all satisfactions. worst_off: the smallest satisfaction.",
    )
    budget: int = Field(32, ge=0, description="Largest number of moves of a negotiation; each lets one lot in or takes one out.")

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
                    f"{name}={getattr(self, name)} contradicts governance {self.governance}, which does not use it: leave it out, or use "
                    f"governance {' or '.join(governances)}"
                )
        if self.filter != "reject" and self.governance in ("none", "negotiate"):
            why = "nobody screens" if self.governance == "none" else "updates are admitted unchanged or not at all"
            raise ValueError(f"filter={self.filter} contradicts governance {self.governance}, under which {why}: use filter reject")
        return self

    @property
    def judges_each(self) -> bool:
        """Whether every update is judged on its own, and admitted unchanged or not at all. Rules about vetoes need this."""
        return self.filter == "reject" and self.governance != "negotiate"


def inadmissible_to(harm: Tensor, norm: Tensor, tags: Tensor, profiles: Profiles) -> Tensor:
    """Which principal finds which update inadmissible, bool ``(E, N, K, N)``; the arguments are those of ``admissible_to``."""
    return ~admissible_to(harm, norm, tags, profiles)


def admissible_to(harm: Tensor, norm: Tensor, tags: Tensor, profiles: Profiles) -> Tensor:
    """Which principal finds which update admissible.

    Args:
        harm: Harm of the updates, ``(E, N, K, M)``.
        norm: Euclidean norm of the updates, ``(E, N, K)``. An update whose norm is not finite is inadmissible to everybody.
        tags: Tag of each lot, int64 ``(E, N, K)``.
        profiles: Everybody's profiles.

    Returns:
        bool ``(E, N, K, N)``. Entry (i, k, j) says whether update (i, k) is admissible to principal j.
    """
    limit, longest = profiles.limit, profiles.longest
    # a comparison with NaN is false, so "within" refuses NaN, and "not beyond" would not
    within = (profiles.effects(harm)[:, :, :, None] <= limit.reshape(len(limit), 1, 1, *limit.shape[1:])).all(dim=-1)  # (E, N, K, N)
    within &= norm[..., None] <= longest.reshape(len(longest), 1, 1, -1)
    if profiles.forbidden.shape[-1]:
        within &= ~forbidden_by(tags, profiles)
    return within


def forbids(tags: Tensor, profiles: Profiles) -> Tensor:
    """Which principal forbids which lot's data because of which tag, ``(E, N, K)`` → bool ``(E, N, K, N, G)``."""
    carried = tags[..., None] == torch.arange(profiles.forbidden.shape[-1], device=tags.device)  # (E, N, K, G)
    return carried[:, :, :, None] & profiles.forbidden[:, None, None]


def forbidden_by(tags: Tensor, profiles: Profiles) -> Tensor:
    """Which principal forbids which lot's data, ``(E, N, K)`` → bool ``(E, N, K, N)``."""
    return forbids(tags, profiles).any(dim=-1)


@dataclass(frozen=True)
class Verdicts:
    """Every principal's verdict on every update.

    Attributes:
        harm: Harm of the updates, ``(E, N, K, M)``.
        norm: Euclidean norm of the updates, ``(E, N, K)``.
        tags: Tag of each lot, int64 ``(E, N, K)``.
        profiles: Everybody's profiles in this round.
        weight: Weight of each principal's verdict, ``(E, N)``, summing to 1, under governance weighted; ``None`` under others.
        blocks: Who objects to all updates of others, bool ``(E, N)``; ``None`` if nobody does.
        spared: Whose updates nobody objects to so: its own and those of its cabal, bool ``(N, N)``; ``None`` if nobody does.
        electorate: Where only some agents are present: who judges. The last axis of verdicts, and the second one of profiles, is then that
            of its J profiles, and not of principals.
    """

    harm: Tensor
    norm: Tensor
    tags: Tensor
    profiles: Profiles
    weight: Tensor | None = None
    blocks: Tensor | None = None
    spared: Tensor | None = None
    electorate: Electorate | None = None

    def of_owner(self, by_principal: Tensor) -> Tensor:
        """What the agents have of something that principals have, ``(E, N, …)``: the same, unless only some agents are present."""
        return by_principal if self.electorate is None else self.electorate.of_owner(by_principal)

    @cached_property
    def blocked_by(self) -> Tensor:
        """Which principal finds which update inadmissible, bool ``(E, N, K, N)``."""
        return ~self.admissible_to

    @property
    def blocked_by_those_present(self) -> Tensor:
        """Which of the agents present finds which update inadmissible, bool ``(E, N, K, N)``."""
        return self.blocked_by if self.electorate is None else self.electorate.of_those_present(self.blocked_by)

    @cached_property
    def admissible_to(self) -> Tensor:
        """Which principal finds which update admissible, bool ``(E, N, K, N)``."""
        found = admissible_to(self.harm, self.norm, self.tags, self.profiles)
        if self.blocks is None:
            return found
        assert self.spared is not None
        return found & (self.spared[:, None] | ~self.blocks[:, None, None])

    @cached_property
    def finite(self) -> Tensor:
        """Whether an update is finite, bool ``(E, N, K)``. An update that is not finite passes under no governance."""
        return self.norm < torch.inf

    @cached_property
    def own_blocked(self) -> Tensor:
        """Whether an update is inadmissible to its own principal, bool ``(E, N, K)``."""
        return ~self.own_admissible

    @cached_property
    def own_admissible(self) -> Tensor:
        """Whether it is admissible to it, bool ``(E, N, K)``."""
        if self.electorate is not None:
            return self.electorate.own_verdict(self.admissible_to)
        return self.admissible_to.diagonal(dim1=1, dim2=3).transpose(1, 2)  # (E, K, N) → (E, N, K)

    @cached_property
    def negotiable(self) -> Tensor:
        """Whether a lot may be bargained over, bool ``(E, N, K)``: nobody forbids its tag, no limit on norms is exceeded, all is finite."""
        long = self.norm > self.profiles.strictest_norm[:, None, None]
        return ~(long | forbidden_by(self.tags, self.profiles).any(dim=-1)) & self.finite & self.harm.isfinite().all(dim=-1)

    @cached_property
    def objects(self) -> Tensor:
        """Which principal objects for which reason, bool ``(E, N, K, N, A)``. The A reasons: values, directions, the norm, each tag."""
        harm = ~(self.profiles.effects(self.harm)[:, :, :, None] <= self.profiles.limit[:, None, None])
        norm = ~(self.norm[..., None] <= self.profiles.max_norm[:, None, None])
        return torch.cat([harm, norm[..., None], forbids(self.tags, self.profiles)], dim=-1)

    @cached_property
    def stakeholders(self) -> Tensor:
        """Whose profile names which reason to object, bool ``(E, N, A)``, in the order of :attr:`objects`."""
        profiles = self.profiles
        named = [profiles.limit.isfinite(), profiles.max_norm.isfinite()[..., None], profiles.forbidden]
        return torch.cat(named, dim=-1)


def admissible(verdicts: Verdicts, screening: Screening) -> Tensor:
    """Which updates pass unchanged under the governance, bool ``(E, N, K)``. Under negotiate: which may be bargained over."""
    admissible_to, finite = verdicts.admissible_to, verdicts.finite
    match screening.governance:
        case "none":
            return finite.clone()
        case "own":
            return verdicts.own_admissible
        case "unanimous":
            return admissible_to.all(dim=-1)
        case "quorum":
            if verdicts.electorate is None:
                share = admissible_to.sum(dim=-1) / admissible_to.shape[-1]
            else:  # each profile as often as it is held
                holders = verdicts.electorate.holders
                share = (admissible_to * holders).sum(dim=-1) / int(holders.sum())
            return (share >= screening.quorum) & finite
        case "negotiate":
            return verdicts.negotiable
    everyone = torch.ones(1, admissible_to.shape[-1], dtype=torch.bool, device=admissible_to.device)
    if verdicts.electorate is not None and screening.governance == "stakeholders":
        everyone = verdicts.electorate.holders[None]  # as often as each profile is held
    return let_through(everyone, verdicts, screening)[:, 0]


def let_through(coalitions: Tensor, verdicts: Verdicts, screening: Screening) -> Tensor:
    """Which updates would pass under the governance if only the members of a coalition screened.

    Args:
        coalitions: Members of each coalition, bool ``(C, N)``.
        verdicts: Everybody's verdicts.
        screening: The governance. It must not be negotiate, which does not judge updates one by one.

    Returns:
        bool ``(E, C, N, K)``. For the coalition of all principals it equals :func:`admissible`. If nobody in a coalition has a say (as in
        the empty coalition), every finite update passes; under quorum and weighted, no update passes.

    Raises:
        ValueError: If the governance is negotiate.
    """
    blocked_by, finite = verdicts.blocked_by, verdicts.finite[:, None]
    members = coalitions.to(verdicts.harm)  # (C, N)
    match screening.governance:
        case "none" | "own":  # these do not depend on the coalition
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
            raise ValueError("governance negotiate judges no update on its own, so coalitions have no verdicts: use another governance")
    against = objections(coalitions, blocked_by)  # (E, C, N, K)
    if screening.governance == "unanimous":
        return (against == 0) & finite
    size = coalitions.sum(dim=1)[:, None, None].to(against.device)  # (C, 1, 1)
    return ((size - against) / size.clamp(min=1) >= screening.quorum) & finite


def guard_factor(harm: Tensor, norm: Tensor, profiles: Profiles) -> Tensor:
    r"""Largest factor γ ≤ 1 at which the step is admissible to every principal, to first order.

    Args:
        harm: First-order harm of the step, ``(E, M)``.
        norm: Euclidean norm of the step, ``(E,)``.
        profiles: Everybody's profiles.

    Returns:
        γ, ``(E,)``, in [0, 1]. The harm is linear in the step, so :math:`\gamma = \min(1, \min_m \tau_m / h_m)` over the values that the
        step harms. Directions and the norm enter the minimum in the same way.
    """
    limit, size = profiles.strictest_limit, profiles.effects(harm)  # (E, M + D)
    if profiles.norms_limited or not size.shape[1]:
        limit = torch.cat([limit, profiles.strictest_norm[:, None]], dim=1)  # (E, A)
        size = torch.cat([size, norm[:, None]], dim=1)
    return within_limits(size, limit).amin(dim=1)


def within_limits(size: Tensor, limit: Tensor) -> Tensor:
    """For each entry, the largest factor ≤ 1 that brings the size within its limit ≥ 0."""
    # one part in 10^6 less, so that rounding does not bring γ·h above τ
    return torch.where(size > limit, limit / size * (1 - _ROUNDING), 1.0)


def exceeds(harm: Tensor, norm: Tensor, profiles: Profiles, rounding: float) -> Tensor:
    """Whether steps are beyond somebody's limits by more than rounding: harm ``(E, ..., M)``, norm ``(E, ...)`` → bool ``(E, ...)``."""
    limit, longest = beside(profiles.strictest_limit, norm, 1), beside(profiles.strictest_norm, norm, 1)
    # as for single updates, NaN is not within
    within = (profiles.effects(harm) <= limit * (1 + rounding) + rounding).all(dim=-1)
    return ~(within & (norm <= longest * (1 + rounding)))


def weights_of(screening: Screening, profiles: Profiles, samples: Tensor, electorate: Electorate | None = None) -> Tensor | None:
    """Weight of everybody's verdict under governance weighted, ``(E, N)``, summing to 1; ``None`` under others.

    Args:
        screening: The governance.
        profiles: Everybody's profiles.
        samples: Rows of each lot, ``(N, K)``.
        electorate: Where only some agents are present: who judges. The weights are then those of its profiles, ``(E, J)``.
    """
    if screening.governance != "weighted":
        return None
    if electorate is not None:
        held = electorate.rows.to(profiles.tolerance)
        if screening.weigh_by == "stake":
            assert profiles.stake is not None
            held = profiles.stake * electorate.holders
        return held / held.sum(dim=1, keepdim=True)
    if screening.weigh_by == "stake":
        assert profiles.stake is not None
        return profiles.stake / profiles.stake.sum(dim=1, keepdim=True)
    rows = samples.sum(dim=1).to(profiles.tolerance)
    return (rows / rows.sum()).expand(len(profiles.tolerance), -1)
