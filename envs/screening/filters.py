r"""Filters: what happens to an update that is not admissible as it is.

* ``reject`` drops it.
* ``scale`` replaces it by the largest part :math:`\gamma \Delta`, γ ≤ 1, that passes.
* ``project`` replaces it by the nearest update that passes: :math:`\arg\min \|\Delta' - \Delta\|` subject to :math:`G \Delta' \le \tau` and
  the limit on the norm. The rows of G are the gradients of the values and of the directions; see
  :mod:`proxycoop.envs.screening.projection`.

An update that passes as it is stays unchanged. Forbidden data cannot be made admissible, and neither can an update that is not finite. If
less than a thousandth of an update's norm would be left, the update is dropped.

The governance says whose limits bind. ``own``: the owner's. ``unanimous``: everybody's. Where a share of the principals is enough, the
admissible updates do not form a convex set. ``scale`` still takes the largest part that passes. ``project`` takes the principals to whom
that largest part is admissible, and returns the nearest update within their limits. For another group of principals that would also be
enough, there may be a nearer one.

Both filters work to first order. If the harm is of second order or measured, they go on from there. ``project`` repeats the following three
times: it lowers every limit by the nonlinear part of its last result's harm (the *bend*), and projects again. Then its result, or for
``scale`` the whole update, is shrunk until it passes, by bisection with sixteen halvings. The result of the bisection always passes. A
tolerance of 0 leaves no room for the bend, so that with such a harm almost nothing passes.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from math import ceil

import torch
from torch import Tensor

from ..compiled.assumptions import traced, usually
from .harm import predicted_harm
from .profiles import Profiles
from .projection import project
from .verdicts import Screening, Verdicts, admissible, forbids, within_limits

LEAST_KEPT = 1e-3
"""If a filter would leave less than this share of an update's norm, the update is dropped."""
_HALVINGS = 16
_CORRECTIONS = 3
_FORBIDDEN = -1.0  # stands for a factor where no factor makes the update admissible


@dataclass(frozen=True)
class Filtered:
    """What a filter makes of the updates.

    Attributes:
        passes: Whether anything of the update may be admitted, bool ``(E, N, K)``.
        updates: What would be admitted, ``(E, N, K, P)``; the update itself where it is admissible as it is.
        kept: Norm of what would be admitted over the update's norm, ``(E, N, K)``: 1 for an update that is admissible as it is, 0 for one
            that does not pass.
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
        verdicts: Everybody's verdicts on them.
        screening: The governance and the filter.
        value_gradients: Gradients of the values, ``(E, M, P)``.
        harm_along: If the harm is linear in the updates, ``None``. Else a function of updates, ``(E, N, K, P)``. It returns a function from
            factors ``(E, N, K)`` to the harm of the updates times these factors, ``(E, N, K, M)``.
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
    """The largest factor at which an update is within each limit of each principal, to first order, ``(E, N, K, N, A)``.

    The limits are in the order of :attr:`~proxycoop.envs.screening.verdicts.Verdicts.objects`.
    """
    profiles = verdicts.profiles
    effects = profiles.effects(verdicts.harm)[:, :, :, None]  # (E, N, K, 1, M + D)
    harm = torch.where(effects.isnan(), _FORBIDDEN, within_limits(effects, profiles.limit[:, None, None]))
    norm = within_limits(verdicts.norm[..., None], profiles.max_norm[:, None, None])
    tags = torch.where(forbids(verdicts.tags, profiles), _FORBIDDEN, 1.0).to(harm)
    factors = torch.cat([harm, norm[..., None], tags], dim=-1)
    return torch.where(verdicts.finite[..., None, None], factors, _FORBIDDEN)


def _governed(factors: Tensor, verdicts: Verdicts, screening: Screening) -> tuple[Tensor, Tensor]:
    """The largest factor that passes, and whose limits bind: ``(E, N, K, N, A)`` → ``(E, N, K)``, bool ``(E, N, K, N, A)``."""
    n_agents = factors.shape[3]
    if screening.governance == "stakeholders":
        voices = verdicts.stakeholders[:, None, None]  # (E, 1, 1, N, A)
        ranked = torch.where(voices, factors, 2 * _FORBIDDEN).sort(dim=3, descending=True).values  # principals without a say come last
        n_voices = voices.sum(dim=3, keepdim=True)
        last = (screening.quorum * n_voices - 1e-6).ceil().long().clamp(min=1) - 1  # (E, 1, 1, 1, A)
        least = ranked.gather(3, last.expand(*factors.shape[:3], 1, -1))  # (E, N, K, 1, A)
        least = torch.where(n_voices > 0, least, 1.0)
        return least[:, :, :, 0].amin(dim=-1), voices & (factors >= least)
    each = factors.amin(dim=-1)  # (E, N, K, N): by each principal's limits
    match screening.governance:
        case "own":
            if verdicts.electorate is None:
                own = torch.eye(n_agents, dtype=torch.bool, device=factors.device)[:, None]  # (N, 1, N)
                factor, binding = each.diagonal(dim1=1, dim2=3).transpose(1, 2), own.expand_as(each)
            else:
                own = verdicts.electorate.own[:, :, None, None] == torch.arange(n_agents, device=factors.device)  # (E, m, 1, J)
                factor, binding = verdicts.electorate.own_verdict(each), own.expand_as(each)
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
    """The nearest updates within the limits that bind, ``(E, N, K, P)``. If the harm is not linear, they are only nearly within them."""
    n_limits = profiles.limit.shape[-1]
    limit = torch.where(binding[..., :n_limits], profiles.limit[:, None, None], torch.inf).amin(dim=3)  # (E, N, K, M + D)
    norm = torch.where(binding[..., n_limits], profiles.max_norm[:, None, None], torch.inf).amin(dim=3)  # (E, N, K)
    normals = profiles.normals(value_gradients)  # (E, M + D, P)

    def within(limit: Tensor) -> Tensor:
        return project(updates.flatten(1, 2), normals, limit.flatten(1, 2), norm.flatten(1, 2)).reshape(updates.shape)

    nearest = within(limit)
    if harm_along is None:
        return nearest
    for _ in range(_CORRECTIONS):  # lower every limit by what the bend takes
        harm = profiles.effects(harm_along(nearest)(torch.ones_like(norm)))
        bend = (harm - predicted_harm(normals, nearest)).nan_to_num(0.0, 0.0, 0.0)
        nearest = within((limit - bend).clamp(min=0))
    return nearest


def _shrunk(updates: Tensor, verdicts: Verdicts, screening: Screening, harm_of: Callable[[Tensor], Tensor]) -> Tensor:
    """Factors at which updates pass, ``(E, N, K)``, in [0, 1], by bisection."""
    norm = updates.norm(dim=-1)

    def pass_with(factor: Tensor) -> Tensor:
        tried = Verdicts(harm_of(factor), factor * norm, verdicts.tags, verdicts.profiles, verdicts.weight)
        return admissible(tried, screening)

    return largest(pass_with, torch.ones_like(norm))


def largest(passes: Callable[[Tensor], Tensor], start: Tensor, halvings: int = _HALVINGS) -> Tensor:
    """A factor within [0, start] that passes, by bisection. It is the largest one (to the last halving) if all smaller factors pass too.

    Args:
        passes: A function from factors to whether they pass, bool, of the same shape. While a round is traced, it is also asked about
            several factors at once, ``(..., n)``.
        start: The largest factors. They are tried first.
        halvings: Number of halvings; each calls ``passes`` once.

    Returns:
        Factors, of the shape of ``start``. For each, ``passes`` was true, or it is 0.
    """
    at_most = passes(start)
    if usually(at_most):
        return start
    low, high = torch.where(at_most, start, 0.0), start
    if traced():  # three halvings at once: it is passes through memory that cost, not the arithmetic
        sections = torch.arange(1, 8, dtype=start.dtype, device=start.device) / 8
        for _ in range(ceil(halvings / 3)):
            width = high - low
            low_enough, n_inside = torch.ones_like(at_most), torch.zeros_like(start)
            for inside in passes(low[..., None] + width[..., None] * sections).unbind(dim=-1):  # up to the first that does not pass
                low_enough = low_enough & inside
                n_inside = n_inside + low_enough
            low = low + width * (n_inside / 8)
            high = low + width / 8
        return torch.where(at_most, start, low)
    for _ in range(halvings):
        middle = (low + high) / 2
        inside = passes(middle)
        low, high = torch.where(inside, middle, low), torch.where(inside, high, middle)
    return low
