r"""False names on games: what a player gains that appears as several.

The worth of a coalition follows from the *lots* that its members hold, :math:`v(S) = w(\bigcup_{i \in S} L_i)`. A player that appears
under k names hands each of them some of its lots: dealt out, so that each lot has one name, or copied, so that several names hold the same
lot. A near twin under a name of its own is such a copy. The gain of false names under a value φ is

.. math:: G = \sum_{j = 1}^{k} \varphi_{i_j}(v') - \varphi_i(v)

with v' the game among all names. A value with :math:`G \le 0` for every game, player and division is *false-name-proof*. No value that is
efficient, symmetric and null-player is so on all games.

Of a unanimity game among n players, one of which deals its lots out to k names, the gain is :math:`k / (n + k - 1) - 1 / n` under the
Shapley value, :math:`k / 2^{n + k - 2} - 1 / 2^{n - 1}` under the Banzhaf value, and :math:`k - 1` under leave-one-out.

References:
    Burnat & Davidson (2026), *Quotient semivalues for false-name-resistant data attribution*, arXiv 2605.07663. Yokoo et al. (2005),
    *Coalitional games in open anonymous environments*, AAAI, for false-name-proofness. Han et al. (2022), *Replication robust payoff
    allocation in submodular cooperative games*, IEEE Transactions on Artificial Intelligence.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence

import torch
from torch import Tensor

from ...checks import whole_number
from .game import CoalitionGame, ValueFunction


def held(worth: ValueFunction, n_lots: int, holdings: Sequence[Collection[int]]) -> CoalitionGame:
    """The game among players that hold lots.

    Args:
        worth: From sets of lots, bool ``(C, n_lots)``, to their worth, ``(C,)`` or ``(n_envs, C)``; 0 for none.
        n_lots: Number of lots.
        holdings: The lots of each player, from 0. Several players may hold the same lot.

    Raises:
        ValueError: If a player holds a lot that there is not, or there are no players.
    """
    n_lots = whole_number("n_lots", n_lots, 1)
    table = torch.zeros(len(holdings), n_lots, dtype=torch.bool)
    for player, lots in enumerate(holdings):
        for lot in lots:
            hint = f"lots go from 0 to {n_lots - 1}"
            table[player, whole_number(f"holdings[{player}], lot", lot, 0, n_lots - 1, hint)] = True

    def value(coalitions: Tensor) -> Tensor:
        return worth((coalitions[:, :, None] & table.to(coalitions.device)).any(dim=1))  # type: ignore[return-value]

    return CoalitionGame(value, len(holdings))


def false_name_gain(
    values: Callable[[CoalitionGame], Tensor],
    worth: ValueFunction,
    n_lots: int,
    holdings: Sequence[Collection[int]],
    player: int,
    names: Sequence[Collection[int]],
) -> Tensor:
    """What a player gains that appears under several names.

    Args:
        values: The value, from a game to ``(n_envs, n)``, such as ``credit.make("shapley").values``.
        worth: As for :func:`held`.
        n_lots: Number of lots.
        holdings: The lots of each player.
        player: Who has several names.
        names: The lots that each of its names holds. Together they must be lots that the player has.

    Returns:
        The total of its names less its value under one name, ``(n_envs,)``, in the worth's unit.

    Raises:
        ValueError: If there is no such player, it has no name, or a name holds a lot that the player does not have.
    """
    player = whole_number("player", player, 0, len(holdings) - 1, f"players go from 0 to {len(holdings) - 1}")
    if not names:
        raise ValueError("names is empty: give the lots of each name")
    if foreign := sorted(set().union(*map(set, names)) - set(holdings[player])):
        raise ValueError(f"names hold lot {foreign[0]}, which player {player} does not have: it has {sorted(holdings[player])}")
    before = values(held(worth, n_lots, holdings))[..., player]
    first, *others = names
    under_names = [*holdings[:player], first, *holdings[player + 1 :], *others]
    after = values(held(worth, n_lots, under_names))
    own = [player, *range(len(holdings), len(under_names))]
    return after[..., own].sum(dim=-1) - before
