"""Shared models as functions of one flat parameter vector, batched over parameters.

A cooperative needs two functions of a model: its logits (:meth:`Model.logits`), and the product of their transposed Jacobian with a
cotangent (:meth:`Model.pullback`). The second turns the gradient of a loss with respect to the logits into the gradient with respect to the
parameters.
"""

from __future__ import annotations

import copy
from abc import ABC, abstractmethod

import torch
from torch import Tensor

from .likelihood import residual


class Model(ABC):
    """A model with P parameters, D features and C classes.

    Attributes:
        n_parameters: P.
        n_classes: C.
        linear: Whether logits are linear in the parameters: logits(θ + Δ, x) = logits(θ, x) + logits(Δ, x). The pullback does not depend on
            them then, and may be asked without one set of parameters a model.
        class_head: For each parameter of the last layer, the class whose logit it contributes to, int64 ``(P,)``; −1 for other parameters.
            ``None`` for a model whose last layer is not linear.
    """

    n_parameters: int
    n_classes: int
    linear: bool = False
    class_head: Tensor | None = None

    @abstractmethod
    def start(self) -> Tensor:
        """The parameters before any training, ``(P,)``."""

    def to(self, device: torch.device) -> Model:
        """The same model for parameters and rows on a device."""
        moved = copy.copy(self)
        moved.class_head = None if self.class_head is None else self.class_head.to(device)
        return moved

    def prepare(self, x: Tensor) -> Tensor:
        """Prepare rows that are used often, ``(..., D)`` → ``(..., any)``. Rows that are prepared already are returned as they are."""
        return x

    @abstractmethod
    def logits(self, theta: Tensor, x: Tensor) -> Tensor:
        """The logits of B models.

        Args:
            theta: Parameters of the B models, ``(B, P)``.
            x: Rows, prepared or not, ``(B, R, D)``; or ``(R, D)``, the same rows for all B models.

        Returns:
            ``(B, R, C)``.
        """

    def logits_by_row(self, theta: Tensor, x: Tensor) -> Tensor:
        """The same logits for rows ``(R, D)`` in other order, ``(R, B, C)``."""
        return self.logits(theta, x).transpose(0, 1)

    @abstractmethod
    def pullback(self, theta: Tensor, x: Tensor, cotangent: Tensor) -> Tensor:
        """Product of the logits' transposed Jacobian with a cotangent, summed over the rows.

        Args:
            theta: Parameters of the B models, ``(B, P)``.
            x: Rows, prepared or not, ``(B, R, D)`` or ``(R, D)``.
            cotangent: Gradient of some loss with respect to the logits, ``(B, R, C)``.

        Returns:
            Gradient of that loss with respect to the parameters, ``(B, P)``.
        """

    def loss_gradient(self, theta: Tensor, x: Tensor, y: Tensor, weight: Tensor) -> tuple[Tensor, Tensor]:
        """Gradient of the weighted sum of the rows' cross-entropies, and the logits on the way to it.

        Args:
            theta: Parameters of the B models, ``(B, P)``.
            x: Rows of each model, prepared or not, ``(B, R, D)``.
            y: Their labels, int64 ``(B, R)``.
            weight: The rows' weights, ``(B, R)``.

        Returns:
            Logits ``(B, R, C)``, and the gradient ``(B, P)``.
        """
        logits = self.logits(theta, x)
        return logits, self.pullback(theta, x, residual(logits, y) * weight[..., None])

    @abstractmethod
    def curvature(self, theta: Tensor, x: Tensor, y: Tensor, direction: Tensor) -> Tensor:
        """Product of the Hessian of the mean cross-entropy on some rows with a direction.

        Args:
            theta: Parameters of the B models, ``(B, P)``.
            x: Rows, prepared or not, ``(R, D)``.
            y: Labels, int64 ``(R,)``.
            direction: One direction per model, ``(B, P)``.

        Returns:
            ``(B, P)``, in nats per squared unit of the parameters, times the direction's unit.
        """

    def expansion(self, theta: Tensor, x: Tensor, y: Tensor, direction: Tensor) -> tuple[Tensor, Tensor]:
        """Gradient of the mean cross-entropy, and :meth:`curvature` along a direction, ``(B, P)`` each; arguments as there."""
        error = residual(self.logits(theta, x), y)  # (B, R, C)
        return self.pullback(theta, x, error / len(x)), self.curvature(theta, x, y, direction)
