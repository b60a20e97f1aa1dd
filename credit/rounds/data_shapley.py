"""Data Shapley among lots: every lot is a player, and an agent is paid the sum of what its lots earn."""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor

from ..estimators.truncated import TruncatedMonteCarlo
from ..games.game import MAX_ENUMERATED
from ..games.round import Need, Round
from ..rule import RULES, Family, LotRule
from ..solutions.shapley import Shapley


@RULES.register("data_shapley")
class DataShapley(LotRule):
    r"""Pays each agent the sum of its admitted lots' Shapley values, estimated by truncated Monte Carlo.

    .. math:: c_{ik} = \frac{1}{m} \sum_{\pi} \bigl[ w(P_{ik}^{\pi} \cup ik) - w(P_{ik}^{\pi}) \bigr], \qquad c_i = \sum_k c_{ik}

    where w(L) is what the round would have gained with the admitted lots of L alone. There are m random orders π of all lots, and
    :math:`P_{ik}^{\pi}` are the lots before (i, k). The scan of an order stops after more than ``patience`` positions in a row at which w
    is within ``tolerance``·\|v(N)\| of the gain v(N). Lots after that earn nothing from the order. Where the budget covers all sets of
    lots, the value is exact. It is not the Shapley value among agents: there an agent's lots come and go together.

    Costs at most ``budget`` evaluations. Efficient with ``tolerance = 0`` only, since truncation leaves something unpaid. Symmetric in
    expectation only. Not null-player among agents, since lots that undo each other are each paid for what they do.

    Known failure: splitting. An agent that cuts its data into more lots is more players.

    Departures from the source: there the players are single rows, and the model is trained anew for each set. Here the players are lots,
    and each set of lots redoes the round's step.

    Args:
        budget: Most sets of lots to value in a round, at least N·K; ``None`` is 100 an agent.
        seed: Seed of the orders, a whole number from 0. Every round draws new orders.
        tolerance: Distance from the gain that counts as having arrived, as a share of the gain; at least 0.
        patience: Positions within the tolerance before a scan stops, a whole number from 0.

    Raises:
        ValueError: If an argument is not a number in its range. At reset, if the budget is below the number of agents. In a round, if it is
            below the number of lots.

    References:
        Ghorbani & Zou (2019), *Data Shapley: equitable valuation of data for machine learning*, ICML.
    """

    family: ClassVar[Family] = "federated"
    source = "Data Shapley (Ghorbani & Zou 2019, ICML), players are lots"
    pays = "sum of the own lots' Shapley values, every lot a player"
    known_failure = "who cuts data into more lots is paid more"
    evaluations = "100 n"
    needs: tuple[Need, ...] = ("lots",)

    def __init__(self, budget: int | None = None, seed: int = 0, tolerance: float = 0.01, patience: int = 5) -> None:
        checked = TruncatedMonteCarlo(budget, seed, tolerance, patience)  # refuses what is not allowed
        self.budget, self.seed, self.tolerance, self.patience = checked.budget, checked.seed, checked.tolerance, checked.patience
        self.evaluations = "100 n" if budget is None else str(budget)
        self.efficient = tolerance == 0

    def cost(self, n_players: int) -> int:
        """Most sets of lots that are valued in a round."""
        return 100 * n_players if self.budget is None else self.budget

    def check(self, n_players: int) -> None:
        """Refuse a cooperative for which the budget is too small, whatever its number of lots.

        Raises:
            ValueError: If it is too small.
        """
        super().check(n_players)
        self._require(n_players, "agents, of one lot each")

    def assign_lots(self, round: Round) -> Tensor:
        """Credit of every lot for this round, ``(E, N, K)``, in the utility's unit.

        Raises:
            ValueError: If the budget is too small for one order of all lots.
        """
        admitted = round.admitted
        game = round.lots.among(admitted)
        self._require(game.n_players, "lots")
        budget = self.cost(round.num_agents)
        if game.n_players <= MAX_ENUMERATED and 2**game.n_players <= budget:
            credit = Shapley().divide(game)
        else:
            credit = TruncatedMonteCarlo(budget, self.seed, self.tolerance, self.patience).at(game, round.episode, round.t).values
        return torch.where(admitted, credit.reshape(admitted.shape), 0.0)

    def _require(self, n_players: int, what: str) -> None:
        if self.budget is not None and self.budget < n_players:
            raise ValueError(f"budget={self.budget} is too small for DataShapley with {n_players} {what}: pass at least {n_players}")
