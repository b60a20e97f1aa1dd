"""The Shapley value, exact."""

from __future__ import annotations

from functools import lru_cache
from math import comb

import torch
from torch import Tensor

from .game import CoalitionGame, coalition_matrix
from .rule import RULES, GameRule

MAX_PLAYERS = 12


@lru_cache(maxsize=32)
def _marginal_weights(n: int, dtype: torch.dtype, device: torch.device) -> Tensor:
    """Matrix W with φ = v Wᵀ, ``(n, 2**n)``: every coalition's total weight in each player's value."""
    with torch.inference_mode(False):  # the cache outlives an inference mode in which it happens to be filled
        return _weights(n).to(dtype=dtype, device=device)


def _weights(n: int) -> Tensor:
    size = coalition_matrix(n).sum(dim=1)  # (2**n,)
    # (s-1)!(n-s)!/n! = 1/(n C(n-1, s-1)) where i is in, -s!(n-s-1)!/n! = -1/(n C(n-1, s)) where it is not
    joins = torch.tensor([0.0] + [1 / (n * comb(n - 1, s - 1)) for s in range(1, n + 1)], dtype=torch.float64)
    stays = torch.tensor([1 / (n * comb(n - 1, s)) for s in range(n)] + [0.0], dtype=torch.float64)
    return torch.where(coalition_matrix(n).T, joins[size], -stays[size])


def shapley_values(v: Tensor) -> Tensor:
    r"""Shapley value of each player, for a batch of games.

    .. math:: \phi_i = \sum_{S \subseteq N \setminus i} \frac{|S|!\,(n-|S|-1)!}{n!} \, [v(S \cup i) - v(S)]

    written as one matrix product, because φ is linear in v.

    Args:
        v: Coalition values, ``(batch, 2**n)``, in any unit. Bit ``i`` of the column says whether player ``i`` is in.

    Returns:
        ``(batch, n)``, same unit, in double precision if ``v`` holds whole numbers. Rows sum to v(N) − v(∅).

    Raises:
        ValueError: If the number of columns is not a power of two, or stands for no player or for more than 12.

    References:
        Shapley (1953), *A value for n-person games*, Contributions to the Theory of Games II.
    """
    n = v.shape[-1].bit_length() - 1
    if v.dim() != 2 or v.shape[-1] != 2**n or not 1 <= n <= MAX_PLAYERS:
        raise ValueError(f"v must have shape (batch, 2**n) with n from 1 to {MAX_PLAYERS}, got {tuple(v.shape)}")
    v = v if v.is_floating_point() else v.double()
    return v @ _marginal_weights(n, v.dtype, v.device).T


@RULES.register("shapley")
class Shapley(GameRule):
    r"""Average marginal contribution over all orders in which the agents could have joined.

    .. math:: c_i = \sum_{S \subseteq N \setminus i} \frac{|S|!\,(n-|S|-1)!}{n!} \, [v(S \cup i) - v(S)]

    Costs 2^n evaluations, n ≤ 12. The only rule that is efficient, symmetric, null-player and linear at once. Its known
    failure is replication: an agent whose data others have too gains by splitting itself into copies (Han et al. 2022).

    References:
        Shapley (1953), *A value for n-person games*, Contributions to the Theory of Games II.
    """

    source = "Shapley 1953"
    evaluations = "2^n"
    efficient = True
    symmetric = True
    null_player = True
    max_players = MAX_PLAYERS

    def values(self, game: CoalitionGame) -> Tensor:
        """The Shapley value of every player, ``(n_envs, n_players)``.

        Raises:
            ValueError: If there are more than 12 players.
        """
        self.check(game.n_players)
        return shapley_values(game.values())
