"""How the shared model is trained on the public rows before the first round."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import chain
from typing import Literal

import torch
from pydantic import Field
from torch import Tensor

from ...settings import LATER, Settings
from ..data.sources import Rows
from .interface import Model
from .likelihood import residual

_ADAM = (0.9, 0.999, 1e-8)
"""β₁, β₂ and ε, as Kingma & Ba (2015) set them."""


class Start(Settings):
    r"""The shared model before the first round: it is trained on the public set by gradient descent.

    Plain gradient descent suits convex models. Within a few steps a network hardly leaves its random start by it, and at a large rate it
    diverges. ``optimizer: adam`` gives each parameter a step of about ``lr`` whatever its gradient's size; 0.001 to 0.01 suits most
    networks. After t steps, with gradient g,

    .. math:: m \leftarrow \beta_1 m + (1 - \beta_1) g,\quad v \leftarrow \beta_2 v + (1 - \beta_2) g^2,\quad
        \theta \leftarrow \theta - \text{lr}\, \frac{m / (1 - \beta_1^t)}{\sqrt{v / (1 - \beta_2^t)} + \epsilon}

    References:
        Kingma & Ba (2015), *Adam: a method for stochastic optimization*, ICLR.
    """

    steps: int = Field(20, ge=0, description="Gradient steps.")
    lr: float = Field(0.5, gt=0, description="Learning rate.")
    optimizer: Literal["sgd", "adam"] = Field(
        "sgd", json_schema_extra=LATER, description="sgd: plain gradient steps. adam: Adam, which suits networks, with lr: 0.001 to 0.01."
    )
    batch: int | None = Field(
        None,
        ge=1,
        json_schema_extra=LATER,
        description="Public rows of a step, dealt in random order, pass after pass; all rows by default.",
    )

    def train(self, model: Model, theta: Tensor, rows: Rows, seed: int) -> Tensor:
        """Train models on the same rows.

        Args:
            model: The model.
            theta: Parameters before, ``(B, P)``.
            rows: The public rows.
            seed: Seed of the batches' order.

        Returns:
            Parameters after, ``(B, P)``.
        """
        *_, last = chain([theta], self.path(model, theta, rows, seed, self.lr))
        return last

    def path(self, model: Model, theta: Tensor, rows: Rows, seed: int, lr: float | Tensor) -> Iterator[Tensor]:
        """The parameters after each step, ``(B, P)``, by a learning rate for all models, or one for each, ``(B, 1)``; see :meth:`train`."""
        first = second = torch.zeros_like(theta)
        beta, gamma, epsilon = _ADAM
        for step, (x, y) in enumerate(self._batches(rows, seed), start=1):
            error = residual(model.logits(theta, x), y)
            slope = model.pullback(theta, x, error / len(y))
            if self.optimizer == "sgd":
                theta = theta - lr * slope
            else:
                first, second = beta * first + (1 - beta) * slope, gamma * second + (1 - gamma) * slope**2
                theta = theta - lr * (first / (1 - beta**step)) / ((second / (1 - gamma**step)).sqrt() + epsilon)
            yield theta

    def _batches(self, rows: Rows, seed: int) -> list[tuple[Tensor, Tensor]]:
        """The rows of each step, and their labels."""
        if self.batch is None or self.batch >= len(rows):
            return [(rows.x, rows.y)] * self.steps
        generator = torch.Generator().manual_seed(seed)
        per_pass = len(rows) // self.batch
        passes = [torch.randperm(len(rows), generator=generator) for _ in range(-(-self.steps // per_pass))]
        index = [some for order in passes for some in order.split(self.batch)[:per_pass]][: self.steps]
        return [(rows.x[some], rows.y[some]) for some in index]
