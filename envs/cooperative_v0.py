"""``cooperative_v0``: an AI cooperative as a PettingZoo environment.

Each of N principals delegates to one *proxy*, ``proxy_0`` … ``proxy_{N-1}``. A proxy holds its principal's private data, cut into K
*lots*. One round goes like this:

1. Every lot yields a candidate update of the shared model.
2. Each proxy chooses which of its own updates to contribute.
3. The contributed updates are screened against the principals' value profiles.
4. The admitted updates are aggregated into one step of the shared model.
5. A credit rule turns the gain in held-out utility into one reward per proxy.

=============  ==============================================================================================================
Agents         ``proxy_0`` … ``proxy_{N-1}``. All act in every round, and none leaves before the end.
Actions        ``MultiDiscrete([2] * K)``, 1 = contribute; or ``Discrete(2**K)`` with ``actions="discrete"`` (bit k = lot k)
Observations   ``Box(-10, 10, (size,), float32)``; :meth:`CooperativeEnv.observation_layout` names every entry
Rewards        ``scale·credit − contribution_cost·lots − violation_penalty·violations + public_share·scale·v(N) − loyalty·harm``. With
               ``rewards="team"`` every proxy gets the mean of all rewards. Under ``settlement.reward: settlement`` the payout, in reward
               units, takes the place of ``scale·credit``; in rounds without a settlement that term is 0.
End            after ``horizon`` rounds, by truncation; ``agents`` is then empty
State          the observations of all proxies side by side, ``Box(-10, 10, (N·size,), float32)``
Rendering      ``ansi`` (a table of the round), ``rgb_array`` (a picture of it), ``human`` (prints the table)
=============  ==============================================================================================================

``infos[agent]`` always holds ``action_mask``. A lot may have nothing to contribute in a round; choosing it then has no effect. Unless
``infos="mask"``, it also holds the following, about the round just played:

===============  =======================================================================================================
``credit``       what the rule assigned to the proxy, in the utility's unit
``contributed``  which of its lots were contributed, bool ``(K,)``
``admitted``     which of them were admitted, bool ``(K,)``
``kept``         norm of what was admitted over the norm of the update, ``(K,)``; below 1 where the filter changed the update
``blocked_by``   which principal found which update inadmissible, bool ``(K, N)``
``utility``      the utility of the shared model now
``lot_credit``   what each lot earned, ``(K,)``; only under rules that credit single lots (:class:`~proxycoop.credit.LotRule`)
``metrics/…``    a number for each of :func:`~proxycoop.envs.episode_metrics`, such as ``metrics/welfare``; see below
===============  =======================================================================================================

The metrics are those of the last whole episode: of the episode that ends, from its last round until the next one ends. Before the first
episode of a seed has ended they are 0. So all infos have the same names and shapes in every round, from ``reset`` on, as wrappers need
that keep infos in arrays (TorchRL's) or that join the infos of an episode's end with those of the next reset (SuperSuit's). The name
``episode`` is left to wrappers that record returns, such as Stable-Baselines3's ``VecMonitor``.

A scenario with the key ``settlement`` has money in it (:mod:`proxycoop.envs.money.settlement`). Then ``infos`` (unless ``"mask"``) hold
three more entries. Amounts are whole minor units, such as cents:

==============  ========================================================================================================
``payout``      what was paid to the proxy after this round; 0 in a round without a settlement
``paid``        what was paid to the proxy in this episode so far
``paid_share``  its share of everything that was paid in this episode so far; 1/N before the first payment
==============  ========================================================================================================

With ``ledger=`` every round with its credits and revenue, and every settlement, is written into a ledger (:mod:`proxycoop.credit.ledger`)
as it happens. In the ledger each episode is a cooperative of its own, ``SCENARIO/RULE/seed-S/episode-N``. Playing the same episode again
adds nothing.

A proxy sees its own lots and its own profile. It also sees what the cooperative announces: the utility, the losses of the values on their
probe sets, the strictest tolerance that anybody has for each value, the mean norm of all updates, and the share of contributed updates that
were admitted last round. Where agents are rewarded by settlements, it sees how much revenue waits for the next settlement, when that is,
and what it was paid itself. It never sees the test set, the data or profiles of others, or which lots are corrupt.

Usage::

    from proxycoop.envs import cooperative_v0

    env = cooperative_v0.parallel_env(scenario="digits", credit="shapley")
    observations, infos = env.reset(seed=0)
    while env.agents:
        actions = {agent: env.action_space(agent).sample() for agent in env.agents}
        observations, rewards, terminations, truncations, infos = env.step(actions)

Version history: v0, the first.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import numpy as np
import torch
from gymnasium import spaces
from numpy.typing import NDArray
from pettingzoo import AECEnv, ParallelEnv
from pettingzoo.utils.conversions import parallel_to_aec_wrapper
from pettingzoo.utils.wrappers import OrderEnforcingWrapper

from ..credit import CreditRule
from ..registry import unknown_name
from ..text import encodable
from .engine import Engine
from .metrics import PREFIX, agent_metrics, metric_names, round_infos
from .observations.layout import ObservationLayout
from .observations.spaces import (
    ActionCodec,
    ActionForm,
    InfoForm,
    Pay,
    RewardForm,
    checked_info_form,
    observation_space,
    state_space,
)
from .scenario import Scenario

if TYPE_CHECKING:  # a database library is slow to import, and most runs keep no ledger
    from ..credit.ledger.ledger import Ledger

RenderMode = Literal["human", "ansi", "rgb_array"]
"""``ansi``: a table of the round as text; ``rgb_array``: a picture of it; ``human``: the table is printed."""
Observations = dict[str, NDArray[np.float32]]
Infos = dict[str, dict[str, Any]]


def parallel_env(
    scenario: Scenario | str | Path = "digits",
    credit: CreditRule | str = "shapley",
    *,
    actions: ActionForm = "multi_discrete",
    rewards: RewardForm = "own",
    infos: InfoForm = "full",
    render_mode: RenderMode | None = None,
    ledger: Ledger | str | Path | None = None,
    ledger_name: str | None = None,
    compile: bool = False,
) -> CooperativeEnv:
    """The parallel environment; see :class:`CooperativeEnv`."""
    return CooperativeEnv(
        scenario,
        credit,
        actions=actions,
        rewards=rewards,
        infos=infos,
        render_mode=render_mode,
        ledger=ledger,
        ledger_name=ledger_name,
        compile=compile,
    )


def env(
    scenario: Scenario | str | Path = "digits",
    credit: CreditRule | str = "shapley",
    *,
    actions: ActionForm = "multi_discrete",
    rewards: RewardForm = "own",
    infos: InfoForm = "full",
    render_mode: RenderMode | None = None,
    ledger: Ledger | str | Path | None = None,
    ledger_name: str | None = None,
    compile: bool = False,
) -> AECEnv:
    """The same environment in PettingZoo's agent-environment-cycle form. The arguments are those of :class:`CooperativeEnv`."""
    parallel = parallel_env(
        scenario,
        credit,
        actions=actions,
        rewards=rewards,
        infos=infos,
        render_mode=render_mode,
        ledger=ledger,
        ledger_name=ledger_name,
        compile=compile,
    )
    return OrderEnforcingWrapper(_Turns(parallel))


class CooperativeEnv(ParallelEnv):  # type: ignore[misc]  # PettingZoo ships no types
    """One cooperative, for RL libraries that speak PettingZoo's parallel interface.

    Args:
        scenario: A scenario, its name, or the path of its YAML file.
        credit: A credit rule, or its name (with arguments, if it takes any: ``"shapley(budget=60)"``).
        actions: Form of the actions.
        rewards: ``own``: every proxy gets its own reward. ``team``: every proxy gets the mean of all rewards.
        infos: ``full``; or ``mask``, for libraries that take nothing else in infos, and for speed.
        render_mode: What :meth:`render` does: ``human`` prints text, ``ansi`` returns text, ``rgb_array`` returns a picture.
        ledger: A ledger, its file or its database's URL. Rounds and settlements are written there. No ledger by default.
        ledger_name: First part of the cooperatives' names in the ledger; seed and episode follow. By default ``SCENARIO/RULE``.
        compile: Whether rounds are compiled, as :class:`~proxycoop.envs.Engine` says: about twice as fast, after a minute or two.

    Raises:
        ValueError: If a name is unknown, the scenario is not valid, the rule cannot serve so many agents, ``ledger`` is given but the
            scenario has no settlement, ``ledger_name`` is given without ``ledger``, or rounds cannot be compiled.
    """

    metadata: ClassVar[dict[str, Any]] = {
        "name": "cooperative_v0",
        "render_modes": ["human", "ansi", "rgb_array"],
        "is_parallelizable": True,
        "render_fps": 2,
    }

    def __init__(
        self,
        scenario: Scenario | str | Path = "digits",
        credit: CreditRule | str = "shapley",
        *,
        actions: ActionForm = "multi_discrete",
        rewards: RewardForm = "own",
        infos: InfoForm = "full",
        render_mode: RenderMode | None = None,
        ledger: Ledger | str | Path | None = None,
        ledger_name: str | None = None,
        compile: bool = False,
    ) -> None:
        if render_mode is not None and render_mode not in self.metadata["render_modes"]:
            raise unknown_name("render_mode", render_mode, self.metadata["render_modes"])
        self.engine = Engine(scenario, credit, compile=compile)
        self.render_mode = render_mode
        self.possible_agents = [f"proxy_{i}" for i in range(self.engine.num_agents)]
        self.agents: list[str] = []
        self.np_random: np.random.Generator | None = None  # for wrappers that draw, such as SuperSuit's frame_skip; not used here
        self.state_space = state_space(self.engine.layout, self.engine.num_agents)
        self._infos = checked_info_form(infos)
        self._pay = Pay(rewards)
        self._codec = ActionCodec(actions, self.engine.num_items)
        if ledger is None and ledger_name is not None:
            raise ValueError(f"ledger_name={ledger_name!r} names the cooperatives in a ledger: give ledger= too")
        self._bookkeeper = None
        if ledger is not None:
            from .bookkeeping import Bookkeeper  # imports a database library

            self._bookkeeper = Bookkeeper(self.engine, ledger, ledger_name)
        self._metrics = self._no_metrics()
        self.observation_spaces = {agent: observation_space(self.engine.layout) for agent in self.possible_agents}
        self.action_spaces = {agent: self._codec.space() for agent in self.possible_agents}

    def observation_space(self, agent: str) -> spaces.Box:
        """The agent's observation space, the same object every time.

        Raises:
            ValueError: If there is no such agent.
        """
        return self.observation_spaces[self.known(agent)]

    def action_space(self, agent: str) -> spaces.Space[Any]:
        """The agent's action space, the same object every time.

        Raises:
            ValueError: If there is no such agent.
        """
        return self.action_spaces[self.known(agent)]

    def known(self, agent: str) -> str:
        """The same.

        Raises:
            ValueError: If there is no such agent.
        """
        if agent not in self.possible_agents:
            raise unknown_name("agent", agent, self.possible_agents)
        return agent

    def choice(self, action: Any, agent: str) -> torch.Tensor:
        """Which lots an agent's action contributes, bool ``(K,)``.

        Raises:
            ValueError: If the action has the wrong shape or is out of range.
        """
        return self._codec.decode(action, agent, ())

    def observation_layout(self) -> ObservationLayout:
        """The meaning of every entry of an observation."""
        return self.engine.layout

    def reset(self, seed: int | None = None, options: Mapping[str, Any] | None = None) -> tuple[Observations, Infos]:
        """Begin an episode.

        Args:
            seed: Seed of this episode and of those that follow. With ``None``, the next episode of the current seed begins.
            options: ``episode``: which of the seed's episodes to begin with, from 0; only with a seed. Others are not used here.

        Raises:
            ValueError: If the seed or the episode is negative or not a whole number, or if there is an episode without a seed.
        """
        self.engine.reset(None if seed is None else [seed], episode=(options or {}).get("episode", 0))
        if seed is not None or self.np_random is None:
            self.np_random = np.random.default_rng(seed)
        if seed is not None:
            self._metrics = self._no_metrics()  # what follows a seed does not depend on what was played before
        self.agents = list(self.possible_agents)
        return self._observations(), self._all_infos()

    def step(self, actions: Mapping[str, Any]) -> tuple[Observations, dict[str, float], dict[str, bool], dict[str, bool], Infos]:
        """Play one round.

        Args:
            actions: One action per agent.

        Raises:
            RuntimeError: Before the first reset, or after the episode's end.
            ValueError: If an agent's action is missing, has the wrong shape or is out of range, if there is an action for an agent that
                does not exist, or if the ledger refuses the round.
        """
        if not self.agents:
            self.engine.require_running()
        if not isinstance(actions, Mapping):
            raise ValueError(f"actions is {type(actions).__name__}: must be a dictionary with one action for every agent in env.agents")
        if missing := [agent for agent in self.agents if agent not in actions]:
            raise ValueError(f"actions are missing for {', '.join(missing)}: give one action for every agent in env.agents")
        for agent in actions:
            self.known(agent)
        choices = self._codec.decode_all([actions[agent] for agent in self.agents], self.agents)
        result = self.engine.step(choices[None])
        if self._bookkeeper is not None:
            self._bookkeeper.write()
        agents = self.agents
        rewards = dict(zip(agents, self._pay(result.rewards)[0].tolist(), strict=True))
        observations, infos = self._observations(), self._all_infos()
        if result.done:
            self.agents = []
        if self.render_mode == "human":
            self.render()
        return observations, rewards, dict.fromkeys(agents, False), dict.fromkeys(agents, result.done), infos

    def state(self) -> NDArray[np.float32]:
        """The observations of all proxies side by side, for centralised critics.

        Raises:
            RuntimeError: Before the first reset.
        """
        return self.engine.state()[0].numpy().copy()

    def render(self) -> str | NDArray[np.uint8] | None:
        """Show the round just played: ``ansi`` returns text, ``rgb_array`` returns a picture, ``human`` prints the text."""
        from .rendering import render_picture, render_text  # matplotlib is slow to import, and most runs never render

        if self.render_mode is None:
            raise ValueError("render needs a render_mode: pass one of human, ansi, rgb_array when making the environment")
        if self.render_mode == "rgb_array":
            return render_picture(self.engine)
        text = render_text(self.engine)
        if self.render_mode == "ansi":
            return text
        sys.stdout.write(encodable(text + "\n", sys.stdout.encoding))
        return None

    def close(self) -> None:
        """Close the ledger, if there is one and the environment opened it."""
        if self._bookkeeper is not None:
            self._bookkeeper.close()

    def _observations(self) -> Observations:
        rows = self.engine.observations[0].numpy().copy()
        return dict(zip(self.agents, rows, strict=True))

    def _all_infos(self) -> Infos:
        engine = self.engine
        masks = self._codec.masks(engine.choosable[0])
        infos: Infos = {agent: {"action_mask": mask} for agent, mask in zip(self.agents, masks, strict=True)}
        if self._infos == "mask":
            return infos
        told = {name: info[0].tolist() if info.ndim == 2 else list(info[0]) for name, info in round_infos(engine).items()}
        if engine.t == engine.horizon:
            measured = {f"{PREFIX}{name}": measure[0].tolist() for name, measure in agent_metrics(engine).items()}
            self._metrics = {agent: {name: each[i] for name, each in measured.items()} for i, agent in enumerate(self.agents)}
        for i, agent in enumerate(self.agents):
            infos[agent] |= {name: info[i] for name, info in told.items()}
            infos[agent] |= self._metrics[agent]
        return infos

    def _no_metrics(self) -> Infos:
        """The metrics of each agent before the first episode has ended."""
        none = dict.fromkeys((f"{PREFIX}{name}" for name in metric_names(self.engine.scenario)), 0.0)
        return dict.fromkeys(self.possible_agents, none)


class _Turns(parallel_to_aec_wrapper):  # type: ignore[misc]  # PettingZoo ships no types
    """PettingZoo's conversion to turns, but a wrong action is refused in the turn in which it comes, and can be given again."""

    env: CooperativeEnv

    def observe(self, agent: str) -> NDArray[np.float32]:
        """What the agent observes; raises `ValueError` if there is no such agent."""
        observation: NDArray[np.float32] = self._observations[self.env.known(agent)]
        return observation

    def step(self, action: Any) -> None:
        """Take the action of the agent whose turn it is.

        Raises:
            ValueError: If the action has the wrong shape or is out of range, or is not ``None`` after the episode's end.
        """
        agent = self.agent_selection
        if not (self.terminations[agent] or self.truncations[agent]):
            self.env.choice(action, agent)
        elif action is not None:
            raise ValueError(f"action of {agent} is {action!r}: its episode is over, so it must be None, as in env.step(None)")
        super().step(action)
