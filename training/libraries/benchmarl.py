"""BenchMARL on TorchRL: IPPO, MAPPO, IQL, VDN and QMIX, on cooperatives that are all stepped at once.

A script of your own can use the parts: :class:`CooperativeTask` is the task, and :class:`LotModelConfig` the shared network, as in
``examples/benchmarl_qmix.py``. Other models of BenchMARL work on the task as well.

Differences from Stable-Baselines3: observations are normalised by statistics that are fixed beforehand, rewards and advantages are not
normalised, and actor and critic have an optimiser each. BenchMARL's VDN and QMIX learn the team's value from the mean of the agents'
rewards. Interrupted runs continue from their checkpoints, to the same numbers. A checkpoint of IQL, VDN or QMIX holds the replay buffer, so
it is as large as that: three to five times an observation for each agent-step of ``buffer_size``.
"""

from __future__ import annotations

import logging
import math
import tempfile
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import torch
from benchmarl.algorithms import IppoConfig, IqlConfig, MappoConfig, QmixConfig, VdnConfig
from benchmarl.algorithms.common import AlgorithmConfig
from benchmarl.environments import TaskClass
from benchmarl.experiment import Callback, Experiment, ExperimentConfig
from benchmarl.experiment import experiment as experiment_module
from benchmarl.models.common import Model, ModelConfig
from tensordict import TensorDict, TensorDictBase
from torch import Tensor
from torchrl.data import Composite
from torchrl.envs import EnvBase, Transform

from ...agents.network import LotNetwork, Normaliser
from ...envs.observations.layout import ObservationLayout
from ...envs.observations.spaces import RewardForm
from ...envs.scenario import Scenario, load
from ..run import Run, Trained
from ..settings import PPOSettings, QSettings
from .shared.normalise import reference_statistics
from .shared.resumption import random_states, set_random_states
from .torchrl_env import GROUP, CooperativeTorchRLEnv

Q_ALGORITHMS = {"iql": IqlConfig, "vdn": VdnConfig, "qmix": QmixConfig}
PPO_ALGORITHMS = {"ippo": IppoConfig, "mappo": MappoConfig}


class NormaliseObservations(Transform):  # type: ignore[misc]  # TorchRL ships no types
    """Normalises the observations of each proxy, and the state, which is everybody's observations side by side.

    Args:
        normaliser: Normalises the observations of one proxy.
        n_agents: Number of proxies N.
    """

    def __init__(self, normaliser: Normaliser, n_agents: int) -> None:
        keys = [(GROUP, "observation"), "state"]
        super().__init__(in_keys=keys, out_keys=keys)
        self.normaliser = normaliser
        self.n_agents = n_agents

    def _call(self, next_tensordict: TensorDictBase) -> TensorDictBase:
        observations = self.normaliser(next_tensordict.get((GROUP, "observation")))  # (E, N, size), still within the bounds of the spec
        next_tensordict.set((GROUP, "observation"), observations)
        return next_tensordict.set("state", observations.flatten(start_dim=-2))

    def _reset(self, tensordict: TensorDictBase, tensordict_reset: TensorDictBase) -> TensorDictBase:
        del tensordict
        return self._call(tensordict_reset)


class CooperativeTask(TaskClass):  # type: ignore[misc]  # BenchMARL ships no types
    """A cooperative as a task of BenchMARL, vectorised: ``Experiment(CooperativeTask("digits"), …)``.

    All proxies are one group, ``proxy``. Observations are normalised by
    :func:`~proxycoop.training.libraries.shared.normalise.reference_statistics`.

    Args:
        scenario: A scenario, its name, or the path of its YAML file.
        credit: Name of a credit rule (with arguments, if it takes any).
        rewards: ``own``, or ``team``: every proxy gets the mean of its cooperative's rewards. BenchMARL's VDN and QMIX use the mean over
            agents in both cases.

    Raises:
        ValueError: If the scenario is unknown or not valid. A wrong rule or form of rewards is reported when the experiment begins.
    """

    def __init__(self, scenario: Scenario | str | Path = "digits", credit: str = "shapley", rewards: RewardForm = "own") -> None:
        scenario = scenario if isinstance(scenario, Scenario) else load(scenario)
        super().__init__(scenario.name, {"scenario": scenario, "credit": credit, "rewards": rewards})

    @cached_property
    def layout(self) -> ObservationLayout:
        """What every entry of an observation is."""
        scenario = self.config["scenario"]
        return ObservationLayout.of(scenario)

    @cached_property
    def statistics(self) -> tuple[Tensor, Tensor]:
        """Mean and variance by which observations are normalised."""
        return reference_statistics(self.config["scenario"], self.config["credit"])

    def get_env_fun(
        self, num_envs: int, continuous_actions: bool, seed: int | None, device: torch.device | str
    ) -> Callable[[], CooperativeTorchRLEnv]:
        """A function that makes an environment of ``num_envs`` cooperatives."""
        del continuous_actions
        return partial(CooperativeTorchRLEnv, num_cooperatives=num_envs, seed=seed, device=device, **self.config)

    def get_env_transforms(self, env: EnvBase) -> list[Transform]:
        """The normalisation of observations and state."""
        normaliser = Normaliser(*self.statistics, self.layout.sizes["n_lot_features"], self.layout.n_items)
        return [NormaliseObservations(normaliser.to(env.device), env.engine.num_agents)]

    def supports_continuous_actions(self) -> bool:
        """No: lots are contributed or not, and so with forgeries and levers."""
        return False

    def supports_discrete_actions(self) -> bool:
        """Yes: actions are codes of sets of lots, forgeries and levers."""
        return True

    def max_steps(self, env: EnvBase) -> int:
        """Rounds of an episode."""
        horizon: int = env.engine.horizon
        return horizon

    def has_render(self, env: EnvBase) -> bool:
        """No. To watch a cooperative, use :mod:`~proxycoop.envs.cooperative_v0`."""
        del env
        return False

    def group_map(self, env: EnvBase) -> dict[str, list[str]]:
        """All proxies are one group."""
        groups: dict[str, list[str]] = env.group_map
        return groups

    def observation_spec(self, env: EnvBase) -> Composite:
        """The spec of the group's observations."""
        return self._of_group(env, "observation")

    def action_mask_spec(self, env: EnvBase) -> Composite:
        """The spec of the group's masks."""
        return self._of_group(env, "action_mask")

    def info_spec(self, env: EnvBase) -> Composite:
        """The spec of the group's metrics."""
        return self._of_group(env, "info")

    def state_spec(self, env: EnvBase) -> Composite:
        """The spec of the state."""
        return Composite({"state": env.full_observation_spec_unbatched["state"].clone()})

    def action_spec(self, env: EnvBase) -> Composite:
        """The spec of the group's actions."""
        return env.full_action_spec_unbatched

    @staticmethod
    def env_name() -> str:
        """Name of the environment, for BenchMARL's folders and logs."""
        return "proxycoop"

    @staticmethod
    def log_info(batch: TensorDictBase) -> dict[str, float]:
        """Metrics for BenchMARL's loggers: means over the episodes that ended in a batch."""
        return {f"collection/episode/{name}": value for name, value in episode_means(batch).items()}

    @staticmethod
    def _of_group(env: EnvBase, key: str) -> Composite:
        spec = env.full_observation_spec_unbatched[GROUP]
        return Composite({GROUP: Composite({key: spec[key].clone()}, shape=spec.shape)})


def episode_means(batch: TensorDictBase) -> dict[str, float]:
    """Metrics by name: means over the episodes that ended in a batch of collected rounds, ``(E, T)``; empty if none ended."""
    ended = batch.get(("next", "done"))[..., 0]  # (E, T)
    metrics = batch.get(("next", GROUP, "info")) if ended.any() else {}
    return {name: float(each[ended].mean()) for name, each in metrics.items()}


class LotModel(Model):  # type: ignore[misc]  # BenchMARL ships no types
    """:class:`~proxycoop.agents.LotNetwork` as a model for BenchMARL: an actor, action values or a critic, whichever is asked for.

    An actor gives the logits of codes. Action values are additive over a proxy's lots. A critic gives the value of each proxy's situation.
    A central critic gives one value for all proxies, which does not depend on their order: the network pools each proxy's situation, and
    the value is that of the mean over proxies.

    Args:
        n_lot_features: Features of a lot.
        n_agent_features: Features of the agent.
        hidden: Units of each hidden layer.
        **kwargs: What BenchMARL passes to every model.

    Raises:
        ValueError: If proxies do not share parameters, or anything else is asked for.
    """

    def __init__(self, *, n_lot_features: int, n_agent_features: int, hidden: int, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.network = LotNetwork(n_lot_features, n_agent_features, hidden).to(self.device)

    def _perform_checks(self) -> None:
        super()._perform_checks()
        if not self.share_params:
            raise ValueError("share_params=False: proxies share one network, so set share_policy_params and share_param_critic to True")
        self.gives = self.out_key[-1] if isinstance(self.out_key, tuple) else self.out_key
        if self.gives not in ("logits", "action_value", "state_value") or (self.centralised and self.gives != "state_value"):
            whose = "central" if self.centralised else "each proxy's"
            raise ValueError(f"LotModel does not give {whose} {self.gives}: use one of BenchMARL's models for it, such as MlpConfig")

    def _forward(self, tensordict: TensorDictBase) -> TensorDictBase:
        seen, network = tensordict.get(self.in_key), self.network  # (…, N, size), or (…, N·size) if central
        if self.gives == "logits":
            answer = network.code_logits(seen)  # (…, N, 2**K)
        elif self.gives == "action_value":
            answer = network.q_values(seen)  # (…, N, 2**K)
        elif not self.centralised:
            answer = network.state_value(seen)[..., None]  # (…, N, 1)
        else:
            each = seen if self.input_has_agent_dim else seen.unflatten(-1, (self.n_agents, -1))  # (…, N, size)
            answer = network.value(network.pooled(each).mean(dim=-2))  # (…, 1)
        return tensordict.set(self.out_key, answer)


@dataclass
class LotModelConfig(ModelConfig):  # type: ignore[misc]  # BenchMARL ships no types
    """Config of :class:`LotModel`: ``LotModelConfig(**task.layout.sizes)``."""

    n_lot_features: int
    n_agent_features: int
    hidden: int = 64

    @staticmethod
    def associated_class() -> type[LotModel]:
        """The model."""
        return LotModel


def learn(run: Run) -> Trained:
    """Train by one of BenchMARL's algorithms.

    Raises:
        ValueError: If the replay buffer is too small for an episode of all cooperatives.
    """
    settings = run.settings
    task = CooperativeTask(settings.scenario, settings.credit, settings.rewards)
    with _quiet(), tempfile.TemporaryDirectory(prefix="benchmarl_", dir=run.folder) as folder:
        experiment = _ResumableExperiment(
            run,
            task,
            _algorithm(run),
            LotModelConfig(**task.layout.sizes, hidden=settings.hidden),
            seed=settings.seed,
            config=_config(run, folder),
            callbacks=[_Recorder(run)],
        )
        run.watch(experiment.losses[GROUP].named_parameters)
        if run.checkpoint is not None:
            experiment.go_on(run.checkpoint)
        experiment.run()
    return Trained(_network(task, experiment, settings.hidden), *task.statistics, greedy=isinstance(settings, QSettings))


class _ResumableExperiment(Experiment):  # type: ignore[misc]  # BenchMARL ships no types
    """An experiment that writes our checkpoints where BenchMARL would write its own.

    BenchMARL's hold neither the optimisers nor the environment nor the random generators, and their buffers also what is not filled.

    Args:
        run: The run.
        *arguments: As for any experiment.
        **more: The same.
    """

    def __init__(self, run: Run, *arguments: Any, **more: Any) -> None:
        self._of_run = run
        super().__init__(*arguments, **more)

    @property
    def _env(self) -> CooperativeTorchRLEnv:
        env: CooperativeTorchRLEnv = self.collector.env.base_env
        return env

    def _save_experiment(self) -> None:
        """Write a checkpoint if one is due. BenchMARL calls this between two iterations, when the next episode has begun."""
        if not self._of_run.is_due:
            return
        buffer, engine = self.replay_buffers[GROUP], self._env.engine
        assert engine.seeds is not None
        assert engine.t == 0
        state = {
            "experiment": self.state_dict(),
            "optimizers": {name: optimizer.state_dict() for name, optimizer in self.optimizers[GROUP].items()},
            "buffer": {
                "rows": buffer.storage[: len(buffer)].state_dict(),
                "sampler": buffer.sampler.state_dict(),
                "writer": buffer.writer.state_dict(),
            },
            "place": (engine.seeds.tolist(), engine.episode),
            "random": random_states(),
        }
        self._of_run.keep(state)

    def go_on(self, state: Mapping[str, Any]) -> None:
        """Bring an experiment that has not begun to where the run was at its checkpoint."""
        self.load_state_dict(state["experiment"])
        for name, optimizer in self.optimizers[GROUP].items():
            optimizer.load_state_dict(state["optimizers"][name])
        buffer, kept = self.replay_buffers[GROUP], state["buffer"]
        buffer.extend(TensorDict({}, []).load_state_dict(kept["rows"], strict=False))
        buffer.sampler.load_state_dict(kept["sampler"])
        buffer.writer.load_state_dict(kept["writer"])
        self._env.go_on(*state["place"])
        self.collector.reset()  # which has begun an episode already

    def _collection_loop(self) -> None:
        """Train. BenchMARL calls this after it has set the seed."""
        if self._of_run.checkpoint is not None:
            set_random_states(self._of_run.checkpoint["random"])
        super()._collection_loop()


def _algorithm(run: Run) -> AlgorithmConfig:
    """BenchMARL's configuration of the algorithm."""
    settings = run.settings
    if isinstance(settings, PPOSettings):
        return PPO_ALGORITHMS[settings.algo](
            share_param_critic=True,
            clip_epsilon=settings.clip_range,
            entropy_coef=settings.ent_coef,
            critic_coef=1.0,
            loss_critic_type="l2",
            lmbda=settings.gae_lambda,
            scale_mapping="exp",  # for continuous actions, as the next one
            use_tanh_normal=False,
            minibatch_advantage=False,
        )
    mixer = {"mixing_embed_dim": 32} if settings.algo == "qmix" else {}
    return Q_ALGORITHMS[settings.algo](delay_value=True, loss_function="l2", **mixer)


def _config(run: Run, folder: str) -> ExperimentConfig:
    """BenchMARL's configuration of the experiment: an iteration collects one episode of every cooperative, and learns from it.

    A *frame* in BenchMARL is a round of one cooperative: N agent-steps.
    """
    settings = run.settings
    n_agents, horizon, n_envs = settings.scenario.n_agents, settings.scenario.horizon, settings.num_cooperatives
    frames = n_envs * horizon
    n_iterations = math.ceil(settings.total_steps / (frames * n_agents))
    config = ExperimentConfig.get_from_yaml()
    changes: dict[str, Any] = {
        "save_folder": folder,
        "checkpoint_interval": frames,
        "exclude_buffer_from_checkpoint": True,  # it is added, as far as it is filled
        "loggers": [],
        "create_json": False,
        "evaluation": False,
        "evaluation_episodes": 1,
        "render": False,
        "prefer_continuous_actions": False,
        "gamma": settings.gamma,
        "lr": settings.learning_rate,
        "max_n_iters": n_iterations,
        "max_n_frames": None,
    }
    if isinstance(settings, PPOSettings):
        changes |= {
            "clip_grad_val": 0.5,
            "on_policy_collected_frames_per_batch": frames,
            "on_policy_n_envs_per_worker": n_envs,
            "on_policy_n_minibatch_iters": settings.n_epochs,
            "on_policy_minibatch_size": settings.minibatch(frames, n_agents),
        }
    elif isinstance(settings, QSettings):
        if settings.buffer_size < frames * n_agents:
            raise ValueError(
                f"buffer_size={settings.buffer_size} agent-steps do not hold an episode of {n_envs} cooperatives: "
                f"use at least {frames * n_agents}"
            )
        changes |= {
            "clip_grad_val": 10.0,
            "polyak_tau": settings.target_tau,
            "exploration_eps_init": 1.0,
            "exploration_eps_end": settings.exploration_end,
            "exploration_anneal_frames": math.ceil(settings.exploration_share * n_iterations * frames),
            "off_policy_collected_frames_per_batch": frames,
            "off_policy_n_envs_per_worker": n_envs,
            "off_policy_n_optimizer_steps": max(round(settings.updates_per_round * horizon), 1),
            "off_policy_train_batch_size": max(settings.batch_size // n_agents, 1),
            "off_policy_memory_size": settings.buffer_size // n_agents,
            "off_policy_init_random_frames": 0,
        }
    for name, value in changes.items():
        setattr(config, name, value)
    return config


def _network(task: CooperativeTask, experiment: Experiment, hidden: int) -> LotNetwork:
    """The trained network, put together from BenchMARL's actor (or action values) and its critic, if there is one."""
    weights: dict[str, Tensor] = {}
    for name, parameter in experiment.losses[GROUP].named_parameters():  # the actor or the action values come before the critic
        owner, found, part = name.partition(".network.")
        if found and (not owner.startswith("critic") or part.startswith(("critic", "value"))):
            weights[part] = parameter.detach().clone()
    network = LotNetwork(**task.layout.sizes, hidden=hidden)
    network.load_state_dict(weights)
    return network


class _Recorder(Callback):  # type: ignore[misc]  # BenchMARL ships no types
    """Reports every iteration, and lowers the learning rate of PPO."""

    def __init__(self, run: Run) -> None:
        super().__init__()
        self.run = run

    def on_batch_collected(self, batch: TensorDictBase) -> None:
        """Compute the episodes' metrics."""
        self.metrics = episode_means(batch)

    def on_train_end(self, training_td: TensorDictBase, group: str) -> None:
        """Report them."""
        del training_td
        settings, done = self.run.settings, self.experiment.total_frames
        self.run.report(done * settings.scenario.n_agents, self.metrics)
        if isinstance(settings, PPOSettings):
            remaining = 1 - done / self.experiment.config.get_max_n_frames(on_policy=True)
            for optimiser in self.experiment.optimizers[group].values():
                for parameters in optimiser.param_groups:
                    parameters["lr"] = settings.learning_rate * remaining

    def __getstate__(self) -> dict[str, Any]:
        return {}  # BenchMARL pickles callbacks to reload experiments, which is not done here


@contextmanager
def _quiet() -> Iterator[None]:
    """Silence BenchMARL's progress bar, TorchRL's notes, and the warnings that the two cause in each other."""
    logger = logging.getLogger("torchrl")
    level, bar = logger.level, experiment_module.tqdm
    logger.setLevel(logging.WARNING)
    experiment_module.tqdm = partial(bar, disable=True)
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="SyncDataCollector has been deprecated", category=DeprecationWarning)
            warnings.filterwarnings("ignore", message="size_average and reduce args will be deprecated", category=UserWarning)
            yield
    finally:
        logger.setLevel(level)
        experiment_module.tqdm = bar
