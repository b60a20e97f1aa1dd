"""One seat of a cooperative as a Gymnasium environment, for single-agent learners. The other proxies do not learn."""

from __future__ import annotations

from copy import deepcopy
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
from numpy.typing import NDArray

from ..checks import whole_number
from ..credit import CreditRule
from ..envs.engine import Engine
from ..envs.metrics import agent_metrics
from ..envs.observations.spaces import ActionCodec, ActionForm, observation_space
from ..envs.randomness import fold
from ..envs.scenario import Scenario
from .agent import Agent, checked_agent, make
from .seats import populated


class SeatEnv(gymnasium.Env[NDArray[np.float32], Any]):
    """A cooperative in which you act for one proxy. All other proxies play a fixed policy.

    Spaces and rewards are those of one proxy in :mod:`~proxycoop.envs.cooperative_v0`. The horizon ends an episode by truncation.
    ``info`` holds ``action_mask``, in the form of :meth:`~proxycoop.envs.observations.spaces.ActionCodec.flat_mask`. After the last round
    it also holds ``metrics``, the metrics of the episode; see :func:`~proxycoop.envs.episode_metrics`.

    Args:
        scenario: A scenario, its name, or the path of its YAML file.
        credit: A credit rule, or its name (with arguments, if it takes any).
        seat: The seat of the proxy that you act for, from 0 to N − 1. Lots are drawn anew in every episode, and so, by default, is who
            holds which profile.
        others: The policy of the other seats, apart from those of the scenario's population: an agent or its name. The environment plays a
            copy of the agent, so that environments which were given the same agent do not share what it remembers.
        actions: Form of the actions.
        render_mode: ``ansi`` or ``rgb_array``; both show the whole cooperative.

    Raises:
        ValueError: If the seat does not exist, a name is unknown, the agent cannot be copied, or :class:`~proxycoop.envs.Engine` refuses
            the scenario or the rule.
    """

    metadata = {"render_modes": ["ansi", "rgb_array"], "render_fps": 2}  # noqa: RUF012  # as Gymnasium declares it

    def __init__(
        self,
        scenario: Scenario | str | Path = "digits",
        credit: CreditRule | str = "shapley",
        *,
        seat: int = 0,
        others: Agent | str = "honest",
        actions: ActionForm = "multi_discrete",
        render_mode: str | None = None,
    ) -> None:
        self.engine = Engine(scenario, credit)
        if render_mode not in (None, *self.metadata["render_modes"]):
            raise ValueError(f"render_mode={render_mode!r}: must be one of {', '.join(self.metadata['render_modes'])}, or None")
        last = self.engine.num_agents - 1
        self.seat = whole_number("seat", seat, 0, last, f"seats go from 0 to {last}")
        own = make(others) if isinstance(others, str) else _own_copy(checked_agent("others", others))
        self.others = populated(own, self.engine.scenario)
        self.others.check_scenario(self.engine.scenario)
        self.render_mode = render_mode
        self._codec = ActionCodec(actions, self.engine.num_items)
        self.observation_space: Any = observation_space(self.engine.layout)
        self.action_space = self._codec.space()

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[NDArray[np.float32], dict[str, Any]]:
        """Begin an episode.

        Args:
            seed: Seed of this episode and of those that follow. With ``None``, the next episode of the current seed begins.
            options: Part of Gymnasium's interface; not used here.

        Raises:
            ValueError: If the seed is negative or not a whole number, or the others cannot play the scenario.
        """
        super().reset(seed=seed, options=options)
        self.engine.reset(None if seed is None else [seed])
        if self.others.privileged:
            self.others.watch(self.engine)
            self.others.sit(seat for seat in range(self.engine.num_agents) if seat != self.seat)
        assert self.engine.seeds is not None
        self.others.begin(self.engine.layout, fold(self.engine.seeds, self.engine.episode))
        return self._observation(), self._info()

    def step(self, action: Any) -> tuple[NDArray[np.float32], float, bool, bool, dict[str, Any]]:
        """Play one round.

        Raises:
            RuntimeError: Before the first reset, or after the episode's end.
            ValueError: If the action has the wrong shape, or an entry is out of range.
        """
        self.engine.require_running()
        own = self._codec.decode(action, f"seat {self.seat}", ())
        choices = self.others.act(self.engine.observations).to("cpu", copy=True)  # (1, N, K)
        choices[0, self.seat] = own
        result = self.engine.step(choices)
        info = self._info()
        if result.done:
            info["metrics"] = {name: float(measure[0, self.seat]) for name, measure in agent_metrics(self.engine).items()}
        return self._observation(), float(result.rewards[0, self.seat]), False, result.done, info

    def render(self) -> str | NDArray[np.uint8] | None:
        """The round just played: text for ``ansi``, a picture for ``rgb_array``."""
        from ..envs.rendering import render_picture, render_text  # matplotlib is slow to import, and most runs never render

        if self.render_mode is None:
            return None
        return render_text(self.engine) if self.render_mode == "ansi" else render_picture(self.engine)

    def _observation(self) -> NDArray[np.float32]:
        observation: NDArray[np.float32] = self.engine.observations[0, self.seat].numpy().copy()
        return observation

    def _info(self) -> dict[str, Any]:
        return {"action_mask": self._codec.flat_mask(self.engine.choosable[0, self.seat])}


def _own_copy(agent: Agent) -> Agent:
    try:
        return deepcopy(agent)
    except Exception as error:  # an agent may hold anything
        raise ValueError(
            f"others={agent!r} cannot be copied ({error}): each environment plays a copy of its own. Pass a registered agent's name, or "
            "give the class a __deepcopy__"
        ) from error
