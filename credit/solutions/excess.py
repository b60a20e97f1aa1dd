"""Linear programmes over the excesses of a game, which the least core and the nucleolus share.

The excess of a coalition is what it is short of its worth, e(S, x) = v(S) − x(S). One programme makes the largest excess as small as
possible. Some coalitions then have that excess in every solution: their sums x(S) are settled. Settled sums are eliminated rather than kept
as equations, x = x₀ + D y, so that rounding cannot make a later programme infeasible.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]

TOLERANCE = 1e-9
"""Tolerance of the programmes' solutions, for a game whose largest worth is 1."""
FLAT = 1e-7
"""Excesses that differ by less than this in every solution count as equal, where a set of solutions would otherwise be too flat."""
_AT_ONCE = 300
"""A programme of more coalitions begins with some of them, and adds those that turn out to be violated."""


class Settled:
    """Sums x(S) that are settled: a linear system that x must satisfy.

    Args:
        grand: v(N), which is what all players get.
        n_players: Number of players.

    Attributes:
        point: The shortest x that satisfies it, ``(n,)``.
        directions: Orthonormal directions in which x may still move, ``(n, k)``.
    """

    def __init__(self, grand: float, n_players: int) -> None:
        self._members: Floats = np.empty((0, n_players))
        self._sums: Floats = np.empty(0)
        self.add(np.ones((1, n_players)), np.array([grand]))

    @property
    def complete(self) -> bool:
        """Whether x is settled altogether."""
        return bool(self.directions.shape[1] == 0)

    def add(self, members: Floats, sums: Floats) -> None:
        """Settle more sums, for coalitions ``(k, n)``."""
        from scipy.linalg import null_space  # slow to import

        self._members = np.concatenate([self._members, members])
        self._sums = np.concatenate([self._sums, sums])
        self.point: Floats = np.asarray(np.linalg.lstsq(self._members, self._sums, rcond=None)[0])
        self.directions: Floats = np.asarray(null_space(self._members, rcond=TOLERANCE))

    def open(self, members: Floats) -> NDArray[np.bool_]:
        """Which coalitions ``(m, n)`` have sums that are not settled yet: bool ``(m,)``."""
        return np.asarray(np.abs(members @ self.directions).max(axis=1, initial=0.0) > 1e-7)

    def nearest_to_zero(self, members: Floats, least: Floats) -> Floats:
        """The shortest settled x with x(S) ≥ ``least`` for the coalitions ``(m, n)``, to the tolerance.

        Least-distance programming by non-negative least squares (Lawson & Hanson 1974, chapter 23).
        """
        from scipy.optimize import nnls  # slow to import

        slopes, short = members @ self.directions, least - members @ self.point
        move = np.zeros(self.directions.shape[1])
        working = np.empty(0, dtype=np.intp)
        slack = TOLERANCE
        while True:
            broken = short - slopes @ move
            if (broken <= 2 * slack).all():
                return np.asarray(self.point + self.directions @ move)
            if (broken[working] > 2 * slack).any():  # rounding: what is left of the set is too flat for this slack
                slack *= 10
                assert slack < 1e-4, "the coalitions' sums contradict each other"
            else:
                working = np.union1d(working, np.argsort(-broken)[:50])
            system = np.concatenate([slopes[working].T, short[working][None] - slack])
            target = np.append(np.zeros(len(move)), 1.0)
            multipliers, _ = nnls(system, target, maxiter=100 * system.shape[1])
            residual = system @ multipliers - target
            move = -residual[:-1] / residual[-1]


def smallest_largest_excess(
    members: Floats, worth: Floats, settled: Settled, floor: Floats | None = None
) -> tuple[float, NDArray[np.intp], NDArray[np.intp]]:
    """Make the largest excess of the coalitions as small as possible.

    Args:
        members: Coalitions, ``(m, n)``, m ≥ 1, none of them settled.
        worth: What each is worth, ``(m,)``.
        settled: The system that x must satisfy.
        floor: Least x_i of each player, ``(n,)``, or ``None`` for no floor. It must be known that some settled x keeps it.

    Returns:
        The excess; which coalitions have it in every solution (at least one); and which players are at their floor in every solution. The
        latter two are those with a positive dual.
    """
    from scipy.optimize import linprog  # slow to import

    slopes, short = members @ settled.directions, worth - members @ settled.point  # e ≥ short − slopes y
    k = slopes.shape[1]
    working = np.arange(len(members)) if len(members) <= _AT_ONCE else np.arange(0, len(members), len(members) // _AT_ONCE)
    at_least = np.empty((0, k + 1)) if floor is None else np.column_stack([settled.directions, np.zeros(len(floor))])
    low = np.empty(0) if floor is None else floor - settled.point
    slack = TOLERANCE
    while True:
        answer = linprog(
            np.append(np.zeros(k), 1.0),
            A_ub=-np.concatenate([np.column_stack([slopes[working], np.ones(len(working))]), at_least]),
            b_ub=-np.concatenate([short[working], low]),
            bounds=(None, None),
            method="highs-ds",
            options={"primal_feasibility_tolerance": 1e-10, "dual_feasibility_tolerance": 1e-10},
        )
        if answer.status == 3 and len(working) < len(members):  # unbounded: too few coalitions to begin with
            working = np.arange(len(members))
            continue
        if answer.status == 2 and slack < 1e-6:  # what is settled misses a floor by rounding
            low, slack = low - slack, 10 * slack
            continue
        assert answer.status == 0, answer.message
        broken = short - slopes @ answer.x[:k] - answer.x[k]
        broken[working] = 0.0
        if (broken <= TOLERANCE).all():
            break
        working = np.union1d(working, np.argsort(-broken)[:100])
    duals = -answer.ineqlin.marginals
    tight = np.flatnonzero(duals > 1e-6 * duals.max())
    return float(answer.x[k]), working[tight[tight < len(working)]], tight[tight >= len(working)] - len(working)
