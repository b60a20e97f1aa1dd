"""The least core and the nucleolus: allocations that leave coalitions as little to complain about as possible."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from ..games.game import CoalitionGame, coalition_matrix
from ..rule import RULES, WholeGameRule
from .excess import FLAT, TOLERANCE, Floats, Settled, smallest_largest_excess

MAX_PLAYERS = 12


def least_core(v: Floats | Tensor) -> tuple[Floats, float]:
    r"""The shortest allocation in the least core of one game, and the excess that it leaves.

    .. math:: e^* = \min_{x, e} e \quad \text{s.t.} \quad x(N) = v(N), \quad x(S) + e \ge v(S) \;\; \forall\, \emptyset \ne S \ne N

    Among the allocations with that excess, x is the one with the smallest ‖x‖₂.

    Args:
        v: Worth of every coalition, ``(2**n,)``, bit i of the index for player i. A tensor's gradient is left out.

    Returns:
        x, ``(n,)``, and e*, in the unit of v. e* is negative if the core has an interior. For a single player, who has nobody to share
        with, e* is −∞. Both are right to about 1e-9 of the largest worth.

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
    # other coalitions may have this excess, or hardly less, in every solution: without settling them, the set of solutions is too flat
    while (rows := settled.open(members)).any():
        inner, tight, _ = smallest_largest_excess(members[rows], worth[rows], settled)
        if inner < excess - FLAT:
            break
        settled.add(members[rows][tight], worth[rows][tight] - inner)
    return settled.nearest_to_zero(members[rows], worth[rows] - excess) * scale, excess * scale


def nucleolus(v: Floats | Tensor, *, individually_rational: bool = False) -> Floats:
    """The allocation whose excesses, sorted from the largest down, are lexicographically the smallest, for one game.

    Args:
        v: Worth of every coalition, ``(2**n,)``, bit i of the index for player i. A tensor's gradient is left out.
        individually_rational: Compare only allocations that give every player at least v({i}), as Schmeidler does. Otherwise compare all
            efficient allocations; this is the prenucleolus, which every game has. The two are the same wherever the prenucleolus is
            individually rational.

    Returns:
        x, ``(n,)``, in the unit of v, right to about 1e-9 of the largest worth.

    Raises:
        ValueError: If the number of worths is not a power of two of 1 to 12 players, one is not finite, or ``individually_rational`` and
            the players alone are worth more than all together.

    References:
        Schmeidler (1969), *The nucleolus of a characteristic function game*, SIAM Journal on Applied Mathematics 17(6). Sobolev (1975) for
        the prenucleolus. Kopelowitz (1967) for the sequence of linear programmes.
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


def _programme(worths: Floats | Tensor) -> tuple[Floats, Floats, Settled, float]:
    """The proper coalitions, their worth, and x(N) = v(N), in units of the largest worth."""
    v: Floats = np.asarray(worths.detach().cpu() if isinstance(worths, Tensor) else worths, dtype=np.float64)
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
    """Solve one game after another, because a linear programme cannot be batched. The solutions carry no gradient.

    A game of which a worth is not finite has none: it is paid NaN, and the other games are paid.
    """
    v = game.values().detach()
    unknown = np.full(game.n_players, np.nan)
    paid = [torch.from_numpy(solve(one) if np.isfinite(one).all() else unknown) for one in v.double().cpu().numpy()]
    return torch.stack(paid).to(v) if paid else v.new_zeros(0, game.n_players)


@RULES.register("least_core")
class LeastCore(WholeGameRule):
    r"""Pays the shortest allocation in the least core: the coalition with most to complain about has as little as possible.

    .. math:: c = \arg\min_{x \in X^*} \lVert x \rVert_2, \qquad X^* = \{x : x(N) = v(N),\; x(S) \ge v(S) - e^* \;\forall S\}

    where e* is the smallest e for which there is such an x. If the core is not empty, c is in it, and nobody gains by leaving.

    Costs 2^n evaluations and a linear programme for each environment, and takes n ≤ 12. Efficient, symmetric and null-player, all to about
    1e-9 of the largest worth, which is the programmes' tolerance. Not linear. The allocation carries no gradient of the worths. Where a
    worth is not finite, everybody's value is NaN.

    Known failure: ties. Among allocations that satisfy the coalitions alike, the shortest one pays most evenly, whoever did the work.

    The rule is null-player even if the core is empty, and so is every point of the least core. Proof: let i be a null agent. Adding x_i +
    e* ≥ 0 and x(N∖i) + e* ≥ v(N) gives e* ≥ 0. The coalitions with a positive dual all have the excess e*, and they are balanced. So one of
    them, T, holds i, and another, S, does not. T∖i is worth what T is and has no larger excess, so x_i ≤ 0 (or T = {i}, and x_i = −e*). S∪i
    is worth what S is and has no larger excess, so x_i ≥ 0 (or S = N∖i, and x_i = e*).

    Raises:
        ValueError: At reset, if there are more than 12 agents.

    References:
        Maschler, Peleg & Shapley (1979), *Geometric properties of the kernel, nucleolus, and related solution concepts*, Mathematics of
        Operations Research 4(4). Yan & Procaccia (2021), *If you like Shapley then you'll love the core*, AAAI.
    """

    source = "Maschler, Peleg & Shapley 1979"
    pays = "the division with the smallest largest complaint of a coalition"
    known_failure = "among divisions that satisfy alike, the most equal one is paid"
    efficient = True
    symmetric = True
    null_player = True
    max_players = MAX_PLAYERS

    def divide(self, game: CoalitionGame) -> Tensor:
        """The allocation, ``(n_envs, n_players)``."""
        return _each(game, lambda v: least_core(v)[0])


@RULES.register("nucleolus")
class Nucleolus(WholeGameRule):
    r"""Pays the allocation whose excesses, sorted from the largest down, are lexicographically the smallest.

    .. math:: c = \operatorname{lexmin}_{x(N) = v(N)} \; \theta(x), \qquad \theta(x) = \text{the } v(S) - x(S) \text{ in descending order}

    There is exactly one such allocation. If there is a core, it is in the core.

    Costs 2^n evaluations and up to n − 1 linear programmes for each environment, and takes n ≤ 12. Efficient, symmetric and null-player.
    Not linear. The allocation carries no gradient of the worths. Where a worth is not finite, everybody's value is NaN.

    Known failure: it is not monotone. An agent can do better work, all else equal, and be paid less (Megiddo 1974).

    Departure from the source: Schmeidler compares only allocations that are individually rational. Here all efficient ones are compared
    (the prenucleolus), unless ``individually_rational`` asks for his domain.

    Args:
        individually_rational: Give every player at least v({i}). No allocation does so in games where the players alone are worth more than
            together; such a game is then an error. They are common where data are redundant.

    Raises:
        ValueError: If ``individually_rational`` is not a bool. At reset, if there are more than 12 agents. In a round, if
            ``individually_rational`` and no allocation is.

    References:
        Schmeidler (1969), *The nucleolus of a characteristic function game*, SIAM Journal on Applied Mathematics 17(6). Megiddo (1974), *On
        the nonmonotonicity of the bargaining set, the kernel and the nucleolus of a game*, SIAM Journal on Applied Mathematics 27(2).
    """

    source = "Schmeidler 1969"
    pays = "the division whose sorted complaints are smallest, the largest first"
    known_failure = "an agent can do better work and be paid less"
    efficient = True
    symmetric = True
    null_player = True
    max_players = MAX_PLAYERS

    def __init__(self, individually_rational: bool = False) -> None:
        if not isinstance(individually_rational, bool):
            raise ValueError(f"individually_rational={individually_rational!r}: must be True or False")
        self.individually_rational = individually_rational

    def divide(self, game: CoalitionGame) -> Tensor:
        """The nucleolus, ``(n_envs, n_players)``."""
        return _each(game, lambda v: nucleolus(v, individually_rational=self.individually_rational))
