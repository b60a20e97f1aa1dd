r"""The gradient of :class:`~proxycoop.agents.network.LotNetwork` in closed form.

In networks as small as ours, the time between operations counts as much as the operations themselves. Written out by hand, the forward and
backward passes need fewer operations and less memory than torch's automatic differentiation, and give the same gradient to rounding. What
remains is mostly products of matrices.

Activations are computed as :math:`\tanh z = 2 \sigma(2z) - 1`: on a CPU, torch takes six times as long for a hyperbolic tangent as for a
sigmoid, and longer than for the product before it. In single precision they differ by at most 2e-7.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from ....agents.network import LotNetwork


class ClosedFormNetwork:
    """Actor and critic side by side, with their gradient in closed form.

    All their parameters become views of one vector, so that clipping and Adam take one operation each. The input that a proxy's lots have
    in common goes through the first layer once, not once per lot. The activations stay in the same memory from call to call.

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
        shapes = [(n, h, d), (n, 1, h), (n, h, h), (n, 1, h), (n, 1, h), (n, 1)]  # weights and biases of the first, second and last layers
        sizes = [math.prod(shape) for shape in shapes]
        self._weights = [part.view(shape) for part, shape in zip(weights.split(sizes), shapes, strict=True)]
        self._gradients = [part.view(shape) for part, shape in zip(self.vector.grad.split(sizes), shapes, strict=True)]
        self._memory: dict[str, Tensor] = {}

    def forward(self, observations: Tensor) -> tuple[Tensor, Tensor]:
        """Logits ``(B, K)`` and values ``(B,)`` from normalised observations ``(B, size)``; without a critic the values are 0."""
        w1, b1, w2, b2, w3, b3 = self._weights
        n, f = len(w1), self.n_lot_features
        lots, own = observations[:, : -self.n_agent_features].unflatten(1, (-1, f)), observations[:, -self.n_agent_features :]
        n_lots = lots.shape[1]
        context = torch.cat([lots.mean(dim=1), own], dim=1).expand(n, -1, -1)  # (n, B, F + G)
        lots = lots.flatten(end_dim=1).expand(n, -1, -1)  # (n, B·K, F)
        common = torch.baddbmm(b1, context, w1[..., f:].mT, beta=2, alpha=2)  # (n, B, H)
        h1, h2 = self._room("activations", lots.shape[1])  # (n, B·K, H) each
        h1.unflatten(1, (-1, n_lots)).copy_(common[:, :, None])
        _tanh_of_half(h1.baddbmm_(lots, w1[..., :f].mT, alpha=2))
        _tanh_of_half(torch.baddbmm(b2, h1, w2.mT, beta=2, alpha=2, out=h2))
        self._seen = lots, context, h1, h2
        logits, *values = (torch.addmv(b3[i], h2[i], w3[i, 0]).unflatten(0, (-1, n_lots)) for i in range(n))  # (B, K) each
        return logits, values[0].mean(dim=1) if values else logits.new_zeros(len(logits))

    def backward(self, d_logits: Tensor, d_values: Tensor) -> None:
        """Gradient of a loss, from its gradient with respect to the last outputs of :meth:`forward`, ``(B, K)`` and ``(B,)``."""
        *_, w2, _, w3, _ = self._weights
        g1, gb1, g2, gb2, g3, gb3 = self._gradients
        lots, context, h1, h2 = self._seen
        n, n_lots, f = len(w2), d_logits.shape[1], self.n_lot_features
        d3 = torch.stack([d_logits, (d_values / n_lots)[:, None].expand_as(d_logits)][:n]).flatten(1)[:, None]  # (n, 1, B·K)
        torch.bmm(d3, h2, out=g3)
        torch.sum(d3, dim=2, out=gb3)
        d1, d2 = self._room("slopes", h1.shape[1])  # (n, B·K, H) each
        torch.ops.aten.tanh_backward(torch.mul(d3.mT, w3, out=d2), h2, grad_input=d2)
        torch.sum(d2, dim=1, keepdim=True, out=gb2)
        torch.bmm(d2.mT, h1, out=g2)
        torch.ops.aten.tanh_backward(torch.bmm(d2, w2, out=d1), h1, grad_input=d1)
        d_common = d1.unflatten(1, (-1, n_lots)).sum(dim=2)  # (n, B, H)
        torch.sum(d_common, dim=1, keepdim=True, out=gb1)
        g1[..., :f] = torch.bmm(lots.mT, d1).mT  # on a CPU five times as fast as d1.mT @ lots
        g1[..., f:] = torch.bmm(context.mT, d_common).mT

    def _room(self, use: str, n_rows: int) -> Tensor:
        """Memory for two tensors ``(n, n_rows, H)``, with whatever was left there. New memory would cost as much as an activation."""
        n, h, _ = self._weights[2].shape
        size = 2 * n * n_rows * h
        if use not in self._memory or len(self._memory[use]) < size:
            self._memory[use] = torch.empty(size, dtype=self.vector.dtype, device=self.vector.device)
        return self._memory[use][:size].view(2, n, n_rows, h)


def _tanh_of_half(doubled: Tensor) -> None:
    r""":math:`\tanh(x / 2) = 2 \sigma(x) - 1`, in place."""
    doubled.sigmoid_().mul_(2).sub_(1)
