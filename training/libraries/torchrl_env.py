"""The engine as a TorchRL environment: E cooperatives of N proxies, batch first.

It needs the extra ``benchmarl``, which installs TorchRL. TorchRL's own ``PettingZooWrapper`` also works, on
:mod:`~proxycoop.envs.cooperative_v0`, but it steps one cooperative at a time.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from tensordict import TensorDict, TensorDictBase
from torch import Tensor
from torchrl.data import Bounded, Categorical, Composite, Unbounded
from torchrl.envs import EnvBase

from ...credit import CreditRule
from ...envs.engine import Engine
from ...envs.metrics import episode_metrics, metric_names
from ...envs.observations.layout import BOUND
from ...envs.observations.spaces import ActionCodec, Pay, RewardForm
from ...envs.randomness import seeds_from
from ...envs.scenario import Scenario

GROUP = "proxy"
"""Name of the one group of agents. TorchRL derives the same name from ``proxy_0`` …."""


class CooperativeTorchRLEnv(EnvBase):  # type: ignore[misc]  # TorchRL ships no types
    """E cooperatives, all stepped at once. TorchRL's ``batch_size`` is ``[E]``.

    ====================================  ============  ==============================================================================
    Key                                   Shape         Meaning
    ====================================  ============  ==============================================================================
    ``("proxy", "observation")``          (E, N, size)  within ±10; ``engine.layout`` names every entry
    ``("proxy", "action")``               (E, N)        a code below 2**K: bit k says whether lot k is contributed
    ``("proxy", "action_mask")``          (E, N, 2**K)  codes whose lots all have something to contribute; of others, these lots count
    ``("proxy", "reward")``               (E, N, 1)     what each proxy is given for the round
    ``("proxy", "info", <metric>)``       (E, N, 1)     after the last round :func:`~proxycoop.envs.episode_metrics`, before it NaN
    ``"state"``                           (E, N·size)   everybody's observations side by side, for central critics and mixers
    ``"done"``, ``"terminated"``          (E, 1)        whether the last round is over
    ====================================  ============  ==============================================================================

    K counts a proxy's lots, and after them its forgeries and levers, if the scenario has ``conduct``.

    All cooperatives end together, after ``horizon`` rounds, by termination. Proxies observe the time and earn nothing after the horizon, so
    there is nothing to bootstrap from (Pardo et al. 2018, *Time limits in reinforcement learning*, ICML). With TorchRL's transform
    ``ActionMask``, random actions respect the mask.

    Attributes:
        engine: The cooperatives.
        group_map: The agents' names by group.

    Args:
        scenario: A scenario, its name, or the path of its YAML file.
        credit: A credit rule, or its name (with arguments, if it takes any).
        num_cooperatives: Number of cooperatives E.
        rewards: ``own``, or ``team``: every proxy gets the mean of its cooperative's rewards.
        seed: Seed from which the cooperatives' seeds are made; drawn from the operating system if not given.
        device: Device of all tensors.

    Raises:
        ValueError: As :class:`~proxycoop.envs.Engine` does, or if the form of the rewards is unknown.
    """

    def __init__(
        self,
        scenario: Scenario | str | Path = "digits",
        credit: CreditRule | str = "shapley",
        num_cooperatives: int = 16,
        *,
        rewards: RewardForm = "own",
        seed: int | None = None,
        device: torch.device | str = "cpu",
    ) -> None:
        engine = Engine(scenario, credit, num_cooperatives, device=device)
        super().__init__(device=engine.device, batch_size=[num_cooperatives])
        self.engine = engine
        self.group_map = {GROUP: [f"{GROUP}_{i}" for i in range(engine.num_agents)]}
        self._pay = Pay(rewards)
        self._codec = ActionCodec("discrete", engine.num_items)
        self._codes = self._codec.table.to(engine.device)  # (2**K, K)
        self._next_seeds: list[int] | None = None
        self._next_episode = 0  # of these seeds
        self._unknown = torch.full((*self._each, 1), torch.nan, dtype=torch.float32, device=engine.device)
        self._metrics = metric_names(engine.scenario)
        self._make_specs()
        if seed is not None:
            self.set_seed(seed)

    @property
    def _each(self) -> tuple[int, int]:
        """Cooperatives and proxies, (E, N)."""
        return self.engine.num_envs, self.engine.num_agents

    def _make_specs(self) -> None:
        each, size, n_codes = self._each, self.engine.layout.size, len(self._codes)
        here: dict[str, Any] = {"device": self.device}

        def batch(entries: dict[str, Any]) -> Composite:
            return Composite(entries, shape=self.batch_size, **here)

        def of_proxies(entries: dict[str, Any]) -> Composite:
            return Composite(entries, shape=each, **here)

        seen = {
            "observation": Bounded(-BOUND, BOUND, (*each, size), dtype=torch.float32, **here),
            "action_mask": Categorical(2, (*each, n_codes), dtype=torch.bool, **here),
            "info": of_proxies({name: Unbounded((*each, 1), dtype=torch.float32, **here) for name in self._metrics}),
        }
        state = Bounded(-BOUND, BOUND, (each[0], each[1] * size), dtype=torch.float32, **here)
        self.observation_spec = batch({GROUP: of_proxies(seen), "state": state})
        self.action_spec = batch({GROUP: of_proxies({"action": Categorical(n_codes, each, dtype=torch.int64, **here)})})
        self.reward_spec = batch({GROUP: of_proxies({"reward": Unbounded((*each, 1), dtype=torch.float32, **here)})})
        self.done_spec = batch({name: Categorical(2, (each[0], 1), dtype=torch.bool, **here) for name in ("done", "terminated")})

    def _set_seed(self, seed: int | None) -> None:
        """Set the seed of the next reset. Every cooperative gets a seed of its own from it, as in the other vectorised faces."""
        self.go_on(seeds_from(seed, self.engine.num_envs))

    def go_on(self, seeds: Sequence[int], episode: int = 0) -> None:
        """Let the next reset begin this episode of these seeds, one for each cooperative."""
        self._next_seeds, self._next_episode = list(seeds), episode

    def _reset(self, tensordict: TensorDictBase | None = None, **kwargs: Any) -> TensorDict:
        """Begin an episode. Without a seed, it is the next episode of the seeds in use.

        Raises:
            ValueError: If only some cooperatives are to be reset.
        """
        del kwargs
        which = None if tensordict is None else tensordict.get("_reset", None)
        if which is not None and not which.all():
            raise ValueError(
                f"_reset names {int(which.sum())} of {self.engine.num_envs} cooperatives: they share one clock: reset all of them or none"
            )
        self.engine.reset(self._next_seeds, episode=self._next_episode)
        self._next_seeds, self._next_episode = None, 0
        return self._outcome({})

    def _step(self, tensordict: TensorDictBase) -> TensorDict:
        """Play a round.

        Raises:
            ValueError: If an action is not a code from 0 to 2**K − 1.
            RuntimeError: Before the first reset, or after the episode's last round.
        """
        choices = self._codec.decode(tensordict.get((GROUP, "action"), None), "the proxies", self._each)
        result = self.engine.step(choices.to(self.device))
        return self._outcome({"reward": self._pay(result.rewards)[..., None].float()})

    def _outcome(self, entries: dict[str, Any]) -> TensorDict:
        """The given entries, with observations, masks, metrics, state and ends."""
        engine = self.engine
        over = engine.t == engine.horizon
        of_proxies = entries | {
            "observation": engine.observations,
            "action_mask": ~(self._codes & ~engine.choosable[..., None, :]).any(dim=-1),
            "info": self._episode() if over else dict.fromkeys(self._metrics, self._unknown),
        }
        done = torch.full((engine.num_envs, 1), over, device=self.device)
        return TensorDict(
            {GROUP: TensorDict(of_proxies, self._each), "state": engine.state(), "done": done, "terminated": done.clone()},
            self.batch_size,
            device=self.device,
        )

    def _episode(self) -> dict[str, Tensor]:
        """Metrics of the episode, each repeated for every proxy."""
        return {
            name: each.reshape(len(each), -1, 1).expand_as(self._unknown).float() for name, each in episode_metrics(self.engine).items()
        }
