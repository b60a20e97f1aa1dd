r"""Filters: what becomes of an update that is not admissible as it is.

``reject`` drops it. ``scale`` takes the largest part :math:`\gamma \Delta`, γ ≤ 1, that passes. ``project`` takes the nearest update that
passes, :math:`\arg\min \|\Delta' - \Delta\|` subject to :math:`G \Delta' \le \tau` and the norm, with the rows of G the gradients of
the values (and of the directions); see :mod:`proxycoop.envs.screening.projection`. An update that passes as it is enters as it is.

Whose limits bind follows from the governance. ``own``: the owner's; ``unanimous``: everybody's. Where a share of the principals is
enough, the admissible updates are no convex set: ``scale`` still takes the largest part that passes, and ``project`` goes to the
limits of those principals to whom the largest part is admissible, the nearest update for these but not always for any so many.

Both work to first order. Where harm is of second order or measured, ``project`` goes on from there: three times it leaves as much of
every limit as the bend of its last answer takes, and projects again. Then the whole update (``scale``) or that answer is tried, and
shrunk by bisection until it passes: in sixteen halvings, always on the side that passes. A tolerance of 0 leaves nothing for the bend,
so that under such harm next to nothing passes. Forbidden data cannot be mended, nor an update that is not finite, and one of which less
than a thousandth would be left is dropped.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from math import ceil

import torch
from torch import Tensor

from .harm import predicted_harm
from .profiles import Profiles
from .projection import project
from .verdicts import Screening, Verdicts, admissible, forbids, within_limits

LEAST_KEPT = 1e-3
"""Share of an update's norm below which what a filter leaves of it is dropped."""
_HALVINGS = 16
_CORRECTIONS = 3
_FORBIDDEN = -1.0  # in the place of a factor: no factor helps


@dataclass(frozen=True)
class Filtered:
    """What of the updates may enter.

    Attributes:
        passes: Whether anything of it may, bool ``(E, N, K)``.
        updates: What would enter, ``(E, N, K, P)``; the update as it is where it is admissible.
        kept: Norm of that over the update's, ``(E, N, K)``: 1 for what enters as it is, 0 for what does not pass.
    """

    passes: Tensor
    updates: Tensor
    kept: Tensor


def filtered(
    updates: Tensor,
    verdicts: Verdicts,
    screening: Screening,
    value_gradients: Tensor,
    harm_along: Callable[[Tensor], Callable[[Tensor], Tensor]] | None,
) -> Filtered:
    """Filter the updates of a round.

    Args:
        updates: ``(E, N, K, P)``, finite.
        verdicts: What everybody thinks of them.
        screening: The governance and the filter.
        value_gradients: ``(E, M, P)``.
        harm_along: From updates, ``(E, N, K, P)``, to a function from factors ``(E, N, K)`` to the harm of such parts of them,
            ``(E, N, K, M)``, where it is not linear in them; ``None`` where it is.
    """
    whole = admissible(verdicts, screening)
    if screening.filter == "reject" or bool(whole.all()):
        return Filtered(whole, updates, whole.to(updates))
    profiles = verdicts.profiles
    factor, binding = _governed(_factors(verdicts), verdicts, screening)  # (E, N, K), (E, N, K, N, A)
    if screening.filter == "scale":
        mended = updates if harm_along is not None else factor.clamp(min=0)[..., None] * updates
    else:
        mended = _projected(updates, binding, profiles, value_gradients, harm_along)
    if harm_along is not None:
        mended = _shrunk(mended, verdicts, screening, harm_along(mended))[..., None] * mended
    mended = torch.where(whole[..., None], updates, mended)
    kept = torch.where(whole, 1.0, mended.norm(dim=-1) / verdicts.norm.clamp(min=torch.finfo(updates.dtype).tiny))
    passes = whole | ((factor >= 0) & (kept >= LEAST_KEPT))
    return Filtered(passes, mended, torch.where(passes, kept, 0.0))


def _factors(verdicts: Verdicts) -> Tensor:
    """The largest part of each update within each limit of each principal, to first order, ``(E, N, K, N, A)``, in stakeholders' order."""
    profiles = verdicts.profiles
    effects = profiles.effects(verdicts.harm)[:, :, :, None]  # (E, N, K, 1, M + D)
    harm = torch.where(effects.isnan(), _FORBIDDEN, within_limits(effects, profiles.limit[:, None, None]))
    norm = within_limits(verdicts.norm[..., None], profiles.max_norm[:, None, None])
    tags = torch.where(forbids(verdicts.tags, profiles), _FORBIDDEN, 1.0).to(harm)
    factors = torch.cat([harm, norm[..., None], tags], dim=-1)
    return torch.where(verdicts.finite[..., None, None], factors, _FORBIDDEN)


def _governed(factors: Tensor, verdicts: Verdicts, screening: Screening) -> tuple[Tensor, Tensor]:
    """The largest part that passes, and whose limits it keeps: ``(E, N, K, N, A)`` → ``(E, N, K)``, bool ``(E, N, K, N, A)``."""
    n_agents = factors.shape[3]
    if screening.governance == "stakeholders":
        voices = verdicts.stakeholders[:, None, None]  # (E, 1, 1, N, A)
        ranked = torch.where(voices, factors, 2 * _FORBIDDEN).sort(dim=3, descending=True).values  # who has no say comes last
        n_voices = voices.sum(dim=3, keepdim=True)
        last = (screening.quorum * n_voices - 1e-6).ceil().long().clamp(min=1) - 1  # (E, 1, 1, 1, A)
        least = ranked.gather(3, last.expand(*factors.shape[:3], 1, -1))  # (E, N, K, 1, A)
        least = torch.where(n_voices > 0, least, 1.0)
        return least[:, :, :, 0].amin(dim=-1), voices & (factors >= least)
    each = factors.amin(dim=-1)  # (E, N, K, N): to each principal
    match screening.governance:
        case "own":
            own = torch.eye(n_agents, dtype=torch.bool, device=factors.device)[:, None]  # (N, 1, N)
            factor, binding = each.diagonal(dim1=1, dim2=3).transpose(1, 2), own.expand_as(each)
        case "unanimous":
            factor, binding = each.amin(dim=-1), torch.ones_like(each, dtype=torch.bool)
        case "quorum":
            enough = max(1, ceil(screening.quorum * n_agents - 1e-6))
            factor = each.sort(dim=-1, descending=True).values[..., enough - 1]
            binding = each >= factor[..., None]
        case _:
            assert verdicts.weight is not None
            ranked, order = each.sort(dim=-1, descending=True)
            weight = verdicts.weight[:, None, None].expand_as(each).gather(-1, order).cumsum(dim=-1)
            last = (weight < screening.quorum - 1e-6).sum(dim=-1).clamp(max=n_agents - 1)
            factor = ranked.gather(-1, last[..., None])[..., 0]
            binding = each >= factor[..., None]
    return factor, binding[..., None].expand_as(factors)


def _projected(
    updates: Tensor,
    binding: Tensor,
    profiles: Profiles,
    value_gradients: Tensor,
    harm_along: Callable[[Tensor], Callable[[Tensor], Tensor]] | None,
) -> Tensor:
    """The nearest updates within the limits that bind, ``(E, N, K, P)``; of a harm that is not linear, nearly within them."""
    n_limits = profiles.limit.shape[-1]
    limit = torch.where(binding[..., :n_limits], profiles.limit[:, None, None], torch.inf).amin(dim=3)  # (E, N, K, M + D)
    norm = torch.where(binding[..., n_limits], profiles.max_norm[:, None, None], torch.inf).amin(dim=3)  # (E, N, K)
    normals = profiles.normals(value_gradients)  # (E, M + D, P)

    def within(limit: Tensor) -> Tensor:
        return project(updates.flatten(1, 2), normals, limit.flatten(1, 2), norm.flatten(1, 2)).reshape(updates.shape)

    nearest = within(limit)
    if harm_along is None:
        return nearest
    for _ in range(_CORRECTIONS):  # leave as much of every limit as the bend takes
        harm = profiles.effects(harm_along(nearest)(torch.ones_like(norm)))
        bend = (harm - predicted_harm(normals, nearest)).nan_to_num(0.0, 0.0, 0.0)
        nearest = within((limit - bend).clamp(min=0))
    return nearest


def _shrunk(updates: Tensor, verdicts: Verdicts, screening: Screening, harm_of: Callable[[Tensor], Tensor]) -> Tensor:
    """Factors by which updates pass that pass to first order, ``(E, N, K)``, in [0, 1]."""
    norm = updates.norm(dim=-1)

    def pass_with(factor: Tensor) -> Tensor:
        tried = Verdicts(harm_of(factor), factor * norm, verdicts.tags, verdicts.profiles, verdicts.weight)
        return admissible(tried, screening)

    return largest(pass_with, torch.ones_like(norm))


def largest(passes: Callable[[Tensor], Tensor], start: Tensor, halvings: int = _HALVINGS) -> Tensor:
    """A factor within [0, start] that passes, by bisection: the largest if all smaller ones pass too.

    Args:
        passes: From factors to whether they pass, bool, of the same shape.
        start: Largest factors, which are tried first.
        halvings: Number of halvings, each a call of ``passes``.

    Returns:
        Factors, of the shape of ``start``; one for which ``passes`` said yes, or 0.
    """
    at_most = passes(start)
    if bool(at_most.all()):
        return start
    low, high = torch.where(at_most, start, 0.0), start
    for _ in range(halvings):
        middle = (low + high) / 2
        inside = passes(middle)
        low, high = torch.where(inside, middle, low), torch.where(inside, high, middle)
    return low
