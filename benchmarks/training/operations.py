"""Tensor operations of a round by phase, and the speed of single cooperatives and of batches beside others' environments.

An operation is what reaches torch's dispatcher; views are operations too. They are counted in the rounds of a few episodes of random play,
and their mean a round is printed, with those that are no views beside it. In a compiled round only what runs outside the compiled functions
is counted.

Speed is agent-steps per second of processor time, resets included, the fastest of several turns: other programs on the machine only ever
slow a turn down. Everything takes turns. Beside the engine and its PettingZoo face, plain and compiled, are ``simple_spread`` of ``mpe2``
with six agents and ``balance`` of VMAS with six agents, from the environment ``.venv-mpe`` that ``make operations`` sets up. Where it is
not there, the benchmark says so and measures the rest.

Run: ``python benchmarks/training/operations.py [--seconds 0.3] [--turns 7] [--threads 1] [--sizes 1 16 64 256] [--markdown FILE]``.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from types import FrameType
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode, _disable_current_modes

from proxycoop.envs import Engine, cooperative_v0
from proxycoop.envs.compiled.functions import CompiledFunction
from proxycoop.files import write_text

SCENARIO, CREDIT = "digits", "shapley"
SIZES = (1, 16, 64, 256)
OTHERS = Path(__file__).parents[2] / ".venv-mpe" / "bin" / "python"
PHASES: dict[str, str] = {
    "propose": "propose",
    "losses_and_gradients": "look: values",
    "judge": "look: verdicts",
    "_look": "look: the rest",
    "_screen": "screen",
    "guard": "aggregate: guard",
    "_aggregate": "aggregate",
    "_cost": "rewards",
    "_rewards": "rewards",
    "as_round": "credit",
    "_pay": "credit",
    "_settle": "settlement",
    "remember": "remember",
    "_observe": "observe",
    "_told": "record",
    "step": "the rest",
}
"""The phase of an operation, by the innermost of these functions that it is called in."""
VIEWS = {"alias", "as_strided", "detach", "diagonal", "expand", "permute", "select", "slice", "split", "split_with_sizes", "squeeze", "t"}
VIEWS |= {"transpose", "unbind", "unsqueeze", "view", "_unsafe_view"}


class Counting(TorchDispatchMode):
    """Counts operations by phase."""

    def __init__(self) -> None:
        super().__init__()
        self.all: Counter[str] = Counter()
        self.no_views: Counter[str] = Counter()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Count one operation, and carry it out."""
        frame: FrameType | None = sys._getframe(1)
        while frame is not None and frame.f_code.co_name not in PHASES:
            frame = frame.f_back
        phase = "the rest" if frame is None else PHASES[frame.f_code.co_name]
        self.all[phase] += 1
        self.no_views[phase] += func.overloadpacket.__name__ not in VIEWS
        return func(*args, **(kwargs or {}))


def choices(engine: Engine) -> torch.Tensor:
    """Random choices of an episode, bool ``(T, E, N, K)``."""
    shape = engine.horizon, engine.num_envs, engine.num_agents, engine.num_lots
    return torch.rand(shape, generator=torch.Generator().manual_seed(engine.num_envs)) < 0.5


def operations(compile: bool, n_episodes: int = 4) -> tuple[Counter[str], Counter[str], int]:
    """Operations by phase, all and without views, and the number of rounds."""
    engine = Engine(SCENARIO, CREDIT, compile=compile)
    engine.reset([0])
    chosen = choices(engine)
    for actions in chosen:
        engine.step(actions)
    counting = Counting()
    plain = CompiledFunction.__call__

    def uncounted(self: CompiledFunction, tensors: Any) -> Any:
        with _disable_current_modes():
            return plain(self, tensors)

    CompiledFunction.__call__ = uncounted  # type: ignore[method-assign]
    try:
        for _ in range(n_episodes):
            engine.reset()
            with counting:
                for actions in chosen:
                    engine.step(actions)
    finally:
        CompiledFunction.__call__ = plain  # type: ignore[method-assign]
    return counting.all, counting.no_views, n_episodes * engine.horizon


def operations_table() -> list[str]:
    """The table of operations, as lines of Markdown."""
    plain, no_views, n = operations(False)
    left, _, n_left = operations(True)
    lines = ["| phase | operations a round | without views | outside compiled functions |", "|---|---:|---:|---:|"]
    for phase in dict.fromkeys(PHASES.values()):
        if plain[phase] or left[phase]:
            lines.append(f"| {phase} | {plain[phase] / n:.0f} | {no_views[phase] / n:.0f} | {left[phase] / n_left:.0f} |")
    totals = (sum(plain.values()) / n, sum(no_views.values()) / n, sum(left.values()) / n_left)
    return [*lines, "| all | " + " | ".join(f"{total:.0f}" for total in totals) + " |"]


def engine_episode(n_envs: int, compile: bool) -> Callable[[float], float]:
    """What times the engine."""
    engine = Engine(SCENARIO, CREDIT, n_envs, compile=compile)
    engine.reset(range(n_envs))
    chosen = choices(engine)

    def episode() -> int:
        engine.reset()
        for actions in chosen:
            engine.step(actions)
        return engine.horizon * n_envs * engine.num_agents

    return _timed(episode)


def face_episode(compile: bool) -> Callable[[float], float]:
    """What times PettingZoo's parallel interface."""
    env = cooperative_v0.parallel_env(SCENARIO, CREDIT, infos="mask", compile=compile)
    env.reset(seed=0)
    rounds = [dict(zip(env.possible_agents, chosen[0].long().numpy(), strict=True)) for chosen in choices(env.engine)]

    def episode() -> int:
        env.reset()
        for actions in rounds:
            env.step(actions)
        return len(rounds) * len(env.possible_agents)

    return _timed(episode)


def _timed(episode: Callable[[], int]) -> Callable[[float], float]:
    """From seconds to agent-steps per second of processor time."""
    episode()  # imports, caches, and compiles

    def rate(seconds: float) -> float:
        began, steps = time.process_time(), 0
        while (elapsed := time.process_time() - began) < seconds or steps == 0:
            steps += episode()
        return steps / elapsed

    return rate


class Others:
    """Other people's environments, in another process."""

    def __init__(self, threads: int) -> None:
        command = [str(OTHERS), str(Path(__file__).with_name("particles.py")), str(threads)]
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)

    def rate(self, name: str, n_envs: int, seconds: float) -> float:
        """Agent-steps per second of one of them."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(f"{name} {n_envs} {seconds}\n")
        self._process.stdin.flush()
        answer = self._process.stdout.readline()
        if not answer:
            sys.exit(f"{OTHERS} does not answer: make operations sets it up anew after rm -r {OTHERS.parents[1]}")
        return float(answer)

    def close(self) -> None:
        """End the process."""
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait()


def speeds(seconds: float, turns: int, threads: int, sizes: Sequence[int]) -> list[str]:
    """The table of speeds, as lines of Markdown."""
    rows: dict[str, dict[int, Callable[[float], float]]] = {
        "engine": {n_envs: engine_episode(n_envs, False) for n_envs in sizes},
        "engine, compiled": {n_envs: engine_episode(n_envs, True) for n_envs in sizes},
        "PettingZoo face": {1: face_episode(False)},
        "PettingZoo face, compiled": {1: face_episode(True)},
    }
    others = Others(threads) if OTHERS.exists() else None
    if others is not None:
        rows["`simple_spread` (mpe2), PettingZoo"] = {1: lambda seconds: others.rate("spread", 1, seconds)}
        rows["`balance` (VMAS)"] = {n: lambda seconds, n=n: others.rate("balance", n, seconds) for n in sizes}  # type: ignore[misc]
    rates: dict[tuple[str, int], float] = {}
    for _ in range(turns):
        for name, by_size in rows.items():
            for n_envs, rate in by_size.items():
                rates[name, n_envs] = max(rates.get((name, n_envs), 0.0), rate(seconds))
    if others is not None:
        others.close()
    lines = [
        f"Agent-steps per second of processor time, of E cooperatives of `{SCENARIO}` (six agents) under exact Shapley credit, and of "
        f"other environments with six agents; {threads} thread{'s' if threads > 1 else ''}, the fastest of {turns} turns, resets included.",
        "",
        "| | " + " | ".join(f"E = {n_envs}" for n_envs in sizes) + " |",
        "|---|" + "---:|" * len(sizes),
    ]
    for name, by_size in rows.items():
        lines.append(f"| {name} | " + " | ".join(f"{rates[name, n]:,.0f}" if n in by_size else "–" for n in sizes) + " |")
    if others is None:
        return [*lines, "", f"mpe2 and VMAS are not there: `make operations` installs them into {OTHERS.parents[1].name}."]
    spread = rates["`simple_spread` (mpe2), PettingZoo", 1]
    ratios = [f"{name} {rates[name, 1] / spread:.2f}" for name in ("PettingZoo face", "PettingZoo face, compiled")]
    beside = [
        f"{rates['engine', n] / rates['`balance` (VMAS)', n]:.2f} and {rates['engine, compiled', n] / rates['`balance` (VMAS)', n]:.2f}"
        for n in sizes
    ]
    return [
        *lines,
        "",
        f"As a multiple of `simple_spread`: {'; '.join(ratios)}. Engine, plain and compiled, as a multiple of `balance`: "
        + ", ".join(f"{one} at E = {n}" for one, n in zip(beside, sizes, strict=True))
        + ".",
    ]


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=0.3, help="seconds of each turn")
    parser.add_argument("--turns", type=int, default=7, help="turns of each")
    parser.add_argument("--threads", type=int, default=1, help="threads of torch")
    parser.add_argument("--sizes", type=int, nargs="+", default=SIZES, help="numbers of cooperatives, 1 among them")
    parser.add_argument("--markdown", type=Path, help="write the tables into this file")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    text = "\n".join([*operations_table(), "", *speeds(arguments.seconds, arguments.turns, arguments.threads, arguments.sizes)]) + "\n"
    sys.stdout.write(text)
    if arguments.markdown is not None:
        write_text(arguments.markdown, text)


if __name__ == "__main__":
    main()
