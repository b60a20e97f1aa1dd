"""Sums over units that are the same to the last bit whatever else is computed beside them.

A matrix product may add in another order when it has another shape, so that a coalition's aggregate would depend on how many coalitions
are asked at once, and an absent unit's zero could change how the others are added. Here terms are added one after another, in the order of
the units. Every operation is elementwise.
"""

from __future__ import annotations

from functools import reduce

import torch
from torch import Tensor

CHUNK = 2**22  # numbers that a temporary tensor may hold; as many for every unit, at times
_CACHE = 2**16  # the same on a processor: 256 KiB in float32, which its cache holds and its allocator uses again


def chunk(device: torch.device) -> int:
    """How many numbers a temporary tensor should hold on a device."""
    return _CACHE if device.type == "cpu" else CHUNK


def total(terms: Tensor) -> Tensor:
    """Sum over the last dimension, ``(..., n)`` → ``(...)``."""
    return reduce(torch.add, terms.unbind(dim=-1))


def product(left: Tensor, right: Tensor) -> Tensor:
    """Matrix product of a batch, ``(..., u, n)`` and ``(..., n, v)`` → ``(..., u, v)``."""
    terms = (a[..., None] * b[..., None, :] for a, b in zip(left.unbind(dim=-1), right.unbind(dim=-2), strict=True))
    return reduce(torch.add, terms)


def combined(coefficients: Tensor, vectors: Tensor) -> Tensor:
    """Combinations of an environment's vectors, ``(E, C, n)`` and ``(E, n, P)`` → ``(E, C, P)``, in bounded memory."""
    size = max(1, chunk(vectors.device) // max(1, vectors[:, 0].numel()))
    parts = [product(some, vectors) for some in coefficients.to(vectors).split(size, dim=1)]
    return parts[0] if len(parts) == 1 else torch.cat(parts, dim=1)


def gram(vectors: Tensor) -> Tensor:
    """Inner products of an environment's vectors, ``(E, n, P)`` → double ``(E, n, n)``.

    Equal vectors have equal rows to the last bit, so that twins tie.
    """
    n_envs, n_units, _ = vectors.shape
    products = vectors.new_empty(n_envs, n_units, n_units, dtype=torch.float64)
    size = max(1, CHUNK // max(1, vectors[:1].numel()))
    for envs in (slice(start, start + size) for start in range(0, n_envs, size)):
        some = vectors[envs].double()
        for i in range(n_units):
            first = max(0, min(i, n_units - 2))  # two rows at least: a single sum may be split between threads, in another order
            products[envs, i, first:] = products[envs, first:, i] = (some[:, first:] * some[:, i : i + 1]).sum(dim=-1)
    return products
