"""The engine as a Gymnasium vector environment: one sub-environment for every proxy of every cooperative.

For one proxy among others who do not learn there is ``proxycoop/seat-v0``, :class:`~proxycoop.agents.SeatEnv`.
"""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
import torch
from gymnasium.vector import AutoresetMode, VectorEnv
from gymnasium.vector.utils import batch_space
from numpy.typing import NDArray

from ..checks import whole_number
from ..credit import CreditRule
from ..registry import unknown_name
from .metrics import agent_metrics, round_infos
from .observations.spaces import ActionForm, InfoForm, RewardForm, checked_info_form, observation_space
from .rows import Rows
from .scenario import Scenario, load

Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]


class CooperativeVectorEnv(VectorEnv[NDArray[np.float32], NDArray[Any], NDArray[Any]]):
    """E cooperatives of N proxies as E·N sub-environments, for PPO and other learners that speak Gymnasium.

    Row ``e·N + i`` of every array is proxy i of cooperative e. All proxies are alike, so a learner trains one policy for all of them.

    ============================  ===========================================================================================
    ``num_envs``                  E·N
    ``single_action_space``       ``MultiDiscrete([2] * K)``, 1 = contribute the lot; with ``actions="discrete"``
                                  ``Discrete(2**K)``, where bit k says whether lot k is contributed
    ``action_space``              the batch of these: arrays ``(E·N, K)`` or ``(E·N,)``
    ``single_observation_space``  ``Box(-10, 10, (size,), float32)``; ``engine.layout`` names every entry
    ``observation_space``         the batch of these: arrays ``(E·N, size)``
    Rewards                       float64 ``(E·N,)``, in reward units, as :mod:`~proxycoop.envs.cooperative_v0` defines them; with
                                  ``rewards="team"`` every row gets the mean of its cooperative's rewards
    End of an episode             after ``horizon`` rounds, by truncation, in all rows at once
    ============================  ===========================================================================================

    **Value of the last state.** An episode is truncated, but nothing is earned after the horizon, and proxies observe the time. So the
    value after the last round is 0: a learner should not bootstrap from its critic there (Pardo et al. 2018, *Time limits in
    reinforcement learning*, ICML).

    **Autoreset.** ``metadata["autoreset_mode"]`` names the mode. The cooperatives step together, so all rows end and begin together.

    ==============  =========================================================================================================
    ``NEXT_STEP``   The last step returns the last observations. The next step ignores its actions and returns the next
                    episode's first observations, with reward 0.
    ``SAME_STEP``   The last step returns the next episode's first observations and infos. ``infos["final_obs"]`` and
                    ``infos["final_info"]`` hold the last ones of the episode that ended.
    ``DISABLED``    You call ``reset`` after the last step. A further step is an error. ``options={"reset_mask": mask}`` is
                    allowed if the mask names all rows.
    ==============  =========================================================================================================

    **Seeds.** ``reset(seed=s)`` gives cooperative e the seed s + e. Its N rows share the seed, because they are one cooperative. So it
    plays what :mod:`~proxycoop.envs.cooperative_v0` plays with seed s + e. Two environments whose seeds differ by less than E have
    cooperatives in common. ``reset(seed=[…])`` takes one seed a cooperative, or one a row if all rows of a cooperative have the same.
    ``reset()`` goes on to the next episode of the seeds in use; the first time it draws seeds from the operating system.

    **Infos** are a dictionary of arrays of E·N rows, from the first ``reset`` on. Beside each ``name`` stands ``_name``, which rows have
    it: here all of them.

    ====================  ===================================================================================================
    ``action_mask``       bool ``(E·N, 2K)``, for each lot "may be withheld" and "may be contributed"; with
                          ``actions="discrete"`` ``(E·N, 2**K)``, an entry a code. A lot may have nothing to contribute in a round;
                          choosing it then has no effect.
    ``credit`` …          the names and meanings of :func:`~proxycoop.envs.metrics.round_infos`, as in
                          :mod:`~proxycoop.envs.cooperative_v0`; not there with ``infos="mask"``
    ``metrics``           after the last round, :func:`~proxycoop.envs.episode_metrics` for each row; not there with
                          ``infos="mask"``. The name ``episode`` is left to Gymnasium's ``RecordEpisodeStatistics``.
    ====================  ===================================================================================================

    Attributes:
        engine: The cooperatives.
        autoreset_mode: The mode of autoreset.

    Args:
        scenario: A scenario, its name, or the path of its YAML file.
        credit: A credit rule, or its name (with arguments, if it takes any: ``"shapley(budget=60)"``).
        num_cooperatives: Number of cooperatives E.
        actions: Form of the actions, ``multi_discrete`` or ``discrete``.
        rewards: ``own``, or ``team``: every row gets the mean of its cooperative's rewards.
        infos: ``full``, or ``mask``: only the action mask, which saves some time.
        autoreset_mode: One of Gymnasium's modes, or its value: ``"NextStep"``, ``"SameStep"`` or ``"Disabled"``.
        device: Where the cooperatives are computed. What ``reset`` and ``step`` return is on the CPU.
        compile: Whether rounds are compiled, as :class:`~proxycoop.envs.Engine` says.

    Raises:
        ValueError: If a name is unknown, ``num_cooperatives`` is not positive, or as :class:`~proxycoop.envs.Engine` does.

    Example::

        from proxycoop.envs.gymnasium_vector import CooperativeVectorEnv

        envs = CooperativeVectorEnv("digits", credit="loo", num_cooperatives=8)
        observations, infos = envs.reset(seed=0)
        for _ in range(envs.engine.horizon):
            observations, rewards, terminations, truncations, infos = envs.step(envs.action_space.sample())
        print(infos["metrics"]["welfare"].mean())

    ``gymnasium.make_vec("proxycoop/cooperative-v0", num_cooperatives=8, scenario="digits", credit="loo")`` makes the same environment
    after ``import proxycoop.envs``. See :func:`vector_env`.
    """

    metadata = {"name": "cooperative_v0", "render_modes": [], "autoreset_mode": AutoresetMode.NEXT_STEP}  # noqa: RUF012  # as Gymnasium declares it

    def __init__(
        self,
        scenario: Scenario | str | Path = "digits",
        credit: CreditRule | str = "shapley",
        num_cooperatives: int = 8,
        *,
        actions: ActionForm = "multi_discrete",
        rewards: RewardForm = "own",
        infos: InfoForm = "full",
        autoreset_mode: AutoresetMode | str = AutoresetMode.NEXT_STEP,
        device: torch.device | str = "cpu",
        compile: bool = False,
    ) -> None:
        self._info_form = checked_info_form(infos)
        self.autoreset_mode = _checked_mode(autoreset_mode)
        self.metadata = {**self.metadata, "autoreset_mode": self.autoreset_mode}
        self._rows = Rows(scenario, credit, num_cooperatives, actions=actions, rewards=rewards, device=device, compile=compile)
        self.engine = self._rows.engine
        self.num_envs = len(self._rows)
        self.single_observation_space = observation_space(self.engine.layout)
        self.single_action_space = self._rows.codec.space()
        self.observation_space = batch_space(self.single_observation_space, self.num_envs)
        self.action_space = batch_space(self.single_action_space, self.num_envs)

    def reset(
        self, *, seed: int | Sequence[int] | None = None, options: Mapping[str, Any] | None = None
    ) -> tuple[NDArray[np.float32], dict[str, Any]]:
        """Begin an episode in every cooperative.

        Args:
            seed: Seeds of this and the following episodes, see above; ``None`` goes on to the next episode of the seeds in use.
            options: ``reset_mask``, bool ``(E·N,)``, all of it true. There are no others.

        Returns:
            Observations ``(E·N, size)``, and infos.

        Raises:
            ValueError: If a seed is no whole number from 0 to 2^63 − 1, there are too few or too many, rows of one cooperative have
                different ones, the mask does not name all rows, or there is another option.
        """
        self._check_options({} if options is None else options)
        seeds = self._seeds(seed)
        self.engine.reset(seeds)
        super().reset(seed=None if seeds is None else int(seeds[0]))
        return self._rows.observations(), self._infos()

    def step(self, actions: NDArray[Any]) -> tuple[NDArray[np.float32], Floats, Bools, Bools, dict[str, Any]]:
        """Play a round in every cooperative, or, with ``NEXT_STEP`` after the last one, begin the next episode.

        Args:
            actions: One action a row, ``(E·N, K)`` or ``(E·N,)`` by form.

        Returns:
            Observations ``(E·N, size)``; rewards, terminations and truncations ``(E·N,)``; and infos.

        Raises:
            RuntimeError: Before the first reset, or, with ``DISABLED``, after the episode's end.
            ValueError: If the actions are of the wrong shape or range.
        """
        choices = self._rows.choices(actions)
        is_over = self.engine.seeds is not None and self.engine.t == self.engine.horizon
        rewards, ends = np.zeros(self.num_envs), False
        extra: dict[str, Any] = {}
        if is_over and self.autoreset_mode == AutoresetMode.NEXT_STEP:
            self.engine.reset()
        else:
            result = self.engine.step(choices)
            rewards, ends = self._rows.rewards(result.rewards).double().numpy(), result.done
        if ends and self.autoreset_mode == AutoresetMode.SAME_STEP:
            extra = self._marked({"final_obs": _unbatched(self._rows.observations()), "final_info": self._infos()})
            self.engine.reset()
        terminations, truncations = np.zeros(self.num_envs, dtype=bool), np.full(self.num_envs, ends)
        return self._rows.observations(), rewards, terminations, truncations, extra | self._infos()

    def _infos(self) -> dict[str, Any]:
        infos: dict[str, Any] = {"action_mask": self._rows.masks()}
        if self._info_form == "full":
            infos |= {name: info.reshape(self.num_envs, *info.shape[2:]) for name, info in round_infos(self.engine).items()}
            if self.engine.t == self.engine.horizon:
                metrics = {name: measure.flatten().double().cpu().numpy() for name, measure in agent_metrics(self.engine).items()}
                infos["metrics"] = self._marked(metrics)
        return self._marked(infos)

    def _marked(self, infos: Mapping[str, Any]) -> dict[str, Any]:
        """Infos with Gymnasium's mask ``_name`` beside each name: which rows have it."""
        marked: dict[str, Any] = {}
        for name, info in infos.items():
            marked[name], marked[f"_{name}"] = info, np.ones(self.num_envs, dtype=bool)
        return marked

    def _seeds(self, seed: object) -> list[int] | None:
        """A seed for each cooperative."""
        n_cooperatives, n_agents = self.engine.num_envs, self.engine.num_agents
        if seed is None:
            return None
        if isinstance(seed, (int, np.integer)) and not isinstance(seed, bool):
            last = 2**63 - n_cooperatives
            first = whole_number("seed", seed, 0, last, f"must be a whole number from 0 to {last}, as cooperative e gets the seed s + e")
            return [first + e for e in range(n_cooperatives)]
        is_text = isinstance(seed, (str, bytes, bytearray))
        if is_text or not isinstance(seed, (Sequence, np.ndarray)) or (isinstance(seed, np.ndarray) and seed.ndim != 1):
            raise ValueError(f"seed={seed!r}: must be a whole number, a list of them, or None")
        if len(seed) not in (n_cooperatives, self.num_envs):
            raise ValueError(f"seed has {len(seed)} entries: give one for each of {n_cooperatives} cooperatives or {self.num_envs} rows")
        seeds = list(seed) if len(seed) == n_cooperatives else list(seed[::n_agents])
        if len(seed) == self.num_envs and list(seed) != [one for one in seeds for _ in range(n_agents)]:
            raise ValueError(f"seed={list(seed)}: the {n_agents} rows of a cooperative must have the same seed; give one a cooperative")
        return seeds

    def _check_options(self, options: Mapping[str, Any]) -> None:
        if not isinstance(options, Mapping):
            raise ValueError(f"options is {type(options).__name__}: must be a dictionary, such as {{'reset_mask': mask}}, or None")
        if unknown := [name for name in options if name != "reset_mask"]:
            raise unknown_name("option of reset", unknown[0], ["reset_mask"])
        if "reset_mask" not in options:
            return
        mask = options["reset_mask"]
        if not isinstance(mask, np.ndarray) or mask.dtype != np.bool_ or mask.shape != (self.num_envs,):
            came = f"{mask.dtype} {mask.shape}" if isinstance(mask, np.ndarray) else type(mask).__name__
            raise ValueError(f"options['reset_mask'] is {came}: must be a NumPy array, bool ({self.num_envs},)")
        if not mask.all():
            raise ValueError(
                f"options['reset_mask'] names {int(mask.sum())} of {self.num_envs} rows: the cooperatives step together and end together, "
                "so all rows are reset or none; pass a mask that is all True, or leave it out"
            )


def vector_env(
    num_envs: int = 1,
    scenario: Scenario | str | Path = "digits",
    credit: CreditRule | str = "shapley",
    *,
    num_cooperatives: int | None = None,
    **arguments: Any,
) -> CooperativeVectorEnv:
    """What ``gymnasium.make_vec("proxycoop/cooperative-v0", …)`` calls.

    Args:
        num_envs: Number of rows E·N, a multiple of the scenario's proxies N. It may be left out where ``num_cooperatives`` is given.
        scenario: A scenario, its name, or the path of its YAML file.
        credit: A credit rule, or its name.
        num_cooperatives: Number of cooperatives E, instead of rows.
        **arguments: Further arguments of :class:`CooperativeVectorEnv`.

    Raises:
        ValueError: If ``num_envs`` is no multiple of N or contradicts ``num_cooperatives``, there is no such argument, or as
            :class:`CooperativeVectorEnv` does.
    """
    known = [name for name in inspect.signature(CooperativeVectorEnv).parameters if name != "self"]
    if unknown := [name for name in arguments if name not in known]:
        raise unknown_name("argument of proxycoop/cooperative-v0", unknown[0], ["num_envs", *known])
    scenario = scenario if isinstance(scenario, Scenario) else load(scenario)
    n_agents = scenario.n_agents
    if num_cooperatives is None:
        if isinstance(num_envs, bool) or not isinstance(num_envs, (int, np.integer)) or num_envs < 1 or num_envs % n_agents:
            raise ValueError(
                f"num_envs={num_envs!r}: scenario {scenario.name!r} has {n_agents} proxies, a row each, so it must be a multiple of "
                f"{n_agents}, such as {8 * n_agents}; or pass num_cooperatives=8 instead"
            )
        num_cooperatives = num_envs // n_agents
    elif num_envs not in (1, whole_number("num_cooperatives", num_cooperatives, 1) * n_agents):  # 1 is what make_vec passes by default
        raise ValueError(
            f"num_envs={num_envs} contradicts num_cooperatives={num_cooperatives}, which makes {num_cooperatives * n_agents} rows of "
            f"{n_agents} proxies each: pass one of the two"
        )
    return CooperativeVectorEnv(scenario, credit, num_cooperatives, **arguments)


def single_env(**arguments: Any) -> NoReturn:
    """What ``gymnasium.make("proxycoop/cooperative-v0")`` calls.

    Raises:
        ValueError: Always. It says which environments there are.
    """
    del arguments
    raise ValueError(
        "proxycoop/cooperative-v0 is an environment of several proxies, which gymnasium.make cannot return: use "
        "gymnasium.make_vec('proxycoop/cooperative-v0', num_cooperatives=8) for a row per proxy, gymnasium.make('proxycoop/seat-v0') after "
        "'import proxycoop.agents' for one proxy among others, or proxycoop.envs.cooperative_v0.parallel_env() for PettingZoo"
    )


def _checked_mode(mode: AutoresetMode | str) -> AutoresetMode:
    try:
        return AutoresetMode(mode)
    except ValueError:
        raise unknown_name("autoreset_mode", mode, [str(known.value) for known in AutoresetMode]) from None


def _unbatched(rows: NDArray[Any]) -> NDArray[np.object_]:
    """Rows as an array of objects ``(E·N,)``, one array each, as Gymnasium keeps ``final_obs``."""
    return np.fromiter(rows, dtype=object, count=len(rows))
