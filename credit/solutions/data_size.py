"""Pay by volume."""

from __future__ import annotations

import torch
from torch import Tensor

from ..games.round import Round
from ..rule import RULES, LotRule


@RULES.register("data_size")
class DataSize(LotRule):
    r"""The round's gain is shared by the amount of admitted data, whatever that data did.

    .. math:: c_i = v(N) \frac{s_i}{\sum_j s_j}, \qquad s_i = \sum_k \text{admitted}_{ik}\,\text{samples}_{ik}

    and 0 for everybody when nothing was admitted (v(N) is then 0 too). Costs one evaluation. Efficient; not symmetric (agents
    that are interchangeable in the game may hold different amounts of data) and not null-player. Its known failure is spam: a
    corrupt lot earns what a clean one does.

    References:
        The weights of FedAvg (McMahan et al. 2017, AISTATS) used as shares.
    """

    source = "FedAvg weights (McMahan et al. 2017)"
    evaluations = "1"
    efficient = True

    def cost(self, n_players: int) -> int:
        """v(N)."""
        del n_players
        return 1

    def assign_lots(self, round: Round) -> Tensor:
        """Credit of every lot for this round, ``(E, N, K)``, in the utility's unit."""
        size = (round.admitted * round.samples).to(round.gain.dtype)  # (E, N, K)
        share = size / size.sum(dim=(1, 2), keepdim=True).clamp(min=torch.finfo(size.dtype).tiny)
        return round.gain[:, None, None] * share
