"""Models as chains of blocks, for the benchmarks of traversal learning."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class Lines(nn.Module):
    """A picture of 8 × 8 as eight lines, each embedded with its place."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.embed = nn.Linear(8, width)
        self.place = nn.Parameter(torch.zeros(8, width))

    def forward(self, x: Tensor) -> Tensor:
        """``(b, 64)`` to ``(b, 8, width)``."""
        return self.embed(x.reshape(-1, 8, 8)) + self.place


class Mean(nn.Module):
    """The mean over the lines."""

    def forward(self, x: Tensor) -> Tensor:
        """``(b, 8, width)`` to ``(b, width)``."""
        return x.mean(dim=1)


def mlp(n_features: int = 64, n_classes: int = 10) -> nn.Sequential:
    """Two hidden layers of 64 and 32 units."""
    return nn.Sequential(nn.Linear(n_features, 64), nn.ReLU(), nn.Linear(64, 32), nn.ReLU(), nn.Linear(32, n_classes))


def cnn(n_features: int = 64, n_classes: int = 10) -> nn.Sequential:
    """Two convolutions and two linear layers, on square pictures."""
    side = round(n_features**0.5)
    smaller = (side + 3) // 4  # two strides of 2, rounded up
    first = nn.Unflatten(1, (1, side, side)), nn.Conv2d(1, 8, 3, stride=2, padding=1), nn.ReLU()
    second = nn.Conv2d(8, 12, 3, stride=2, padding=1), nn.ReLU(), nn.Flatten()
    return nn.Sequential(*first, *second, nn.Linear(12 * smaller**2, 32), nn.ReLU(), nn.Linear(32, n_classes))


def transformer(n_features: int = 64, n_classes: int = 10) -> nn.Sequential:
    """Two blocks of attention over the lines of a picture of 8 × 8."""
    assert n_features == 64
    layer = {"d_model": 16, "nhead": 2, "dim_feedforward": 32, "batch_first": True, "activation": "gelu"}
    blocks = nn.TransformerEncoderLayer(**layer), nn.TransformerEncoderLayer(**layer)
    return nn.Sequential(Lines(16), *blocks, Mean(), nn.LayerNorm(16), nn.Linear(16, n_classes))


MODELS = {"MLP": mlp, "CNN": cnn, "transformer": transformer}
CUTS = {"MLP": 2, "CNN": 3, "transformer": 2}
"""Where each is cut where cuts are not compared: after the first block with its non-linearity; of the transformer, after the first of
attention."""
