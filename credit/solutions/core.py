"""Allocations that leave coalitions the least to complain about: the least core and the nucleolus."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from ..games.game import CoalitionGame, coalition_matrix
from ..rule import RULES, WholeGameRule
from .excess import FLAT, TOLERANCE, Floats, Settled, smallest_largest_excess

MAX_PLAYERS = 12


def least_core(v: Floats) -> tuple[Floats, float]:
    r"""The shortest allocation in the least core of one game, and the excess that it leaves.

    .. math:: e^* = \min_{x, e} e \quad \text{s.t.} \quad x(N) = v(N), \quad x(S) + e \ge v(S) \;\; \forall\, \emptyset \ne S \ne N

    and then min ‖x‖₂ among the allocations with that excess.

    Args:
        v: Worth of every coalition, ``(2**n,)``, bit i of the index for player i.

    Returns:
        x, ``(n,)``, and e*, in the unit of v; e* is negative if the core has an interior, −∞ for a single player, who has nobody to
        share with. Both are right to about 1e-9 of the largest worth.

    Raises:
        ValueError: If the number of worths is not a power of two of 1 to 12 players, or one is not finite.

    References:
        Maschler, Peleg & Shapley (1979), *Geometric properties of the kernel, nucleolus, and related solution concepts*, Mathematics of
        Operations Research 4(4). Yan & Procaccia (2021), *If you like Shapley then you'll love the core*, AAAI, for data.
    """
    members, worth, settled, scale = _programme(v)
    if len(members) == 0:
        return settled.point * scale, -np.inf
    excess, tight, _ = smallest_largest_excess(members, worth, settled)
    settled.add(members[tight], worth[tight] - excess)
    # others may have this excess in every solution too, or hardly less in any: settled, they leave a set that is not flat
    while (rows := settled.open(members)).any():
        inner, tight, _ = smallest_largest_excess(members[rows], worth[rows], settled)
        if inner < excess - FLAT:
            break
        settled.add(members[rows][tight], worth[rows][tight] - inner)
    return settled.nearest_to_zero(members[rows], worth[rows] - excess) * scale, excess * scale


def nucleolus(v: Floats, *, individually_rational: bool = False) -> Floats:
    r"""The allocation whose excesses, from the largest down, are lexicographically the smallest, for one game.

    Args:
        v: Worth of every coalition, ``(2**n,)``, bit i of the index for player i.
        individually_rational: Compare only allocations that give every player at least v({i}), as Schmeidler does. Otherwise all
            efficient ones (the prenucleolus, which exists in every game). They coincide wherever the latter is individually rational.

    Returns:
        x, ``(n,)``, in the unit of v, right to about 1e-9 of the largest worth.

    Raises:
        ValueError: If the number of worths is not a power of two of 1 to 12 players, one is not finite, or ``individually_rational`` and
            the players alone are worth more than all together.

    References:
        Schmeidler (1969), *The nucleolus of a characteristic function game*, SIAM Journal on Applied Mathematics 17(6); Sobolev (1975)
        for the prenucleolus. Kopelowitz (1967) for the sequence of linear programmes.
    """
    members, worth, settled, scale = _programme(v)
    n = members.shape[1]
    floor = worth[(1 << np.arange(n)) - 1] if individually_rational and n > 1 else None
    if floor is not None:
        missing = floor.sum() - settled.point.sum()
        if missing > TOLERANCE:
            raise ValueError(
                f"the players alone are worth {floor.sum() * scale:.6g}, together {settled.point.sum() * scale:.6g}: no allocation is "
                "individually rational; use individually_rational=False"
            )
        floor = floor - max(missing, 0.0) / n
    while not settled.complete:
        rows = settled.open(members)
        members, worth = members[rows], worth[rows]
        excess, tight, at_floor = smallest_largest_excess(members, worth, settled, floor)
        settled.add(members[tight], worth[tight] - excess)
        if floor is not None:
            settled.add(np.eye(n)[at_floor], floor[at_floor])
    return settled.point * scale


def _programme(v: Floats) -> tuple[Floats, Floats, Settled, float]:
    """The proper coalitions, their worth, and x(N) = v(N), in units of the largest worth."""
    v = np.asarray(v, dtype=np.float64)
    n = v.size.bit_length() - 1
    if v.shape != (2**n,) or not 1 <= n <= MAX_PLAYERS:
        raise ValueError(f"v must have shape (2**n,) with n from 1 to {MAX_PLAYERS}, got {v.shape}")
    if not np.isfinite(v).all():
        raise ValueError(f"{(~np.isfinite(v)).sum()} of the {v.size} coalitions have no finite worth: excesses need one of every coalition")
    v = v - v[0]
    scale = float(np.abs(v).max()) or 1.0
    v = v / scale
    return coalition_matrix(n)[1:-1].double().numpy(), v[1:-1], Settled(float(v[-1]), n), scale


def _each(game: CoalitionGame, solve: Callable[[Floats], Floats]) -> Tensor:
    """A linear programme can't be batched: one game after another."""
    v = game.values()
    paid = [torch.from_numpy(solve(one)) for one in v.double().cpu().numpy()]
    return torch.stack(paid).to(v) if paid else v.new_zeros(0, game.n_players)


@RULES.register("least_core")
class LeastCore(WholeGameRule):
    r"""The shortest allocation in the least core: the coalition with most to complain about has as little as can be.

    .. math:: c = \arg\min_{x \in X^*} \lVert x \rVert_2, \qquad X^* = \{x : x(N) = v(N),\; x(S) \ge v(S) - e^* \;\forall S\}

    with e* the smallest e for which there is such an x. If the core is not empty, c is in it, and nobody gains by leaving. Costs 2^n
    evaluations and a linear programme for each environment, n ≤ 12. Efficient, symmetric and null-player, all to about 1e-9 of the
    largest worth, the programmes' tolerance; not linear. Its known failure is the tie: among allocations that satisfy coalitions alike,
    the shortest one pays most evenly, whoever did the work.

    Null-player holds even if the core is empty, and anywhere in the least core. For a null agent i, x_i + e* ≥ 0 and x(N∖i) + e* ≥ v(N)
    give e* ≥ 0. The coalitions with a positive dual all have the excess e*, and are balanced, so that one of them, T, holds i and
    another, S, does not. T∖i is worth what T is and has no larger excess, so x_i ≤ 0 (or T = {i}, and x_i = −e*); S∪i is worth what S is
    and has no larger excess, so x_i ≥ 0 (or S = N∖i, and x_i = e*).

    References:
        Maschler, Peleg & Shapley (1979), Mathematics of Operations Research 4(4); Yan & Procaccia (2021), AAAI.
    """

    source = "Maschler, Peleg & Shapley 1979"
    efficient = True
    symmetric = True
    null_player = True
    max_players = MAX_PLAYERS

    def divide(self, game: CoalitionGame) -> Tensor:
        """The allocation, ``(n_envs, n_players)``."""
        return _each(game, lambda v: least_core(v)[0])


@RULES.register("nucleolus")
class Nucleolus(WholeGameRule):
    r"""The allocation whose excesses, from the largest down, are lexicographically the smallest.

    .. math:: c = \operatorname{lexmin}_{x(N) = v(N)} \; \theta(x), \qquad \theta(x) = \text{the } v(S) - x(S) \text{ in descending order}

    There is exactly one. It is in the core if there is a core, and among all efficient allocations unless ``individually_rational``
    asks for Schmeidler's original domain. Costs 2^n evaluations and up to n − 1 linear programmes for each environment, n ≤ 12.
    Efficient, symmetric and null-player; not linear and not monotone, which is its known failure: an agent can do better work, all
    else equal, and be paid less (Megiddo 1974).

    Args:
        individually_rational: Give every player at least v({i}). In games where the players alone are worth more than together, which
            is common where their data are redundant, nothing does, and that is an error.

    References:
        Schmeidler (1969), SIAM Journal on Applied Mathematics 17(6).
    """

    source = "Schmeidler 1969"
    efficient = True
    symmetric = True
    null_player = True
    max_players = MAX_PLAYERS

    def __init__(self, individually_rational: bool = False) -> None:
        self.individually_rational = individually_rational

    def divide(self, game: CoalitionGame) -> Tensor:
        """The nucleolus, ``(n_envs, n_players)``."""
        return _each(game, lambda v: nucleolus(v, individually_rational=self.individually_rational))
