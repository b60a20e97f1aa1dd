"""The shared network as policies for Stable-Baselines3."""

from __future__ import annotations

from typing import Any, cast

import torch
from gymnasium import spaces
from stable_baselines3.common.policies import ActorCriticPolicy
from stable_baselines3.common.type_aliases import PyTorchObs, Schedule
from stable_baselines3.dqn.policies import DQNPolicy, QNetwork
from torch import Tensor, nn

from ...agents.network import LotNetwork


class _Extractor(nn.Module):
    """What Stable-Baselines3 calls the extractor: it maps features to action logits, and to the input of the value head.

    Args:
        network: The shared network.
        n_lots: Number of lots K.
        discrete: Whether actions are codes of ``Discrete(2**K)`` rather than ``MultiDiscrete([2] * K)``.
    """

    def __init__(self, network: LotNetwork, n_lots: int, discrete: bool) -> None:
        super().__init__()
        self.network = network
        self.discrete = discrete
        self.latent_dim_pi = 2**n_lots if discrete else 2 * n_lots
        self.latent_dim_vf = network.hidden

    def forward(self, features: Tensor) -> tuple[Tensor, Tensor]:
        return self.forward_actor(features), self.forward_critic(features)

    def forward_actor(self, features: Tensor) -> Tensor:
        """Action logits. In both forms of actions, each lot is an independent choice."""
        return self.network.code_logits(features) if self.discrete else self.network.pair_logits(features)

    def forward_critic(self, features: Tensor) -> Tensor:
        """The input of the value head."""
        return self.network.pooled(features)


class SharedOverLots:
    """A mix-in that puts :class:`LotNetwork` into an actor-critic policy of Stable-Baselines3 or of Stable-Baselines3 contrib.

    Args:
        observation_space: One proxy's observations.
        action_space: One proxy's actions, in either form.
        lr_schedule: Learning rate by remaining progress.
        n_lot_features: Features of a lot.
        n_agent_features: Features of the agent.
        hidden: Units of each hidden layer.
        use_sde: State-dependent exploration, which algorithms pass; must be False.
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
            raise ValueError("use_sde=True: state-dependent exploration is for continuous actions, which lots are not: pass False")
        self._sizes = {"n_lot_features": n_lot_features, "n_agent_features": n_agent_features, "hidden": hidden}
        policy: Any = super()
        policy.__init__(observation_space, action_space, lr_schedule, optimizer_class=optimizer_class, optimizer_kwargs=optimizer_kwargs)

    @property
    def network(self) -> LotNetwork:
        """The shared network."""
        network: LotNetwork = cast(Any, self).mlp_extractor.network
        return network

    def _build(self, lr_schedule: Schedule) -> None:
        network, policy = LotNetwork(**self._sizes), cast(Any, self)  # the library's base class comes after this one
        n_lots = (policy.observation_space.shape[0] - network.n_agent_features) // network.n_lot_features
        policy.mlp_extractor = _Extractor(network, n_lots, isinstance(policy.action_space, spaces.Discrete))
        policy.action_net = nn.Identity()
        policy.value_net = network.value
        policy.optimizer = policy.optimizer_class(policy.parameters(), lr=lr_schedule(1), **policy.optimizer_kwargs)

    def _get_constructor_parameters(self) -> dict[str, Any]:
        kept = ("observation_space", "action_space", "lr_schedule", "optimizer_class", "optimizer_kwargs")
        policy: Any = super()
        parameters = policy._get_constructor_parameters()
        return {name: parameters[name] for name in kept} | self._sizes


class LotPolicy(SharedOverLots, ActorCriticPolicy):
    """:class:`~proxycoop.agents.LotNetwork` for PPO and A2C: ``PPO(LotPolicy, env, policy_kwargs=env.policy_kwargs)``.

    Its arguments are those of :class:`SharedOverLots`.
    """


class _LotQNetwork(QNetwork):
    """:meth:`LotNetwork.q_values` as what Stable-Baselines3 calls a Q-network."""

    def __init__(self, sizes: dict[str, int], **arguments: Any) -> None:
        super().__init__(**arguments)
        self.q_net = LotNetwork(**sizes)  # type: ignore[assignment]  # declared a Sequential

    def forward(self, obs: PyTorchObs) -> Tensor:
        """Action values, ``(B, size)`` → ``(B, 2**K)``."""
        return cast(LotNetwork, self.q_net).q_values(self.extract_features(obs, self.features_extractor))


class LotQPolicy(DQNPolicy):
    """The action values of the same network, for DQN: ``DQN(LotQPolicy, env, policy_kwargs=env.policy_kwargs)``.

    Args:
        *arguments: As for any policy of DQN.
        n_lot_features: Features of a lot.
        n_agent_features: Features of the agent.
        hidden: Units of each hidden layer.
        **more: As for any policy of DQN.
    """

    def __init__(self, *arguments: Any, n_lot_features: int, n_agent_features: int, hidden: int = 64, **more: Any) -> None:
        self._sizes = {"n_lot_features": n_lot_features, "n_agent_features": n_agent_features, "hidden": hidden}
        super().__init__(*arguments, **more)

    @property
    def network(self) -> LotNetwork:
        """The shared network."""
        return cast(LotNetwork, self.q_net.q_net)

    def make_q_net(self) -> QNetwork:
        """A network of action values."""
        return _LotQNetwork(self._sizes, **self._update_features_extractor(self.net_args, features_extractor=None)).to(self.device)

    def _get_constructor_parameters(self) -> dict[str, Any]:
        return super()._get_constructor_parameters() | self._sizes
