"""Joint Shapley values: worth that belongs to groups, shared among their members."""

from __future__ import annotations

from functools import lru_cache
from itertools import combinations
from math import comb

import torch
from torch import Tensor

from ..arguments import is_whole
from ..games.game import CoalitionGame, coalition_matrix
from ..rule import RULES, WholeGameRule
from .semivalues import players_of

MAX_PLAYERS = 12


def groups(n: int, order: int) -> list[tuple[int, ...]]:
    """All groups of 1 to ``order`` of n players, by size and then in lexicographic order."""
    return [group for size in range(1, order + 1) for group in combinations(range(n), size)]


def arrival_weights(n: int, order: int) -> list[float]:
    r"""Weight of a coalition that a group joins, by its size r from 0 to n − 1.

    .. math:: q_0 = \frac{1}{\sum_{i=1}^{k} \binom{n}{i}}, \qquad
        q_r = \frac{\sum_{s=\max(r-k,0)}^{r-1} \binom{r}{s} q_s}{\sum_{s=1}^{\min(k, n-r)} \binom{n-r}{s}}

    Let players arrive at random, in groups of at most k. q_r is the probability that they pass through a given coalition of size r, divided
    by the number of groups that may come next.
    """
    q = [1 / sum(comb(n, i) for i in range(1, order + 1))]
    for r in range(1, n):
        arrived = sum(comb(r, s) * q[s] for s in range(max(r - order, 0), r))
        q.append(arrived / sum(comb(n - r, s) for s in range(1, min(order, n - r) + 1)))
    return q


def joint_shapley_values(v: Tensor, order: int) -> Tensor:
    r"""Joint Shapley value of every group of at most k players, for a batch of games.

    .. math:: \phi_T = \sum_{S \subseteq N \setminus T} q_{|S|} \, [v(S \cup T) - v(S)], \qquad 1 \le |T| \le k

    Args:
        v: Coalition values, ``(batch, 2**n)``, in any unit. Bit ``i`` of the column says whether player ``i`` is in.
        order: k, from 1 to n; 1 is the Shapley value.

    Returns:
        ``(batch, n_groups)``, same unit, in the order of :func:`groups`. Rows sum to v(N) − v(∅).

    Raises:
        ValueError: If the number of columns is not a power of two of 1 to 12 players, or ``order`` is out of range.

    References:
        Harris, Pymar & Rowat (2022), *Joint Shapley values: a measure of joint feature importance*, ICLR.
    """
    n = players_of(v, MAX_PLAYERS)
    if not is_whole(order, 1) or order > n:
        raise ValueError(f"order={order!r}: must be a whole number from 1 to {n}, the number of players")
    v = v if v.is_floating_point() else v.double()
    return v @ _weights(n, order).to(v).T


@lru_cache(maxsize=4)  # up to 134 MB each
def _weights(n: int, order: int) -> Tensor:
    """Matrix W with φ = v Wᵀ, double ``(n_groups, 2**n)``."""
    with torch.inference_mode(False):  # the cache may be filled in inference mode, and outlives it
        codes = torch.arange(2**n)
        members = coalition_matrix(n)
        size = members.sum(dim=1)
        q = torch.tensor([*arrival_weights(n, order), 0.0], dtype=torch.float64)
        rows = []
        for group in groups(n, order):
            code = sum(1 << i for i in group)
            joined = torch.where(codes & code == code, q[(size - len(group)).clamp(min=0)], 0.0)
            alone = torch.where(codes & code == 0, q[size], 0.0)
            rows.append(joined - alone)
        return torch.stack(rows)


@RULES.register("joint_shapley")
class JointShapley(WholeGameRule):
    r"""Pays each agent its equal share of the joint Shapley values of all groups of at most k agents that it is in.

    .. math:: c_i = \sum_{T \ni i,\, |T| \le k} \frac{\phi_T}{|T|}, \qquad
        \phi_T = \sum_{S \subseteq N \setminus T} q_{|S|} \, [v(S \cup T) - v(S)]

    It says what agents are worth that join in groups of up to k. k = 1 is the Shapley value. The weights q are those of
    :func:`arrival_weights`.

    Costs 2^n evaluations and takes n ≤ 12. Efficient, symmetric and linear. Not null-player for k > 1.

    Known failure: free riders in groups. A group that a null agent joins is worth what its other members are worth, and the null agent
    takes its share.

    Departure from the source: it pays groups. The equal shares within a group are ours, because an environment pays agents.

    Args:
        order: k, a whole number from 1. More than the number of agents means all of them.

    Raises:
        ValueError: If ``order`` is not a whole number from 1. At reset, if there are more than 12 agents.

    References:
        Harris, Pymar & Rowat (2022), *Joint Shapley values: a measure of joint feature importance*, ICLR.
    """

    source = "Harris et al. 2022 (ICLR)"
    pays = "Shapley value when groups of up to k join together; a group shares equally"
    known_failure = "a free rider is paid for the groups that it joins"
    efficient = True
    symmetric = True
    max_players = MAX_PLAYERS

    def __init__(self, order: int = 2) -> None:
        if not is_whole(order, 1):
            raise ValueError(f"order={order!r}: must be a whole number from 1")
        self.order = int(order)
        self.null_player = order == 1

    def divide(self, game: CoalitionGame) -> Tensor:
        """Each player's share of the groups' values, ``(n_envs, n_players)``."""
        n, order = game.n_players, min(self.order, game.n_players)
        phi = joint_shapley_values(game.values(), order)
        share = torch.tensor([[(i in group) / len(group) for i in range(n)] for group in groups(n, order)], dtype=torch.float64).to(phi)
        return phi @ share
