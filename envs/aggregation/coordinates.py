"""Aggregators that take every coordinate by itself: how much of each unit's coordinate is in that of the aggregate.

An environment's coordinates are sorted once. A coalition's own order is that order without the absent units, so that one pass over the
sorted units, counting those who are in, serves all coalitions.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from .settings import CoordinateSettings, Meamed, Median, TrimmedMean, counts_weights
from .sums import total
from .units import Units, withstood

_SAME = 1e-6  # weights that differ by less, as a share of all, are the same


@dataclass(frozen=True)
class Sorted:
    """Units' coordinates from the smallest to the largest. A dimension ``c`` is 1 where all coalitions share it.

    Attributes:
        values: The coordinates, ``(E, c, U, P)``.
        owners: Whose they are, int64 ``(E, c, U, P)``; ``None`` where those of every coalition's own m units come first.
    """

    values: Tensor
    owners: Tensor | None

    @classmethod
    def of(cls, vectors: Tensor) -> Sorted:
        """Sort vectors ``(E, c, U, P)``. Equal coordinates are in unit order."""
        return cls(*vectors.sort(dim=2, stable=True))

    @classmethod
    def of_coalitions(cls, vectors: Tensor, present: Tensor) -> Sorted:
        """Sort each coalition's own vectors ``(E, C, U, P)``, by who is in it, ``(E, C, U)``, much faster and without owners."""
        last = torch.where(present[..., None], vectors, torch.inf)
        values = torch.stack(_sorted(list(last.unbind(dim=2))), dim=2)
        there = torch.arange(present.shape[-1], device=present.device) < present.sum(dim=-1, keepdim=True)  # (E, C, U)
        return cls(torch.where(there[..., None], values, 0.0), None)

    def at(self, place: int, table: Tensor) -> Tensor:
        """What a table ``(E, C, U)`` says of the units at a place of the order, ``(E, C, P)``."""
        assert self.owners is not None
        owners = self.owners[:, :, place]
        return table.gather(-1, owners.expand(*table.shape[:2], owners.shape[-1]))


def aggregated(settings: CoordinateSettings, units: Units, ranked: Sorted) -> Tensor:
    """The aggregate of every coalition, ``(E, C, P)``."""
    top = whole = ranked.values.new_zeros(*units.present.shape[:2], ranked.values.shape[-1])
    for place, share in enumerate(_shares(settings, units, ranked)):
        top = top + share * ranked.values[:, :, place]
        whole = whole + share
    return top / torch.where(whole > 0, whole, 1.0)


def portions(settings: CoordinateSettings, units: Units, ranked: Sorted) -> Tensor:
    """How much of each unit's coordinate is in the aggregate's, ``(E, U, P)``, for one coalition an environment."""
    assert ranked.owners is not None
    shares = torch.cat(list(_shares(settings, units, ranked)), dim=1)  # (E, U, P), in sorted order
    whole = shares.sum(dim=1, keepdim=True)
    return torch.zeros_like(shares).scatter_(1, ranked.owners[:, 0], shares / torch.where(whole > 0, whole, 1.0))


def _shares(settings: CoordinateSettings, units: Units, ranked: Sorted) -> Iterator[Tensor]:
    """For each place in the order, how much of the unit there is in the aggregate, up to a common factor: ``(E, C, P)``."""
    if isinstance(settings, Median) and counts_weights(settings):
        yield from _middle_by_weight(units, ranked)
        return
    n_present = units.present.sum(dim=-1, keepdim=True).int()  # (E, C, 1)
    f = 0 if isinstance(settings, Median) else withstood(settings.f, units.present)[..., None].int()
    match settings:
        case Median():
            yield from _middle(units, ranked, n_present)
        case TrimmedMean():
            for place, (here, count) in enumerate(_counted(units, ranked)):
                inside = here & (count > f) & (count <= n_present - f)
                yield _weights(units, ranked, place) * inside if counts_weights(settings) else inside.to(ranked.values)
        case Meamed():
            first = _first_kept(units, ranked, settings.f, n_present - f)
            for here, count in _counted(units, ranked):
                yield (here & (count > first) & (count <= first + n_present - f)).to(ranked.values)


def _counted(units: Units, ranked: Sorted) -> Iterator[tuple[Tensor, Tensor]]:
    """For each place: whether a unit of the coalition is there, bool ``(E, C, P)``, and how many of them are up to there.

    The last dimension is 1 where all coordinates have the same answer.
    """
    n_present = units.present.sum(dim=-1, keepdim=True).int()
    count = torch.zeros_like(n_present)
    for place in range(ranked.values.shape[2]):
        here = place < n_present if ranked.owners is None else ranked.at(place, units.present)
        count = count + here
        yield here, count


def _weights(units: Units, ranked: Sorted, place: int) -> Tensor:
    return ranked.at(place, units.weight.expand(units.present.shape)).to(ranked.values)


def _middle(units: Units, ranked: Sorted, n_present: Tensor) -> Iterator[Tensor]:
    lower, upper = (n_present + 1) // 2, n_present // 2 + 1
    for here, count in _counted(units, ranked):
        yield (here & (count == lower)).to(ranked.values) + (here & (count == upper))


def _middle_by_weight(units: Units, ranked: Sorted) -> Iterator[Tensor]:
    weight = torch.where(units.present, units.weight, 0.0)
    half = total(weight)[..., None] / 2  # (E, C, 1)
    before: Tensor = torch.zeros_like(half)
    for place in range(ranked.values.shape[2]):
        after = before + ranked.at(place, weight)
        low, high = half * (1 - 2 * _SAME), half * (1 + 2 * _SAME)
        yield ((before < low) & (after >= low)).to(ranked.values) + ((before <= high) & (after > high))
        before = after


def _first_kept(units: Units, ranked: Sorted, f: int, n_kept: Tensor) -> Tensor:
    """How many of a coalition's smallest values are farther from its median than the n_kept nearest, ``(E, C, P)``."""
    own = _own_order(units, ranked)
    n_present = units.present.sum(dim=-1, keepdim=True)
    shape = own[:, :, 0].shape

    def at(rank: Tensor) -> Tensor:
        return own.gather(2, rank.clamp(min=0, max=own.shape[2] - 1).long()[:, :, None].expand(*shape[:2], 1, shape[2]))[:, :, 0]

    ends = at((n_present - 1) // 2) + at(n_present // 2)  # twice the median; so written, equal distances by construction are equal
    first = torch.zeros(shape, dtype=torch.int32, device=own.device)
    for i in range(f):
        exchanged = at(torch.full_like(n_kept, i)) + at(n_kept + i) < ends  # the smaller of the two is farther from the median
        first = first + (exchanged & (n_kept + i < n_present))
    return first


def _own_order(units: Units, ranked: Sorted) -> Tensor:
    """Each coalition's values from the smallest to the largest, ``(E, C, ≥ U, P)``; what follows the last has no meaning."""
    if ranked.owners is None:
        return ranked.values
    n_envs, n_coalitions, n_units = units.present.shape
    own = ranked.values.new_zeros(n_envs, n_coalitions, n_units + 1, ranked.values.shape[-1])
    for place, (here, count) in enumerate(_counted(units, ranked)):
        rank = torch.where(here, count - 1, n_units).long()
        own.scatter_(2, rank[:, :, None], ranked.values[:, :, place].expand_as(here)[:, :, None])
    return own


def _sorted(items: list[Tensor]) -> list[Tensor]:
    """Tensors sorted entry by entry: Batcher's merge exchange, whose every step is a minimum and a maximum of whole tensors.

    References:
        Knuth (1998), *The art of computer programming*, volume 3, algorithm 5.2.2M.
    """
    n_items = len(items)
    top = 1 << max(0, (n_items - 1).bit_length() - 1)
    p = top
    while p > 0:
        q, r, d = top, 0, p
        while True:
            for i in range(n_items - d):
                if i & p == r:
                    items[i], items[i + d] = torch.minimum(items[i], items[i + d]), torch.maximum(items[i], items[i + d])
            if q == p:
                break
            d, q, r = q - p, q >> 1, p
        p >>= 1
    return items
