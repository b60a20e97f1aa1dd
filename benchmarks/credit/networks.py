"""Small networks as shared models, for the benchmarks of credit: ``model: {kind: module, factory: networks:cnn}``."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class Cnn(nn.Module):
    """Two convolutions and a linear layer, on images of 8 × 8; 1,626 parameters for ten classes."""

    def __init__(self, n_classes: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Conv2d(1, 8, 3, stride=2, padding=1),
            nn.ReLU(),
            nn.Conv2d(8, 12, 3, stride=2, padding=1),
            nn.ReLU(),
            nn.Flatten(),
            nn.Linear(48, n_classes),
        )

    def forward(self, x: Tensor) -> Tensor:
        """Logits ``(R, C)`` of rows ``(R, 64)``."""
        return self.layers(x.reshape(-1, 1, 8, 8))


class Transformer(nn.Module):
    """One block of attention over the eight lines of an image."""

    def __init__(self, n_classes: int, width: int = 16) -> None:
        super().__init__()
        self.embed = nn.Linear(8, width)
        self.place = nn.Parameter(torch.zeros(8, width))
        self.keys, self.queries, self.values = (nn.Linear(width, width) for _ in range(3))
        self.mix = nn.Sequential(nn.LayerNorm(width), nn.Linear(width, 2 * width), nn.GELU(), nn.Linear(2 * width, width))
        self.head = nn.Linear(width, n_classes)

    def forward(self, x: Tensor) -> Tensor:
        """Logits ``(R, C)`` of rows ``(R, 64)``."""
        h = self.embed(x.reshape(-1, 8, 8)) + self.place
        look = (self.queries(h) @ self.keys(h).transpose(-1, -2) / h.shape[-1] ** 0.5).softmax(dim=-1)
        h = h + look @ self.values(h)
        return self.head((h + self.mix(h)).mean(dim=-2))


def cnn(n_features: int, n_classes: int) -> nn.Module:
    """The convolutional network, always with the same start."""
    assert n_features == 64
    return _seeded(Cnn, n_classes)


def transformer(n_features: int, n_classes: int) -> nn.Module:
    """The transformer, always with the same start."""
    assert n_features == 64
    return _seeded(Transformer, n_classes)


def _seeded(build: type[nn.Module], n_classes: int) -> nn.Module:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return build(n_classes)
