"""The utility: how good the shared model is on held-out rows, and how the utility changes with the model's parameters."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from ..data.sources import Rows
from .interface import Model
from .likelihood import cross_entropy, residual

UtilityName = Literal["neg_log_loss", "accuracy"]


def least_divisor(size: Tensor) -> Tensor:
    r"""The least number that a ratio may be relative to, where numbers of a given size were subtracted to get it.

    Rounding changes such a number by about :math:`\epsilon \cdot size`, with ε the precision of the type: 1.2e-7 in float32, 2.2e-16 in
    float64. (Measured on the shipped scenarios: credit in float32 is off by at most 2.1 ε, where the utility is about 1.) A quotient of
    two rounding errors can be anything. From :math:`100\,\epsilon \cdot size` on, rounding changes a ratio by a few percent at most.

    Args:
        size: Size of the numbers that were subtracted, or the sum of their sizes, in any unit and of any shape.

    Returns:
        As ``size``, in the same unit.
    """
    return 100 * torch.finfo(size.dtype).eps * size


def neg_log_loss(logits: Tensor, y: Tensor) -> Tensor:
    """Minus the mean cross-entropy over the rows, in nats: ``(..., V, C)`` → ``(...)``."""
    return -cross_entropy(logits, y).mean(dim=-1)


def accuracy(logits: Tensor, y: Tensor) -> Tensor:
    """Share of rows answered right: ``(..., V, C)`` → ``(...)``."""
    return (logits.argmax(dim=-1) == y).to(logits.dtype).mean(dim=-1)


UTILITIES: dict[UtilityName, Callable[[Tensor, Tensor], Tensor]] = {"neg_log_loss": neg_log_loss, "accuracy": accuracy}


@dataclass(frozen=True)
class HeldOutUtility:
    """U(θ): one utility of one model on one set of rows.

    Attributes:
        name: Which utility.
        model: The shared model.
        rows: The V held-out rows.
    """

    name: UtilityName
    model: Model
    rows: Rows

    def of_logits(self, logits: Tensor) -> Tensor:
        """U by the model's answers on the rows: ``(..., V, C)`` → ``(...)``."""
        return UTILITIES[self.name](logits, self.rows.y)

    @torch.no_grad()
    def gradient(self, theta: Tensor) -> Tensor:
        """∇U at parameters ``(E, P)``: ``(E, P)``.

        Raises:
            ValueError: If the utility is ``accuracy``, which has no gradient.
        """
        self._require_smooth()
        error = residual(self.model.logits(theta, self.rows.x), self.rows.y)  # (E, V, C)
        return self.model.pullback(theta, self.rows.x, error / -len(self.rows))

    @torch.no_grad()
    def curvature(self, theta: Tensor, direction: Tensor) -> Tensor:
        """The Hessian of U at parameters ``(E, P)`` times a direction ``(E, P)``: ``(E, P)``.

        Raises:
            ValueError: If the utility is ``accuracy``, which has none.
        """
        self._require_smooth()
        return -self.model.curvature(theta, self.rows.x, self.rows.y, direction)

    @torch.no_grad()
    def expansion(self, theta: Tensor, direction: Tensor) -> tuple[Tensor, Tensor]:
        """:meth:`gradient` and :meth:`curvature`, for less than the two apart; raises as they do."""
        self._require_smooth()
        gradient, product = self.model.expansion(theta, self.rows.x, self.rows.y, direction)
        return -gradient, -product

    def _require_smooth(self) -> None:
        if self.name != "neg_log_loss":
            raise ValueError(f"utility={self.name!r} has no gradient: use utility: neg_log_loss")
