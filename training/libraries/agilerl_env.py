"""The engine as a vectorised environment for AgileRL, which steps all cooperatives at once."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from agilerl.vector.pz_vec_env import PettingZooVecEnv
from numpy.typing import NDArray

from ...credit import CreditRule
from ...envs.observations.spaces import ActionForm, RewardForm
from ...envs.scenario import Scenario
from ...envs.vector import CooperativeVecEnv

Arrays = dict[str, NDArray[Any]]
"""By agent."""
Infos = dict[str, dict[str, Any]]
Step = tuple[Arrays, Arrays, Arrays, Arrays, Infos]


class CooperativeAgileRLEnv(PettingZooVecEnv):  # type: ignore[misc]  # not installed where types are checked
    """E cooperatives of N proxies, with the interface of AgileRL's vectorised PettingZoo environments, which fork one process each.

    AgileRL 2.58 groups agents whose ids differ only after the last underscore, and gives each group one network. Its IPPO then pairs the
    observations of one agent and round with the advantages of another. So agents are called ``proxy0`` … here, not ``proxy_0`` …. For a
    policy that all proxies share, there is one agent, ``proxy``, in E·N environments.

    Observations, rewards and ends are dictionaries by agent. All episodes end at once after ``horizon`` rounds, by termination, because
    proxies observe the time and earn nothing after the horizon. The next episode begins by itself. Infos are empty. With masks of several
    environments, AgileRL's IPPO fails; where it accepts masks, it applies them when it acts but not when it learns. Use
    :meth:`action_masks` instead. A chosen lot that has nothing to contribute contributes nothing.

    Attributes:
        rows: The cooperatives. ``rows.last_episode`` holds the metrics of the last whole episode.

    Args:
        scenario: A scenario, its name, or the path of its YAML file.
        credit: A credit rule, or its name (with arguments, if it takes any).
        num_cooperatives: Number of cooperatives E.
        actions: Form of the actions.
        rewards: ``own``, or ``team``: every proxy gets the mean of its cooperative's rewards.
        shared: If set, all proxies are one agent, ``proxy``, in E·N environments (environment ``e·N + i`` is proxy i of cooperative e), for
            algorithms that train one policy for all. Else they are agents ``proxy0`` … in E environments.
        seed: Seed from which the cooperatives' seeds are made; drawn from the operating system if not given.

    Raises:
        ValueError: As :class:`~proxycoop.envs.Engine` does.
    """

    def __init__(
        self,
        scenario: Scenario | str | Path = "digits",
        credit: CreditRule | str = "shapley",
        num_cooperatives: int = 16,
        *,
        actions: ActionForm = "discrete",
        rewards: RewardForm = "own",
        shared: bool = False,
        seed: int | None = None,
    ) -> None:
        self.rows = CooperativeVecEnv(scenario, credit, num_cooperatives, actions=actions, rewards=rewards, seed=seed)
        n_agents = self.rows.engine.num_agents
        agents = ["proxy"] if shared else [f"proxy{i}" for i in range(n_agents)]
        super().__init__(
            num_cooperatives * n_agents // len(agents),
            dict.fromkeys(agents, self.rows.observation_space),
            dict.fromkeys(agents, self.rows.action_space),
            agents,
        )

    def reset(self, *, seed: int | None = None, options: Mapping[str, Any] | None = None) -> tuple[Arrays, Infos]:
        """Begin an episode in every cooperative.

        Args:
            seed: Seed of this and the following episodes; ``None`` continues with the seeds in use.
            options: Part of the interface; not used.
        """
        del options
        if seed is not None:
            self.rows.seed(seed)
        return self._by_agent(self.rows.reset()), self._infos()

    def start(self, seeds: Sequence[int], episode: int) -> Arrays:
        """Begin a given episode of given cooperatives: observations by agent."""
        return self._by_agent(self.rows.start(seeds, episode))

    def step(self, actions: Mapping[str, NDArray[Any]], *args: Any, **kwargs: Any) -> Step:
        """Play one round.

        Args:
            actions: By agent, ``(environments, K)`` or ``(environments,)`` by form.
            *args: Part of the interface; not used.
            **kwargs: The same.

        Returns:
            Observations, rewards, terminations, truncations and infos.

        Raises:
            ValueError: If an action is of the wrong shape or range.
        """
        del args, kwargs
        chosen = np.stack([np.asarray(actions[agent]) for agent in self.agents], axis=1)  # (environments, agents, ...)
        observations, rewards, dones, _ = self.rows.step(chosen.reshape(-1, *chosen.shape[2:]))
        ended = self._by_agent(dones)
        going_on = {agent: np.zeros_like(end) for agent, end in ended.items()}
        return self._by_agent(observations), self._by_agent(rewards), ended, going_on, self._infos()

    def action_masks(self) -> Arrays:
        """Which actions each agent may choose, ``(environments, 2**K)`` for discrete actions, else ``(environments, 2K)``.

        K counts lots, forgeries and levers.
        """
        return self._by_agent(self.rows.action_masks())

    def _by_agent(self, rows: Any) -> Arrays:
        of_agents = rows.reshape(self.num_envs, self.num_agents, *rows.shape[1:])
        return {agent: of_agents[:, i] for i, agent in enumerate(self.agents)}

    def _infos(self) -> Infos:
        return {agent: {} for agent in self.agents}
