"""The aggregate of every coalition, and every unit's part in one."""

from __future__ import annotations

from collections.abc import Callable
from typing import get_args

import torch
from torch import Tensor

from . import coordinates, mixtures
from .settings import AggregatorSettings, Clip, CoordinateSettings, Mean, MinimumDiameter, MixingSettings, counts_weights
from .sums import chunk, combined, gram
from .units import Units, prepared


def mixture(settings: AggregatorSettings, gram: Tensor, weight: Tensor, present: Tensor, order: Tensor) -> Tensor:
    """How much of each unit is in every coalition's aggregate. It does not depend on the number of parameters.

    Args:
        settings: A mixing aggregator.
        gram: Inner products of the units, double ``(E, n, n)``.
        weight: Their weights, at least 0, ``(E, n)``; counted where the settings say ``weighted``.
        present: Which units are in the coalitions, bool ``(E, C, n)``.
        order: Priorities in (0, 1) by which bucketing deals the units, the smallest first, ``(E, n)``.

    Returns:
        Coefficients, double ``(E, C, n)``: at least 0, in sum at most 1, 0 for absent units. The aggregate is ``coefficients @ vectors``.
        An empty coalition has zeros only.

    Raises:
        ValueError: If the aggregator does not mix.
    """
    if not isinstance(settings, MixingSettings):
        kinds = ", ".join(sorted(kind.model_fields["kind"].default for kind in get_args(MixingSettings)))
        raise ValueError(f"aggregator {settings.kind!r} is no mixture of updates: use aggregate, or one of {kinds}")
    n_branches = 2**settings.f if isinstance(settings, MinimumDiameter) else 1

    def coefficients(envs: slice, some: Tensor) -> Tensor:
        units = prepared(settings, gram[envs], weight[envs], some, order[envs])
        return units.of_originals(mixtures.coefficients(settings, units))

    return _in_turn(present, gram[0].numel() * max(1, n_branches // 8), coefficients)


def aggregate(settings: AggregatorSettings, vectors: Tensor, weight: Tensor, present: Tensor, order: Tensor) -> Tensor:
    """The aggregate of every coalition.

    Args:
        settings: The aggregator.
        vectors: The units, ``(E, n, P)``. Those that are in no coalition may hold anything.
        weight: As in :func:`mixture`.
        present: As in :func:`mixture`.
        order: As in :func:`mixture`.

    Returns:
        ``(E, C, P)``, in the units' dtype; 0 for an empty coalition.
    """
    vectors = _without_strangers(vectors, present)
    if isinstance(settings, MixingSettings):
        return combined(mixture(settings, _products(settings, vectors), weight, present, order), vectors)
    products = _products(settings, vectors)
    shared = all(isinstance(step, Clip) for step in settings.before)  # the same units in every coalition, sorted once
    ranked: dict[int, coordinates.Sorted] = {}

    def aggregates(envs: slice, some: Tensor) -> Tensor:
        units = prepared(settings, products[envs], weight[envs], some, order[envs])
        if not shared:
            return coordinates.aggregated(settings, units, _ranked(units, vectors[envs], counts_weights(settings)))
        if envs.start not in ranked:
            ranked.clear()
            ranked[envs.start] = _ranked(units, vectors[envs], owners=True)
        return coordinates.aggregated(settings, units, ranked[envs.start])

    return _in_turn(present, vectors.shape[-1], aggregates)


def parts(settings: AggregatorSettings, vectors: Tensor, weight: Tensor, present: Tensor, order: Tensor) -> Tensor:
    """Each unit's part in the aggregate of one coalition an environment.

    In a mixture it is the unit times its coefficient. Where every coordinate is taken by itself, each of the unit's coordinates has a
    coefficient of its own.

    Args:
        settings: The aggregator.
        vectors: The units, ``(E, n, P)``. Absent ones may hold anything.
        weight: As in :func:`mixture`.
        present: Which units are in the coalition, bool ``(E, n)``.
        order: As in :func:`mixture`.

    Returns:
        ``(E, n, P)``. The parts sum to the aggregate, but for rounding; that of an absent unit is 0.
    """
    present = present[:, None]
    vectors = _without_strangers(vectors, present)
    if isinstance(settings, MixingSettings):
        coefficients = mixture(settings, _products(settings, vectors), weight, present, order)
        return coefficients[:, 0, :, None].to(vectors) * vectors
    units = prepared(settings, _products(settings, vectors), weight, present, order)
    portions = coordinates.portions(settings, units, _ranked(units, vectors, owners=True))  # (E, U, P)
    if units.mixing is not None:
        portions = combined(units.mixing[:, 0].transpose(1, 2), portions)
    return portions * vectors


def _in_turn(present: Tensor, n_numbers: int, results: Callable[[slice, Tensor], Tensor]) -> Tensor:
    """Results of all coalitions, as many at once as memory allows.

    Args:
        present: Which units are in the coalitions, ``(E, C, n)``.
        n_numbers: How many numbers a coalition of an environment needs.
        results: Maps some environments, and some of their coalitions, to results ``(e, c, ...)``.
    """
    at_once = max(1, chunk(present.device) // max(1, n_numbers))
    n_envs = max(1, min(len(present), at_once))
    n_coalitions = max(1, at_once // n_envs)
    rows = []
    for envs in (slice(first, first + n_envs) for first in range(0, len(present), n_envs)):
        rows.append(torch.cat([results(envs, some) for some in present[envs].split(n_coalitions, dim=1)], dim=1))
    return torch.cat(rows)


def _without_strangers(vectors: Tensor, present: Tensor) -> Tensor:
    """The units, with zeros for those that are in no coalition."""
    return torch.where(present.any(dim=1)[..., None], vectors, 0.0)


def _products(settings: AggregatorSettings, vectors: Tensor) -> Tensor:
    """Inner products, ``(E, n, n)``; zeros where nothing asks for them."""
    if not settings.before and (isinstance(settings, CoordinateSettings | Mean)):
        return vectors.new_zeros(len(vectors), vectors.shape[1], vectors.shape[1], dtype=torch.float64)
    return gram(vectors)


def _ranked(units: Units, vectors: Tensor, owners: bool) -> coordinates.Sorted:
    """The units' coordinates in order, by the original vectors ``(E, n, P)``.

    The product has the same shape for every coalition, whatever is asked beside it.
    """
    if units.mixing is None:
        return coordinates.Sorted.of(vectors[:, None])
    mixed = units.mixing.to(vectors) @ vectors[:, None]  # (E, c, U, P)
    return coordinates.Sorted.of(mixed) if owners else coordinates.Sorted.of_coalitions(mixed, units.present)
