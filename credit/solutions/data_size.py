"""Pay in proportion to the amount of data."""

from __future__ import annotations

import torch
from torch import Tensor

from ..games.round import Round
from ..rule import RULES, LotRule


@RULES.register("data_size")
class DataSize(LotRule):
    r"""Pays each agent a part of the round's gain in proportion to its admitted data, whatever that data did.

    .. math:: c_i = v(N) \frac{s_i}{\sum_j s_j}, \qquad s_i = \sum_k \text{admitted}_{ik}\,\text{samples}_{ik}

    If nothing was admitted, everybody gets 0 (v(N) is then 0 too).

    Costs one evaluation. Efficient. Not symmetric: agents that are interchangeable in the game may hold different amounts of data. Not
    null-player.

    Known failure: spam. A corrupt lot earns what a clean one does.

    References:
        The weights of FedAvg, used as shares: McMahan, Moore, Ramage, Hampson & Agüera y Arcas (2017), *Communication-efficient learning of
        deep networks from decentralized data*, AISTATS.
    """

    source = "FedAvg weights (McMahan et al. 2017)"
    pays = "v(N) · own admitted data / all admitted data"
    known_failure = "spam: a corrupt lot earns what a clean one does"
    evaluations = "1"
    efficient = True

    def cost(self, n_players: int) -> int:
        """One evaluation, v(N)."""
        del n_players
        return 1

    def assign_lots(self, round: Round) -> Tensor:
        """Credit of every lot for this round, ``(E, N, K)``, in the utility's unit."""
        size = (round.admitted * round.samples).to(round.gain.dtype)  # (E, N, K)
        share = size / size.sum(dim=(1, 2), keepdim=True).clamp(min=torch.finfo(size.dtype).tiny)
        return round.gain[:, None, None] * share
