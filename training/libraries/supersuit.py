"""Stable-Baselines3 on the PettingZoo face, vectorised by SuperSuit. PettingZoo's own wrappers can be put in between.

Every cooperative has an engine of its own, so this is slower than the vectorised face of :mod:`~proxycoop.training.libraries.sb3`.
Interrupted runs continue from their checkpoints, to the same numbers.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from stable_baselines3.common.vec_env import VecEnvWrapper
from stable_baselines3.common.vec_env.base_vec_env import VecEnvIndices, VecEnvStepReturn
from supersuit import concat_vec_envs_v1, pettingzoo_env_to_vec_env_v1

from ...envs import cooperative_v0
from ...envs.metrics import metrics_in
from ..run import Run, Trained
from ..settings import TrainSettings
from . import sb3
from .shared.sb3_normalise import normalised


def learn(run: Run) -> Trained:
    """Train by PPO, A2C or DQN."""
    settings = run.settings
    rows = CooperativeRows(settings)
    env, seen = normalised(rows, rows.layout, settings.gamma)
    return sb3.fit(run, sb3.algorithm(run, env, rows.layout.sizes), env, seen, rows, lambda: rows.last_episode)


class CooperativeRows(VecEnvWrapper):
    """SuperSuit's rows, with a seed and with the metrics of the last episodes.

    Attributes:
        layout: Layout of an observation.
        last_episode: Means over the episodes that ended last.

    Args:
        settings: Settings of the training.
    """

    def __init__(self, settings: TrainSettings) -> None:
        env = cooperative_v0.parallel_env(settings.scenario, settings.credit, actions=settings.actions, rewards=settings.rewards)
        self.layout = env.observation_layout()
        self._n_agents = len(env.possible_agents)
        self.last_episode: dict[str, float] = {}
        self._next_seed: int | None = None
        self._own_seeds: list[int] | None = None  # those in use, if they are known
        self._episode = self._t = 0
        vector = concat_vec_envs_v1(
            pettingzoo_env_to_vec_env_v1(env), settings.num_cooperatives, num_cpus=0, base_class="stable_baselines3"
        )
        super().__init__(vector)

    def get_attr(self, attr_name: str, indices: VecEnvIndices = None) -> list[Any]:
        """The attribute, once for each of the rows asked for. SuperSuit's vectors have only the attributes that they were made with."""
        return [getattr(self.venv, attr_name) for _ in self._get_indices(indices)]

    def seed(self, seed: int | None = None) -> Sequence[int | None]:
        """Set the seed of the next reset. Cooperatives get consecutive seeds; the first one is drawn from this seed."""
        self._next_seed = None if seed is None else int(np.random.SeedSequence(seed).generate_state(1, dtype=np.uint64)[0] >> np.uint64(2))
        return [self._next_seed] * self.num_envs

    def reset(self) -> NDArray[np.float32]:
        """Begin an episode in every cooperative: observations ``(E·N, size)``."""
        if self._next_seed is not None:
            return self.start(range(self._next_seed, self._next_seed + self.venv.num_envs // self._n_agents))
        self._episode, self._t = self._episode + 1, 0
        vector: Any = self.venv
        observations: NDArray[np.float32] = vector.venv.reset()[0]
        return observations

    def start(self, seeds: Sequence[int] | None = None, episode: int = 0) -> NDArray[np.float32]:
        """Begin a given episode of given seeds, which follow one another: observations ``(E·N, size)``.

        Without seeds the next episode begins, as in :meth:`reset`.
        """
        if seeds is None:
            return self.reset()
        self._own_seeds, self._episode, self._t, self._next_seed = list(seeds), episode, 0, None
        vector: Any = self.venv
        observations: NDArray[np.float32] = vector.venv.reset(seed=self._own_seeds[0], options={"episode": episode})[0]
        return observations

    def place(self) -> sb3.Place | None:
        """What :meth:`start` must get to begin the present episode; ``None`` if rounds of it were played, or its seeds are not known."""
        return None if self._own_seeds is None or self._t else (self._own_seeds, self._episode)

    def step_wait(self) -> VecEnvStepReturn:
        """Play the round."""
        observations, rewards, dones, infos = self.venv.step_wait()
        self._t += 1
        if dones.all():  # the next episode has begun by itself
            self._episode, self._t = self._episode + 1, 0
        ended = [metrics_in(info) for info, done in zip(infos, dones, strict=True) if done]
        if ended:
            self.last_episode = {name: float(np.mean([one[name] for one in ended])) for name in ended[0]}
        return observations, rewards, dones, infos
