"""The shared network as a policy for Stable-Baselines3's on-policy algorithms."""

from __future__ import annotations

from typing import Any, cast

import torch
from gymnasium import spaces
from stable_baselines3.common.policies import ActorCriticPolicy
from stable_baselines3.common.type_aliases import Schedule
from torch import Tensor, nn

from ..agents.network import LotNetwork
from ..credit import coalition_matrix


class _Extractor(nn.Module):
    """What Stable-Baselines3 calls the extractor: from features to action logits and to what the value head reads.

    Args:
        network: The shared network.
        n_lots: Lots K.
        discrete: Whether actions are codes of ``Discrete(2**K)`` rather than ``MultiDiscrete([2] * K)``.
    """

    bits: Tensor

    def __init__(self, network: LotNetwork, n_lots: int, discrete: bool) -> None:
        super().__init__()
        self.network = network
        self.discrete = discrete
        self.latent_dim_pi = 2**n_lots if discrete else 2 * n_lots
        self.latent_dim_vf = network.hidden
        self.register_buffer("bits", coalition_matrix(n_lots).float(), persistent=False)  # (2**K, K): every set of lots

    def forward(self, features: Tensor) -> tuple[Tensor, Tensor]:
        return self.forward_actor(features), self.forward_critic(features)

    def forward_actor(self, features: Tensor) -> Tensor:
        """Action logits: each lot is an independent coin, in either form."""
        logits = self.network.logits(features)  # (B, K)
        if self.discrete:
            return logits @ self.bits.T
        return torch.stack([torch.zeros_like(logits), logits], dim=-1).flatten(start_dim=1)

    def forward_critic(self, features: Tensor) -> Tensor:
        """What the value head reads."""
        return self.network.pooled(features)


class LotPolicy(ActorCriticPolicy):
    """:class:`~proxycoop.agents.LotNetwork` for PPO and A2C: ``PPO(LotPolicy, env, policy_kwargs=env.policy_kwargs)``.

    Args:
        observation_space: One proxy's observations.
        action_space: One proxy's actions, in either form.
        lr_schedule: Learning rate by remaining progress.
        n_lot_features: Features of a lot.
        n_agent_features: Features of the agent.
        hidden: Units of each hidden layer.
        use_sde: What the algorithms pass; must be False.
        optimizer_class: As for any policy of Stable-Baselines3.
        optimizer_kwargs: The same.

    Raises:
        ValueError: If ``use_sde`` is set.
    """

    def __init__(
        self,
        observation_space: spaces.Box,
        action_space: spaces.Space[Any],
        lr_schedule: Schedule,
        *,
        n_lot_features: int,
        n_agent_features: int,
        hidden: int = 64,
        use_sde: bool = False,
        optimizer_class: type[torch.optim.Optimizer] = torch.optim.Adam,
        optimizer_kwargs: dict[str, Any] | None = None,
    ) -> None:
        if use_sde:
            raise ValueError("use_sde=True: state-dependent exploration is for continuous actions; lots are contributed or not")
        self._sizes = {"n_lot_features": n_lot_features, "n_agent_features": n_agent_features, "hidden": hidden}
        super().__init__(observation_space, action_space, lr_schedule, optimizer_class=optimizer_class, optimizer_kwargs=optimizer_kwargs)

    @property
    def network(self) -> LotNetwork:
        """The shared network."""
        return cast(_Extractor, self.mlp_extractor).network

    def _build(self, lr_schedule: Schedule) -> None:
        network = LotNetwork(**self._sizes)
        assert self.observation_space.shape is not None
        n_lots = (self.observation_space.shape[0] - network.n_agent_features) // network.n_lot_features
        extractor: Any = _Extractor(network, n_lots, isinstance(self.action_space, spaces.Discrete))
        self.mlp_extractor = extractor
        self.action_net = nn.Identity()
        self.value_net = network.value
        make_optimizer: Any = self.optimizer_class
        self.optimizer = make_optimizer(self.parameters(), lr=lr_schedule(1), **self.optimizer_kwargs)

    def _get_constructor_parameters(self) -> dict[str, Any]:
        kept = ("observation_space", "action_space", "lr_schedule", "optimizer_class", "optimizer_kwargs")
        parameters = super()._get_constructor_parameters()
        return {name: parameters[name] for name in kept} | self._sizes
