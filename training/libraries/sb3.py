"""Stable-Baselines3: PPO, A2C and DQN on the vectorised face, where every proxy of every cooperative is a row.

Where only some agents are present in a round (the scenario has ``participation``), PPO and A2C leave the rows of the absent out of what
they learn from (:class:`PresentRows`) and out of the statistics that normalise. An update then takes whole episodes, A2C's too. DQN is
refused: a replay buffer of single rounds knows nothing of an agent's next own round. Agent-steps count those present; where some of these
do not learn, they are the expected number of those who do.

Interrupted runs continue from their checkpoints, to the same numbers. A checkpoint of DQN holds the replay buffer, so it is as large as
that: twice an observation and sixteen bytes for each agent-step of ``buffer_size``.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable, Generator, Mapping, Sequence
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from stable_baselines3 import A2C, DQN, PPO
from stable_baselines3.common.base_class import BaseAlgorithm
from stable_baselines3.common.buffers import ReplayBuffer, RolloutBuffer
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.off_policy_algorithm import OffPolicyAlgorithm
from stable_baselines3.common.on_policy_algorithm import OnPolicyAlgorithm
from stable_baselines3.common.type_aliases import RolloutBufferSamples
from stable_baselines3.common.vec_env import VecNormalize

from ...envs.vector import CooperativeVecEnv
from ..run import Run, Trained
from ..settings import A2CSettings, PPOSettings, QSettings, TrainSettings
from .policy import LotPolicy, LotQPolicy
from .shared.resumption import plain, random_states, set_random_states
from .shared.sb3_normalise import PooledMeanStd, normalised

Place = tuple[list[int], int]
"""The seeds of the cooperatives, and which of the seeds' episodes they play."""
COUNTS = ("num_timesteps", "_n_updates", "_n_calls", "_episode_num", "exploration_rate")
"""What an algorithm counts, and DQN's present exploration, which follows from that one round later."""
COLUMNS = ("observations", "next_observations", "actions", "rewards", "dones", "timeouts")
"""Arrays of a replay buffer, ``(buffer_size, E·N, ...)``."""


class ResumableRows(Protocol):
    """Rows of cooperatives that can begin with any episode of their seeds."""

    def start(self, seeds: Sequence[int] | None = None, episode: int = 0) -> NDArray[np.float32]:
        """Begin this episode of these seeds: observations ``(E·N, size)``."""
        ...

    def place(self) -> Place | None:
        """What :meth:`start` must get to begin the present episode; ``None`` if rounds of it were played, or before the first."""
        ...


def learn(run: Run) -> Trained:
    """Train by PPO, A2C or DQN."""
    return learn_on_rows(run, algorithm)


def learn_on_rows(
    run: Run, begin: Callable[[Run, VecNormalize, dict[str, int]], BaseAlgorithm], buffer: type[PresentRows] | None = None
) -> Trained:
    """Train on the vectorised face.

    Args:
        run: The run.
        begin: Makes the algorithm; see :func:`algorithm`.
        buffer: What holds its rollouts where only some are present in a round; :class:`PresentRows` by default.
    """
    settings = run.settings
    rows = CooperativeVecEnv(
        settings.scenario,
        settings.credit,
        settings.num_cooperatives,
        actions=settings.actions,
        rewards=settings.rewards,
        others=settings.company(),
    )
    env, seen = normalised(rows, rows.engine.layout, settings.gamma)
    model = begin(run, env, rows.policy_kwargs)
    if settings.scenario.samples_some:
        learn_from_those_present(model, rows, settings, buffer or PresentRows)

    def metrics() -> dict[str, float]:
        return {name: float(measure.mean()) for name, measure in rows.last_episode.items()}

    return fit(run, model, env, seen, rows, metrics)


class PresentRows(RolloutBuffer):
    """Rollouts in which only some rows are present in a round: the others are left out of what is learned from.

    Returns are over own rounds: a row that is absent chooses nothing, and what it is rewarded with meanwhile is added to the reward of the
    round in which it was last present; see :mod:`~proxycoop.training.libraries.shared.own_rounds`. So a rollout holds whole episodes: what
    comes after it would be missing.

    Args:
        rows: The rows.
        like: The buffer whose place it takes.
    """

    columns: tuple[str, ...] = ("observations", "actions", "values", "log_probs", "advantages", "returns")

    def __init__(self, rows: CooperativeVecEnv, like: RolloutBuffer) -> None:
        self._rows = rows
        self._now = np.zeros(like.n_envs, dtype=np.bool_)
        super().__init__(
            like.buffer_size,
            like.observation_space,
            like.action_space,
            like.device,
            gae_lambda=like.gae_lambda,
            gamma=like.gamma,
            n_envs=like.n_envs,
        )

    def reset(self) -> None:
        """Forget all rounds. The next one is that which the rows stand before."""
        super().reset()
        self.present = np.zeros((self.buffer_size, self.n_envs), dtype=np.bool_)
        if self._rows.engine.seeds is not None:
            self._now = self._rows.present()

    def add(self, *args: Any, **kwargs: Any) -> None:
        """Add a round, which the rows have just played."""
        self.present[self.pos] = self._now
        super().add(*args, **kwargs)
        self._now = self._rows.present()

    def compute_returns_and_advantage(self, last_values: torch.Tensor, dones: NDArray[np.bool_]) -> None:
        """Generalised advantage estimation over own rounds; the arguments are Stable-Baselines3's.

        Raises:
            ValueError: If an episode goes on after the rollout.
        """
        if not dones.all():
            raise ValueError("n_steps: with participation, a rollout holds whole episodes: make it a multiple of the horizon")
        goes_on = np.concatenate([1 - self.episode_starts[1:], 1 - dones[None].astype(np.float32)])  # (T, rows)
        later_value = last_values.clone().cpu().numpy().flatten()
        later, waiting = np.zeros_like(later_value), np.zeros_like(later_value)
        for t in reversed(range(self.buffer_size)):
            later_value, later, waiting = later_value * goes_on[t], later * goes_on[t], waiting * goes_on[t] + self.rewards[t]
            advantage = waiting + self.gamma * later_value - self.values[t] + self.gamma * self.gae_lambda * later
            here = self.present[t]
            self.advantages[t] = np.where(here, advantage, 0)
            later_value, later = np.where(here, self.values[t], later_value), np.where(here, advantage, later)
            waiting = np.where(here, 0, waiting)
        self.returns = self.advantages + self.values

    def get(self, batch_size: int | None = None) -> Generator[RolloutBufferSamples, None, None]:
        """Minibatches of the rows that were present, in random order.

        Raises:
            ValueError: If none was.
        """
        if not self.present.any():
            raise ValueError("nobody who learns was present in a whole update: raise num_cooperatives, or give fewer seats to others")
        if not self.generator_ready:
            for name in self.columns:
                setattr(self, name, self.swap_and_flatten(getattr(self, name)))
            self.generator_ready = True
        there = np.flatnonzero(self.swap_and_flatten(self.present))
        drawn = np.random.permutation(there)  # noqa: NPY002  # as Stable-Baselines3 draws
        for first in range(0, len(drawn), batch_size or len(drawn)):
            yield self._get_samples(drawn[first : first + (batch_size or len(drawn))])


def learn_from_those_present(model: BaseAlgorithm, rows: CooperativeVecEnv, settings: TrainSettings, kind: type[PresentRows]) -> None:
    """Leave rows that are absent out of what an on-policy algorithm learns from."""
    assert isinstance(model, OnPolicyAlgorithm)  # others are refused before
    model.rollout_buffer = kind(rows, model.rollout_buffer)
    if isinstance(settings, PPOSettings):
        scenario = settings.scenario
        n_rows = settings.num_cooperatives * scenario.horizon * scenario.n_seats * settings.n_learners // scenario.n_agents  # expected
        vars(model)["batch_size"] = settings.minibatch(n_rows)


def algorithm(run: Run, env: VecNormalize, policy_kwargs: dict[str, int]) -> BaseAlgorithm:
    """The algorithm that a run's settings name, ready to begin.

    Args:
        run: The run.
        env: The normalised rows.
        policy_kwargs: What the policy must know of the observations.
    """
    settings = run.settings
    common = common_arguments(run, env.num_envs, policy_kwargs)
    if isinstance(settings, A2CSettings):
        return A2C(LotPolicy, env, n_steps=settings.n_steps, gae_lambda=settings.gae_lambda, ent_coef=settings.ent_coef, **common)
    if isinstance(settings, PPOSettings):
        return PPO(LotPolicy, env, **ppo_arguments(settings, env.num_envs), **common)
    assert isinstance(settings, QSettings)
    per_update = max(round(1 / settings.updates_per_round), 1)  # rounds between updates of this many gradient steps:
    gradient_steps = max(round(settings.updates_per_round), 1)
    return DQN(
        LotQPolicy,
        env,
        buffer_size=settings.buffer_size,
        batch_size=settings.batch_size,
        learning_starts=settings.scenario.horizon * env.num_envs,
        train_freq=per_update,
        gradient_steps=gradient_steps,
        tau=1 - (1 - settings.target_tau) ** gradient_steps,  # one target update for all of them
        target_update_interval=per_update * env.num_envs,
        exploration_fraction=settings.exploration_share,
        exploration_final_eps=settings.exploration_end,
        **common,
    )


def steps_of(settings: TrainSettings, n_rows: int) -> tuple[int, int]:
    """Agent-steps of an update (for DQN, of an episode), and of the training, rounded up to a multiple of these."""
    per_update = n_rows * (settings.n_steps if isinstance(settings, A2CSettings) else settings.scenario.horizon)
    total = settings.total_steps
    if settings.scenario.samples_some:  # the library counts all rows, and we count those present
        total = math.ceil(total * settings.scenario.n_agents / settings.scenario.n_seats)
    return per_update, -(-total // per_update) * per_update


def common_arguments(run: Run, n_rows: int, policy_kwargs: dict[str, int]) -> dict[str, Any]:
    """Arguments of all algorithms. For on-policy ones, the learning rate falls towards 0; the first update uses the full rate.

    Stable-Baselines3 asks for the rate after it has counted an update's steps as done, so these are added again.
    """
    settings = run.settings
    per_update, total = steps_of(settings, n_rows)
    falls = isinstance(settings, PPOSettings | A2CSettings)
    return {
        "learning_rate": (
            (lambda remaining: settings.learning_rate * min(remaining + per_update / total, 1.0)) if falls else settings.learning_rate
        ),
        "gamma": settings.gamma,
        "policy_kwargs": {**policy_kwargs, "hidden": settings.hidden},
        "tensorboard_log": run.logs,
        "seed": settings.seed,
        "device": "cpu",
    }


def ppo_arguments(settings: PPOSettings, n_rows: int) -> dict[str, Any]:
    """Arguments of PPO only."""
    return {
        "n_steps": settings.scenario.horizon,
        "batch_size": settings.minibatch(settings.scenario.horizon * n_rows),
        "n_epochs": settings.n_epochs,
        "gae_lambda": settings.gae_lambda,
        "clip_range": settings.clip_range,
        "ent_coef": settings.ent_coef,
    }


def fit(
    run: Run,
    model: BaseAlgorithm,
    env: VecNormalize,
    seen: PooledMeanStd,
    rows: ResumableRows,
    metrics: Callable[[], dict[str, float]],
) -> Trained:
    """Train to the end, from the start or from the run's checkpoint.

    Args:
        run: The run.
        model: The algorithm, at its start.
        env: Its environment.
        seen: The statistics of its observations.
        rows: The rows that the environment normalises.
        metrics: Returns means over the episodes that ended last.
    """
    if run.checkpoint is not None:
        _restore(run, model, env, seen, rows)

    def keep() -> None:
        if (place := rows.place()) is not None:
            run.keep(_state(model, env, seen, place))

    policy: Any = model.policy
    run.watch(policy.network.named_parameters)
    remaining = steps_of(run.settings, env.num_envs)[1] - model.num_timesteps
    if remaining > 0:
        model.learn(remaining, _Recorder(run, metrics, keep), reset_num_timesteps=run.checkpoint is None, tb_log_name=run.settings.algo)
    mean, variance = (torch.from_numpy(part.astype(np.float32)) for part in seen.per_feature())
    return Trained(policy.network, mean, variance, float(env.ret_rms.var), greedy=isinstance(run.settings, QSettings))


class _Recorder(BaseCallback):
    """Reports every episode, and has a checkpoint written when one is due.

    Args:
        run: The run.
        metrics: Returns means over the episodes that ended last.
        keep: Writes a checkpoint, if it can; called between two rollouts.
    """

    def __init__(self, run: Run, metrics: Callable[[], dict[str, float]], keep: Callable[[], None]) -> None:
        super().__init__()
        self.run = run
        self.metrics = metrics
        self.keep = keep

    def _on_step(self) -> bool:
        if self.locals["dones"].all():  # all cooperatives end at once
            scenario = self.run.settings.scenario
            self.run.report(self.num_timesteps * scenario.n_seats // scenario.n_agents, self.metrics())
        return True

    def _on_rollout_start(self) -> None:
        # an update ends here: the network has learnt from the previous rollout
        if self.run.is_due:
            self.keep()


def _state(model: BaseAlgorithm, env: VecNormalize, seen: PooledMeanStd, place: Place) -> dict[str, Any]:
    """Everything that the rest of the run depends on, where every cooperative is at the start of an episode.

    Stable-Baselines3's own ``save`` and ``save_replay_buffer`` write pickles, which run code when they are read. Here the same is kept in
    tensors and plain data. What was seen last is not kept: it is the new episode's start, which is observed again.
    """
    state: dict[str, Any] = {
        "parameters": model.get_parameters(),
        "counts": {name: getattr(model, name) for name in COUNTS if hasattr(model, name)},
        "last_episodes": model.ep_info_buffer,
        "action_space": model.action_space.np_random.bit_generator.state,
        "statistics": [(one.mean, one.var, one.count) for one in (seen, env.ret_rms)],
        "return_so_far": env.returns,
        "place": place,
        "random": random_states(),
    }
    if isinstance(model, OffPolicyAlgorithm):
        state["replay"] = _filled(model.replay_buffer)
    kept: dict[str, Any] = plain(state)
    return kept


def _restore(run: Run, model: BaseAlgorithm, env: VecNormalize, seen: PooledMeanStd, rows: ResumableRows) -> None:
    """Bring an algorithm that has not begun to where the run was at its checkpoint."""
    state = run.checkpoint
    assert state is not None
    model.set_parameters(state["parameters"], exact_match=True, device="cpu")
    for name, count in state["counts"].items():
        setattr(model, name, count)
    model.ep_info_buffer = deque(state["last_episodes"], maxlen=model._stats_window_size)
    model.ep_success_buffer = deque(maxlen=model._stats_window_size)
    for one, (mean, variance, count) in zip((seen, env.ret_rms), state["statistics"], strict=True):
        one.mean, one.var, one.count = *(np.asarray(part) for part in (mean, variance)), count
    env.returns = state["return_so_far"].numpy()
    env.old_obs = rows.start(*state["place"])
    model._last_original_obs = env.old_obs
    model._last_obs = env.normalize_obs(env.old_obs)
    model._last_episode_starts = np.ones(env.num_envs, dtype=bool)
    if isinstance(model, OffPolicyAlgorithm):
        _fill(model.replay_buffer, state["replay"])
    model.action_space.np_random.bit_generator.state = state["action_space"]
    set_random_states(state["random"])


def _filled(buffer: ReplayBuffer | None) -> dict[str, Any]:
    """The part of a replay buffer that is in use."""
    assert buffer is not None
    rows = {name: getattr(buffer, name)[: buffer.size()] for name in COLUMNS}
    return {"position": buffer.pos, "full": buffer.full, **rows}


def _fill(buffer: ReplayBuffer | None, filled: Mapping[str, Any]) -> None:
    """Fill an empty replay buffer with what :func:`_filled` found in another."""
    assert buffer is not None
    buffer.pos, buffer.full = filled["position"], filled["full"]
    for name in COLUMNS:
        getattr(buffer, name)[: buffer.size()] = filled[name].numpy()
