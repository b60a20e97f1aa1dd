"""The network that all proxies share, and that is shared over their lots as well, and the normalisation of what it reads."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor, nn

from ..credit import coalition_matrix
from ..envs.observations.layout import ObservationLayout
from ..files import write_atomically

FORMAT = 2
CLIP = 10.0
"""Normalised observations are clipped to ±CLIP, as Stable-Baselines3 does in training."""


class Normaliser(nn.Module):
    """Observations with mean 0 and variance 1, by statistics that are the same for all lots.

    Args:
        mean: Of each lot feature, then of each agent feature, ``(F + G,)``.
        variance: The same.
        n_lot_features: How many of them are of lots, F.
        n_lots: Lots K.
    """

    mean: Tensor
    deviation: Tensor

    def __init__(self, mean: Tensor, variance: Tensor, n_lot_features: int, n_lots: int) -> None:
        super().__init__()
        for name, part in (("mean", mean), ("deviation", (variance + 1e-8).sqrt())):
            every = torch.cat([part[:n_lot_features].repeat(n_lots), part[n_lot_features:]])
            self.register_buffer(name, every.float(), persistent=False)  # (size,)

    def forward(self, observations: Tensor) -> Tensor:
        """Normalise: ``(..., size)`` → the same, within ±:data:`CLIP`."""
        return ((observations - self.mean) / self.deviation).clamp(-CLIP, CLIP)


def _layers(n_inputs: int, hidden: int) -> nn.Sequential:
    return nn.Sequential(nn.Linear(n_inputs, hidden), nn.Tanh(), nn.Linear(hidden, hidden), nn.Tanh())


class LotNetwork(nn.Module):
    """Actor and critic that treat lots alike.

    For each lot the actor reads the lot's features, their mean over the proxy's lots, and the proxy's features, and gives the
    logit of contributing it. The critic reads the same and averages over the lots. So the network works for any number of lots and
    does not depend on their order.

    Args:
        n_lot_features: Features F of a lot.
        n_agent_features: Features G of the agent.
        hidden: Units of each of the two hidden layers.
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
        nn.init.orthogonal_(self.decide.weight, 0.01)  # starts near a fair coin for every lot
        nn.init.orthogonal_(self.value.weight, 1.0)

    def inputs(self, observations: Tensor) -> Tensor:
        """Each lot with its context: ``(B, size)`` → ``(B, K, 2F + G)``."""
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
        """The same for ``MultiDiscrete([2] * K)``, ``(B, size)`` → ``(B, 2K)``: 0 for withholding each, and its logit."""
        logits = self.logits(observations)  # (B, K)
        return torch.stack([torch.zeros_like(logits), logits], dim=-1).flatten(start_dim=-2)

    def code_logits(self, observations: Tensor) -> Tensor:
        """The same for codes of ``Discrete(2**K)``, ``(B, size)`` → ``(B, 2**K)``: their softmax is K independent coins."""
        logits = self.logits(observations)  # (B, K)
        return logits @ coalition_matrix(logits.shape[-1]).to(logits).T

    def pooled(self, observations: Tensor) -> Tensor:
        """What the critic makes of the situation, ``(B, size)`` → ``(B, hidden)``, from normalised observations."""
        pooled: Tensor = self.critic(self.inputs(observations)).mean(dim=-2)
        return pooled

    def state_value(self, observations: Tensor) -> Tensor:
        """The critic's value, ``(B, size)`` → ``(B,)``, from normalised observations."""
        value: Tensor = self.value(self.pooled(observations))[..., 0]
        return value

    def q_values(self, observations: Tensor) -> Tensor:
        r"""Action values that are additive over lots, ``(B, size)`` → ``(B, 2**K)``, from normalised observations.

        .. math:: Q(s, a) = V(s) + \sum_{k \in a} q_k(s)

        So the greedy action contributes each lot iff its logit is positive. What lots do together, in one proxy's hands, it cannot say.
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
    """Write a network with the normalisation that it was trained under, atomically.

    Args:
        path: File to write.
        network: The network.
        mean: Of each lot feature, then of each agent feature, ``(F + G,)``.
        variance: The same.
        layout: The observations that it was trained on.
        return_variance: Variance of the discounted return by which rewards were scaled: the critic's values are in units of its root.
        greedy: Whether the logits are differences of action values, by which a lot is contributed or not, rather than of log-probabilities.
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
    write_atomically(path, lambda file: torch.save(data, file))
