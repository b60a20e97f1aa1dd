"""AgileRL: IPPO, MADDPG and MATD3, with one policy for all proxies.

The loops are AgileRL's own, without the parts that evolve populations. The algorithms use our networks. For IPPO all proxies are one agent
(see :class:`~proxycoop.training.libraries.agilerl_env.CooperativeAgileRLEnv`). The critics of MADDPG and MATD3 must tell proxies apart, so
there each proxy is an agent; the agents share an actor, and the weights of a critic.

Interrupted runs continue from their checkpoints, to the same numbers. A checkpoint of MADDPG or MATD3 holds the replay buffer, so it is as
large as that: for each round of ``buffer_size``, twice the observation, twice the mask and once the action of every proxy.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from agilerl.algorithms import IPPO, MADDPG, MATD3
from agilerl.components.data import MultiAgentTransition
from agilerl.components.replay_buffer import ReplayBuffer
from agilerl.modules import EvolvableModule, ModuleDict
from agilerl.networks.distributions import EvolvableDistribution
from gymnasium import spaces
from stable_baselines3.common.utils import set_random_seed
from tensordict import TensorDict
from torch import Tensor, nn
from torch.nn import functional

from ...agents.network import LotNetwork, Normaliser
from ...credit import coalition_matrix
from ...envs.observations.layout import BOUND
from ..run import Run, Trained
from ..settings import MADDPGSettings, PPOSettings
from .agilerl_env import Arrays, CooperativeAgileRLEnv
from .shared.normalise import reference_statistics
from .shared.resumption import random_states, set_random_states

_FORBIDDEN = -1e8
"""Logit of what a mask forbids, as in AgileRL."""


def learn(run: Run) -> Trained:
    """Train.

    Raises:
        ValueError: If the replay buffer is too small for a round of all the cooperatives.
    """
    settings = run.settings
    set_random_seed(settings.seed)  # AgileRL draws from the global generators
    env = CooperativeAgileRLEnv(
        settings.scenario,
        settings.credit,
        settings.num_cooperatives,
        actions=settings.actions,
        rewards=settings.rewards,
        shared=isinstance(settings, PPOSettings),
        seed=settings.seed,
    )
    layout = env.rows.engine.layout
    mean, variance = reference_statistics(settings.scenario, settings.credit)
    normalise = Normaliser(mean, variance, len(layout.lot_features), layout.n_items)
    view = _View(LotNetwork(len(layout.lot_features), len(layout.agent_features), settings.hidden), normalise, env.rows.action_space)
    if isinstance(settings, PPOSettings):
        network = _ippo(run, settings, env, view)
    else:
        assert isinstance(settings, MADDPGSettings)
        network = _maddpg(run, settings, env, view)
    return Trained(network, mean, variance)


class _View(nn.Module):
    """The shared network on the observations that AgileRL gets: raw observations followed by the action mask.

    Masks in infos do not work; see :class:`~proxycoop.training.libraries.agilerl_env.CooperativeAgileRLEnv`.
    """

    def __init__(self, network: LotNetwork, normalise: Normaliser, action_space: spaces.Space[Any]) -> None:
        super().__init__()
        self.network = network
        self.normalise = normalise
        self.action_space = action_space
        self.size = len(normalise.mean)

    def space(self) -> spaces.Box:
        """The space of observations with masks."""
        return spaces.Box(-BOUND, BOUND, (self.size + spaces.flatdim(self.action_space),), np.float32)

    def normalised(self, seen: Tensor) -> Tensor:
        """Normalised observations without the mask, ``(..., size + mask)`` → ``(..., size)``."""
        observations: Tensor = self.normalise(seen[..., : self.size])
        return observations

    def logits(self, seen: Tensor) -> Tensor:
        """Logits of all actions, ``(B, size + mask)`` → ``(B, 2**K)`` or ``(B, 2K)``."""
        observations = self.normalised(seen)
        if isinstance(self.action_space, spaces.Discrete):
            logits = self.network.code_logits(observations)
        else:
            logits = self.network.pair_logits(observations)
        return logits.masked_fill(seen[:, self.size :] == 0, _FORBIDDEN)


def _seen(env: CooperativeAgileRLEnv, observations: Arrays) -> Arrays:
    """Observations followed by the current action masks."""
    return {agent: np.concatenate([observations[agent], mask], axis=1, dtype=np.float32) for agent, mask in env.action_masks().items()}


class _Networks(ModuleDict):  # type: ignore[misc]  # not installed where types are checked
    """Networks by agent. AgileRL trains copies of its networks. Here all are copied at once, so that they still share parameters."""

    def clone(self) -> _Networks:
        return copy.deepcopy(self)


class _Module(EvolvableModule):  # type: ignore[misc]  # as above
    """A network that AgileRL can train. It has nothing to mutate."""

    def __init__(self, view: _View) -> None:
        super().__init__("cpu")
        self.view = view


class _Logits(_Module):
    def forward(self, seen: Tensor) -> Tensor:
        return self.view.logits(seen)


class _StateValue(_Module):
    def forward(self, seen: Tensor) -> Tensor:
        return self.view.network.state_value(self.view.normalised(seen))[:, None]


class _StochasticActor(EvolvableDistribution):  # type: ignore[misc]  # as above
    """IPPO's actor."""

    def action_log_prob(self, action: Tensor) -> Tensor:
        """Log-probability of actions, given the observations last seen. With a single lot AgileRL passes ``(B,)`` for ``(B, 1)``."""
        log_prob: Tensor = self.log_prob(action if isinstance(self.action_space, spaces.Discrete) else action.reshape(len(action), -1))
        return log_prob


def _ippo(run: Run, settings: PPOSettings, env: CooperativeAgileRLEnv, view: _View) -> LotNetwork:
    """Independent PPO (de Witt et al. 2020). An update uses one episode of every cooperative."""
    n_rounds = max(settings.scenario.horizon, 2)  # with a single round, AgileRL mistakes its agents for rounds
    n_rows = n_rounds * env.num_envs
    agent = IPPO(
        {"proxy": view.space()},
        {"proxy": view.action_space},
        batch_size=settings.minibatch(n_rows),
        lr=settings.learning_rate,
        learn_step=n_rows,
        gamma=settings.gamma,
        gae_lambda=settings.gae_lambda,
        clip_coef=settings.clip_range,
        ent_coef=settings.ent_coef,
        update_epochs=settings.n_epochs,
        actor_networks=_Networks({"proxy": _StochasticActor(view.action_space, _Logits(view))}),
        critic_networks=_Networks({"proxy": _StateValue(view)}),
    )
    run.watch(lambda: [*agent.actors.named_parameters("actor"), *agent.critics.named_parameters("critic")])
    steps, seen = 0, _seen(env, env.reset()[0])
    if run.checkpoint is not None:
        steps, seen = run.checkpoint["steps"], _go_on(run.checkpoint, env, agent)
    while steps < settings.total_steps:
        _set_learning_rate(agent, settings.learning_rate * (1 - steps / settings.total_steps))
        columns: list[list[Any]] = [[] for _ in range(6)]
        ended = np.zeros(env.num_envs)  # before the round
        for _ in range(n_rounds):
            actions, log_probs, _, values = agent.get_action(seen)
            observations, rewards, now_ended, _, _ = env.step(actions)
            for column, of_round in zip(columns, (seen, actions, log_probs, rewards, {"proxy": ended}, values), strict=True):
                column.append(of_round["proxy"])
            seen, ended = _seen(env, observations), now_ended["proxy"].astype(np.float64)
        agent.learn((*({"proxy": column} for column in columns), seen, {"proxy": ended}))
        steps += n_rows
        _report(run, env, agent, steps)
        if run.is_due:
            run.keep({"steps": steps, **_state(env, agent)})
    network: LotNetwork = agent.actors["proxy"].wrapped.view.network
    critic: LotNetwork = agent.critics["proxy"].view.network  # a copy of its own
    network.critic, network.value = critic.critic, critic.value
    return network


class _GumbelActor(_Module):
    """Actor of MADDPG and MATD3. Gradients flow through the action that it draws (straight-through Gumbel-softmax, Jang et al. 2017)."""

    def forward(self, seen: Tensor) -> Tensor:
        """One-hot rows of codes, ``(B, size + mask)`` → ``(B, 2**K)``."""
        return functional.gumbel_softmax(self.view.logits(seen), hard=True)


class _CentralCritic(_Module):
    r"""Value to one agent of everybody's lots and choices, linear in the agent's own choices.

    .. math:: Q_i(s, a) = \frac1K \sum_k v(s_{ik}, h_i) + \sum_{k \in a_i} q(s_{ik}, h_i), \quad
              h_i = \frac1{(N - 1) K} \sum_{j \ne i} \sum_{k \in a_j} s_{jk}

    where :math:`s_{ik}` is lot k of agent i with its context. The other agents enter by the mean of what they contribute, a mean field
    (Yang et al. 2018, ICML). The gradient at a choice is then what the choice is worth. With critics that are not linear, proxies learned
    to contribute nothing.
    """

    def __init__(self, view: _View, network: nn.Module, agents: Sequence[str], mine: str) -> None:
        super().__init__(view)
        self.network = network
        self.agents = list(agents)
        self.mine = self.agents.index(mine)

    def forward(self, seen: Mapping[str, Tensor], actions: Tensor) -> Tensor:
        """Values, from observations by agent ``(B, size + mask)`` and everybody's actions ``(B, N·2**K)`` → ``(B, 1)``."""
        lots = self.view.network.inputs(self.view.normalised(torch.stack([seen[agent] for agent in self.agents], dim=1)))  # (B, N, K, F)
        codes = actions.unflatten(1, (len(self.agents), -1))  # (B, N, 2**K)
        chosen = codes @ coalition_matrix(lots.shape[2]).to(codes)  # (B, N, K)
        offered = (chosen[..., None] * lots).mean(dim=2)  # (B, N, F)
        by_others = (offered.sum(dim=1) - offered[:, self.mine]) / max(len(self.agents) - 1, 1)  # (B, F)
        own = torch.cat([lots[:, self.mine], by_others[:, None].expand_as(lots[:, self.mine])], dim=-1)  # (B, K, 2F)
        v, q = self.network(own).unbind(dim=-1)  # (B, K) each
        value: Tensor = v.mean(dim=1, keepdim=True) + (chosen[:, self.mine] * q).sum(dim=1, keepdim=True)
        return value


def _maddpg(run: Run, settings: MADDPGSettings, env: CooperativeAgileRLEnv, view: _View) -> LotNetwork:
    """MADDPG (Lowe et al. 2017) or MATD3 (Ackermann et al. 2019). They explore by drawing from the policy."""
    if settings.buffer_size < env.num_envs:
        raise ValueError(f"buffer_size={settings.buffer_size}: must hold a round of all {env.num_envs} cooperatives")

    def critics() -> _Networks:
        n_inputs = 2 * (2 * view.network.n_lot_features + view.network.n_agent_features)
        hidden = settings.hidden
        network = nn.Sequential(nn.Linear(n_inputs, hidden), nn.Tanh(), nn.Linear(hidden, hidden), nn.Tanh(), nn.Linear(hidden, 2))
        return _Networks({agent: _CentralCritic(view, network, env.agents, agent) for agent in env.agents})

    kind, critic_networks = (MATD3, [critics(), critics()]) if settings.algo == "matd3" else (MADDPG, critics())
    agent = kind(
        dict.fromkeys(env.agents, view.space()),
        dict.fromkeys(env.agents, view.action_space),
        O_U_noise=False,
        expl_noise=0.0,
        vect_noise_dim=env.num_envs,
        batch_size=settings.batch_size,
        lr_actor=settings.learning_rate,
        lr_critic=settings.critic_learning_rate,
        gamma=settings.gamma,
        tau=1 - (1 - settings.target_tau) ** (1 / len(env.agents)),  # targets are shared, and are moved once for each agent
        actor_networks=_Networks(dict.fromkeys(env.agents, _GumbelActor(view))),
        critic_networks=critic_networks,
    )
    run.watch(lambda: agent.actors.named_parameters("actor"))  # it is trained by the critics: theirs soon make it not finite, too
    buffer = ReplayBuffer(settings.buffer_size)
    steps, due, seen = 0, 0.0, _seen(env, env.reset()[0])
    if run.checkpoint is not None:
        steps, due, seen = run.checkpoint["steps"], run.checkpoint["due"], _go_on(run.checkpoint, env, agent)
        agent.learn_counter = run.checkpoint["learn_counter"]
        _fill(buffer, run.checkpoint["replay"])
    while steps < settings.total_steps:
        for _ in range(settings.scenario.horizon):
            actions, drawn = agent.get_action(seen)
            observations, rewards, ended, _, _ = env.step(actions)
            before, seen = seen, _seen(env, observations)
            transition = MultiAgentTransition(obs=before, action=drawn, reward=rewards, next_obs=seen, done=ended).to_tensordict()
            transition.batch_size = torch.Size([env.num_envs])
            buffer.add(transition)
            steps += env.rows.num_envs
            due += settings.updates_per_round
            while due >= 1:
                agent.learn(buffer.sample(settings.batch_size))
                due -= 1
        _report(run, env, agent, steps)
        if run.is_due:
            counts = {"steps": steps, "due": due, "learn_counter": agent.learn_counter}
            run.keep({**counts, "replay": _filled(buffer), **_state(env, agent)})
    network: LotNetwork = agent.actors[env.agents[0]].view.network
    return network


def _state(env: CooperativeAgileRLEnv, agent: IPPO | MADDPG | MATD3) -> dict[str, Any]:
    """Networks, optimisers, cooperatives and random generators, between two episodes.

    AgileRL's ``save_checkpoint`` writes the same networks and optimisers, as a pickle, which runs code when it is read.
    """
    return {
        "learned": {name: part.state_dict() for name, part in agent.evolvable_attributes().items()},
        "place": env.rows.place(),
        "random": random_states(),
    }


def _go_on(state: Mapping[str, Any], env: CooperativeAgileRLEnv, agent: IPPO | MADDPG | MATD3) -> Arrays:
    """Bring an agent that has not begun to where the run was at its checkpoint. Returns what it sees there."""
    for name, part in agent.evolvable_attributes().items():
        part.load_state_dict(state["learned"][name])
    seen = _seen(env, env.start(*state["place"]))
    set_random_states(state["random"])
    return seen


def _filled(buffer: ReplayBuffer) -> dict[str, Any]:
    """The part of a replay buffer that is in use, and where the next round goes."""
    return {"rounds": buffer.storage[: len(buffer)].clone().state_dict(), "cursor": buffer._cursor, "counter": buffer.counter}


def _fill(buffer: ReplayBuffer, filled: Mapping[str, Any]) -> None:
    """Fill an empty replay buffer with what :func:`_filled` found in another."""
    buffer.add(TensorDict({}, []).load_state_dict(filled["rounds"], strict=False))
    buffer._cursor, buffer.counter = filled["cursor"], filled["counter"]


def _set_learning_rate(agent: IPPO, learning_rate: float) -> None:
    for optimizers in (agent.actor_optimizers, agent.critic_optimizers):
        for _, optimizer in optimizers.items():
            for group in optimizer.param_groups:
                group["lr"] = learning_rate


def _report(run: Run, env: CooperativeAgileRLEnv, agent: IPPO | MADDPG | MATD3, steps: int) -> None:
    agent.metrics.clear()  # they would fill the memory
    run.report(steps, {name: float(measure.mean()) for name, measure in env.rows.last_episode.items()})
