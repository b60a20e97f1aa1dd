"""Compare RL libraries and algorithms on the same cooperative, and learned reward decompositions with credit.

``libraries``: every library and algorithm trains proxies on ``digits`` under Shapley credit. Each uses its default settings and the same
number of agent-steps, in a virtual environment of its own (``make compat`` builds them). All policies are then evaluated here, in the same
way: 64 episodes, on splits of the data by the seed, as in ``proxycoop compare``. *Reached* is the welfare as a share of the oracle's on the
same episodes. Speed is end to end: agent-steps over the seconds of learning. That includes starting Ray and the like, but not imports.

``decompositions`` compares three kinds of reward, all in BenchMARL: a team reward that a value network learns to decompose (VDN, QMIX), a
reward that the credit rule has already decomposed (PPO and IQL on Shapley credit), and the undivided team reward (PPO, MAPPO). Learners on
the team reward learn nothing about Shapley credit: their rule is ``equal``, whose mean is the same. Learning curves show the episodes of
the training, exploration included. The table shows what was learned, also with every policy played greedily, as value-based policies
always are.

Run: ``python benchmarks/training/libraries.py libraries|decompositions [--seeds 3] [--steps 120000] [--markdown FILE]``. Finished
trainings are kept in ``--out`` and not run again. The command fails if an algorithm does not beat random choice.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

import numpy as np
import torch
from tqdm import tqdm

from proxycoop import agents
from proxycoop.envs import Engine, scenario
from proxycoop.files import read_json, write_atomically, write_text
from proxycoop.training.analysis.summary import Floats
from proxycoop.training.compare import EVALUATION_SEED
from proxycoop.training.evaluate import Estimate
from proxycoop.training.libraries.registry import find, settings_for
from proxycoop.training.pages.drawing import GREY, Look, drawing, figure_of_lines, fit, house_style, line, name_ends

SCENARIO = "digits"
EPISODES = 64
ROOT = Path(__file__).parents[2]


@dataclass(frozen=True, eq=False)  # a key of dictionaries by identity
class Lesson:
    """Something to train.

    Attributes:
        library: The RL library.
        algo: Its algorithm.
        credit: Who pays.
        hyper: Settings other than those it ships with.
        label: What curves call it.
    """

    library: str
    algo: str
    credit: str = "shapley"
    hyper: Mapping[str, object] = field(default_factory=dict)
    label: str = ""

    @property
    def key(self) -> str:
        """Its folder's name."""
        return "-".join([self.library, self.algo, self.credit, *(f"{name}={value}" for name, value in self.hyper.items())])

    @property
    def actions(self) -> str:
        """Form of the actions."""
        return str(self.hyper.get("actions", find(self.library, self.algo)[1].actions[0]))

    @property
    def masks(self) -> str:
        """Whether it keeps to action masks."""
        return "yes" if find(self.library, self.algo)[1].masks and self.hyper.get("masks", True) else "no"


CODES: Mapping[str, object] = {"actions": "discrete"}
SUITES: Mapping[str, Sequence[Lesson]] = {
    "libraries": [
        Lesson("sb3", "ppo"),
        Lesson("sb3", "ppo", hyper=CODES),
        Lesson("sb3", "a2c"),
        Lesson("sb3", "dqn"),
        Lesson("sb3-contrib", "maskable_ppo"),
        Lesson("supersuit", "ppo"),
        Lesson("rllib", "ppo"),
        Lesson("rllib", "ppo", hyper={"actions": "discrete", "masks": False}),
        Lesson("benchmarl", "ippo"),
        Lesson("benchmarl", "mappo"),
        Lesson("benchmarl", "iql"),
        Lesson("benchmarl", "vdn"),
        Lesson("benchmarl", "qmix"),
        Lesson("agilerl", "ippo"),
        Lesson("agilerl", "ippo", hyper=CODES),
        Lesson("agilerl", "maddpg"),
        Lesson("agilerl", "matd3"),
        Lesson("ippo", "ppo"),
        Lesson("ippo", "grpo"),
        Lesson("ippo", "ospo"),
    ],
    "decompositions": [
        Lesson("benchmarl", "ippo", label="PPO, Shapley credit"),
        Lesson("benchmarl", "iql", label="IQL, Shapley credit"),
        Lesson("benchmarl", "vdn", "equal", label="VDN, team reward"),
        Lesson("benchmarl", "qmix", "equal", label="QMIX, team reward"),
        Lesson("benchmarl", "ippo", "equal", {"rewards": "team"}, "PPO, team reward"),
        Lesson("benchmarl", "mappo", "equal", {"rewards": "team"}, "MAPPO, team reward"),
    ],
}
LOOKS = (
    Look("#000000", "-", "o"),
    Look("#0072B2", (0, (5, 1.5)), "s"),
    Look("#D55E00", (0, (1, 1)), "^"),
    Look("#009E73", (0, (7, 1.5, 1, 1.5)), "D"),
)
LOOKS += (Look("#CC79A7", (0, (3, 1, 1, 1, 1, 1)), "v"), Look("#56B4E9", (0, (9, 3)), "P"))


@dataclass(frozen=True)
class Result:
    """What came of a lesson.

    Attributes:
        welfare: By seed, in reward units; :attr:`oracle`, :attr:`random` and :attr:`planner` on the same episodes, and :attr:`greedy`:
            of the same policy if it contributes exactly what it takes to be better contributed.
        speed: Agent-steps a second, by seed.
        curves: Agent-steps and welfare of the episodes of training, ``(2, n)``, by seed.
    """

    welfare: Floats
    oracle: Floats
    random: Floats
    planner: Floats
    greedy: Floats
    speed: Floats
    curves: Sequence[Floats]


def train(lesson: Lesson, seed: int, steps: int, folder: Path) -> None:
    """Train in the library's own environment, unless that was done."""
    settings = settings_for(
        lesson.library,
        lesson.algo,
        scenario=scenario.load(SCENARIO, **{"data.split_seed": seed}),
        credit=lesson.credit,
        seed=seed,
        total_steps=steps,
        splits=1,  # policies are played at home
        **lesson.hyper,
    )
    if (folder / "run.json").exists():
        run = read_json(folder / "run.json")
        if run["settings"] != settings.plain():
            raise ValueError(f"{str(folder)!r} holds a training by other settings: choose another --out, or delete it")
        if run["finished"]:
            return
    own = ROOT / f".venv-{lesson.library}" / "bin" / "python"
    words = [str(own) if own.exists() else sys.executable, "-m", "proxycoop", "train", "--library", lesson.library, "--algo", lesson.algo]
    words += ["--scenario", SCENARIO, "--set", f"data.split_seed={seed}", "--credit", lesson.credit, "--seed", str(seed)]
    words += ["--steps", str(steps), "--out", str(folder), "--resume"]
    for name, value in lesson.hyper.items():
        words += ["--hyper", f"{name}={value}"]
    done = subprocess.run(words, capture_output=True, text=True, env=os.environ | {"OMP_NUM_THREADS": "1", "RAY_USAGE_STATS_ENABLED": "0"})
    if done.returncode != 0:
        raise RuntimeError(f"{lesson.key}, seed {seed}: {done.stderr.strip()[-2000:]}")


def evaluate(lesson: Lesson, seeds: Sequence[int], folders: Sequence[Path]) -> Result:
    """Play what was learned, and the references on the same episodes."""
    policies: dict[str, list[float]] = {name: [] for name in ("learned", "greedy")}
    speed, curves = [], []
    for seed, folder in zip(seeds, folders, strict=True):
        for name, values in policies.items():
            agent = agents.make("learned", path=folder, deterministic=True if name == "greedy" else None)
            values.append(welfare(agent, lesson.credit, seed))
        updates = read_json(folder / "curve.json")["updates"]
        speed.append(updates[-1]["agent_steps"] / read_json(folder / "run.json")["seconds"])
        curves.append(np.array([[point["agent_steps"], point["welfare"]] for point in updates]).T)
    others = {name: np.array([reference(name, seed) for seed in seeds]) for name in ("oracle", "random", "planner")}
    return Result(np.array(policies["learned"]), **others, greedy=np.array(policies["greedy"]), speed=np.array(speed), curves=curves)


def welfare(agent: agents.Agent, credit: str, seed: int) -> float:
    """Mean welfare over the episodes of a seed, in reward units."""
    first = EVALUATION_SEED + seed * EPISODES
    engine = Engine(scenario.load(SCENARIO, **{"data.split_seed": seed}), credit, EPISODES)
    return float(agents.play(engine, agent, range(first, first + EPISODES))["welfare"].mean())


@cache
def reference(name: str, seed: int) -> float:
    """The same of a scripted agent, whom no credit moves."""
    return welfare(agents.make(name), "equal", seed)


def estimate(values: Floats, decimals: int) -> str:
    """Mean and half-width of the 95 % interval over seeds."""
    of = Estimate.of(torch.from_numpy(values))
    half = "" if of.half_width is None else f" ± {of.half_width:.{decimals}f}"
    return f"{of.mean:.{decimals}f}{half}".replace("-", "−")


def table_of_libraries(results: Mapping[Lesson, Result]) -> str:
    """Library × algorithm × actions × masks × share of the oracle's welfare × speed, as Markdown."""
    lines = [
        "| library | algorithm | actions | masks | of the oracle's welfare, % | of SB3 PPO's, % | agent-steps/s |",
        "|---|---|---|---|---:|---:|---:|",
    ]
    first = next(iter(results.values()))
    for lesson, result in results.items():
        cells = [f"`{lesson.library}`", f"`{lesson.algo}`", lesson.actions, lesson.masks, estimate(100 * result.welfare / result.oracle, 1)]
        cells += [f"{100 * result.welfare.mean() / first.welfare.mean():.0f}", f"{result.speed.mean():,.0f}"]
        lines.append(f"| {' | '.join(cells)} |")
    for name, values in (("planner", first.planner), ("random", first.random)):
        share = estimate(100 * values / first.oracle, 1)
        lines.append(
            f"| – | {name}, for comparison | – | – | {share} | {100 * values.mean() / first.welfare.mean():.0f} | – |".replace(" -", " −")
        )
    return "\n".join(lines) + "\n"


def table_of_decompositions(results: Mapping[Lesson, Result]) -> str:
    """Who learned how much, and how soon, as Markdown."""
    lines = [
        "| algorithm | reward | welfare, reward units | over the first | of the oracle's, % | greedily, % | thousand steps to half |",
        "|---|---|---:|---:|---:|---:|---:|",
    ]
    first = next(iter(results.values()))
    for lesson, result in results.items():
        algorithm, reward = lesson.label.split(", ")
        soon = [
            next((steps for steps, welfare in smoothed(one).T if welfare >= oracle / 2), np.nan)
            for one, oracle in zip(result.curves, result.oracle, strict=True)
        ]
        reached = "never" if np.isnan(soon).all() else estimate(np.array(soon)[~np.isnan(soon)] / 1000, 0)
        if 0 < np.isnan(soon).sum() < len(soon):
            reached += f" ({len(soon) - np.isnan(soon).sum()} of {len(soon)} seeds)"
        share, greedy = (estimate(100 * welfare / result.oracle, 1) for welfare in (result.welfare, result.greedy))
        over = "–" if result is first else estimate(result.welfare - first.welfare, 1)
        lines.append(f"| {algorithm} | {reward} | {estimate(result.welfare, 1)} | {over} | {share} | {greedy} | {reached} |")
    return "\n".join(lines) + "\n"


def smoothed(curve: Floats, width: int = 5) -> Floats:
    """Running means of welfare over updates, ``(2, n)``; the first ones over fewer."""
    total = np.concatenate([[0.0], curve[1].cumsum()])
    ends = np.arange(1, curve.shape[1] + 1)
    begins = np.maximum(ends - width, 0)
    return np.stack([curve[0], (total[ends] - total[begins]) / (ends - begins)])


def picture(results: Mapping[Lesson, Result], path: Path) -> None:
    """Welfare over agent-steps, with bands over seeds."""
    with house_style():
        figure, ends, said = figure_of_lines([lesson.label for lesson in results], 3.2), [], []
        ax = figure.subplots()
        for i, (lesson, result) in enumerate(results.items()):
            curves = [smoothed(one) for one in result.curves]
            steps = np.linspace(max(one[0, 0] for one in curves), min(one[0, -1] for one in curves), 80)
            values = np.stack([np.interp(steps, *one) for one in curves])
            ends.append(line(ax, steps / 1000, values, lesson.label, LOOKS[i % len(LOOKS)], i))
            said.append(f"{lesson.label}: {values[:, 0].mean():.1f} to {values[:, -1].mean():.1f}")
        oracle = float(next(iter(results.values())).oracle.mean())
        ax.axhline(oracle, color=GREY, linestyle=(0, (4, 2)), linewidth=1)
        ends.append((0.0, oracle, "oracle", GREY))
        ax.set(xlabel="agent-steps, thousands", ylabel="welfare of an episode, reward units")
        fit([ax])
        name_ends(figure, ax, ends)
        drawn = drawing("decompositions", figure, said)
    write_atomically(path, lambda file: file.write(drawn.svg))


def main() -> None:
    """Train, evaluate, print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("suite", choices=list(SUITES))
    parser.add_argument("--only", nargs="+", help="these libraries only", choices=sorted({one.library for one in SUITES["libraries"]}))
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--first-seed", type=int, default=10)
    parser.add_argument("--steps", type=int, default=120_000, help="agent-steps of each training")
    parser.add_argument("--jobs", type=int, default=2, help="trainings side by side, with one thread each")
    parser.add_argument("--out", type=Path, default=ROOT / "out" / "libraries", help="folder of the trainings")
    parser.add_argument("--markdown", type=Path, help="write the table into this file, and a picture of the curves beside it")
    arguments = parser.parse_args()
    torch.set_num_threads(1)  # trainings stand beside
    lessons = [one for one in SUITES[arguments.suite] if arguments.only is None or one.library in arguments.only]
    seeds = range(arguments.first_seed, arguments.first_seed + arguments.seeds)
    folders = {lesson: [arguments.out / f"{lesson.key}-{arguments.steps}" / f"seed-{seed}" for seed in seeds] for lesson in lessons}
    with ThreadPoolExecutor(arguments.jobs) as pool:  # each waits for a process
        running = [
            pool.submit(train, lesson, seed, arguments.steps, folder)
            for lesson in lessons
            for seed, folder in zip(seeds, folders[lesson], strict=True)
        ]
        for one in tqdm(running, unit=" trainings"):
            one.result()
    results = {lesson: evaluate(lesson, seeds, folders[lesson]) for lesson in lessons}
    text = (table_of_libraries if arguments.suite == "libraries" else table_of_decompositions)(results)
    sys.stdout.write(f"\n{text}")
    if arguments.markdown is not None:
        write_text(arguments.markdown, text)
        if arguments.suite == "decompositions":
            picture(results, arguments.markdown.with_suffix(".svg"))
    if worse := [lesson.key for lesson, result in results.items() if result.welfare.mean() <= result.random.mean()]:
        sys.exit(f"no better than random choice: {', '.join(worse)}")


if __name__ == "__main__":
    main()
