"""Which of several estimates is the largest, and whether that is certain. Tables, figures and sentences that rank all ask here."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from ..evaluate import Estimate


@dataclass(frozen=True)
class Ranking:
    """Estimates in the order of their means.

    Attributes:
        order: Indices of the estimates that have a mean, the largest first. Of equal means, the one that was given first comes first.
        rivals: Those of the others that may be as large as the first, in the same order: the interval of their distance to it covers 0, or
            is unknown.
    """

    order: tuple[int, ...]
    rivals: tuple[int, ...]

    @property
    def is_certain(self) -> bool:
        """Whether the first is the largest: there is a first one, and it has no rivals."""
        return bool(self.order) and not self.rivals


def rank(estimates: Sequence[Estimate], *, lead: Callable[[int, int], Estimate] | None = None, lowest_first: bool = False) -> Ranking:
    """Rank estimates by their means.

    Args:
        estimates: The estimates.
        lead: An estimate of the i-th minus the j-th, for estimates that are paired. By default they count as unpaired: the first is certain
            where its interval overlaps no other. That is stricter than a test at 5 %.
        lowest_first: Whether the smallest comes first.
    """
    sign = -1 if lowest_first else 1
    known = [(i, estimate.mean) for i, estimate in enumerate(estimates) if estimate.mean is not None]
    order = tuple(i for i, _ in sorted(known, key=lambda one: -sign * one[1]))

    def unpaired(i: int, j: int) -> Estimate:
        a, b = estimates[i], estimates[j]
        assert a.mean is not None
        assert b.mean is not None
        wide = None if a.half_width is None or b.half_width is None else a.half_width + b.half_width
        return Estimate(a.mean - b.mean, wide)

    leads = {j: (lead or unpaired)(order[0], j) for j in order[1:]}
    return Ranking(order, tuple(j for j, found in leads.items() if not is_beyond(found, above=sign > 0)))


def is_beyond(estimate: Estimate, limit: float = 0.0, *, above: bool = True) -> bool:
    """Whether a whole interval lies above a limit, or below it. Never if there is no interval: then nothing is certain."""
    if estimate.mean is None or estimate.half_width is None:
        return False
    distance = estimate.mean - limit if above else limit - estimate.mean
    return distance > estimate.half_width
