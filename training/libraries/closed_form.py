"""The gradient of :class:`~proxycoop.agents.network.LotNetwork` in closed form.

In networks as small as ours, the time between operations counts as much as the operations themselves. Written out by hand, the forward and
backward passes need fewer operations and less memory than torch's automatic differentiation, and give the same gradient.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from ...agents.network import LotNetwork


class ClosedFormNetwork:
    """Actor and critic side by side, with their gradient in closed form.

    All their parameters become views of one vector, so that clipping and Adam take one operation each. The input that a proxy's lots have
    in common goes through the first layer once, not once per lot.

    Attributes:
        vector: The parameters, ``(P,)``; :meth:`backward` writes its ``grad``.

    Args:
        network: The network. It works as before, and shares these parameters.
        has_critic: Whether there is a critic to train.
    """

    def __init__(self, network: LotNetwork, has_critic: bool) -> None:
        self.n_lot_features, self.n_agent_features = network.n_lot_features, network.n_agent_features
        bodies, heads = [network.actor, network.critic][: 1 + has_critic], [network.decide, network.value][: 1 + has_critic]
        layers: list[Sequence[nn.Module]] = [[body[0] for body in bodies], [body[2] for body in bodies], heads]
        parameters = [getattr(layer, name) for alike in layers for name in ("weight", "bias") for layer in alike]
        self.vector = nn.Parameter(torch.cat([parameter.detach().flatten() for parameter in parameters]))
        self.vector.grad = torch.zeros_like(self.vector)
        weights = self.vector.detach()
        for parameter, part in zip(parameters, weights.split([parameter.numel() for parameter in parameters]), strict=True):
            parameter.data = part.view_as(parameter)
        n, h, d = len(heads), network.hidden, 2 * self.n_lot_features + self.n_agent_features
        shapes = [(n * h, d), (n * h,), (n, h, h), (n, h), (n, h), (n,)]  # weights and biases of the first, second and last layers
        sizes = [math.prod(shape) for shape in shapes]
        self._weights = [part.view(shape) for part, shape in zip(weights.split(sizes), shapes, strict=True)]
        self._gradients = [part.view(shape) for part, shape in zip(self.vector.grad.split(sizes), shapes, strict=True)]
        self._blocks = [slice(i * h, (i + 1) * h) for i in range(n)]

    def forward(self, observations: Tensor) -> tuple[Tensor, Tensor]:
        """Logits ``(B, K)`` and values ``(B,)`` from normalised observations ``(B, size)``; without a critic the values are 0."""
        w1, b1, w2, b2, w3, b3 = self._weights
        f = self.n_lot_features
        lots, own = observations[:, : -self.n_agent_features].unflatten(1, (-1, f)), observations[:, -self.n_agent_features :]
        context, lots = torch.cat([lots.mean(dim=1), own], dim=1), lots.contiguous()  # (B, F + G), (B, K, F)
        common = torch.addmm(b1, context, w1[:, f:].T)[:, None]  # (B, 1, n·H)
        h1 = (lots @ w1[:, :f].T).add_(common).tanh_().flatten(end_dim=1)  # (B·K, n·H)
        h2 = torch.empty_like(h1)
        for i, part in enumerate(self._blocks):
            torch.addmm(b2[i], h1[:, part], w2[i].T, out=h2[:, part])
        h2.tanh_()
        self._seen = lots, context, h1, h2
        outputs = [torch.mv(h2[:, part], w3[i]).add_(b3[i]).view(lots.shape[:2]) for i, part in enumerate(self._blocks)]  # (B, K) each
        return outputs[0], outputs[1].mean(dim=1) if len(outputs) > 1 else outputs[0].new_zeros(len(observations))

    def backward(self, d_logits: Tensor, d_values: Tensor) -> None:
        """Gradient of a loss, from its gradient with respect to the last outputs of :meth:`forward`, ``(B, K)`` and ``(B,)``."""
        *_, w2, _, w3, _ = self._weights
        g1, gb1, g2, gb2, g3, gb3 = self._gradients
        lots, context, h1, h2 = self._seen
        n_lots = lots.shape[1]
        d_outputs = [d_logits.flatten(), (d_values / n_lots).repeat_interleave(n_lots)]  # (B·K,) each
        d2, d1 = torch.empty_like(h2), torch.empty_like(h1)
        for i, part in enumerate(self._blocks):
            torch.mv(h2[:, part].T, d_outputs[i], out=g3[i])
            gb3[i] = d_outputs[i].sum()
            torch.outer(d_outputs[i], w3[i], out=d2[:, part])
        d2 = torch.ops.aten.tanh_backward(d2, h2)  # (B·K, n·H)
        gb2.copy_(d2.sum(dim=0).view_as(gb2))
        for i, part in enumerate(self._blocks):
            torch.mm(d2[:, part].T, h1[:, part], out=g2[i])
            torch.mm(d2[:, part], w2[i], out=d1[:, part])
        d1 = torch.ops.aten.tanh_backward(d1, h1)
        d_common = d1.unflatten(0, (-1, n_lots)).sum(dim=1)  # (B, n·H)
        torch.sum(d_common, dim=0, out=gb1)
        torch.cat([d1.T @ lots.flatten(end_dim=1), d_common.T @ context], dim=1, out=g1)
