"""What agents find when they try each other's updates on their own data."""

from __future__ import annotations

import torch
from torch import Tensor

from ..data.lots import DrawnLots
from .interface import Model
from .likelihood import cross_entropy


@torch.no_grad()
def peer_gains(model: Model, lots: DrawnLots, start: Tensor, parts: Tensor) -> Tensor:
    """By how much each agent's part of a step, added alone, lowers the mean loss on each agent's own data.

    Args:
        model: The shared model.
        lots: The lots of all agents.
        start: Parameters before the step, ``(E, P)``.
        parts: Each agent's part of the step, ``(E, N, P)``.

    Returns:
        ``(E, N, N)``, in nats. Entry ``[:, j, i]`` is by how much agent i's part lowers agent j's loss.
    """
    x, y = lots.inputs.flatten(1, 3), lots.y.flatten(1, 3)  # (E, NKR, D), (E, NKR)
    n_rows = lots.samples.sum(dim=-1)[..., None, None]  # the same in all environments, unless a sample of all takes part
    weight = (lots.present.to(start.dtype) / n_rows).flatten(-2)  # (N, KR) or (E, N, KR)

    def loss(theta: Tensor) -> Tensor:
        of_rows: Tensor = cross_entropy(model.logits(theta, x), y).unflatten(1, weight.shape[-2:])  # (E, N, KR)
        return (of_rows * weight).sum(dim=-1)

    before = loss(start)
    return torch.stack([before - loss(start + part) for part in parts.unbind(dim=1)], dim=2)
