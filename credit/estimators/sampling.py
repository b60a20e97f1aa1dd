"""Drawing coalitions: orders in which players join, and sets of given sizes.

Every draw treats players alike: renaming the players does not change its distribution. So, given how often a player was drawn, the others
drawn with it are still uniform, and a plain mean over those draws is unbiased.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import combinations
from math import comb, floor

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ..games.game import packed

Rows = NDArray[np.bool_]
"""Coalitions, bool ``(m, n_players)``."""


def random_orders(n: int, count: int, generator: np.random.Generator) -> NDArray[np.intp]:
    """Uniformly random permutations, ``(count, n)``: who joins first, who second, and so on."""
    return generator.permuted(np.tile(np.arange(n), (count, 1)), axis=1)


def positions(orders: NDArray[np.intp]) -> NDArray[np.intp]:
    """When each player joins, from 0, in orders ``(m, n)``: ``(m, n)``."""
    return np.argsort(orders, axis=1)


def prefixes(position: NDArray[np.intp]) -> Rows:
    """Who is there after the first, second, … (n−1)-th player has joined: :func:`positions` ``(m, n)`` → bool ``(m, n − 1, n)``."""
    return position[:, None, :] <= np.arange(position.shape[1] - 1)[:, None]


def marginals(first: Tensor, worth: Tensor, last: Tensor, position: NDArray[np.intp]) -> Tensor:
    """What each player's joining changes in each order.

    Args:
        first: Worth of no player, ``(E, K, 1)``.
        worth: Worth of the first, the first two, … the first n − 1 players of each order, ``(E, K, n − 1)``.
        last: Worth of all players, ``(E, K, 1)``.
        position: When each player joins, ``(K, n)``, by :func:`positions`.

    Returns:
        ``(E, K, n)``, by player.
    """
    steps = torch.cat([first, worth, last], dim=2).diff(dim=2)  # of who joins at each position
    return steps.gather(2, torch.from_numpy(position).to(steps.device).expand_as(steps))


def affordable(groups: Rows, budget: int) -> tuple[int, int]:
    """How many groups of coalitions, ``(K, m, n)``, hold no more than ``budget`` distinct coalitions; taken in order, at least one.

    Returns:
        Their number, and how many distinct coalitions they hold.
    """
    fresh = first_seen(groups.reshape(-1, groups.shape[-1])).reshape(len(groups), -1).sum(axis=1)  # new ones in each group
    count = max(1, int((fresh.cumsum() <= budget).sum()))
    return count, int(fresh[:count].sum())


def first_seen(rows: Rows) -> NDArray[np.bool_]:
    """Which rows did not occur before: bool ``(m,)``."""
    _, first = np.unique(packed(rows), return_index=True)
    fresh = np.zeros(len(rows), dtype=bool)
    fresh[first] = True
    return fresh


def tensor(rows: Rows) -> Tensor:
    """The coalitions as games take them, bool ``(m, n)``."""
    return torch.from_numpy(np.ascontiguousarray(rows))


def allocate(total: int, share: Sequence[float], least: Sequence[int], most: Sequence[int]) -> list[int]:
    """Divide draws among strata in proportion to ``share``, within ``least`` and ``most`` of each.

    Draws that cannot be placed because all strata are at their most are left out. Fractions go to the largest remainders.

    Args:
        total: Number of draws, at least the sum of ``least``.
        share: Wanted proportions, non-negative.
        least: Fewest draws of each stratum.
        most: Most draws of each stratum.

    Returns:
        Draws of each stratum, summing to ``min(total, sum(most))``.
    """
    wanted = bounded_shares(total, share, least, most)
    counts = [floor(x + 1e-9) for x in wanted]
    by_remainder = sorted(range(len(counts)), key=lambda j: counts[j] - wanted[j])  # stable: ties go to the earlier stratum
    spare = min(total, sum(most)) - sum(counts)
    for j in by_remainder:
        if spare <= 0:
            break
        if counts[j] < most[j]:
            counts[j] += 1
            spare -= 1
    return counts


def bounded_shares(total: float, share: Sequence[float], least: Sequence[float], most: Sequence[float]) -> list[float]:
    """As :func:`allocate`, in fractions of a draw."""
    n = len(share)
    result = [0.0] * n
    free = set(range(n))
    left = float(total)
    while free:
        weight = sum(share[j] for j in free)
        wanted = {j: left * share[j] / weight if weight > 0 else 0.0 for j in free}
        over = {j for j in free if wanted[j] > most[j]}
        under = {j for j in free if wanted[j] < least[j]}
        # settle the side that is further out first: this can bring the other side back within its bounds
        excess = sum(wanted[j] - most[j] for j in over) - sum(least[j] - wanted[j] for j in under)
        settled, bound = (over, most) if over and excess >= 0 else (under, least)
        if not settled:
            for j in free:
                result[j] = wanted[j]
            break
        for j in settled:
            result[j] = float(bound[j])
            left -= bound[j]
        free -= settled
    return result


def covering(n: int, size: int) -> int:
    """How many sets of a size, up to n/2, it takes to put every player in one and outside of one."""
    return -(-n // size)


def subsets(n: int, size: int, count: int, generator: np.random.Generator, *, halves: bool = False) -> Rows:
    """Distinct random sets of one size, at most n/2, drawn one by one.

    If such a draw leaves some player out of all sets, or in all of them, although the count allows otherwise, the sets are drawn by
    :func:`balanced_subsets` instead.

    Args:
        n: Number of players.
        size: Number of players of each set, from 1 to n/2.
        count: Number of sets, at most C(n, size).
        generator: Source of randomness.
        halves: For size n/2, count a set and its complement as the same.

    Returns:
        bool ``(count, n)``.
    """
    rows, _ = _grown(np.zeros((0, n), dtype=bool), n, size, count, 1, generator, halves)
    uncovered = (~rows.any(axis=0) | rows.all(axis=0)).any() and not halves
    return balanced_subsets(n, size, count, generator)[0] if uncovered and count >= covering(n, size) else rows


def balanced_subsets(
    n: int, size: int, count: int, generator: np.random.Generator, *, halves: bool = False
) -> tuple[Rows, NDArray[np.intp]]:
    """As :func:`subsets`, but cut from random orders, so that all players are in about equally many of them.

    Sets of one order are disjoint, so their worths are not independent. The first ⌈n/size⌉ sets leave nobody out.

    Returns:
        bool ``(count, n)``, and the order that each set was cut from, ``(count,)``.
    """
    order = generator.permutation(n)
    whole, left = divmod(n, size)
    groups = [order[k * size : (k + 1) * size] for k in range(whole)]
    if left:  # the players left over are joined by others
        groups.append(np.concatenate([order[whole * size :], generator.permutation(order[: whole * size])[: size - left]]))
    return _grown(_members(np.stack(groups), n), n, size, count, whole, generator, halves)


def _grown(
    rows: Rows, n: int, size: int, count: int, per_order: int, generator: np.random.Generator, halves: bool
) -> tuple[Rows, NDArray[np.intp]]:
    """The given sets, which are from one order, and more until ``count`` are distinct: ``per_order`` from each further order."""
    available = comb(n, size) // (2 if halves else 1)
    origin = np.zeros(len(rows), dtype=np.intp)
    n_orders = 1
    while True:
        if halves:  # a set stands for its complement too: take the one with player 0
            rows = rows ^ ~rows[:, :1]
        new = np.flatnonzero(first_seen(rows))[:count]
        rows, origin = rows[new], origin[new]
        missing = count - len(rows)
        if not missing:
            return rows, origin
        if 2 * count >= available:  # most sets of this size: list them all
            players = np.array(list(combinations(range(n), size)))
            listed = _members(players[players[:, 0] == 0] if halves else players, n)
            others = listed[~np.isin(packed(listed), packed(rows))]
            rows = np.concatenate([rows, others[generator.permutation(len(others))[:missing]]])
            return rows, np.concatenate([origin, n_orders + np.arange(missing)])
        more = missing // per_order + 1
        players = random_orders(n, more, generator)[:, : per_order * size].reshape(-1, size)
        rows = np.concatenate([rows, _members(players, n)])
        origin = np.concatenate([origin, n_orders + np.repeat(np.arange(more), per_order)])
        n_orders += more


def _members(players: NDArray[np.intp], n: int) -> Rows:
    rows = np.zeros((len(players), n), dtype=bool)
    np.put_along_axis(rows, players, True, axis=1)
    return rows
