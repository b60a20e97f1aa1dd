"""E cooperatives of N proxies as E·N rows: what the vectorised faces share.

All proxies share one policy, so to a learner every proxy is an environment. Row ``e·N + i`` is proxy i of cooperative e.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ..credit import CreditRule
from .engine import Engine
from .observations.spaces import ActionCodec, ActionForm, Pay, RewardForm
from .scenario import Scenario


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
    ) -> None:
        if isinstance(num_cooperatives, bool) or not isinstance(num_cooperatives, (int, np.integer)) or num_cooperatives < 1:
            raise ValueError(f"num_cooperatives={num_cooperatives!r}: must be a whole number, at least 1")
        self.engine = Engine(scenario, credit, num_cooperatives, device=device)
        self.codec = ActionCodec(actions, self.engine.num_lots)
        self._pay = Pay(rewards)

    def __len__(self) -> int:
        return self.engine.num_envs * self.engine.num_agents

    def observations(self) -> NDArray[np.float32]:
        """What each row observes now, a copy: ``(E·N, size)``."""
        observations: NDArray[np.float32] = self.engine.observations.flatten(end_dim=1).to("cpu", copy=True).numpy()
        return observations

    def choices(self, actions: Any) -> Tensor:
        """The engine's choices, bool ``(E, N, K)``, behind the actions of all rows, ``(E·N, K)`` or ``(E·N,)`` by form.

        Raises:
            ValueError: If they are of the wrong shape or range.
        """
        choices = self.codec.decode(actions, "the rows")
        if choices.shape != (len(self), self.engine.num_lots):
            raise ValueError(f"actions have shape {np.shape(actions)}: must hold one action for each of {len(self)} rows")
        return choices.reshape(self.engine.num_envs, self.engine.num_agents, -1)

    def rewards(self, rewards: Tensor) -> Tensor:
        """What each row is given, ``(E·N,)``, of the round's rewards ``(E, N)``, in reward units."""
        return self._pay(rewards).flatten().cpu()

    def masks(self) -> NDArray[np.bool_]:
        """Action masks side by side, ``(E·N, 2K)`` or ``(E·N, 2**K)`` by form; see :meth:`ActionCodec.flat_mask`."""
        return self.codec.flat_mask(self.engine.prospect.available.cpu()).reshape(len(self), -1)
