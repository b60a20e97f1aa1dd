r"""Semivalues: averages of a player's marginal contributions, weighted by the size of the coalition that it joins.

.. math:: \phi_i = \sum_{S \subseteq N \setminus i} p_{|S|} \, [v(S \cup i) - v(S)], \qquad \sum_{s=0}^{n-1} \binom{n-1}{s} p_s = 1

Shapley, Banzhaf and Beta-Shapley values differ only in p. All of them are linear in v, so a batch of games costs one matrix product. Games
of 15 to 20 players are streamed in blocks of coalitions, so that memory stays bounded. Within a block, the players from the 15th on are all
fixed as members or not.

References:
    Dubey, Neyman & Weber (1981), *Value theory without efficiency*, Mathematics of Operations Research 6(1).
"""

from __future__ import annotations

import reprlib
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
    """Shapley's p_s = s!(n−s−1)!/n! = 1/(n C(n−1, s)): all sizes count the same, and so do all coalitions of one size."""
    return tuple(1 / (n * comb(n - 1, s)) for s in range(n))


def banzhaf_weights(n: int) -> SizeWeights:
    """Banzhaf's p_s = 2^−(n−1): all coalitions count the same."""
    return (2.0 ** -(n - 1),) * n


def players_of(v: Tensor, most: int) -> int:
    """The number of players of a batch of games, from the worth of every coalition.

    Args:
        v: Coalition values, ``(batch, 2**n)``.
        most: Largest n.

    Raises:
        ValueError: If ``v`` is no tensor of real numbers, or the number of its columns is not 2**n for an n from 1 to ``most``.
    """
    if not isinstance(v, Tensor) or v.is_complex():
        raise ValueError(f"v={reprlib.repr(v)}: must be a tensor of real numbers, (batch, 2**n), such as torch.tensor([[0.0, 1.0]])")
    n = v.shape[-1].bit_length() - 1 if v.dim() == 2 else 0
    if not 1 <= n <= most or v.shape[-1] != 2**n:
        raise ValueError(f"v must have shape (batch, 2**n) with n from 1 to {most}, got {tuple(v.shape)}")
    return n


def semivalues(v: Tensor, weights: SizeWeights) -> Tensor:
    """The semivalue of each player, for a batch of games.

    Args:
        v: Coalition values, ``(batch, 2**n)``, in any unit. Bit ``i`` of the column says whether player ``i`` is in.
        weights: p, one number for each size from 0 to n − 1.

    Returns:
        ``(batch, n)``, same unit, in double precision if ``v`` holds whole numbers.

    Raises:
        ValueError: If the number of columns is not 2**n for the n of ``weights``, or n is not within 1..20.
    """
    n = players_of(v, MAX_ENUMERATED)
    if len(weights) != n:
        raise ValueError(f"weights must hold one number a size, {n} for {n} players, got {len(weights)}")
    v = v if v.is_floating_point() else v.double()
    if n <= BLOCK_PLAYERS:
        return v @ _marginal_weights(weights, v.dtype, v.device).T
    size = 2**BLOCK_PLAYERS
    return _streamed(((first, v[:, first : first + size]) for first in range(0, 2**n, size)), weights)


def semivalue(game: CoalitionGame, weights: SizeWeights) -> Tensor:
    """The semivalue of each player of a game, ``(n_envs, n_players)``. Beyond 14 players, memory does not grow with 2^n.

    Raises:
        ValueError: If there are more than 20 players.
    """
    if game.n_players <= BLOCK_PLAYERS:
        return semivalues(game.values(), weights)
    return _streamed(game.blocks(), weights)


@lru_cache(maxsize=32)
def _marginal_weights(weights: SizeWeights, dtype: torch.dtype, device: torch.device) -> Tensor:
    """Matrix W with φ = v Wᵀ, ``(n, 2**n)``: every coalition's total weight in each player's value."""
    with torch.inference_mode(False):  # the cache may be filled in inference mode, and outlives it
        # a coalition's weights lie side by side, so that products read memory in order
        return _block_weights(weights, len(weights), 0)[:-2].to(dtype=dtype, device=device).T.contiguous().T


def _block_weights(weights: SizeWeights, n_low: int, n_high: int) -> Tensor:
    """The weight of each coalition of a block in each player's value, double ``(n_low + 2, 2**n_low)``.

    A block holds every coalition of ``n_low`` players, joined by the same ``n_high`` others. There is one row for each of the ``n_low``
    players. The last two rows are for a player outside the block: one for a player who is in, one for a player who is not.
    """
    size = coalition_matrix(n_low).sum(dim=1) + n_high  # (2**n_low,)
    joins = torch.tensor([0.0, *weights], dtype=torch.float64)[size]  # p_{s−1}: S was formed by i's joining
    stays = torch.tensor([*weights, 0.0], dtype=torch.float64)[size]  # p_s: i could join S
    return torch.cat([torch.where(coalition_matrix(n_low).T, joins, -stays), joins[None], -stays[None]])


def _streamed(blocks: Iterable[tuple[int, Tensor]], weights: SizeWeights) -> Tensor:
    """The semivalue from blocks of all coalitions. Sums are kept in double precision."""
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
