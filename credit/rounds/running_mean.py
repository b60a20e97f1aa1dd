"""Running means over the rounds of an episode."""

from __future__ import annotations

import torch
from torch import Tensor

from ..games.round import Round


class RunningMean:
    r"""The mean of all values so far, in which older ones count less.

    .. math:: m^t = \frac{\sum_{\tau \le t} \lambda^{t - \tau} x^\tau}{\sum_{\tau \le t} \lambda^{t - \tau}}

    The denominator removes the bias of the first rounds, as in Adam (Kingma & Ba 2015).

    Args:
        decay: λ, from 0 (no memory) to 1 (the plain mean).
    """

    def __init__(self, decay: float) -> None:
        self.decay = decay
        self.forget()

    def forget(self) -> None:
        """Forget all values."""
        self._sum: Tensor | None = None
        self._weight = 0.0

    def with_(self, x: Tensor) -> Tensor:
        """The mean with ``x`` included, in the shape of ``x``."""
        self._sum = x if self._sum is None else self.decay * self._sum + x
        self._weight = self.decay * self._weight + 1
        return self._sum / self._weight

    def of_some(self, x: Tensor, round: Round) -> Tensor:
        """The means of the agents of a round, each over the rounds in which it was present, with ``x`` ``(E, N)`` included: ``(E, N)``."""
        if self._sum is None:
            self._sum = x.new_zeros(len(x), round.n_members)
            self._weights = torch.zeros_like(self._sum)
        total = self.decay * round.of_agents(self._sum) + x
        weight = self.decay * round.of_agents(self._weights) + 1
        self._sum, self._weights = round.among_members(total, self._sum), round.among_members(weight, self._weights)
        return total / weight
