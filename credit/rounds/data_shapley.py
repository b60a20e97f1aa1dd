"""Data Shapley among lots: every lot is a player, and an agent is paid what its lots earn."""

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
    r"""The Shapley value of each admitted lot, estimated by truncated Monte Carlo; agents are paid the sum over their lots.

    .. math:: c_{ik} = \frac{1}{m} \sum_{\pi} \bigl[ w(P_{ik}^{\pi} \cup ik) - w(P_{ik}^{\pi}) \bigr], \qquad c_i = \sum_k c_{ik}

    with w(L) what the round would have gained with the admitted lots of L alone, m random orders π of all lots, and
    :math:`P_{ik}^{\pi}` the lots before (i, k). Scanning an order stops, and what follows earns nothing, after more than ``patience``
    consecutive positions within ``tolerance``·\|w\| of the gain. Where the budget covers all sets of lots the value is exact. It is not
    the Shapley value among agents: there an agent's lots come and go together. Costs at most ``budget`` evaluations. Neither efficient
    (but for ``tolerance = 0``) nor symmetric, except in expectation; not null-player among agents, since lots that undo each other are
    each paid for what they do. Its known failure is splitting: who cuts its data into more lots is more players.

    Args:
        budget: Most sets of lots to value in a round, at least N·K; ``None`` is 100 an agent.
        seed: Seed of the orders, which every round draws anew.
        tolerance: Relative distance from the gain that counts as having arrived.
        patience: Positions within it before a scan stops.

    References:
        Ghorbani & Zou (2019), *Data Shapley: equitable valuation of data for machine learning*, ICML. There players are single rows
        and the model is trained anew for each set; here they are lots, and sets of lots redo the round's step.
    """

    family: ClassVar[Family] = "federated"
    source = "Data Shapley (Ghorbani & Zou 2019, ICML), players are lots"
    evaluations = "100 n"
    needs: tuple[Need, ...] = ("lots",)

    def __init__(self, budget: int | None = None, seed: int = 0, tolerance: float = 0.01, patience: int = 5) -> None:
        TruncatedMonteCarlo(budget, seed, tolerance, patience)  # refuses what is not allowed
        self.budget, self.seed, self.tolerance, self.patience = budget, seed, tolerance, patience
        self.evaluations = "100 n" if budget is None else str(budget)
        self.efficient = tolerance == 0

    def cost(self, n_players: int) -> int:
        """Most sets of lots that are valued in a round."""
        return 100 * n_players if self.budget is None else self.budget

    def check(self, n_players: int) -> None:
        """Refuse a cooperative for which the budget is too small whatever its number of lots.

        Raises:
            ValueError: If it is.
        """
        super().check(n_players)
        self._require(n_players, "agents, of one lot each")

    def assign_lots(self, round: Round) -> Tensor:
        """Credit of every lot for this round, ``(E, N, K)``, in the utility's unit.

        Raises:
            ValueError: If the budget does not reach for one order of all lots.
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
