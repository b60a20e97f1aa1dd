r"""The server: from the weighted sum of a coalition's updates to the new shared parameters.

All functions take steps of several coalitions at once, ``(E, C, P)``; the grand coalition's is the one that is applied.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal

import torch
from pydantic import Field
from torch import Tensor

from ...settings import Settings, default_kind


@dataclass(frozen=True)
class ServerState:
    """What the server remembers: first and (for Adam) second moment of past steps, ``(E, P)`` each."""

    first: Tensor
    second: Tensor


class _Server(Settings):
    def start(self, theta: Tensor) -> ServerState:
        """No memory yet, for parameters ``(E, P)``."""
        return ServerState(torch.zeros_like(theta), torch.zeros_like(theta))


class Sgd(_Server):
    r"""Gradient descent on the server, with momentum if wanted: :math:`m' = \mu m + \eta d`, applied as it is.

    References:
        FedAvgM: Hsu, Qi & Brown (2019), arXiv 1909.06335.
    """

    kind: Literal["sgd"] = "sgd"
    lr: float = Field(1.0, gt=0, description="Server learning rate η.")
    momentum: float = Field(0.0, ge=0, lt=1, description="Momentum μ.")

    def delta(self, step: Tensor, state: ServerState) -> Tensor:
        """What is added to θ for the step d of each coalition, ``(E, C, P)``."""
        return self.momentum * state.first[:, None] + self.lr * step

    def advance(self, step: Tensor, state: ServerState, applied: Tensor) -> ServerState:
        """The memory after ``applied`` ``(E, P)`` was added to θ."""
        del step
        return ServerState(applied, state.second)

    def parts(self, entering: Tensor, state: ServerState) -> Tensor:
        """Each agent's part in what is added to θ, by what it brings to the step, ``(E, N, P)``; memory is nobody's."""
        del state
        return self.lr * entering


class Adam(_Server):
    r"""FedAdam: :math:`m' = \beta_1 m + (1-\beta_1) d,\ v' = \beta_2 v + (1-\beta_2) d^2`, applied as :math:`\eta m'/(\sqrt{v'} + \tau)`.

    References:
        Reddi et al. (2021), *Adaptive federated optimization*, ICLR (no bias correction, as there).
    """

    kind: Literal["adam"] = "adam"
    lr: float = Field(0.03, gt=0, description="Server learning rate η.")
    beta1: float = Field(0.9, ge=0, lt=1, description="Decay of the first moment.")
    beta2: float = Field(0.99, ge=0, lt=1, description="Decay of the second moment.")
    tau: float = Field(1e-3, gt=0, description="Adaptivity τ, added to the root of the second moment.")

    def delta(self, step: Tensor, state: ServerState) -> Tensor:
        """What is added to θ for the step d of each coalition, ``(E, C, P)``."""
        first, second = self._moments(step, state.first[:, None], state.second[:, None])
        return self.lr * first / (second.sqrt() + self.tau)

    def advance(self, step: Tensor, state: ServerState, applied: Tensor) -> ServerState:
        """The memory after ``applied`` ``(E, P)`` was added to θ; Adam remembers the steps d, not what became of them."""
        del applied
        return ServerState(*self._moments(step, state.first, state.second))

    def parts(self, entering: Tensor, state: ServerState) -> Tensor:
        r"""Each agent's part in what is added to θ, by what it brings to the step, ``(E, N, P)``; memory is nobody's.

        Every coordinate of f(d) − f(0), what the server does for the step d less what it does for none, is shared in proportion to what
        enters it: the parts are the entering ones times the secant's slope, :math:`(f(d) - f(0)) / d`. With a and b the roots of the
        second moment after d and after nothing, that is
        :math:`\frac{\eta}{a + \tau} \left[1 - \beta_1 - \beta_1 m \frac{(1 - \beta_2)\,d}{(a + b)(b + \tau)}\right]`.
        """
        step = entering.sum(dim=1, keepdim=True)
        first, second = state.first[:, None], state.second[:, None]
        after = self._moments(step, first, second)[1].sqrt()
        before = (self.beta2 * second).sqrt()
        most = (1 - self.beta2) ** 0.5  # a ≥ √(1 − β₂)·|d|, also where d² or (a + b)·τ is too small to be told from 0
        rise = ((1 - self.beta2) * step / (after + before).clamp(min=torch.finfo(step.dtype).tiny)).clamp(-most, most)
        bend = rise / (before + self.tau)
        return self.lr / (after + self.tau) * (1 - self.beta1 - self.beta1 * first * bend) * entering

    def _moments(self, step: Tensor, first: Tensor, second: Tensor) -> tuple[Tensor, Tensor]:
        return (
            self.beta1 * first + (1 - self.beta1) * step,
            self.beta2 * second + (1 - self.beta2) * step.square(),
        )


ServerSettings = Annotated[Annotated[Sgd | Adam, Field(discriminator="kind")], default_kind("sgd")]
