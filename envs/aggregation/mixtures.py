"""Aggregators that mix units: how much of each unit is in the aggregate, by inner products alone."""

from __future__ import annotations

import torch
from torch import Tensor

from .diameter import smallest_set
from .settings import CenteredClipping, GeometricMedian, Krum, Mean, MinimumDiameter, MixingSettings, MultiKrum
from .sums import total
from .units import Units, nearest, withstood


def coefficients(settings: MixingSettings, units: Units) -> Tensor:
    """How much of each unit is in each coalition's aggregate, double ``(E, C, U)``: at least 0, in sum at most 1, 0 if absent."""
    match settings:
        case Mean():
            return _shares(units)
        case Krum():
            return _best(units, settings.f, torch.ones_like(units.present[..., 0], dtype=torch.int64))
        case MultiKrum():
            most = units.present.sum(dim=-1) - withstood(settings.f, units.present)
            return _best(units, settings.f, most if settings.selected is None else most.clamp(max=settings.selected))
        case GeometricMedian():
            return _geometric_median(units, settings.nu, settings.iterations)
        case CenteredClipping():
            return _centered_clipping(units, settings.radius, settings.iterations)
        case MinimumDiameter():
            return _mean_of(smallest_set(units, settings.f))


def _shares(units: Units) -> Tensor:
    """Each unit's share of its coalition's weight, ``(E, C, U)``."""
    weight = torch.where(units.present, units.weight, 0.0)
    whole = total(weight)
    return weight / torch.where(whole > 0, whole, 1.0)[..., None]


def _mean_of(chosen: Tensor) -> Tensor:
    """Equal parts of some units, bool ``(E, C, U)``."""
    return chosen.double() / chosen.sum(dim=-1, keepdim=True).clamp(min=1)


def _best(units: Units, f: int, n_best: Tensor) -> Tensor:
    """Equal parts of the units with the smallest Krum scores: as many as wanted, ``(E, C)``."""
    n_neighbours = (units.present.sum(dim=-1) - withstood(f, units.present) - 2).clamp(min=1)
    _, distances, counted = nearest(units, n_neighbours, itself=False)
    score = total(torch.where(counted, distances, 0.0))  # (E, C, U)
    ranked = torch.where(units.present, score, torch.inf).argsort(dim=-1, stable=True)
    place = torch.arange(ranked.shape[-1], device=ranked.device)
    chosen = torch.zeros_like(units.present).scatter_(-1, ranked, place < n_best[..., None])
    return _mean_of(chosen & units.present)


def _geometric_median(units: Units, nu: float, iterations: int) -> Tensor:
    share = _shares(units)
    z = torch.zeros_like(share)
    for _ in range(iterations):
        beta = share / _distances_to(units, z).clamp(min=nu)
        whole = total(beta)
        z = beta / torch.where(whole > 0, whole, 1.0)[..., None]
    return z


def _centered_clipping(units: Units, radius: float, iterations: int) -> Tensor:
    share = _shares(units)
    z = torch.zeros_like(share)
    for _ in range(iterations):
        kept = share * (radius / _distances_to(units, z)).clamp(max=1)
        z = z * (1 - total(kept))[..., None] + kept
    return z


def _distances_to(units: Units, z: Tensor) -> Tensor:
    """Distances of the units to a combination of them, by its coefficients, ``(E, C, U)`` each.

    Distances below 1e-8 of the units' norms are lost to rounding.
    """
    inner = total(units.gram * z[..., None, :])  # (E, C, U)
    squared = units.gram.diagonal(dim1=-2, dim2=-1) - 2 * inner + total(inner * z)[..., None]
    return squared.clamp(min=0).sqrt()
