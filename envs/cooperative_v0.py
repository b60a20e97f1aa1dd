"""``cooperative_v0``: an AI cooperative as a PettingZoo environment.

Each of N principals delegates to a *proxy* agent ``proxy_0`` … ``proxy_{N-1}``. A proxy holds its principal's private data, cut
into K *lots*. Every round every lot yields a candidate update of the shared model; each proxy chooses which of its own to
contribute; updates are screened against the principals' value profiles; what is admitted is aggregated; and a credit rule turns
the gain in held-out utility into one reward per proxy.

=============  ==============================================================================================================
Agents         ``proxy_0`` … ; all act in every round; none leaves before the end
Actions        ``MultiDiscrete([2] * K)``, 1 = contribute; or ``Discrete(2**K)`` with ``actions="discrete"`` (bit k = lot k)
Observations   ``Box(-10, 10, (size,), float32)``; :meth:`CooperativeEnv.observation_layout` names every entry
Rewards        ``scale·credit − contribution_cost·lots − violation_penalty·violations + public_share·scale·v(N)``; with ``rewards="team"``
               everybody gets the mean of these; under ``settlement.reward: settlement`` what a settlement pays, in reward units, stands
               in the place of ``scale·credit``, and in rounds without one nothing does
End            after ``horizon`` rounds, by truncation; ``agents`` is then empty
State          everybody's observations side by side, ``Box(-10, 10, (N·size,), float32)``
Rendering      ``ansi`` (a table of the round), ``rgb_array`` (a picture of it), ``human`` (prints the table)
=============  ==============================================================================================================

``infos[agent]`` holds ``action_mask`` (a lot may have nothing to contribute this round; choosing it then contributes nothing)
and, unless ``infos="mask"``, of the round just played ``credit``, ``contributed``, ``admitted``, ``kept`` (K: how much of each update
entered, below 1 where a filter mended it), ``blocked_by`` (K × N: which principal found which update inadmissible), the ``utility``
now, and after the last round ``episode``, the episode's metrics. Under rules that can tell (:class:`~proxycoop.credit.LotRule`) there is
``lot_credit`` too: what each of its lots earned.

A scenario with the key ``settlement`` has money in it (:mod:`proxycoop.envs.money.settlement`), and then infos (unless ``"mask"``) hold
three things more, the amounts as whole minor units (cents, say):

==============  ========================================================================================================
``payout``      what was paid to the proxy after this round; 0 in a round without a settlement
``paid``        what was paid to it in this episode
``paid_share``  its share of all that was paid in this episode, 1/N before the first payment
==============  ========================================================================================================

With ``ledger=`` all of it is written into a ledger (:mod:`proxycoop.credit.ledger`) as it happens: every round with its credits and
revenue, and every settlement. Each episode is a cooperative of its own there, ``SCENARIO/RULE/seed-S/episode-N``. To play an episode again
as it was adds nothing.

A proxy sees its own lots and profile, and what the cooperative announces: the utility, the values with their probe sets and losses,
the strictest tolerance anybody has for each, the mean norm of everybody's updates, how many updates were admitted, and, where there is
money, how much waits for which settlement and what the proxy was paid. It never sees the test set, others' data or profiles, or which lots
are corrupt.

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
from pettingzoo.utils.conversions import parallel_to_aec

from ..credit import CreditRule, LotRule
from ..registry import unknown_name
from .engine import Engine
from .metrics import episode_metrics
from .observations.layout import ObservationLayout
from .observations.spaces import ActionCodec, ActionForm, Pay, RewardForm, observation_space, state_space
from .scenario import Scenario

if TYPE_CHECKING:  # a database is slow to import, and most runs keep no ledger
    from ..credit.ledger.ledger import Ledger

RenderMode = Literal["human", "ansi", "rgb_array"]
Observations = dict[str, NDArray[np.float32]]
Infos = dict[str, dict[str, Any]]


def parallel_env(
    scenario: Scenario | str | Path = "digits",
    credit: CreditRule | str = "shapley",
    *,
    actions: ActionForm = "multi_discrete",
    rewards: RewardForm = "own",
    infos: Literal["full", "mask"] = "full",
    render_mode: RenderMode | None = None,
    ledger: Ledger | str | Path | None = None,
    ledger_name: str | None = None,
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
    )


def env(
    scenario: Scenario | str | Path = "digits",
    credit: CreditRule | str = "shapley",
    *,
    actions: ActionForm = "multi_discrete",
    rewards: RewardForm = "own",
    infos: Literal["full", "mask"] = "full",
    render_mode: RenderMode | None = None,
    ledger: Ledger | str | Path | None = None,
    ledger_name: str | None = None,
) -> AECEnv:
    """The same environment in PettingZoo's agent-environment-cycle form; the arguments are those of :class:`CooperativeEnv`."""
    parallel = parallel_env(
        scenario,
        credit,
        actions=actions,
        rewards=rewards,
        infos=infos,
        render_mode=render_mode,
        ledger=ledger,
        ledger_name=ledger_name,
    )
    return parallel_to_aec(parallel)


class CooperativeEnv(ParallelEnv):  # type: ignore[misc]  # PettingZoo ships no types
    """One cooperative, for RL libraries that speak PettingZoo's parallel interface.

    Args:
        scenario: A scenario, its name, or the path of its YAML file.
        credit: A credit rule, or its name (with arguments, if it takes any: ``"shapley(budget=60)"``).
        actions: Form of the actions.
        rewards: ``own``, or ``team``: everybody gets the mean of all proxies' rewards.
        infos: ``full``, or ``mask`` for libraries that take only numbers of a fixed shape in infos.
        render_mode: What :meth:`render` returns.
        ledger: A ledger, its file or its database's URL: rounds and settlements are written there. None unless asked for.
        ledger_name: What cooperatives in the ledger are called by, instead of scenario and rule, before seed and episode.

    Raises:
        ValueError: If a name is unknown, the scenario is not valid, or the rule cannot serve so many agents; if there is a ledger but no
            settlement in the scenario, or a name in it but no ledger.
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
        infos: Literal["full", "mask"] = "full",
        render_mode: RenderMode | None = None,
        ledger: Ledger | str | Path | None = None,
        ledger_name: str | None = None,
    ) -> None:
        if infos not in ("full", "mask"):
            raise unknown_name("infos", infos, ["full", "mask"])
        if render_mode is not None and render_mode not in self.metadata["render_modes"]:
            raise unknown_name("render_mode", render_mode, self.metadata["render_modes"])
        self.engine = Engine(scenario, credit)
        self.render_mode = render_mode
        self.possible_agents = [f"proxy_{i}" for i in range(self.engine.num_agents)]
        self.agents: list[str] = []
        self.state_space = state_space(self.engine.layout, self.engine.num_agents)
        self._infos = infos
        self._pay = Pay(rewards)
        self._codec = ActionCodec(actions, self.engine.num_lots)
        if ledger is None and ledger_name is not None:
            raise ValueError(f"ledger_name={ledger_name!r} names cooperatives in a ledger: give ledger= too")
        self._bookkeeper = None
        if ledger is not None:
            from .bookkeeping import Bookkeeper  # brings a database

            self._bookkeeper = Bookkeeper(self.engine, ledger, ledger_name)
        self.observation_spaces = {agent: observation_space(self.engine.layout) for agent in self.possible_agents}
        self.action_spaces = {agent: self._codec.space() for agent in self.possible_agents}

    def observation_space(self, agent: str) -> spaces.Box:
        """The agent's observation space, the same object every time."""
        return self.observation_spaces[agent]

    def action_space(self, agent: str) -> spaces.Space[Any]:
        """The agent's action space, the same object every time."""
        return self.action_spaces[agent]

    def observation_layout(self) -> ObservationLayout:
        """What every entry of an observation is."""
        return self.engine.layout

    def reset(self, seed: int | None = None, options: Mapping[str, Any] | None = None) -> tuple[Observations, Infos]:
        """Begin an episode.

        Args:
            seed: Seed of this and the following episodes; ``None`` goes on to the next episode of the seed in use.
            options: Part of PettingZoo's interface; there are none.

        Raises:
            ValueError: If the seed is negative or not a whole number.
        """
        del options
        self.engine.reset(None if seed is None else [seed])
        self.agents = list(self.possible_agents)
        return self._observations(), self._all_infos()

    def step(self, actions: Mapping[str, Any]) -> tuple[Observations, dict[str, float], dict[str, bool], dict[str, bool], Infos]:
        """Play one round.

        Args:
            actions: One action an agent.

        Raises:
            RuntimeError: Before the first reset or after the episode's end.
            ValueError: If an agent's action is missing, or of the wrong shape or range; or if the ledger does not take the round.
        """
        if not self.agents:
            self.engine.require_running()
        if missing := [agent for agent in self.agents if agent not in actions]:
            raise ValueError(f"actions are missing for {', '.join(missing)}: give one for every agent in env.agents")
        choices = torch.stack([self._codec.decode(actions[agent], agent) for agent in self.agents])
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
        """Everybody's observations side by side, for centralised critics."""
        return self.engine.state()[0].numpy().copy()

    def render(self) -> str | NDArray[np.uint8] | None:
        """The round just played: text for ``ansi``, a picture for ``rgb_array``, printed text for ``human``."""
        from .rendering import render_picture, render_text  # matplotlib is slow to import and most runs never render

        if self.render_mode is None:
            raise ValueError("render needs a render_mode: pass one of human, ansi, rgb_array when making the environment")
        if self.render_mode == "rgb_array":
            return render_picture(self.engine)
        text = render_text(self.engine)
        if self.render_mode == "ansi":
            return text
        sys.stdout.write(text + "\n")
        return None

    def close(self) -> None:
        """Close the ledger, if there is one and it was opened here; otherwise there is nothing to release."""
        if self._bookkeeper is not None:
            self._bookkeeper.close()

    def _observations(self) -> Observations:
        rows = self.engine.observations[0].numpy()
        return {agent: rows[i].copy() for i, agent in enumerate(self.agents)}

    def _all_infos(self) -> Infos:
        engine = self.engine
        available = engine.prospect.available[0]
        infos: Infos = {agent: {"action_mask": self._codec.mask(available[i])} for i, agent in enumerate(self.agents)}
        if self._infos == "mask":
            return infos
        last = engine.history[-1] if engine.history else None
        nothing = np.zeros(engine.num_lots, dtype=bool)
        episode = episode_metrics(engine) if last is not None and last.done else None
        for i, agent in enumerate(self.agents):
            infos[agent] |= {
                "credit": float(last.credit[0, i]) if last else 0.0,
                "contributed": last.contributed[0, i].numpy().copy() if last else nothing.copy(),
                "admitted": last.admitted[0, i].numpy().copy() if last else nothing.copy(),
                "kept": last.kept[0, i].double().numpy() if last else np.zeros(engine.num_lots),
                "blocked_by": last.blocked_by[0, i].numpy().copy() if last else np.zeros((engine.num_lots, engine.num_agents), dtype=bool),
                "utility": float(engine.prospect.utility[0]),
            }
            if isinstance(engine.rule, LotRule):
                earned = last.lot_credit if last else None
                infos[agent]["lot_credit"] = np.zeros(engine.num_lots) if earned is None else earned[0, i].double().numpy()
            if engine.treasury is not None:
                paid = engine.treasury.accounts.paid[0]
                infos[agent] |= {
                    "payout": int(last.payouts[0, i]) if last is not None and last.payouts is not None else 0,
                    "paid": paid[i],
                    "paid_share": paid[i] / paid.sum() if paid.any() else 1 / engine.num_agents,
                }
            if episode is not None:
                infos[agent]["episode"] = {
                    name: float(measure[0, i] if measure.dim() == 2 else measure[0]) for name, measure in episode.items()
                }
        return infos
