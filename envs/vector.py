"""The engine as a vectorised environment for Stable-Baselines3: one row for every proxy of every cooperative.

Row ``e·N + i`` is proxy i of cooperative e. All proxies share one policy, so to Stable-Baselines3 this is E·N environments.
For libraries that speak Gymnasium there is :mod:`~proxycoop.envs.gymnasium_vector`.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from stable_baselines3.common.vec_env.base_vec_env import VecEnv, VecEnvIndices, VecEnvStepReturn

from ..credit import CreditRule
from .metrics import episode_metrics
from .observations.spaces import ActionForm, RewardForm, observation_space
from .randomness import seeds_from
from .rows import Others, Rows
from .scenario import Scenario


class CooperativeVecEnv(VecEnv):
    """E cooperatives of N proxies as E·N rows.

    Where only some agents are present in a round, the others' rows are there too: they keep what they observed when they were last present,
    and what they choose does nothing. :meth:`present` says which rows are present.

    Episodes end after ``horizon`` rounds, in all rows at once, and the next begins by itself; the info of a row's last round holds
    ``terminal_observation``, ``episode`` (return ``r``, length ``l``, seconds ``t``) and ``TimeLimit.truncated``, which is False:
    proxies observe the time and earn nothing after the horizon, so there is nothing to bootstrap from (Pardo et al. 2018, *Time
    limits in reinforcement learning*, ICML).

    Attributes:
        engine: The cooperatives.
        last_episode: Metrics of the last whole episode, see :func:`~proxycoop.envs.episode_metrics`.

    Args:
        scenario: A scenario, its name, or the path of its YAML file.
        credit: A credit rule, or its name (with arguments, if it takes any).
        num_cooperatives: Number of cooperatives E.
        actions: Form of the actions.
        rewards: ``own``, or ``team``: every row gets the mean of its cooperative's rewards.
        seed: Seed of the lot; drawn from the operating system if not given.
        others: Who plays some of the seats, such as :class:`~proxycoop.agents.seats.Company`; these are then no rows.
        compile: Whether rounds are compiled, as :class:`~proxycoop.envs.Engine` says: for the CPU, and for few cooperatives most.

    Raises:
        ValueError: As :class:`~proxycoop.envs.Engine` does.
    """

    def __init__(
        self,
        scenario: Scenario | str | Path = "digits",
        credit: CreditRule | str = "shapley",
        num_cooperatives: int = 16,
        *,
        actions: ActionForm = "multi_discrete",
        rewards: RewardForm = "own",
        seed: int | None = None,
        others: Others | None = None,
        compile: bool = False,
    ) -> None:
        self._rows = Rows(scenario, credit, num_cooperatives, actions=actions, rewards=rewards, others=others, compile=compile)
        self.engine = self._rows.engine
        self.render_mode = None
        super().__init__(len(self._rows), observation_space(self.engine.layout), self._rows.codec.space())
        self.last_episode: dict[str, torch.Tensor] = {}
        self._next_seeds: list[int] | None = None
        self._choices: torch.Tensor | None = None
        if seed is not None:
            self.seed(seed)

    @property
    def policy_kwargs(self) -> dict[str, int]:
        """What :class:`~proxycoop.training.libraries.policy.LotPolicy` must know of the observations."""
        return self.engine.layout.sizes

    def seed(self, seed: int | None = None) -> Sequence[int | None]:
        """Set the seed that the next reset uses; every cooperative gets one of its own from it.

        Returns:
            The seed of each row's cooperative.
        """
        self._next_seeds = seeds_from(seed, self.engine.num_envs)
        return [seed for seed in self._next_seeds for _ in range(self._rows.per_cooperative)]

    def reset(self) -> NDArray[np.float32]:
        """Begin an episode in every cooperative: observations ``(E·N, size)``."""
        return self.start(self._next_seeds)

    def observations(self) -> NDArray[np.float32]:
        """What each row observes now, ``(E·N, size)``."""
        return self._rows.observations()

    def start(self, seeds: Sequence[int] | None = None, episode: int = 0) -> NDArray[np.float32]:
        """Begin a given episode of given cooperatives, as :meth:`Engine.reset` does: observations ``(E·N, size)``."""
        self.engine.reset(seeds, episode=episode)
        self._rows.begin()
        self._next_seeds, self._choices = None, None  # actions that were for the episode before are not played in this one
        self._returns = np.zeros(self.num_envs, dtype=np.float64)
        self._began = time.perf_counter()
        return self._rows.observations()

    def place(self) -> tuple[list[int], int] | None:
        """What :meth:`start` must get to begin the present episode: the cooperatives' seeds, and which of their episodes it is.

        ``None`` if rounds of the episode were played, or before the first one.
        """
        engine = self.engine
        return None if engine.seeds is None or engine.t else (engine.seeds.tolist(), engine.episode)

    def step_async(self, actions: NDArray[Any]) -> None:
        """Take the actions of all rows, ``(E·N, K)`` or ``(E·N,)`` by form.

        Raises:
            RuntimeError: If the environment was not reset.
            ValueError: If they are of the wrong shape or range.
        """
        self.engine.require_begun("step")
        self._choices = self._rows.choices(actions)

    def step_wait(self) -> VecEnvStepReturn:
        """Play the round.

        Raises:
            RuntimeError: If there are no actions or the environment was not reset.
        """
        if self._choices is None:
            raise RuntimeError("step_wait was called before step_async")
        result = self.engine.step(self._rows.joined(self._choices))
        self._choices = None
        rewards = self._rows.rewards(result.rewards).float().numpy()
        self._returns += rewards
        dones = np.full(self.num_envs, result.done)
        infos: list[dict[str, Any]] = [{} for _ in range(self.num_envs)]
        if result.done:
            self.last_episode = episode_metrics(self.engine)
            terminal = self._rows.observations()
            seconds = time.perf_counter() - self._began
            for row, info in enumerate(infos):
                info["terminal_observation"] = terminal[row]
                info["TimeLimit.truncated"] = False
                info["episode"] = {"r": float(self._returns[row]), "l": self.engine.horizon, "t": seconds}
            self.reset()
        return self._rows.observations(), rewards, dones, infos

    def action_masks(self) -> NDArray[np.bool_]:
        """Masks of all rows for sb3-contrib's MaskablePPO, ``(E·N, 2K)`` or ``(E·N, 2**K)``."""
        return self._rows.masks()

    def present(self) -> NDArray[np.bool_]:
        """Which rows are present in the round to come, bool ``(E·N,)``."""
        return self._rows.present()

    def close(self) -> None:
        """Nothing to release."""

    def get_attr(self, attr_name: str, indices: VecEnvIndices = None) -> list[Any]:
        """The attribute, once for each of the rows asked for."""
        return [getattr(self, attr_name) for _ in self._get_indices(indices)]

    def set_attr(self, attr_name: str, value: Any, indices: VecEnvIndices = None) -> None:
        """Set an attribute of the whole; rows have none of their own.

        Raises:
            ValueError: If only some rows are named.
        """
        if len(list(self._get_indices(indices))) != self.num_envs:
            raise ValueError(f"set_attr({attr_name!r}): rows share one engine, so an attribute is set for all of them or none")
        setattr(self, attr_name, value)

    def env_method(self, method_name: str, *args: Any, indices: VecEnvIndices = None, **kwargs: Any) -> list[Any]:
        """Call ``action_masks``, which takes no arguments, for each of the rows asked for.

        Raises:
            AttributeError: For any other method: rows have none of their own.
        """
        if method_name != "action_masks" or args or kwargs:
            raise AttributeError(f"rows of {type(self).__name__} have no method {method_name!r}, only 'action_masks'")
        masks = self.action_masks()
        return [masks[row] for row in self._get_indices(indices)]

    def env_is_wrapped(self, wrapper_class: type, indices: VecEnvIndices = None) -> list[bool]:
        """Rows are not wrapped."""
        del wrapper_class
        return [False for _ in self._get_indices(indices)]

    def get_images(self) -> Sequence[NDArray[np.uint8] | None]:
        """No pictures: watch one cooperative through :mod:`~proxycoop.envs.cooperative_v0` instead."""
        return [None] * self.num_envs

    def _get_indices(self, indices: VecEnvIndices) -> Iterable[int]:
        rows: Iterable[int] = super()._get_indices(indices)
        return rows
