r"""The server: from the weighted sum of a coalition's updates to the change of the shared parameters.

A function that takes steps takes those of several coalitions at once, ``(E, C, P)``. The step of the grand coalition is the one that is
applied.
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
    """The server's memory: the first and, for Adam, the second moment of past steps, ``(E, P)`` each."""

    first: Tensor
    second: Tensor


class _Server(Settings):
    def start(self, theta: Tensor) -> ServerState:
        """The memory at the start of an episode, for parameters ``(E, P)``: zeros."""
        return ServerState(torch.zeros_like(theta), torch.zeros_like(theta))


class Sgd(_Server):
    r"""The server adds the step, with momentum if μ > 0: it adds :math:`m' = \mu m + \eta d` to the shared parameters.

    References:
        FedAvgM: Hsu, Qi & Brown (2019), arXiv 1909.06335.
    """

    kind: Literal["sgd"] = "sgd"
    lr: float = Field(1.0, gt=0, description="Server learning rate η.")
    momentum: float = Field(0.0, ge=0, lt=1, description="Momentum μ.")

    def delta(self, step: Tensor, state: ServerState) -> Tensor:
        """What is added to θ for the step d of each coalition, ``(E, C, P)``."""
        return self.momentum * state.first[:, None] + self.lr * step if self.momentum else self.lr * step

    def advance(self, step: Tensor, state: ServerState, applied: Tensor) -> ServerState:
        """The memory after ``applied`` ``(E, P)`` was added to θ."""
        del step
        return ServerState(applied, state.second)

    def parts(self, entering: Tensor, state: ServerState) -> Tensor:
        """Each agent's part of what is added to θ, from its part of the step, ``(E, N, P)``. The memory's part belongs to nobody."""
        del state
        return self.lr * entering


class Adam(_Server):
    r"""FedAdam: :math:`m' = \beta_1 m + (1-\beta_1) d,\ v' = \beta_2 v + (1-\beta_2) d^2`; adds :math:`\eta m'/(\sqrt{v'} + \tau)` to θ.

    There is no bias correction, as in the source.

    References:
        Reddi et al. (2021), *Adaptive federated optimization*, ICLR.
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
        """The memory after ``applied`` ``(E, P)`` was added to θ. Adam remembers the steps d, whatever was applied."""
        del applied
        return ServerState(*self._moments(step, state.first, state.second))

    def parts(self, entering: Tensor, state: ServerState) -> Tensor:
        r"""Each agent's part of what is added to θ, from its part of the step, ``(E, N, P)``. The memory's part belongs to nobody.

        Let f(d) be what the server adds for the step d. Each coordinate of f(d) − f(0) is shared in proportion to the agents' parts of d:
        their parts of d are multiplied by the slope of the secant, :math:`(f(d) - f(0)) / d`. With a and b the roots of the second moment
        after the steps d and 0, that slope is
        :math:`\frac{\eta}{a + \tau} \left[1 - \beta_1 - \beta_1 m \frac{(1 - \beta_2)\,d}{(a + b)(b + \tau)}\right]`.
        """
        step = entering.sum(dim=1, keepdim=True)
        first, second = state.first[:, None], state.second[:, None]
        after = self._moments(step, first, second)[1].sqrt()
        before = (self.beta2 * second).sqrt()
        most = (1 - self.beta2) ** 0.5  # a ≥ √(1 − β₂)·|d|, even where d² or (a + b)·τ rounds to 0
        rise = ((1 - self.beta2) * step / (after + before).clamp(min=torch.finfo(step.dtype).tiny)).clamp(-most, most)
        bend = rise / (before + self.tau)
        return self.lr / (after + self.tau) * (1 - self.beta1 - self.beta1 * first * bend) * entering

    def _moments(self, step: Tensor, first: Tensor, second: Tensor) -> tuple[Tensor, Tensor]:
        return (
            self.beta1 * first + (1 - self.beta1) * step,
            self.beta2 * second + (1 - self.beta2) * step.square(),
        )


ServerSettings = Annotated[Annotated[Sgd | Adam, Field(discriminator="kind")], default_kind("sgd")]
