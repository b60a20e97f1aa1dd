"""Gradient Shapley: agents' updates are applied in a random order, and each agent is credited with what its update changes."""

from __future__ import annotations

from typing import ClassVar

import numpy as np
import torch
from torch import Tensor

from ..arguments import checked_seed, is_whole
from ..estimators.estimate import Estimate
from ..estimators.sampling import marginals, positions, prefixes, random_orders, tensor
from ..games.game import CoalitionGame, GameLike, as_game
from ..games.round import Round
from ..rule import RULES, Family, GameRule


@RULES.register("g_shapley")
class GradientShapley(GameRule):
    r"""Pays what the utility changes by as the agents' updates are applied one after another, in a random order.

    .. math:: c_i = \frac{1}{K} \sum_{k=1}^{K} \bigl[v(P_i^{\pi_k} \cup i) - v(P_i^{\pi_k})\bigr]

    where :math:`P_i^\pi` are those who come before i in the order π. Orders are drawn anew in every round of every episode; by default K =
    1.

    Costs n evaluations an order, of which v(N) is shared. Unbiased for the Shapley value, with a large variance. Efficient and null-player
    in every draw. Symmetric in expectation only.

    Known failure: chance. A round pays those who happened to come early, and from one order no standard error can be told (it is NaN).

    Departure from the source: in the paper the players are data points, and the pass is an epoch of stochastic gradient descent with
    batches of one. Each gradient is computed at the parameters to which the steps before it had led. Here the steps are the updates that
    all agents computed at the round's start, because that is what they send. So the credit is a marginal contribution in the round's game.

    Args:
        orders: K, number of orders in a round, at least 1.
        seed: Seed of the draws, a whole number from 0.

    Raises:
        ValueError: If ``orders`` is not a positive whole number, or ``seed`` is negative or not whole.

    References:
        Ghorbani & Zou (2019), *Data Shapley: equitable valuation of data for machine learning*, ICML (G-Shapley).
    """

    family: ClassVar[Family] = "gradient"
    source = "Ghorbani & Zou 2019 (ICML)"
    pays = "change in utility as updates are applied one by one, in one random order"
    known_failure = "chance: who comes early in the order is paid more"
    evaluations = "n"
    efficient = True
    null_player = True

    def __init__(self, orders: int = 1, seed: int = 0) -> None:
        if not is_whole(orders, 1):
            raise ValueError(f"orders={orders!r}: must be a positive whole number")
        self.orders = int(orders)
        self.seed = checked_seed(seed)
        self.evaluations = "n" if orders == 1 else f"{orders} (n - 1) + 1"

    def cost(self, n_players: int) -> int:
        """Most coalitions that are evaluated in a round: n − 1 for each order, and v(N)."""
        return min(self.orders * (n_players - 1) + 1, (1 << n_players) - 1)

    def assign(self, round: Round) -> Tensor:
        """Credit of every agent for this round, ``(E, N)``, in the utility's unit. Every round draws its own orders."""
        return self._estimate(round.game, round.episode, round.t).values

    def divide(self, game: CoalitionGame) -> Tensor:
        """The estimates, ``(n_envs, n_players)``, in the game's unit."""
        return self._estimate(game, 0, 0).values

    def estimate(self, game: GameLike, n_players: int | None = None) -> Estimate:
        """Each player's value in any game, with standard errors.

        Args:
            game: As in :meth:`values`.
            n_players: Number of players, for a callable.

        Raises:
            ValueError: If the number of players is missing.
        """
        game = as_game(game, n_players)
        self.check(game.n_players)
        return self._estimate(game, 0, 0)

    def _estimate(self, game: CoalitionGame, episode: int, t: int) -> Estimate:
        n = game.n_players
        joins_at = positions(random_orders(n, self.orders, np.random.default_rng((self.seed, episode, t))))  # (K, n)
        rows = tensor(prefixes(joins_at).reshape(-1, n))  # (K·(n − 1), n)
        grand = game.grand()
        v = game.value(rows).double().reshape(-1, self.orders, n - 1) if n > 1 else grand.double().new_zeros(len(grand), self.orders, 0)
        last = grand.double()[:, None, None].expand(-1, self.orders, 1)
        changes = marginals(torch.zeros_like(last), v, last, joins_at)  # (E, K, n)
        values = changes.mean(dim=1).to(grand.dtype)

        def errors() -> tuple[Tensor, Tensor]:
            error = changes.std(dim=1) / self.orders**0.5 if self.orders > 1 else torch.full_like(changes[:, 0], torch.nan)
            return error, torch.full_like(error, max(1.0, self.orders - 1.0))

        evaluations = len(torch.unique(rows, dim=0)) + 1
        return Estimate(values, errors, evaluations, f"{self.orders} random order{'s' if self.orders != 1 else ''}")
