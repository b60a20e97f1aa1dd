r"""The m − f units of a coalition whose largest distance to each other is least.

Trying all :math:`\binom{m}{f}` sets is not needed. As long as the two units that are farthest apart both stay, the diameter is their
distance; so to do better, one of the two must go. Following both ways f times gives at most :math:`2^f` sets, and one of them is best.
"""

from __future__ import annotations

import torch
from torch import Tensor

from .units import Units, squared_distances, withstood


def smallest_set(units: Units, f: int) -> Tensor:
    """The units that stay, bool ``(E, C, U)``. Of several best sets it is the first in lexicographic order.

    Args:
        units: The units.
        f: How many go, at most; fewer where the coalition does not withstand f.
    """
    f = min(f, (units.present.shape[-1] - 1) // 2)
    if f == 0:
        return units.present
    removed = withstood(f, units.present)
    pairs = _Pairs(units)
    least = pairs.farthest(_branches(pairs, units.present, removed, f, None)).amin(dim=-1)  # (E, C)
    kept = _branches(pairs, units.present, removed, f, least)  # (E, C, B, U)
    surplus = kept.sum(dim=-1) - (units.present.sum(dim=-1) - removed)[..., None]  # (E, C, B)
    from_last = kept.flip(-1).cumsum(dim=-1).flip(-1)
    tight = kept & (from_last > surplus[..., None])
    return _first(tight, pairs.farthest(kept) <= least[..., None])


class _Pairs:
    """All pairs of units, from the farthest to the nearest."""

    def __init__(self, units: Units) -> None:
        n_units = units.present.shape[-1]
        self.device = units.present.device
        one, other = torch.triu_indices(n_units, n_units, offset=1, device=self.device)
        distances, ranking = squared_distances(units.gram)[..., one, other].sort(dim=-1, descending=True, stable=True)
        self.one, self.other = one[ranking], other[ranking]  # (E, c, pairs)
        nothing = torch.full_like(distances[..., :1], -1.0)
        self.distances = torch.cat([distances, nothing], dim=-1)  # the last stands for no pair at all

    def first(self, kept: Tensor) -> Tensor:
        """The place of the farthest pair within each set of units, bool ``(E, C, B, U)`` → int64 ``(E, C, B)``."""
        both = self._ends(kept, self.one) & self._ends(kept, self.other)  # (E, C, B, pairs)
        both = torch.cat([both, torch.ones_like(both[..., :1])], dim=-1)
        return both.byte().argmax(dim=-1)

    def farthest(self, kept: Tensor) -> Tensor:
        """The squared diameter of each set of units, ``(E, C, B)``; −1 for sets of fewer than two."""
        return self._at(self.distances, self.first(kept))

    def split(self, kept: Tensor, place: Tensor) -> Tensor:
        """Each set without one end of a pair, and without the other: ``(E, C, B, U)`` → ``(E, C, 2B, U)``."""
        ends = [self._at(end, place.clamp(max=end.shape[-1] - 1))[..., None] for end in (self.one, self.other)]
        index = torch.arange(kept.shape[-1], device=self.device)
        return torch.cat([kept & (index != end) for end in ends], dim=2)

    def _ends(self, kept: Tensor, ends: Tensor) -> Tensor:
        shape = (*kept.shape[:3], ends.shape[-1])
        return kept.gather(-1, ends[:, :, None].expand(shape))

    def _at(self, table: Tensor, place: Tensor) -> Tensor:
        return table.expand(*place.shape[:2], table.shape[-1]).gather(-1, place)


def _branches(pairs: _Pairs, present: Tensor, removed: Tensor, f: int, enough: Tensor | None) -> Tensor:
    """The sets at the ends of the branches, bool ``(E, C, 2**f, U)``.

    Args:
        pairs: The pairs of units.
        present: The units of each coalition, ``(E, C, U)``.
        removed: How many go at most, ``(E, C)``.
        f: The largest of these.
        enough: A squared diameter below which no more units go, ``(E, C)``; ``None`` for no such diameter.
    """
    kept = present[:, :, None]
    for t in range(f):
        place = pairs.first(kept)
        going = (t < removed)[..., None] & (place < pairs.one.shape[-1])
        if enough is not None:
            going = going & (pairs.farthest(kept) > enough[..., None])
        kept = torch.where(going.repeat(1, 1, 2)[..., None], pairs.split(kept, place), kept.repeat(1, 1, 2, 1))
    return kept


def _first(sets: Tensor, allowed: Tensor) -> Tensor:
    """The allowed set that comes first in lexicographic order: bool ``(E, C, B, U)``, ``(E, C, B)`` → ``(E, C, U)``."""
    for i in range(sets.shape[-1]):
        with_it = allowed & sets[..., i]
        allowed = torch.where(with_it.any(dim=-1, keepdim=True), with_it, allowed)
    return sets.gather(2, allowed.byte().argmax(dim=-1)[..., None, None].expand(-1, -1, 1, sets.shape[-1]))[:, :, 0]
