"""What each lot would add to the coming round: an observation for ablations, which tells proxies what no real one could know."""

from __future__ import annotations

import torch
from torch import Tensor

from ...credit import LotGame


def marginal_gains(game: LotGame, others: Tensor) -> Tensor:
    r"""Each lot's marginal gain in the coming round, if everything else is contributed as in the last one.

    .. math:: m_{ik} = v(A \cup \{(i, k)\}) - v(A \setminus \{(i, k)\})

    with A the lots that were contributed in the last round and will be admitted now, none of them in the first round. The gains are
    measured on the validation set, with the cooperative's weights and server. So they mean the same in every scenario, also where
    first-order gains mean little: with large steps, participants' weights, a server with memory, or utility accuracy.

    Costs N·K + 1 evaluations of the validation set.

    Args:
        game: What the coming round would gain with any set of lots.
        others: A before lots that will not be admitted are taken out, bool ``(E, N, K)``.

    Returns:
        ``(E, N, K)``, in the utility's unit; 0 for a lot that will not be admitted.
    """
    there = others & game.candidates
    shape = there.shape[1:]
    n_lots = there[0].numel()
    flip = torch.eye(n_lots, dtype=torch.bool, device=there.device).reshape(n_lots, *shape)
    values = game.value(torch.cat([there[:, None], there[:, None] ^ flip], dim=1))  # (E, 1 + N·K)
    rise = (values[:, 1:] - values[:, :1]).unflatten(1, shape)
    return torch.where(game.candidates, torch.where(there, -rise, rise), 0.0)
