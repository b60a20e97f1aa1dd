"""Speed of every face of the engine, side by side in one run.

Every face plays whole episodes, resets included. The actions were drawn beforehand, so that no policy is timed. The faces take turns, and
the fastest turn of each is printed: other programs on the machine only ever slow a turn down. Time is processor time. Infos are those that
training needs (``infos="mask"``). An agent-step is one proxy's choice in one round. In ``seat-v0`` the others play a fixed policy, and only
the steps of the one proxy are counted.

TorchRL is measured where it is installed: run this with the Python of ``.venv-benchmarl``.

Run: ``python benchmarks/training/faces.py [--seconds 0.3] [--threads 1] [--markdown FILE]``.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

import gymnasium
import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

import proxycoop.agents  # noqa: F401  # registers seat-v0
from proxycoop.envs import Engine, cooperative_v0
from proxycoop.envs.gymnasium_vector import CooperativeVectorEnv
from proxycoop.envs.vector import CooperativeVecEnv
from proxycoop.files import write_text

SCENARIO, CREDIT = "digits", "shapley"
SIZES = (1, 16, 64)
REPEATS = 9
HAS_TORCHRL = find_spec("torchrl") is not None

Episode = Callable[[], object]
"""Plays one episode of every cooperative."""


@dataclass(frozen=True)
class Face:
    """A face of the engine.

    Attributes:
        name: What it is called, with a link to its page.
        made_by: The line that makes it.
        observations: What it gives, in shape.
        actions: What it takes, in shape.
        begin: From choices ``(T, E, N, K)`` to what plays an episode; ``None`` where its library is not installed.
        batched: Whether it steps more than one cooperative.
        one_proxy: Whether only one proxy's steps count.
    """

    name: str
    made_by: str
    observations: str
    actions: str
    begin: Callable[[Tensor], Episode] | None
    batched: bool = True
    one_proxy: bool = False


def engine(choices: Tensor) -> Episode:
    """The engine itself."""
    made = Engine(SCENARIO, CREDIT, choices.shape[1])
    made.reset(range(choices.shape[1]))

    def episode() -> None:
        made.reset()
        for chosen in choices:
            made.step(chosen)

    return episode


def parallel(choices: Tensor) -> Episode:
    """PettingZoo's parallel interface."""
    env = cooperative_v0.parallel_env(SCENARIO, CREDIT, infos="mask")
    env.reset(seed=0)
    rounds = [dict(zip(env.possible_agents, chosen[0].long().numpy(), strict=True)) for chosen in choices]

    def episode() -> None:
        env.reset()
        for actions in rounds:
            env.step(actions)

    return episode


def aec(choices: Tensor) -> Episode:
    """PettingZoo's agent-environment cycle, read as its documentation reads it."""
    env = cooperative_v0.env(SCENARIO, CREDIT, infos="mask")
    env.reset(seed=0)
    turns = choices[:, 0].long().numpy().reshape(-1, choices.shape[-1])  # (T·N, K)

    def episode() -> None:
        env.reset()
        turn = iter(turns)
        for _ in env.agent_iter():
            *_, terminated, truncated, _ = env.last()
            env.step(None if terminated or truncated else next(turn))

    return episode


def seat(choices: Tensor) -> Episode:
    """One proxy among others, who are honest."""
    env = gymnasium.make("proxycoop/seat-v0", scenario=SCENARIO, credit=CREDIT, others="honest", disable_env_checker=True)
    env.reset(seed=0)
    actions = choices[:, 0, 0].long().numpy()

    def episode() -> None:
        env.reset()
        for action in actions:
            env.step(action)

    return episode


def vector_env(choices: Tensor) -> Episode:
    """Gymnasium's vector interface; the step after an episode's last one begins the next."""
    envs = CooperativeVectorEnv(SCENARIO, CREDIT, choices.shape[1], infos="mask")
    envs.reset(seed=0)
    rows = np.asarray(choices.flatten(1, 2), dtype=np.int64)  # (T, E·N, K)

    def episode() -> None:
        for actions in rows:
            envs.step(actions)
        envs.step(rows[0])  # resets

    return episode


def torchrl(choices: Tensor) -> Episode:
    """TorchRL's environment, stepped as its collectors step it."""
    from torchrl.envs.utils import step_mdp

    from proxycoop.training.libraries.torchrl_env import CooperativeTorchRLEnv

    env = CooperativeTorchRLEnv(SCENARIO, CREDIT, choices.shape[1], seed=0)
    codes = (choices.long() << torch.arange(choices.shape[-1])).sum(dim=-1)  # (T, E, N)

    def episode() -> None:
        data = env.reset()
        for actions in codes:
            data["proxy", "action"] = actions
            data = step_mdp(env.step(data))

    return episode


def vec_env(choices: Tensor) -> Episode:
    """Stable-Baselines3's vectorised interface, which begins the next episode by itself."""
    rows = CooperativeVecEnv(SCENARIO, CREDIT, choices.shape[1], seed=0)
    rows.reset()
    rounds = np.asarray(choices.flatten(1, 2), dtype=np.int64)

    def episode() -> None:
        for actions in rounds:
            rows.step(actions)

    return episode


CHOICES = "`(K,)` or a code"
ROWS: dict[str, str] = {"observations": "`(E·N, size)`", "actions": "`(E·N, K)` or `(E·N,)`"}
FACES = (
    Face(
        name="[The engine, on tensors](../rl/engine.md)",
        made_by="`Engine(…, num_envs=E)`",
        observations="`(E, N, size)`",
        actions="bool `(E, N, K)`",
        begin=engine,
    ),
    Face(
        name="[PettingZoo, parallel](../rl/pettingzoo.md)",
        made_by="`cooperative_v0.parallel_env(…)`",
        observations="`(size,)` by agent",
        actions=f"{CHOICES} by agent",
        begin=parallel,
        batched=False,
    ),
    Face(
        name="[PettingZoo, AEC](../rl/pettingzoo.md#one-after-another)",
        made_by="`cooperative_v0.env(…)`",
        observations="`(size,)`",
        actions=CHOICES,
        begin=aec,
        batched=False,
    ),
    Face(
        name="[Gymnasium, one proxy](../rl/gymnasium.md#one-proxy-among-others)",
        made_by='`gymnasium.make("proxycoop/seat-v0", …)`',
        observations="`(size,)`",
        actions=CHOICES,
        begin=seat,
        batched=False,
        one_proxy=True,
    ),
    Face(
        name="[Gymnasium, vector](../rl/gymnasium.md)",
        made_by="`CooperativeVectorEnv(…, num_cooperatives=E)`",
        begin=vector_env,
        **ROWS,
    ),
    Face(
        name="[TorchRL](../rl/torchrl.md)",
        made_by="`CooperativeTorchRLEnv(…, num_cooperatives=E)`",
        observations="`(E, N, size)`",
        actions="codes `(E, N)`",
        begin=torchrl if HAS_TORCHRL else None,
    ),
    Face(
        name="[Stable-Baselines3](../rl/stable-baselines3.md)",
        made_by="`CooperativeVecEnv(…, num_cooperatives=E)`",
        begin=vec_env,
        **ROWS,
    ),
)


def measured(seconds: float) -> dict[tuple[str, int], list[float]]:
    """Agent-steps per second of each face and number of cooperatives, each of several turns."""
    shape = Engine(SCENARIO, None)
    runs: dict[tuple[str, int], tuple[Episode, int]] = {}
    for n_envs in SIZES:
        generator = torch.Generator().manual_seed(n_envs)
        choices = torch.rand(shape.horizon, n_envs, shape.num_agents, shape.num_lots, generator=generator) < 0.5
        for face in FACES:
            if face.begin is not None and (face.batched or n_envs == 1):
                steps = shape.horizon * (1 if face.one_proxy else n_envs * shape.num_agents)
                runs[face.name, n_envs] = face.begin(choices), steps
    for play, _ in runs.values():
        play()  # imports, and caches
    rates: dict[tuple[str, int], list[float]] = {key: [] for key in runs}
    for _ in tqdm(range(REPEATS), unit=" turns"):
        for key, (play, steps) in runs.items():
            began, calls = time.process_time(), 0
            while (elapsed := time.process_time() - began) < seconds or calls == 0:
                play()
                calls += 1
            rates[key].append(calls * steps / elapsed)
    return rates


def table(seconds: float) -> list[str]:
    """The table, as lines of Markdown."""
    rates = measured(seconds)
    n_agents, threads = Engine(SCENARIO, None).num_agents, torch.get_num_threads()
    lines = [
        f"Agent-steps per second of processor time, of E cooperatives of `{SCENARIO}` (N = {n_agents}) under exact Shapley credit; "
        f"{threads} thread{'s' if threads > 1 else ''}, the fastest of {REPEATS} turns. Of *one proxy*, only its own steps count.",
        "",
        "| face | " + " | ".join(f"E = {n_envs}" for n_envs in SIZES) + " | made by | observations | actions |",
        "|---|" + "---:|" * len(SIZES) + "---|---|---|",
    ]
    for face in FACES:
        speeds = " | ".join(f"{max(rates[face.name, n]):,.0f}" if (face.name, n) in rates else "–" for n in SIZES)
        lines.append(f"| {face.name} | {speeds} | {face.made_by} | {face.observations} | {face.actions} |")
    return lines


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=0.3, help="seconds of each turn of each face")
    parser.add_argument("--threads", type=int, default=1, help="threads of torch")
    parser.add_argument("--markdown", type=Path, help="write the table into this file")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    text = "\n".join(table(arguments.seconds)) + "\n"
    sys.stdout.write(text)
    if arguments.markdown is not None:
        write_text(arguments.markdown, text)


if __name__ == "__main__":
    main()
