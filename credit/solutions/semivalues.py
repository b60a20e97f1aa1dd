r"""Semivalues: averages of a player's marginal contributions, weighted by the size of the coalition that it joins.

.. math:: \phi_i = \sum_{S \subseteq N \setminus i} p_{|S|} \, [v(S \cup i) - v(S)], \qquad \sum_{s=0}^{n-1} \binom{n-1}{s} p_s = 1

Shapley, Banzhaf and Beta-Shapley values differ only in p. All of them are linear in v, so a batch of games costs one matrix
product; games of more than 14 players are streamed in blocks of coalitions in which the players from the 15th on are fixed, so
that memory stays bounded up to 20 players.

References:
    Dubey, Neyman & Weber (1981), *Value theory without efficiency*, Mathematics of Operations Research 6(1).
"""

from __future__ import annotations

from collections.abc import Iterable
from functools import lru_cache
from math import comb

import torch
from torch import Tensor

from ..games.game import BLOCK_PLAYERS, MAX_ENUMERATED, CoalitionGame, coalition_matrix

SizeWeights = tuple[float, ...]
"""p_0 … p_{n−1}: the weight of one marginal contribution to one coalition of that size."""


@lru_cache(maxsize=64)
def shapley_weights(n: int) -> SizeWeights:
    """s!(n−s−1)!/n! = 1/(n C(n−1, s)): every size alike, and every coalition of a size alike."""
    return tuple(1 / (n * comb(n - 1, s)) for s in range(n))


def banzhaf_weights(n: int) -> SizeWeights:
    """2^−(n−1): every coalition alike."""
    return (2.0 ** -(n - 1),) * n


def semivalues(v: Tensor, weights: SizeWeights) -> Tensor:
    """The semivalue of each player, for a batch of games.

    Args:
        v: Coalition values, ``(batch, 2**n)``, in any unit. Bit ``i`` of the column says whether player ``i`` is in.
        weights: p, one number a size from 0 to n − 1.

    Returns:
        ``(batch, n)``, same unit, in double precision if ``v`` holds whole numbers.

    Raises:
        ValueError: If the number of columns is not 2**n for the n of ``weights``, or n is not within 1..20.
    """
    n = v.shape[-1].bit_length() - 1
    if v.dim() != 2 or v.shape[-1] != 2**n or not 1 <= n <= MAX_ENUMERATED:
        raise ValueError(f"v must have shape (batch, 2**n) with n from 1 to {MAX_ENUMERATED}, got {tuple(v.shape)}")
    if len(weights) != n:
        raise ValueError(f"weights must hold one number a size, {n} for {n} players, got {len(weights)}")
    v = v if v.is_floating_point() else v.double()
    if n <= BLOCK_PLAYERS:
        return v @ _marginal_weights(weights, v.dtype, v.device).T
    size = 2**BLOCK_PLAYERS
    return _streamed(((first, v[:, first : first + size]) for first in range(0, 2**n, size)), weights)


def semivalue(game: CoalitionGame, weights: SizeWeights) -> Tensor:
    """The semivalue of each player of a game, ``(n_envs, n_players)``, in memory that does not grow with 2^n beyond 14 players.

    Raises:
        ValueError: If there are more than 20 players.
    """
    if game.n_players <= BLOCK_PLAYERS:
        return semivalues(game.values(), weights)
    return _streamed(game.blocks(), weights)


@lru_cache(maxsize=32)
def _marginal_weights(weights: SizeWeights, dtype: torch.dtype, device: torch.device) -> Tensor:
    """Matrix W with φ = v Wᵀ, ``(n, 2**n)``: every coalition's total weight in each player's value."""
    with torch.inference_mode(False):  # the cache outlives an inference mode in which it happens to be filled
        # columns of a coalition side by side: products with it then run through memory in order
        return _block_weights(weights, len(weights), 0)[:-2].to(dtype=dtype, device=device).T.contiguous().T


def _block_weights(weights: SizeWeights, n_low: int, n_high: int) -> Tensor:
    """Weights of the coalitions of n_low players, joined by n_high more, in the value of …: ``(n_low + 2, 2**n_low)``, double.

    A row for each of the n_low players, and two last rows: for each player outside the block who is in, and for each who is not.
    """
    size = coalition_matrix(n_low).sum(dim=1) + n_high  # (2**n_low,)
    joins = torch.tensor([0.0, *weights], dtype=torch.float64)[size]  # p_{s−1}: S was formed by i's joining
    stays = torch.tensor([*weights, 0.0], dtype=torch.float64)[size]  # p_s: i could join S
    return torch.cat([torch.where(coalition_matrix(n_low).T, joins, -stays), joins[None], -stays[None]])


def _streamed(blocks: Iterable[tuple[int, Tensor]], weights: SizeWeights) -> Tensor:
    """The semivalue from blocks of all coalitions; sums are kept in double precision."""
    n, low = len(weights), BLOCK_PLAYERS
    cached: dict[int, Tensor] = {}
    total: Tensor | None = None
    dtype = torch.float64
    for first, v in blocks:
        dtype = v.dtype
        high = torch.tensor([first >> i & 1 for i in range(low, n)], dtype=torch.bool)  # (n − low,)
        n_high = int(high.sum())
        if n_high not in cached:
            cached[n_high] = _block_weights(weights, low, n_high).to(v.device)
        part = v.double() @ cached[n_high].T  # (n_envs, low + 2)
        others = torch.where(high.to(v.device), part[:, low, None], part[:, low + 1, None])  # (n_envs, n − low)
        part = torch.cat([part[:, :low], others], dim=1)
        total = part if total is None else total + part
    assert total is not None
    return total.to(dtype)
