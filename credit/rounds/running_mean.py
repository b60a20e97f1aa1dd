"""Running means over the rounds of an episode."""

from __future__ import annotations

from torch import Tensor


class RunningMean:
    r"""The mean of what came so far, in which the past fades.

    .. math:: m^t = \frac{\sum_{\tau \le t} \lambda^{t - \tau} x^\tau}{\sum_{\tau \le t} \lambda^{t - \tau}}

    So the bias of the first rounds is removed, as in Adam (Kingma & Ba 2015).

    Args:
        decay: λ, from 0 (no memory) to 1 (the plain mean).
    """

    def __init__(self, decay: float) -> None:
        self.decay = decay
        self.forget()

    def forget(self) -> None:
        """Begin anew."""
        self._sum: Tensor | None = None
        self._weight = 0.0

    def with_(self, x: Tensor) -> Tensor:
        """The mean now that ``x`` has come, of its shape."""
        self._sum = x if self._sum is None else self.decay * self._sum + x
        self._weight = self.decay * self._weight + 1
        return self._sum / self._weight
