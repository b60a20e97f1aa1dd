"""The network that all proxies share, the normalisation of its inputs, and the file in which both are saved.

One network serves all proxies and all lots.
"""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor, nn

from ..credit import coalition_matrix
from ..envs.observations.layout import ObservationLayout
from .saved import write

FORMAT = 2
CLIP = 10.0
"""Normalised observations are clipped to [−CLIP, CLIP], as Stable-Baselines3 does in training."""


class Normaliser(nn.Module):
    """Normalises observations to mean 0 and variance 1. All lots share the same statistics.

    Args:
        mean: Mean of each lot feature, then of each agent feature, ``(F + G,)``.
        variance: Their variances, in the same order, ``(F + G,)``.
        n_lot_features: Number of lot features, F.
        n_lots: Number of lots of a proxy, K.
    """

    mean: Tensor
    deviation: Tensor

    def __init__(self, mean: Tensor, variance: Tensor, n_lot_features: int, n_lots: int) -> None:
        super().__init__()
        for name, part in (("mean", mean), ("deviation", (variance + 1e-8).sqrt())):
            every = torch.cat([part[:n_lot_features].repeat(n_lots), part[n_lot_features:]])
            self.register_buffer(name, every.float(), persistent=False)  # (size,)

    def forward(self, observations: Tensor) -> Tensor:
        """Normalise observations, ``(..., size)`` → ``(..., size)``, within ±:data:`CLIP`."""
        return ((observations - self.mean) / self.deviation).clamp(-CLIP, CLIP)


def _layers(n_inputs: int, hidden: int) -> nn.Sequential:
    return nn.Sequential(nn.Linear(n_inputs, hidden), nn.Tanh(), nn.Linear(hidden, hidden), nn.Tanh())


class LotNetwork(nn.Module):
    """Actor and critic that treat all lots alike.

    For each lot the actor reads the lot's features, the mean of the features over the proxy's lots, and the proxy's own features. It
    returns the logit of contributing that lot. The critic reads the same inputs and averages over the lots. So the network works for any
    number of lots, and the lots' order does not matter.

    Args:
        n_lot_features: Number of features of a lot, F.
        n_agent_features: Number of features of the agent, G.
        hidden: Units in each of the two hidden layers.
    """

    def __init__(self, n_lot_features: int, n_agent_features: int, hidden: int = 64) -> None:
        super().__init__()
        self.n_lot_features = n_lot_features
        self.n_agent_features = n_agent_features
        self.hidden = hidden
        n_inputs = 2 * n_lot_features + n_agent_features
        self.actor = _layers(n_inputs, hidden)
        self.decide = nn.Linear(hidden, 1)
        self.critic = _layers(n_inputs, hidden)
        self.value = nn.Linear(hidden, 1)
        for module in self.modules():
            if isinstance(module, nn.Linear):
                nn.init.orthogonal_(module.weight, 2**0.5)
                nn.init.zeros_(module.bias)
        nn.init.orthogonal_(self.decide.weight, 0.01)  # at the start every lot has a probability near one half
        nn.init.orthogonal_(self.value.weight, 1.0)

    def inputs(self, observations: Tensor) -> Tensor:
        """The network's inputs, one row per lot: ``(B, size)`` → ``(B, K, 2F + G)``."""
        n_lots = (observations.shape[-1] - self.n_agent_features) // self.n_lot_features
        lots, agent = observations.split([n_lots * self.n_lot_features, self.n_agent_features], dim=-1)
        lots = lots.unflatten(-1, (n_lots, self.n_lot_features))  # (B, K, F)
        context = torch.cat([lots.mean(dim=-2), agent], dim=-1)[..., None, :].expand(*lots.shape[:-1], -1)
        return torch.cat([lots, context], dim=-1)

    def logits(self, observations: Tensor) -> Tensor:
        """Logit of contributing each lot, ``(B, size)`` → ``(B, K)``, from normalised observations."""
        logits: Tensor = self.decide(self.actor(self.inputs(observations)))[..., 0]
        return logits

    def pair_logits(self, observations: Tensor) -> Tensor:
        """The logits of ``MultiDiscrete([2] * K)``, ``(B, size)`` → ``(B, 2K)``: for each lot 0 for withholding, then its logit."""
        logits = self.logits(observations)  # (B, K)
        return torch.stack([torch.zeros_like(logits), logits], dim=-1).flatten(start_dim=-2)

    def code_logits(self, observations: Tensor) -> Tensor:
        """The logits of ``Discrete(2**K)``, ``(B, size)`` → ``(B, 2**K)``. Under their softmax the K lots are independent."""
        logits = self.logits(observations)  # (B, K)
        return logits @ coalition_matrix(logits.shape[-1]).to(logits).T

    def pooled(self, observations: Tensor) -> Tensor:
        """The critic's features, averaged over the lots, ``(B, size)`` → ``(B, hidden)``, from normalised observations."""
        pooled: Tensor = self.critic(self.inputs(observations)).mean(dim=-2)
        return pooled

    def state_value(self, observations: Tensor) -> Tensor:
        """The critic's value, ``(B, size)`` → ``(B,)``, from normalised observations."""
        value: Tensor = self.value(self.pooled(observations))[..., 0]
        return value

    def q_values(self, observations: Tensor) -> Tensor:
        r"""Action values that are additive over lots, ``(B, size)`` → ``(B, 2**K)``, from normalised observations.

        .. math:: Q(s, a) = V(s) + \sum_{k \in a} q_k(s)

        So the greedy action contributes each lot iff its logit is positive. This form cannot express that two lots of a proxy are worth
        more, or less, together than the sum of both.
        """
        return self.state_value(observations)[..., None] + self.code_logits(observations)


def save(
    path: str | Path,
    network: LotNetwork,
    mean: Tensor,
    variance: Tensor,
    layout: ObservationLayout,
    *,
    return_variance: float = 1.0,
    greedy: bool = False,
) -> None:
    """Write a network and the normalisation that it was trained with. The file is written atomically, and carries a digest.

    Args:
        path: File to write.
        network: The network.
        mean: Mean of each lot feature, then of each agent feature, ``(F + G,)``.
        variance: Their variances, in the same order, ``(F + G,)``.
        layout: The layout of the observations that it was trained on.
        return_variance: Variance of the discounted return by which rewards were scaled. The critic's values are in units of its root.
        greedy: Whether the logits are differences of action values, so that a lot is contributed iff its logit is positive. Otherwise they
            are log odds.

    Raises:
        ValueError: If a number is not finite. The message names its tensor, and no file is written.
    """
    data = {
        "format": FORMAT,
        "lot_features": list(layout.lot_features),
        "agent_features": list(layout.agent_features),
        "hidden": network.hidden,
        "mean": mean,
        "variance": variance,
        "return_variance": return_variance,
        "greedy": greedy,
        "network": network.state_dict(),
    }
    write(path, data, "policy")
