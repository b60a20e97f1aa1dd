r"""The units of every coalition, and what is done to them before they are aggregated.

Every step before an aggregator makes new units that are combinations of the old ones, :math:`x'_u = \sum_i M_{ui} x_i`, with coefficients
:math:`M_{ui} \ge 0` that sum to at most 1. Inner products of the new units follow from those of the old, :math:`G' = M G M^\top`, so
nothing here depends on the number of parameters.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from .settings import AggregatorSettings, Bucketing, Clip, NearestNeighbourMixing, counts_weights
from .sums import product, total

_LOST = 1e-14  # a squared distance below it, as a share of the squared norms, is rounding


@dataclass(frozen=True)
class Units:
    """The units of E environments and C coalitions. A dimension ``c`` is 1 where all coalitions share it, and C elsewhere.

    Attributes:
        gram: Inner products of U units, double ``(E, c, U, U)``.
        present: Which units are in the coalitions, bool ``(E, C, U)``.
        weight: Their weights, double ``(E, c, U)``.
        mixing: How much of each of the n original units is in each, double ``(E, c, U, n)``; ``None`` if they are the original ones.
    """

    gram: Tensor
    present: Tensor
    weight: Tensor
    mixing: Tensor | None = None

    def of_originals(self, coefficients: Tensor) -> Tensor:
        """Coefficients of units, ``(E, C, U)``, as those of the original units, ``(E, C, n)``."""
        return coefficients if self.mixing is None else product(coefficients[..., None, :], self.mixing)[..., 0, :]


def withstood(f: int, present: Tensor) -> Tensor:
    """How many Byzantine units each coalition withstands, min(f, (m − 1) // 2) of m units: bool ``(E, C, U)`` → int64 ``(E, C)``."""
    return ((present.sum(dim=-1) - 1) // 2).clamp(min=0, max=f)


def prepared(settings: AggregatorSettings, gram: Tensor, weight: Tensor, present: Tensor, order: Tensor) -> Units:
    """The units as they reach the aggregator.

    Args:
        settings: The aggregator.
        gram: Inner products of the n original units, double ``(E, n, n)``.
        weight: Their weights, ``(E, n)``.
        present: Which of them are in the coalitions, bool ``(E, C, n)``.
        order: Priorities by which units are dealt to buckets, ``(E, n)``.
    """
    gram = ((gram + gram.transpose(1, 2)) / 2)[:, None]  # equal distances there and back, to the last bit
    if counts_weights(settings):
        present = present & (weight > 0)[:, None]
        weight = weight.double()[:, None]
    else:
        weight = torch.ones_like(weight, dtype=torch.float64)[:, None]
    units = Units(gram, present, weight)
    for step in settings.before:
        match step:
            case Clip():
                units = _clipped(units, step.max_norm)
            case NearestNeighbourMixing():
                units = _mixed(units, step.f)
            case Bucketing():
                units = _in_buckets(units, step.size, order, counts_weights(settings))
    return units


def squared_distances(gram: Tensor) -> Tensor:
    """Squared distances between units by their inner products, ``(..., U, U)`` each, to the precision of float32.

    After mixing, pairs of units are often equally far apart by construction. Rounding hides the last bits of the computation, so that such
    pairs tie and the units' order decides. For the same reason distances below 1e-7 of the units' norms are 0: cancellation leaves nothing
    of them.
    """
    squared = gram.diagonal(dim1=-2, dim2=-1)
    both = squared[..., :, None] + squared[..., None, :]
    distances = both - 2 * gram
    distances = torch.where(distances > _LOST * both, distances, 0.0)
    high = distances * (2**29 + 1)  # Veltkamp's splitting: the first 24 of 53 bits
    return high - (high - distances)


def nearest(units: Units, n_nearest: Tensor, itself: bool) -> tuple[Tensor, Tensor, Tensor]:
    """Each unit's nearest units within the coalitions. Of units at the same distance the earlier one is nearer.

    Args:
        units: The units.
        n_nearest: How many are wanted, ``(E, C)``.
        itself: Whether a unit is nearest to itself, or left out.

    Returns:
        The units from the nearest to the farthest, int64 ``(E, c, U, U)``; their squared distances; and which of them are wanted, bool
        ``(E, C, U, U)``.
    """
    distances = squared_distances(units.gram)
    distances.diagonal(dim1=-2, dim2=-1).fill_(-1.0 if itself else torch.inf)
    distances, others = distances.sort(dim=-1, stable=True)
    n_envs, n_coalitions, n_units = units.present.shape
    shape = (n_envs, n_coalitions, n_units, n_units)
    members = units.present[:, :, None].expand(shape).gather(-1, others.expand(shape))
    if not itself:
        members = members & (distances < torch.inf)
    return others, distances, members & (members.cumsum(dim=-1) <= n_nearest[..., None, None])


def _clipped(units: Units, max_norm: float) -> Units:
    factor = (max_norm / units.gram.diagonal(dim1=-2, dim2=-1).sqrt()).clamp(max=1)  # (E, c, U)
    mixing = torch.diag_embed(factor) if units.mixing is None else factor[..., None] * units.mixing
    return Units(units.gram * (factor[..., :, None] * factor[..., None, :]), units.present, units.weight, mixing)


def _mixed(units: Units, f: int) -> Units:
    n_nearest = units.present.sum(dim=-1) - withstood(f, units.present)  # (E, C)
    others, _, wanted = nearest(units, n_nearest, itself=True)
    chosen = torch.zeros_like(wanted).scatter_(-1, others.expand_as(wanted), wanted)
    return _replaced(units, chosen.double() / n_nearest.clamp(min=1)[..., None, None], units.present, units.weight)


def _in_buckets(units: Units, size: int, order: Tensor, weighted: bool) -> Units:
    n_units = units.present.shape[-1]
    index = torch.arange(n_units, device=order.device)
    earlier = (order[:, None] < order[:, :, None]) | ((order[:, None] == order[:, :, None]) & (index < index[:, None]))  # (E, n, n)
    rank = (earlier[:, None] & units.present[:, :, None]).sum(dim=-1)  # (E, C, n)
    buckets = torch.arange(-(-n_units // size), device=order.device)
    inside = units.present[:, :, None] & (rank[:, :, None] // size == buckets[:, None])  # (E, C, U', n)
    entering = torch.where(inside, units.weight[:, :, None], 0.0)
    filled = inside.any(dim=-1)  # (E, C, U')
    weight = total(entering)
    share = entering / torch.where(filled, weight, 1.0)[..., None]
    return _replaced(units, share, filled, weight if weighted else filled.double())


def _replaced(units: Units, share: Tensor, present: Tensor, weight: Tensor) -> Units:
    """Units that are mixtures of units, by how much of each is in each, ``(E, C, U', U)``."""
    gram = product(product(share, units.gram), share.transpose(-1, -2))
    mixing = share if units.mixing is None else product(share, units.mixing)
    return Units((gram + gram.transpose(-1, -2)) / 2, present, weight, mixing)
