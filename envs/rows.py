"""E cooperatives of N proxies as E·N rows: what the vectorised faces share.

All proxies share one policy, so to a learner every proxy is an environment. Row ``e·N + i`` is proxy i of cooperative e.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ..checks import whole_number
from ..credit import CreditRule
from .engine import Engine
from .observations.spaces import ActionCodec, ActionForm, Pay, RewardForm
from .scenario import Scenario


class Others(Protocol):
    """Who plays the seats that are not rows."""

    learners: list[int]
    """The seats that are rows, in order."""

    def begin(self, engine: Engine) -> None:
        """Begin an episode, after the engine did."""

    def join(self, engine: Engine, choices: Tensor) -> Tensor:
        """Everybody's choices ``(E, N, K)``, from those of the rows ``(E, len(learners), K)``; called once a round."""


class Rows:
    """The rows of E cooperatives.

    Attributes:
        engine: The cooperatives.
        codec: Between actions and choices.

    Args:
        scenario: A scenario, its name, or the path of its YAML file.
        credit: A credit rule, or its name (with arguments, if it takes any).
        num_cooperatives: Number of cooperatives E.
        actions: Form of the actions.
        rewards: ``own``, or ``team``: every row gets the mean of its cooperative's rewards.
        device: Where the engine's tensors live. What the rows are given is on the CPU.
        others: Who plays some of the seats. These are then no rows: there are E·len(others.learners).
        compile: Whether rounds are compiled, as :class:`~proxycoop.envs.Engine` says.

    Raises:
        ValueError: As :class:`~proxycoop.envs.Engine` does, or if a form is unknown.
    """

    def __init__(
        self,
        scenario: Scenario | str | Path,
        credit: CreditRule | str,
        num_cooperatives: int,
        *,
        actions: ActionForm,
        rewards: RewardForm,
        device: torch.device | str = "cpu",
        others: Others | None = None,
        compile: bool = False,
    ) -> None:
        self.engine = Engine(scenario, credit, whole_number("num_cooperatives", num_cooperatives, 1), device=device, compile=compile)
        self.codec = ActionCodec(actions, self.engine.num_items)
        self._pay = Pay(rewards)
        self._others = others
        self._seats: slice | list[int] = slice(None) if others is None else others.learners
        self.per_cooperative = self.engine.num_agents if others is None else len(others.learners)

    def __len__(self) -> int:
        return self.engine.num_envs * self.per_cooperative

    def begin(self) -> None:
        """Begin an episode for those who are no rows, after the engine was reset."""
        if self._others is not None:
            self._others.begin(self.engine)

    def joined(self, choices: Tensor) -> Tensor:
        """The choices of everybody, bool ``(E, N, K)``, from those of the rows; see :meth:`choices`. Call it once a round."""
        return choices if self._others is None else self._others.join(self.engine, choices)

    def observations(self) -> NDArray[np.float32]:
        """What each row observes now, a copy: ``(E·N, size)``."""
        self.engine.require_begun("observations")
        observations: NDArray[np.float32] = self.engine.observations[:, self._seats].flatten(end_dim=1).to("cpu", copy=True).numpy()
        return observations

    def choices(self, actions: Any) -> Tensor:
        """The rows' choices, bool ``(E, N, K)`` if all seats are rows, behind the actions of all rows, ``(E·N, K)`` or ``(E·N,)`` by form.

        Raises:
            ValueError: If they are of the wrong shape or range.
        """
        return self.codec.decode(actions, "the rows", (len(self),)).reshape(self.engine.num_envs, self.per_cooperative, -1)

    def rewards(self, rewards: Tensor) -> Tensor:
        """What each row is given, ``(E·N,)``, of the round's rewards ``(E, N)``, in reward units."""
        return self._pay(rewards)[:, self._seats].flatten().cpu()

    def present(self) -> NDArray[np.bool_]:
        """Which rows are present in the round to come, bool ``(E·N,)``: all, unless the scenario has participation."""
        self.engine.require_begun("present")
        if self.engine.attendance is None:
            return np.ones(len(self), dtype=np.bool_)
        present: NDArray[np.bool_] = self.engine.attendance.mask[:, self._seats].flatten().cpu().numpy()
        return present

    def masks(self) -> NDArray[np.bool_]:
        """Action masks side by side, ``(E·N, 2K)`` or ``(E·N, 2**K)`` by form; see :meth:`ActionCodec.flat_mask`."""
        self.engine.require_begun("action_masks")
        return self.codec.flat_mask(self.engine.choosable[:, self._seats].cpu()).reshape(len(self), -1)
