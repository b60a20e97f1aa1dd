"""Ray's RLlib: PPO on its new API stack, with one policy for all proxies, in one process or many.

A script of your own can use the parts: :class:`CooperativeMultiAgentEnv` is the environment, :class:`LotModule` the shared network, and
:class:`EpisodeMetrics` collects the metrics from the processes that play. ``examples/rllib_ppo.py`` shows how.

Differences from Stable-Baselines3: observations are normalised by statistics that are fixed beforehand, rewards are not normalised, and
advantages are normalised over a whole update. RLlib steps its environments one after the other, each an engine with one cooperative. This
costs several times what the vectorised face does. Runners on many processors make up for it. Interrupted runs continue from their
checkpoints, to the same numbers.
"""

from __future__ import annotations

import logging
import os
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import Any, cast

import gymnasium
import numpy as np
import ray
import torch
from gymnasium import spaces
from ray.rllib.algorithms.algorithm import Algorithm
from ray.rllib.algorithms.ppo import PPOConfig
from ray.rllib.callbacks.callbacks import RLlibCallback
from ray.rllib.core import COMPONENT_LEARNER, COMPONENT_RL_MODULE
from ray.rllib.core.columns import Columns
from ray.rllib.core.distribution.torch.torch_distribution import TorchCategorical, TorchMultiCategorical
from ray.rllib.core.rl_module.apis import ValueFunctionAPI
from ray.rllib.core.rl_module.rl_module import RLModuleSpec
from ray.rllib.core.rl_module.torch import TorchRLModule
from ray.rllib.env.wrappers.pettingzoo_env import ParallelPettingZooEnv
from ray.rllib.utils.metrics import WEIGHTS_SEQ_NO
from ray.rllib.utils.torch_utils import FLOAT_MIN
from torch import Tensor

from ...agents import saved
from ...agents.network import LotNetwork, Normaliser
from ...envs.cooperative_v0 import parallel_env
from ...envs.metrics import metrics_in
from ...envs.observations.layout import ObservationLayout
from ...envs.scenario import Scenario
from ..own_modules import import_modules, modules_for
from ..run import Run, Trained
from ..settings import RayPPOSettings
from .shared.normalise import reference_statistics
from .shared.resumption import plain, random_states, set_random_states

ByAgent = dict[Any, Any]
"""Values by the number of the agent; terminations and truncations also have the key ``"__all__"``."""
POLICY = "proxies"
"""RLlib's id of the policy of all proxies."""


class CooperativeMultiAgentEnv(ParallelPettingZooEnv):  # type: ignore[misc]  # an extra: type checkers may not see it
    """The PettingZoo face for RLlib: ``PPOConfig().environment(CooperativeMultiAgentEnv, env_config={"scenario": "digits"})``.

    The agents are numbers here: i for ``proxy_i``. RLlib iterates over sets of agents. The order in a set of names differs from process to
    process, so with names no seed would give the same run twice.

    Args:
        config: Arguments of :func:`~proxycoop.envs.cooperative_v0.parallel_env` by name, and two more. ``masks``: whether observations are
            ``{"observations": …, "action_mask": …}``, as in RLlib's own masking modules. The mask is flat: ``(2K,)`` of pairs *withhold,
            contribute*, or ``(2**K,)``, where K counts lots, forgeries and levers. ``modules``: modules to import first in each process,
            for what they register.
    """

    def __init__(self, config: Mapping[str, Any]) -> None:
        arguments = dict(config)
        self.masks = bool(arguments.pop("masks", False))
        import_modules(arguments.pop("modules", ()))
        self._runner = getattr(config, "worker_index", 0)
        self._next_place: tuple[int, int] | None = None
        super().__init__(parallel_env(**arguments))
        self._names = list(self.par_env.possible_agents)
        self._agent_ids = set(range(len(self._names)))
        self.agents = self.possible_agents = list(range(len(self._names)))
        self.observation_spaces = {agent: self._space(name) for agent, name in enumerate(self._names)}
        self.action_spaces = {agent: self.par_env.action_space(name) for agent, name in enumerate(self._names)}
        self.observation_space = spaces.Dict(self.observation_spaces)  # type: ignore[arg-type]  # numbers serve as well as names
        self.action_space = spaces.Dict(self.action_spaces)  # type: ignore[arg-type]

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[ByAgent, ByAgent]:
        """Begin an episode.

        Args:
            seed: Seed of this and the following episodes. RLlib counts seeds up both over environments and over runners, so neighbouring
                runners would play the same cooperatives. Therefore the seed that is used also depends on the runner's number.
            options: As in PettingZoo.
        """
        if self._next_place is not None:
            seed, episode = self._next_place
            options, self._next_place = {**(options or {}), "episode": episode}, None
        elif seed is not None:
            seed = int(np.random.SeedSequence([seed, self._runner]).generate_state(1)[0])
        observations, infos = super().reset(seed=seed, options=options)
        return self._observed(observations, infos), self._numbered(infos)

    def next_place(self) -> tuple[int, int]:
        """The seed in use, and which of its episodes begins next."""
        engine = self.par_env.unwrapped.engine
        return int(engine.seeds[0]), engine.episode + 1

    def go_on(self, place: tuple[int, int]) -> None:
        """Let the next reset begin this episode of this seed, whatever seed it gets."""
        self._next_place = place

    def step(self, action_dict: Mapping[int, Any]) -> tuple[ByAgent, ByAgent, ByAgent, ByAgent, ByAgent]:
        """Play one round. The horizon is reported as a termination; :class:`~proxycoop.envs.vector.CooperativeVecEnv` says why."""
        actions = {self._names[agent]: action for agent, action in action_dict.items()}
        observations, rewards, _, truncations, infos = self.par_env.step(actions)
        done = all(truncations.values())
        going = dict.fromkeys([*self.agents, "__all__"], False)
        ended = dict.fromkeys(going, done)
        return self._observed(observations, infos), self._numbered(rewards), ended, going, self._numbered(infos)

    def _numbered(self, by_name: Mapping[str, Any]) -> ByAgent:
        return {agent: by_name[name] for agent, name in enumerate(self._names)}

    def _space(self, name: str) -> spaces.Space[Any]:
        space: spaces.Box = self.par_env.observation_space(name)
        if not self.masks:
            return space
        action = self.par_env.action_space(name)
        size = int(action.n) if isinstance(action, spaces.Discrete) else int(action.nvec.sum())
        return spaces.Dict({"action_mask": spaces.Box(0, 1, (size,), np.int8), "observations": space})

    def _observed(self, observations: Mapping[str, Any], infos: Mapping[str, Any]) -> ByAgent:
        if not self.masks:
            return self._numbered(observations)
        return {
            agent: {"action_mask": np.hstack(infos[name]["action_mask"]), "observations": observations[name]}
            for agent, name in enumerate(self._names)
        }


class LotModule(TorchRLModule, ValueFunctionAPI):  # type: ignore[misc]  # an extra: type checkers may not see it
    """:class:`~proxycoop.agents.network.LotNetwork` as a module of RLlib, for either form of actions, with masks or without.

    Its ``model_config`` comes from :func:`model_config`. An action that the mask forbids has probability 0.

    Raises:
        ValueError: If its ``model_config`` does not come from :func:`model_config`.
    """

    def setup(self) -> None:
        """Build the network; RLlib calls this."""
        config = self.model_config
        if not isinstance(config, Mapping) or "n_lot_features" not in config:
            raise ValueError("LotModule does not know its sizes: pass RLModuleSpec(LotModule, model_config=model_config(scenario, credit))")
        width = config["n_lot_features"]
        self._discrete = isinstance(self.action_space, spaces.Discrete)
        n_items = int(self.action_space.n).bit_length() - 1 if self._discrete else len(self.action_space.nvec)
        self.network = LotNetwork(width, config["n_agent_features"], config["hidden"])
        self.normaliser = Normaliser(torch.tensor(config["mean"]), torch.tensor(config["variance"]), width, n_items)
        self.action_dist_cls = TorchCategorical if self._discrete else TorchMultiCategorical.get_partial_dist_cls(input_lens=[2] * n_items)

    def _forward(self, batch: Mapping[str, Any], **kwargs: Any) -> dict[str, Tensor]:
        del kwargs
        observations, mask = self._split(batch)
        if self._discrete:
            logits = self.network.code_logits(observations)  # (B, 2**K)
        else:
            logits = self.network.pair_logits(observations)  # (B, 2K)
        if mask is not None:
            logits = logits.masked_fill(mask == 0, FLOAT_MIN)
        return {Columns.ACTION_DIST_INPUTS: logits}

    def compute_values(self, batch: Mapping[str, Any], embeddings: Any = None) -> Tensor:
        """The critic's values, ``(B,)``."""
        del embeddings
        return self.network.state_value(self._split(batch)[0])

    def _split(self, batch: Mapping[str, Any]) -> tuple[Tensor, Tensor | None]:
        """Normalised observations, and the mask if there is one."""
        observations = batch[Columns.OBS]
        mask = None
        if isinstance(observations, Mapping):
            observations, mask = observations["observations"], observations["action_mask"]
        return self.normaliser(observations), mask


class EpisodeMetrics(RLlibCallback):  # type: ignore[misc]  # an extra: type checkers may not see it
    """Writes metrics to ``result["env_runners"]["cooperative"]``: means over the agents and over the episodes of the iteration.

    With several runners, they are unweighted means of the runners' means.
    """

    def on_episode_end(self, *, episode: Any, metrics_logger: Any, **kwargs: Any) -> None:
        """Record the metrics of an episode that has ended; RLlib calls this."""
        del kwargs
        of_agents = [metrics_in(info) for info in episode.get_infos(-1).values()]
        for name in of_agents[0]:
            metrics_logger.log_value(("cooperative", name), float(np.mean([one[name] for one in of_agents])), reduce="mean")


def everyone(agent: int, episode: Any, **kwargs: Any) -> str:
    """RLlib's policy mapping: all proxies have the same policy."""
    del agent, episode, kwargs
    return POLICY


def model_config(scenario: Scenario, credit: str, hidden: int = 64) -> dict[str, Any]:
    """What :class:`LotModule` must know: the sizes of the network and the statistics that normalise its inputs.

    Args:
        scenario: The cooperative.
        credit: The credit rule.
        hidden: Units of each hidden layer.
    """
    layout = ObservationLayout.of(scenario)
    mean, variance = reference_statistics(scenario, credit)
    return {
        "n_lot_features": len(layout.lot_features),
        "n_agent_features": len(layout.agent_features),
        "hidden": hidden,
        "mean": mean.tolist(),
        "variance": variance.tolist(),
    }


def configure(settings: RayPPOSettings) -> PPOConfig:
    """The settings as a configuration of RLlib.

    Raises:
        ValueError: If other processes cannot find the credit rule, the data source or a value.
    """
    modules = (
        modules_for(settings.scenario, settings.credit, [s.partition("=")[2] for s in settings.seats]) if settings.num_env_runners else []
    )
    if "__mp_main__" in modules:
        raise ValueError(
            f"credit rule {settings.credit!r}, or data or a value of scenario {settings.scenario.name!r}, is defined in a script, where "
            "Ray's processes cannot find it: put it into a module"
        )
    runners = max(settings.num_env_runners, 1)
    episode = settings.scenario.horizon * settings.scenario.n_agents  # agent-steps
    update = settings.num_cooperatives * episode
    # RLlib adds one row per agent and episode, and leaves it out of the loss
    rows = update + settings.num_cooperatives * settings.scenario.n_agents
    rounds = settings.num_cooperatives * settings.scenario.horizon * -(-settings.total_steps // update)
    return (
        PPOConfig()
        .environment(
            CooperativeMultiAgentEnv,
            env_config={
                "scenario": settings.scenario,
                "credit": settings.credit,
                "actions": settings.actions,
                "rewards": settings.rewards,
                "masks": settings.masks,
                "modules": modules,
            },
        )
        .env_runners(
            num_env_runners=settings.num_env_runners,
            num_envs_per_env_runner=settings.num_cooperatives // runners,
            rollout_fragment_length=episode,
        )
        .fault_tolerance(restart_failed_env_runners=False)  # a restarted runner would play the same cooperatives again
        .learners(num_learners=0)
        .multi_agent(policies={POLICY}, policy_mapping_fn=everyone, count_steps_by="agent_steps")
        .rl_module(
            rl_module_spec=RLModuleSpec(
                module_class=LotModule, model_config=model_config(settings.scenario, settings.credit, settings.hidden)
            )
        )
        .training(
            lr=[[0, settings.learning_rate], [rounds, 0.0]],
            train_batch_size_per_learner=update,
            minibatch_size=min(rows // (update // settings.minibatch(update)), update),
            num_epochs=settings.n_epochs,
            gamma=settings.gamma,
            lambda_=settings.gae_lambda,
            clip_param=settings.clip_range,
            entropy_coeff=settings.ent_coef,
            vf_loss_coeff=0.5,
            vf_clip_param=float("inf"),
            use_kl_loss=False,
            grad_clip=0.5,
            grad_clip_by="global_norm",
        )
        .callbacks(EpisodeMetrics)
        # neighbouring seeds would share all cooperatives but one
        .debugging(seed=int(np.random.SeedSequence(settings.seed).generate_state(1)[0]) >> 1, log_level="ERROR")
    )


def learn(run: Run) -> Trained:
    """Train on the Ray that is running or that ``RAY_ADDRESS`` names; else on a Ray that is started here and stopped after the training.

    The same seed gives the same run with the same number of runners. An interrupted run continues from its checkpoint, to the same numbers.

    Raises:
        ValueError: As :func:`configure` does.
    """
    settings = cast(RayPPOSettings, run.settings)
    config = configure(settings)
    known = config.rl_module_spec.model_config
    logging.getLogger("ray.rllib").setLevel(logging.ERROR)
    deterministic = torch.are_deterministic_algorithms_enabled()  # RLlib turns it on in this process when it gets a seed
    gymnasium.registry.pop("rllib-multi-agent-env-v0", None)  # RLlib registers it again, and gymnasium would warn
    with _ray(settings.num_env_runners):
        algorithm = None
        try:
            algorithm = config.build_algo()
            run.watch(lambda: [(name, torch.from_numpy(w)) for name, w in algorithm.learner_group.get_weights()[POLICY].items()])
            if run.checkpoint is not None:
                _restore(algorithm, run.checkpoint)
            while run.steps_done < settings.total_steps:
                played = algorithm.train()["env_runners"]
                metrics = {name: float(value) for name, value in sorted(played["cooperative"].items())}
                run.report(int(sum(played["num_agent_steps_sampled_lifetime"].values())), metrics)
                if run.is_due:
                    run.keep(_state(algorithm))
            weights = algorithm.learner_group.get_weights()[POLICY]
        finally:
            if algorithm is not None:
                algorithm.stop()
                _tidy(Path(algorithm.logdir))
            torch.use_deterministic_algorithms(deterministic)
    network = LotNetwork(known["n_lot_features"], known["n_agent_features"], known["hidden"])
    network.load_state_dict({name.removeprefix("network."): torch.from_numpy(weight) for name, weight in weights.items()})
    return Trained(network, torch.tensor(known["mean"]), torch.tensor(known["variance"]))


def _state(algorithm: Algorithm) -> dict[str, Any]:
    """Everything that the rest of the run depends on. After an update all episodes are over.

    RLlib's ``save_to_path`` writes what ``get_state`` gives, as pickles, which run code when they are read. It leaves out the environments
    and the random generators.
    """
    state: dict[str, Any] = plain(algorithm.get_state())
    _leave_out_what_is_not_finite(state)
    runners = [each for each in algorithm.env_runner_group.foreach_env_runner(_position) if each is not None]
    return {"algorithm": state, "runners": dict(runners), "random": random_states()}


def _restore(algorithm: Algorithm, state: Mapping[str, Any]) -> None:
    """Bring an algorithm that has not begun to where the run was at its checkpoint."""
    algorithm.set_state(state["algorithm"])
    # RLlib sends the weights to the runners without waiting, and drops them where it has just sent others: those of the start
    weights = algorithm.learner_group.get_state(components=f"{COMPONENT_LEARNER}/{COMPONENT_RL_MODULE}", inference_only=True)
    go_on = partial(_go_on, positions=state["runners"], weights=weights[COMPONENT_LEARNER])
    algorithm.env_runner_group.foreach_env_runner(go_on)
    set_random_states(state["random"])


def _position(runner: Any) -> tuple[int, dict[str, Any]] | None:
    """The number of a runner, its random generators, and what its environments play next; ``None`` if it has none."""
    if runner.env is None:
        return None
    places = [env.unwrapped.next_place() for env in runner.env.envs]
    return runner.worker_index, {"places": places, "random": random_states()}


def _go_on(runner: Any, positions: Mapping[int, Mapping[str, Any]], weights: Mapping[str, Any]) -> None:
    """Let a runner go on from its position, with these weights."""
    runner.set_state({name: weights[name] for name in (COMPONENT_RL_MODULE, WEIGHTS_SEQ_NO)})
    if runner.env is not None:
        position = positions[runner.worker_index]
        for env, place in zip(runner.env.envs, position["places"], strict=True):
            env.unwrapped.go_on(place)
        set_random_states(position["random"])


def _leave_out_what_is_not_finite(state: dict[str, Any]) -> None:
    """Of RLlib's statistics. Some are means of nothing; none of these is a count."""
    for logged in (state["metrics_logger"], state["learner_group"]["learner"]["metrics_logger"]):
        logged["stats"] = {name: one for name, one in logged["stats"].items() if saved.first_not_finite(one) is None}


@contextmanager
def _ray(num_env_runners: int) -> Iterator[None]:
    if ray.is_initialized():
        yield
        return
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    # Ray counts one processor per runner, whether or not the machine has as many
    here = {} if os.environ.get("RAY_ADDRESS") else {"address": "local", "num_cpus": num_env_runners + 1, "include_dashboard": False}
    ray.init(log_to_driver=False, logging_level=logging.ERROR, **here)
    try:
        yield
    finally:
        ray.shutdown()


def _tidy(logs: Path) -> None:
    """Remove the folder for logs that RLlib makes in ``~/ray_results`` in any case."""
    shutil.rmtree(logs, ignore_errors=True)
    with suppress(OSError):  # the folder holds other logs too
        logs.parent.rmdir()
