"""The Owen value: the Shapley value of players who come in unions."""

from __future__ import annotations

from collections.abc import Sequence
from operator import index

import numpy as np
import torch
from torch import Tensor

from ..arguments import is_whole
from ..games.game import CoalitionGame, coalition_matrix
from ..rule import RULES, GameRule
from .semivalues import semivalues, shapley_weights

MAX_EVALUATIONS = 2**20


@RULES.register("owen")
class Owen(GameRule):
    r"""Pays each agent its average marginal contribution over all orders in which the members of a union arrive together.

    .. math:: c_i = \sum_{R \subseteq M \setminus u} \frac{|R|!\,(m-|R|-1)!}{m!} \sum_{S \subseteq B_u \setminus i}
        \frac{|S|!\,(b_u-|S|-1)!}{b_u!} \, [v(B_R \cup S \cup i) - v(B_R \cup S)], \qquad i \in B_u

    for m unions :math:`B_1 \dots B_m` of sizes b. :math:`B_R` are all members of the unions R. So it is the Shapley value, within i's
    union, of a game in which every other union is there as a whole or not at all. All members of a union together get its Shapley value in
    the game between unions.

    Costs :math:`\sum_u 2^{m-1+b_u}` evaluations at most, and takes up to 2^20. So many players can be served if they form few unions of
    small size. Efficient, null-player and linear. Not symmetric across unions.

    Known failure: the union itself. A member of a strong union is paid more than a twin outside.

    Args:
        unions: The unions, as lists of players (each player from 0 on in exactly one). Or a whole number from 1: players in their order
            form unions of that size, and the last one may be smaller.

    Raises:
        ValueError: If a union is empty, or a player is in none or in several. At reset, if the unions are of another number of agents, or
            more than 2^20 evaluations would be needed.

    References:
        Owen (1977), *Values of games with a priori unions*, in Mathematical Economics and Game Theory, Springer.
    """

    source = "Owen 1977"
    pays = "Shapley value when the members of a union join together"
    known_failure = "a member of a strong union is paid more than a twin outside"
    evaluations = "sum over unions of 2^(m-1+b)"
    efficient = True
    null_player = True

    def __init__(self, unions: int | Sequence[Sequence[int]] = 2) -> None:
        if isinstance(unions, int | np.integer):
            if not is_whole(unions, 1):
                raise ValueError(f"unions={unions!r}: as a number, must be a size from 1")
            self.unions: int | list[list[int]] = int(unions)
        else:
            try:
                self.unions = [[index(i) for i in union] for union in unions]
            except TypeError:
                raise ValueError(f"unions={unions!r}: must be the unions, as lists of players, or a size") from None
            players = [i for union in self.unions for i in union]
            if not all(self.unions) or sorted(players) != list(range(len(players))) or not players:
                raise ValueError(f"unions={self.unions}: every player from 0 on must be in exactly one union, and no union may be empty")
        # everybody alone, or all in one union, is the plain Shapley value
        sizes = self.unions if isinstance(self.unions, int) else max(map(len, self.unions))
        self.symmetric = sizes == 1 or (not isinstance(self.unions, int) and len(self.unions) == 1)

    @property
    def tied_to_places(self) -> str:
        """Unions of agents by their place."""
        return "unions are of agents by their place, and other agents take the places in every round"

    def structure(self, n_players: int) -> list[list[int]]:
        """The unions of so many players.

        Raises:
            ValueError: If the given unions are of another number of players.
        """
        if isinstance(self.unions, int):
            return [list(range(first, min(first + self.unions, n_players))) for first in range(0, n_players, self.unions)]
        if (n := sum(map(len, self.unions))) != n_players:
            raise ValueError(f"unions={self.unions} are of {n} players, but there are {n_players}: pass unions of all of them")
        return self.unions

    def cost(self, n_players: int) -> int:
        """For each union: its subsets, each with every set of whole other unions."""
        unions = self.structure(n_players)
        return sum(2 ** (len(unions) - 1 + len(union)) for union in unions)

    def check(self, n_players: int) -> None:
        """Refuse a number of players that is not the unions', or unions that cost too much.

        Raises:
            ValueError: If it is not, or more than 2^20 evaluations would be needed.
        """
        super().check(n_players)
        if (cost := self.cost(n_players)) > MAX_EVALUATIONS:
            raise ValueError(
                f"{len(self.structure(n_players))} unions of {n_players} players need {cost:,} coalition evaluations, at most "
                f"{MAX_EVALUATIONS:,} are made: form fewer unions of smaller size, or use credit='shapley(budget={20 * n_players})'"
            )

    def divide(self, game: CoalitionGame) -> Tensor:
        """The Owen value of every player, ``(n_envs, n_players)``."""
        unions = self.structure(game.n_players)
        m = len(unions)
        belongs = torch.zeros(m, game.n_players, dtype=torch.bool)
        for u, union in enumerate(unions):
            belongs[u, union] = True
        others = coalition_matrix(m - 1)  # (2**(m−1), m − 1)
        weight = torch.tensor(shapley_weights(m), dtype=torch.float64)[others.sum(dim=1)]  # |R|!(m−|R|−1)!/m!
        parts: list[tuple[list[int], Tensor]] = []
        for u, union in enumerate(unions):
            whole = (others[:, :, None] & belongs[[k for k in range(m) if k != u]]).any(dim=1)  # members of R, (2**(m−1), n)
            own = torch.zeros(2 ** len(union), game.n_players, dtype=torch.bool)
            own[:, union] = coalition_matrix(len(union))
            rows = (whole[:, None] | own).flatten(end_dim=1)  # (2**(m−1)·2**b, n)
            v = game.value(rows).unflatten(1, (len(whole), len(own)))
            within = torch.einsum("r,ers->es", weight.to(v), v)  # the game inside the union, (E, 2**b)
            parts.append((union, semivalues(within, shapley_weights(len(union)))))
        values = parts[0][1].new_zeros(len(parts[0][1]), game.n_players)
        for union, part in parts:
            values[:, union] = part
        return values
